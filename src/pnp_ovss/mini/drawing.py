"""The things of the scenes as polygons in a unit box (x right, y down); their shapes are data, in ``things.json``."""

import json
from collections.abc import Callable, Sequence
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

_FILE = Path(__file__).with_name("things.json")
_DATA: dict[str, Any] = json.loads(_FILE.read_text(encoding="utf-8"), parse_int=float)
DRAWINGS: dict[str, dict[str, Any]] = _DATA["things"]
"""What ``things.json`` says of each thing."""

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
        outline = next(outline for shape, outline in _SHAPES.items() if shape in part)
        found.append(Stroke(np.array(outline(part)), colour, role))
        if "line" in part and role != "detail":  # a tail ends round
            radius = part["width"] / 2
            found.append(Stroke(np.array(_ellipse([*part["line"][-1], radius, radius])), colour, role))
    return tuple(found)


def pick_colours(name: str, rng: np.random.Generator) -> dict[str, Colour]:
    """Return colours by name: the thing's own, drawn from palettes and a little lighter or darker, and shared ones."""
    colours: dict[str, Colour] = {key: tuple(map(int, rgb)) for key, rgb in _DATA["colours"].items()}
    for key, palette in DRAWINGS[name]["picks"].items():
        choices = _DATA["palettes"][palette]
        colour = choices[int(rng.integers(len(choices)))]
        shade = int(rng.integers(-10, 11))
        colours[key] = tuple(min(255, max(0, int(value) + shade)) for value in colour)
    return colours


def _path(points: Sequence[Any], mirror: bool = False) -> Points:
    """Return the points, those of arcs among them; with their mirror images behind them if ``mirror``."""
    path: Points = []
    for point in points:
        if "arc" in point:
            path += _arc(point["arc"], point["from"], point["to"], int(point["points"]))
        else:
            path.append(tuple(point))
    return path + [(1 - x, y) for x, y in reversed(path)] if mirror else path


def _arc(ellipse: Sequence[float], start: float, end: float, count: int) -> Points:
    x, y, rx, ry = ellipse
    angles = [radians(start + (end - start) * k / (count - 1)) for k in range(count)]
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
    return [point for k, (x, y) in enumerate(centres) for point in _arc((x, y, r, r), 90.0 * k, 90.0 * k + 90, 5)]


def _star(x: float, y: float, outer: float, inner: float) -> Points:
    radii = (outer, inner) * 5
    return [(x + r * sin(k * pi / 5), y - r * cos(k * pi / 5)) for k, r in enumerate(radii)]


def _band(ellipse: Sequence[float], between: Sequence[float], upright: bool) -> Points:
    (x, y, rx, ry), (low, high) = ellipse, between
    steps = [low + (high - low) * sin(k * pi / 20) for k in range(11)]  # dense where the end is round
    edge = [(max(0.0, 1 - t * t) ** 0.5, t) for t in steps]
    ring = edge + [(-c, t) for c, t in reversed(edge)]
    return [(x + rx * (t if upright else c), y + ry * (c if upright else t)) for c, t in ring]


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


_SHAPES: dict[str, Callable[[dict[str, Any]], Points]] = {
    "ellipse": lambda part: _ellipse(part["ellipse"], part.get("turn", 0.0)),
    "box": lambda part: _box(part["box"], part.get("round", 0.0)),
    "star": lambda part: _star(*part["star"]),
    "band": lambda part: _band(part["band"], part["between"], part.get("upright", False)),
    "line": lambda part: _line(_path(part["line"]), part["width"]),
    "curve": lambda part: _rounded(_path(part["curve"], part.get("mirror", False))),
    "polygon": lambda part: _path(part["polygon"]),
}
