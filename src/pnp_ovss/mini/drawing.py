"""What scenes are drawn of: things, as polygons in a unit box (x right, y down), and grounds, a colour gradient and a
calm texture each. Both are data, in ``things.json`` and ``grounds.json``.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from math import cos, hypot, pi, radians, sin
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from PIL import Image, ImageDraw

Points = list[tuple[float, float]]
Colour = tuple[int, ...]  # red, green, blue and, for a see-through detail, alpha
Size = tuple[int, int]  # (h, w) in pixels
Texture = dict[str, Any]
Spots = list[list[float]]  # across, down, size, each in [0, 1)

_HERE = Path(__file__).parent
_THINGS: dict[str, Any] = json.loads((_HERE / "things.json").read_text(encoding="utf-8"), parse_int=float)
_GROUNDS: dict[str, Any] = json.loads((_HERE / "grounds.json").read_text(encoding="utf-8"))
DRAWINGS: dict[str, dict[str, Any]] = _THINGS["things"]
"""What ``things.json`` says of each thing."""
TEXTURES: dict[str, Texture] = _GROUNDS["grounds"]
GROUNDS: list[tuple[str | None, str, str]] = list(map(tuple, _GROUNDS["places"]))
"""Upper ground or None, lower ground, and how a caption says it."""

TELLING = 64
"""Added to a thing's number in the labels where its telling part is."""
_ROUND = tuple((cos(2 * pi * k / 32), sin(2 * pi * k / 32)) for k in range(32))


@dataclass(frozen=True)
class Stroke:
    """One polygon of a thing; ``colour`` is the name of a colour, or a colour."""

    points: Float[np.ndarray, "n 2"]
    colour: str | Colour
    role: str
    """rest, telling or detail. A detail lies inside what is drawn already: no outline, no change of the labels."""


class Canvas:
    """A picture and the labels of its pixels, painted together."""

    def __init__(self, picture: Image.Image, labels: Image.Image) -> None:
        self.picture, self.labels = picture, labels
        self.painter, self._labeller = ImageDraw.Draw(picture, "RGBA"), ImageDraw.Draw(labels)

    def outline(self, points: Sequence[float], colour: Colour, label: int, thickness: int) -> None:
        """Draw the outline of a polygon [x, y, x, y, ...] in a darker colour."""
        closed = [*points, *points[:4]]
        self.painter.line(closed, tuple(int(value * 0.42) for value in colour[:3]), thickness)
        self._labeller.line(closed, label, thickness)

    def fill(self, points: Sequence[float], colour: Colour, label: int | None) -> None:
        """Fill a polygon [x, y, x, y, ...]; the labels stay as they are if ``label`` is None."""
        self.painter.polygon(points, colour)
        if label is not None:
            self._labeller.polygon(points, label)


@cache
def strokes(name: str) -> tuple[Stroke, ...]:
    """Return the polygons of a thing, in drawing order."""
    found: list[Stroke] = []
    for part in DRAWINGS[name]["parts"]:
        colour = part["colour"] if isinstance(part["colour"], str) else tuple(map(int, part["colour"]))
        role = part.get("role", "rest")
        found.append(Stroke(np.array(_outline(part)), colour, role))
        if "line" in part and role != "detail":  # a tail ends round
            radius = part["width"] / 2
            found.append(Stroke(np.array(_ellipse([*part["line"][-1], radius, radius])), colour, role))
    return tuple(found)


def pick_colours(name: str, rng: np.random.Generator) -> dict[str, Colour]:
    """Return colours by name: the thing's own, drawn from palettes and a little lighter or darker, and shared ones."""
    colours: dict[str, Colour] = {key: tuple(map(int, rgb)) for key, rgb in _THINGS["colours"].items()}
    for key, palette in DRAWINGS[name]["picks"].items():
        choices = _THINGS["palettes"][palette]
        colour = choices[int(rng.integers(len(choices)))]
        shade = int(rng.integers(-10, 11))
        colours[key] = tuple(min(255, max(0, int(value) + shade)) for value in colour)
    return colours


def _outline(part: dict[str, Any]) -> Points:
    """Return the polygon of a part, whose shape is one of those that ``things.json`` explains."""
    if "ellipse" in part:
        return _ellipse(part["ellipse"], part.get("turn", 0.0))
    if "box" in part:
        return _box(part["box"], part.get("round", 0.0))
    if "line" in part:
        return _line(_path(part["line"]), part["width"])
    if "curve" in part:
        return _rounded(_path(part["curve"], part.get("mirror", False)))
    return _path(part["polygon"])


def _path(points: Sequence[Any], mirror: bool = False) -> Points:
    """Return the points, those of arcs among them; with their mirror images behind them if ``mirror``."""
    path: Points = []
    for point in points:
        path += _arc(**point) if "arc" in point else [tuple(point)]
    return path + [(1 - x, y) for x, y in reversed(path)] if mirror else path


def _arc(arc: Sequence[float], start: float, end: float, points: float) -> Points:
    x, y, rx, ry = arc
    angles = [radians(start + (end - start) * k / (points - 1)) for k in range(int(points))]
    return [(x + rx * cos(angle), y + ry * sin(angle)) for angle in angles]


def _ellipse(ellipse: Sequence[float], turn: float = 0.0) -> Points:
    x, y, rx, ry = ellipse
    c, s = cos(turn * pi / 180), sin(turn * pi / 180)
    return [(x + rx * u * c - ry * v * s, y + rx * u * s + ry * v * c) for u, v in _ROUND]


def _box(corners: Sequence[float], r: float) -> Points:
    x0, y0, x1, y1 = corners
    if r == 0:
        return [(x0, y0), (x1, y0), (x1, y1), (x0, y1)]
    centres = ((x1 - r, y1 - r), (x0 + r, y1 - r), (x0 + r, y0 + r), (x1 - r, y0 + r))
    return [point for k, (x, y) in enumerate(centres) for point in _arc((x, y, r, r), 90.0 * k, 90.0 * k + 90, 5.0)]


def _rounded(points: Points) -> Points:
    """Return the polygon with each corner cut twice at a fifth of its sides. Source: Chaikin's algorithm."""
    for _ in range(2):
        sides = zip(points, [*points[1:], points[0]], strict=True)
        points = [(a + (c - a) * t, b + (d - b) * t) for (a, b), (c, d) in sides for t in (0.2, 0.8)]
    return points


def _line(points: Points, width: float) -> Points:
    """Return a line of even width through the points, as one polygon."""
    left, right = [], []
    ways = zip([points[0], *points], points, [*points[1:], points[-1]], strict=False)
    for (x0, y0), (x, y), (x1, y1) in ways:
        half = width / 2 / hypot(x1 - x0, y1 - y0)
        left.append((x - (y1 - y0) * half, y + (x1 - x0) * half))
        right.append((x + (y1 - y0) * half, y - (x1 - x0) * half))
    return left + right[::-1]


def paint_grounds(
    rng: np.random.Generator, upper: str | None, lower: str, numbers: Mapping[str, int], size: Size
) -> Canvas:
    """Return the empty scene, labelled as ``numbers`` says; a wavy horizon parts two grounds."""
    h, w = size
    horizon, waves, phase = rng.uniform(0.38, 0.6), rng.uniform(0.7, 2.2), rng.uniform(0, 2 * pi)
    height = 0.0 if upper in ("brick wall", "water") or lower == "water" else rng.uniform(0.01, 0.035)
    picture = _ground(rng, lower, size)
    labels = Image.new("L", (w, h), numbers[lower])
    if upper is not None:
        x = np.linspace(0, 1, 40)
        edge = np.stack([x * w, (horizon + height * np.sin(2 * pi * waves * x + phase)) * h], 1)
        above = [0, 0, *edge.ravel().tolist(), w, 0]
        stencil = Image.new("L", (w, h))
        ImageDraw.Draw(stencil).polygon(above, 255)
        ImageDraw.Draw(labels).polygon(above, numbers[upper])
        picture.paste(_ground(rng, upper, size), (0, 0), stencil)
    return Canvas(picture, labels)


def _ground(rng: np.random.Generator, name: str, size: Size) -> Image.Image:
    """Return a picture of one ground: a vertical gradient and its texture."""
    h, w = size
    texture = TEXTURES[name]
    top, bottom = np.array(texture["top"], float), np.array(texture["bottom"], float)
    shade = rng.uniform(-8, 8)
    column = top + (bottom - top) * np.linspace(0, 1, h)[:, None] + shade
    picture = Image.fromarray(column.clip(0, 255).astype(np.uint8)[:, None]).resize((w, h), Image.Resampling.NEAREST)
    spots = rng.random((40, 3))
    spots[:, 0] = (np.arange(40) * 0.618 + spots[0, 0] + spots[:, 0] * 0.05) % 1  # spread evenly
    paint = _bricks if "bricks" in texture else _stamps
    thickness = max(1, round(texture.get("stroke", 0.0) * min(size)))
    paint(ImageDraw.Draw(picture, "RGBA"), texture, spots.tolist(), size, thickness)
    return picture


def _stamps(painter: ImageDraw.ImageDraw, texture: Texture, spots: Spots, size: Size, thickness: int) -> None:
    """Paint a stamp of the texture on each spot (across, down, size), in turns."""
    h, w = size
    first, rows = texture.get("rows", (0, 1))
    least, more = texture["radius"]
    for k, (u, v, s) in enumerate(spots[: texture["spots"]]):
        x, y, r = u * w, (first + rows * v) * h, (least + more * s) * min(h, w)
        for mark in texture["stamps"][texture["order"][k % len(texture["order"])]]:
            shape = next(iter(mark))
            points, colour = [(x + a * r, y + b * r) for a, b in mark[shape]], tuple(mark["colour"])
            options = {name: mark[name] for name in ("start", "end") if name in mark}
            if shape in ("arc", "line"):
                options["width"] = thickness
            getattr(painter, shape)(points, fill=colour, **options)


def _bricks(painter: ImageDraw.ImageDraw, texture: Texture, spots: Spots, size: Size, thickness: int) -> None:
    """Paint some bricks in another shade, and mortar between all."""
    h, w = size
    brick, row = (share * min(h, w) for share in texture["size"])
    mortar, light, dark = map(tuple, (texture["mortar"], *texture["shades"]))
    for u, v, s in spots[: texture["bricks"]]:
        j = int(v * h / row)
        x, y = (int(u * w / brick) + 0.5 * (j % 2)) * brick, j * row
        painter.rectangle((x, y, x + brick, y + row), light if s < 0.5 else dark)
    for j in range(int(h / row) + 1):
        painter.line((0, j * row, w, j * row), mortar, thickness)
        for k in range(int(w / brick) + 2):
            x = (k + 0.5 * (j % 2)) * brick
            painter.line((x, j * row, x, (j + 1) * row), mortar, thickness)
