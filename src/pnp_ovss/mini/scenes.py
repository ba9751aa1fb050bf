"""Storybook scenes: drawn pictures with exact masks, the same for the same (seed, index) at any size.

``draw(seed, index)`` paints one or two grounds, places one to four things on them, and says in a sentence what is
there. Words are all a model may learn from; the mask is for measuring.
"""

from dataclasses import dataclass
from itertools import accumulate, pairwise
from math import cos, pi, sin

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw

from pnp_ovss.mini.drawings import DRAWINGS
from pnp_ovss.mini.grounds import TEXTURES, grounds
from pnp_ovss.mini.pen import Part, Pen

THINGS: tuple[str, ...] = tuple(DRAWINGS)
STUFF: tuple[str, ...] = tuple(TEXTURES)
CLASSES: tuple[str, ...] = ("background", *THINGS, *STUFF)
SIMILAR: dict[str, tuple[str, ...]] = {
    "dog": ("cat", "bird"),
    "cat": ("dog", "bird"),
    "fish": ("bird", "cat"),
    "bird": ("fish", "dog"),
    "house": ("mushroom", "bus"),
    "car": ("bus", "sail boat"),
    "bus": ("car", "house"),
    "sail boat": ("umbrella", "car"),
    "rocket": ("hot air balloon", "snowman"),
    "hot air balloon": ("umbrella", "ice cream", "rocket"),
    "umbrella": ("mushroom", "hot air balloon", "sail boat"),
    "pine tree": ("palm tree", "cactus", "flower"),
    "palm tree": ("pine tree", "flower", "cactus"),
    "mushroom": ("umbrella", "house", "flower"),
    "flower": ("star", "cactus", "palm tree"),
    "cactus": ("pine tree", "palm tree", "flower"),
    "snowman": ("ice cream", "rocket"),
    "traffic light": ("snowman", "ice cream"),
    "ice cream": ("hot air balloon", "snowman", "umbrella"),
    "star": ("flower", "ice cream"),
}

Painters = tuple[ImageDraw.ImageDraw, ImageDraw.ImageDraw]  # of the picture, of the labels

TELLING = 64  # added to a thing's number in the raw mask where its telling part is
SUPERSAMPLING = 2
OUTLINE = 0.013  # of the picture's shorter side
AIRBORNE = ("bird", "rocket", "hot air balloon", "star")
# Widths of a thing, as a fraction of the shorter side, by the number of things.
WIDTHS = {1: (0.42, 0.55), 2: (0.34, 0.5), 3: (0.29, 0.42), 4: (0.25, 0.37)}
# (upper ground or None, lower ground, how the caption says it)
GROUNDS: tuple[tuple[str | None, str, str], ...] = (
    ("sky", "grass", "on the grass under the sky"),
    ("sky", "sand", "on the sand under the sky"),
    ("sky", "water", "by the water under the sky"),
    ("sky", "snow", "in the snow under the sky"),
    ("brick wall", "grass", "on the grass in front of a brick wall"),
    ("brick wall", "sand", "on the sand in front of a brick wall"),
    ("brick wall", "snow", "in the snow in front of a brick wall"),
    ("water", "sand", "on the sand by the water"),
    ("water", "grass", "on the grass by the water"),
    (None, "sky", "in the sky"),
    (None, "brick wall", "in front of a brick wall"),
    (None, "water", "in the water"),
)


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
    upper, lower, where = GROUNDS[int(rng.integers(len(GROUNDS)))]
    placed = _layout(rng)

    numbers = {name: CLASSES.index(name) for name in STUFF}
    canvas, labels = grounds(rng, upper, lower, numbers, (h * SUPERSAMPLING, w * SUPERSAMPLING))
    painters = ImageDraw.Draw(canvas, "RGBA"), ImageDraw.Draw(labels)
    if lower in ("grass", "sand", "snow"):
        _shadows(placed, painters[0], canvas.size)
    for thing in placed:
        _paint(rng, thing, painters, canvas.size)

    image = np.array(canvas.reduce(SUPERSAMPLING))
    mask = np.asarray(labels)[1::SUPERSAMPLING, 1::SUPERSAMPLING] & (TELLING - 1)
    things = tuple(dict.fromkeys(thing.name for thing in placed))
    stuff = tuple(name for name in (upper, lower) if name is not None)
    return Scene(image, mask, things, stuff, f"{_listed(things)} {where}")


def draw_alone(
    name: str, seed: int = 0, size: int = 112
) -> tuple[UInt8[np.ndarray, "s s 3"], UInt8[np.ndarray, "s s"]]:
    """One thing on white, and its parts: 0 for the white, 1 for the rest of the thing, 2 for its telling part."""
    canvas = Image.new("RGB", (size * SUPERSAMPLING, size * SUPERSAMPLING), (255, 255, 255))
    labels = Image.new("L", canvas.size)
    thing = Placed(name, 0.5, 0.5, 0.92, 0.0, False)
    _paint(np.random.default_rng(seed), thing, (ImageDraw.Draw(canvas, "RGBA"), ImageDraw.Draw(labels)), canvas.size)
    raw = np.asarray(labels)[1::SUPERSAMPLING, 1::SUPERSAMPLING]
    return np.array(canvas.reduce(SUPERSAMPLING)), (raw > 0).astype(np.uint8) + (raw >= TELLING)


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
        fitting = next((thing for thing in tries if all(_apart(thing, other) for other in placed)), None)
        if fitting is not None:
            placed.append(fitting)
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


def _shadows(placed: list[Placed], painter: ImageDraw.ImageDraw, size: tuple[int, int]) -> None:
    """A soft shadow on the ground under everything that stands on it."""
    (w, h), side = size, min(size)
    for thing in placed:
        if thing.name not in AIRBORNE:
            x, y, r = thing.x * w, thing.y * h + 0.47 * thing.width * side, 0.38 * thing.width * side
            painter.ellipse((x - r, y - 0.2 * r, x + r, y + 0.2 * r), (40, 50, 70, 60))


def _paint(rng: np.random.Generator, thing: Placed, painters: Painters, size: tuple[int, int]) -> None:
    """Draws a thing into the picture and its number into the labels: first all outlines, then all fillings."""
    pen = Pen(rng)
    DRAWINGS[thing.name](pen)
    shapes = _to_pixels(pen, thing, size)
    picture, labels = painters
    number = THINGS.index(thing.name) + 1
    thickness = max(1, round(OUTLINE * min(size)))
    for xy, (_, colour, part) in zip(shapes, pen.strokes, strict=True):
        if part != "detail":
            closed = xy + xy[:4]
            picture.line(closed, tuple(int(v * 0.42) for v in colour[:3]), thickness)
            labels.line(closed, _label(number, part), thickness)
    for xy, (_, colour, part) in zip(shapes, pen.strokes, strict=True):
        picture.polygon(xy, colour)
        if part != "detail":
            labels.polygon(xy, _label(number, part))


def _to_pixels(pen: Pen, thing: Placed, size: tuple[int, int]) -> list[list[float]]:
    """The pen's polygons turned, flipped, scaled and moved to their place, each as [x, y, x, y, ...]."""
    w, h = size
    turn, scale = thing.degrees * pi / 180, thing.width * min(w, h)
    matrix = np.array([[cos(turn), sin(turn)], [-sin(turn), cos(turn)]]) * scale
    if thing.flipped:
        matrix[0] *= -1
    points = np.concatenate([points for points, _, _ in pen.strokes])
    flat = ((points - 0.5) @ matrix + (thing.x * w, thing.y * h)).ravel().tolist()
    ends = accumulate((2 * len(points) for points, _, _ in pen.strokes), initial=0)
    return [flat[start:end] for start, end in pairwise(ends)]


def _label(number: int, part: Part) -> int:
    return number + TELLING * (part == "telling")
