"""Drawn scenes with exact masks, the same for the same (seed, index) at any size.

``draw(seed, index)`` paints one or two grounds, places one to four things on them, and says in a sentence what is
there. Words are all a model may learn from; the mask is for measuring.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, islice, pairwise
from math import cos, pi, sin

import numpy as np
from jaxtyping import UInt8

from pnp_ovss.mini import drawing
from pnp_ovss.mini.drawing import DRAWINGS, TELLING, Canvas

THINGS: tuple[str, ...] = tuple(DRAWINGS)
STUFF: tuple[str, ...] = tuple(drawing.TEXTURES)
CLASSES: tuple[str, ...] = ("background", *THINGS, *STUFF)
SIMILAR: dict[str, tuple[str, ...]] = {name: tuple(thing["similar"]) for name, thing in DRAWINGS.items()}
"""The things that each thing is easily taken for."""
AIRBORNE: tuple[str, ...] = tuple(name for name, thing in DRAWINGS.items() if thing.get("airborne"))

SUPERSAMPLING = 2
OUTLINE = 0.013
"""Thickness of outlines, a share of the picture's shorter side."""
WIDTHS = {1: (0.42, 0.55), 2: (0.34, 0.5), 3: (0.29, 0.42), 4: (0.25, 0.37)}
"""Least and largest width of a thing, a share of the shorter side, by the number of things."""


@dataclass(frozen=True)
class Scene:
    """A picture, what is where in it, and a sentence about it."""

    image: UInt8[np.ndarray, "h w 3"]  # RGB
    mask: UInt8[np.ndarray, "h w"]  # index into CLASSES, things and stuff
    things: tuple[str, ...]  # visible things, each once, in order of drawing
    stuff: tuple[str, ...]  # visible stuff
    caption: str

    def things_mask(self) -> UInt8[np.ndarray, "h w"]:
        """The mask with stuff as background (0)."""
        return np.where(self.mask <= len(THINGS), self.mask, 0).astype(np.uint8)


@dataclass(frozen=True)
class Placed:
    """One thing of a layout, in units that do not depend on the picture's size."""

    name: str
    x: float  # centre, fraction of the picture's width
    y: float  # centre, fraction of the picture's height
    width: float  # fraction of the shorter side
    degrees: float
    flipped: bool


def draw(seed: int, index: int, size: int | tuple[int, int] = 112) -> Scene:
    """Scene number ``index`` of the series ``seed``, as a square of ``size`` pixels or as (h, w)."""
    h, w = (size, size) if isinstance(size, int) else size
    rng = np.random.default_rng((seed, index))
    upper, lower, where = drawing.GROUNDS[int(rng.integers(len(drawing.GROUNDS)))]
    placed = _layout(rng)

    numbers = {name: CLASSES.index(name) for name in STUFF}
    canvas = drawing.paint_grounds(rng, upper, lower, numbers, (h * SUPERSAMPLING, w * SUPERSAMPLING))
    if lower in ("grass", "sand", "snow"):
        _shadows(placed, canvas)
    for thing in placed:
        paint(canvas, thing, rng)

    image = np.array(canvas.picture.reduce(SUPERSAMPLING))
    mask = np.asarray(canvas.labels)[1::SUPERSAMPLING, 1::SUPERSAMPLING] & (TELLING - 1)
    things = tuple(dict.fromkeys(thing.name for thing in placed))
    stuff = (upper, lower) if upper else (lower,)
    return Scene(image, mask, things, stuff, f"{_listed(things)} {where}")


def _listed(names: tuple[str, ...]) -> str:
    """``a dog, an umbrella and a cat``."""
    nouns = [f"{'an' if name[0] in 'aeiou' else 'a'} {name}" for name in names]
    return " and ".join([", ".join(nouns[:-1]), nouns[-1]] if len(nouns) > 1 else nouns)


def _layout(rng: np.random.Generator) -> list[Placed]:
    """One to four things, back to front; no thing is covered by more than a part of itself."""
    count = int(rng.integers(1, 5))
    names = [THINGS[k] for k in rng.permutation(len(THINGS))[:count]]
    if count > 1 and rng.random() < 0.3:  # things that are easily confused should meet
        rival = SIMILAR[names[0]][int(rng.integers(len(SIMILAR[names[0]])))]
        names = [names[0], rival, *[name for name in names[1:] if name != rival]][:count]
    if count > 1 and rng.random() < 0.15:
        names[-1] = names[0]
    placed: list[Placed] = []
    for name in names:
        width = float(rng.uniform(*WIDTHS[count]))
        tries = (_somewhere(rng, name, width) for _ in range(24))
        fitting = (thing for thing in tries if all(_apart(thing, other) for other in placed))
        placed += list(islice(fitting, 1))  # the first, if there is one
    return sorted(placed, key=lambda thing: thing.y + thing.width / 2)


def _somewhere(rng: np.random.Generator, name: str, width: float) -> Placed:
    """A place for a thing: high for what flies, low for what stands."""
    x, u, degrees, flipped = rng.random(), rng.random(), rng.uniform(-9, 9), rng.random() < 0.5
    half = width / 2
    low, high = (half - 0.02, 0.62) if name in AIRBORNE else (0.62 - half * 0.7, 0.99 - half)
    x = 0.9 * half + x * (1 - 1.8 * half)
    return Placed(name, float(x), float(low + u * (max(high, low) - low)), width, float(degrees), bool(flipped))


def _apart(a: Placed, b: Placed) -> bool:
    """Whether two things overlap by no more than nine tenths of the smaller one's radius."""
    distance = ((a.x - b.x) ** 2 + (a.y - b.y) ** 2) ** 0.5
    return bool((a.width + b.width) / 2 - distance <= 0.9 * min(a.width, b.width) / 2)


def _shadows(placed: list[Placed], canvas: Canvas) -> None:
    """Paint a soft shadow on the ground under everything that stands on it."""
    (w, h), side = canvas.picture.size, min(canvas.picture.size)
    for thing in placed:
        if thing.name not in AIRBORNE:
            x, y, r = thing.x * w, thing.y * h + 0.47 * thing.width * side, 0.38 * thing.width * side
            canvas.painter.ellipse((x - r, y - 0.2 * r, x + r, y + 0.2 * r), (40, 50, 70, 60))


def paint(canvas: Canvas, thing: Placed, rng: np.random.Generator) -> None:
    """Paint a thing and label its pixels with its number, plus ``TELLING`` where its telling part is."""
    strokes, colours = drawing.strokes(thing.name), drawing.pick_colours(thing.name, rng)
    filled = [colours[stroke.colour] if isinstance(stroke.colour, str) else stroke.colour for stroke in strokes]
    number = CLASSES.index(thing.name)
    by_role = {"rest": number, "telling": number + TELLING}
    labels = [by_role.get(stroke.role) for stroke in strokes]
    shapes = list(zip(_to_pixels(strokes, thing, canvas.picture.size), filled, labels, strict=True))
    thickness = max(1, round(OUTLINE * min(canvas.picture.size)))
    for points, colour, label in shapes:
        if label is not None:
            canvas.outline(points, colour, label, thickness)
    for shape in shapes:
        canvas.fill(*shape)


def _to_pixels(strokes: Sequence[drawing.Stroke], thing: Placed, size: tuple[int, int]) -> list[list[float]]:
    """Return the polygons turned, flipped, scaled and moved to their place, each as [x, y, x, y, ...]."""
    w, h = size
    turn, scale = thing.degrees * pi / 180, thing.width * min(w, h)
    matrix = np.array([[cos(turn), sin(turn)], [-sin(turn), cos(turn)]]) * scale
    if thing.flipped:
        matrix[0] *= -1
    points = np.concatenate([stroke.points for stroke in strokes])
    flat = ((points - 0.5) @ matrix + (thing.x * w, thing.y * h)).ravel().tolist()
    ends = accumulate((2 * len(stroke.points) for stroke in strokes), initial=0)
    return [flat[start:end] for start, end in pairwise(ends)]
