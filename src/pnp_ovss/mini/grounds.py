"""The grounds of the storybook scenes: one colour gradient and one calm texture per stuff."""

from collections.abc import Callable, Mapping
from math import pi

import numpy as np
from PIL import Image, ImageDraw

from pnp_ovss.mini.pen import Colour

Spots = list[list[float]]  # (across, down, kind), each from 0 to 1
Size = tuple[int, int]  # (h, w) in pixels

# (colour at the top, colour at the bottom)
GRADIENTS: dict[str, tuple[Colour, Colour]] = {
    "sky": ((120, 184, 238), (206, 232, 250)),
    "grass": ((150, 200, 104), (104, 168, 76)),
    "sand": ((240, 218, 164), (226, 194, 132)),
    "water": ((92, 164, 206), (44, 112, 170)),
    "brick wall": ((186, 108, 88), (170, 92, 76)),
    "snow": ((232, 240, 250), (250, 252, 255)),
}


def grounds(
    rng: np.random.Generator, upper: str | None, lower: str, numbers: Mapping[str, int], size: Size
) -> tuple[Image.Image, Image.Image]:
    """The empty scene and its labels, as ``numbers`` has them; a wavy horizon parts two grounds."""
    h, w = size
    horizon, waves, phase = rng.uniform(0.38, 0.6), rng.uniform(0.7, 2.2), rng.uniform(0, 2 * pi)
    height = 0.0 if upper in ("brick wall", "water") or lower == "water" else rng.uniform(0.01, 0.035)
    canvas = _ground(rng, lower, size)
    labels = Image.new("L", (w, h), numbers[lower])
    if upper is None:
        return canvas, labels
    x = np.linspace(0, 1, 40)
    edge = np.stack([x * w, (horizon + height * np.sin(2 * pi * waves * x + phase)) * h], 1)
    above = [0, 0, *edge.ravel().tolist(), w, 0]
    stencil = Image.new("L", (w, h))
    ImageDraw.Draw(stencil).polygon(above, 255)
    ImageDraw.Draw(labels).polygon(above, numbers[upper])
    canvas.paste(_ground(rng, upper, size), (0, 0), stencil)
    return canvas, labels


def _ground(rng: np.random.Generator, name: str, size: Size) -> Image.Image:
    """A whole canvas of one stuff: a vertical gradient and a calm texture."""
    h, w = size
    top, bottom = (np.array(colour, float) for colour in GRADIENTS[name])
    shade = rng.uniform(-8, 8)
    column = top + (bottom - top) * np.linspace(0, 1, h)[:, None] + shade
    canvas = Image.fromarray(column.clip(0, 255).astype(np.uint8)[:, None]).resize((w, h), Image.Resampling.NEAREST)
    painter = ImageDraw.Draw(canvas, "RGBA")
    spots = rng.random((40, 3))
    spots[:, 0] = (np.arange(40) * 0.618 + spots[0, 0] + spots[:, 0] * 0.05) % 1  # spread evenly
    TEXTURES[name](painter, spots.tolist(), (h, w))
    return canvas


def _clouds(painter: ImageDraw.ImageDraw, spots: Spots, size: Size) -> None:
    h, w = size
    for u, v, s in spots[:4]:
        x, y, r = u * w, (0.06 + 0.4 * v) * h, (0.045 + 0.03 * s) * min(h, w)
        for colour, drop in ((214, 230, 246), 0.25), ((246, 250, 254), 0.0):
            for dx, dy, k in ((-1.6, 0.3, 0.8), (0, 0, 1.2), (1.5, 0.25, 0.9), (0.2, 0.45, 1.1)):
                cx, cy = x + dx * r, y + (dy + drop) * r
                painter.ellipse((cx - 1.3 * k * r, cy - 0.75 * k * r, cx + 1.3 * k * r, cy + 0.7 * k * r), colour)


def _tufts(painter: ImageDraw.ImageDraw, spots: Spots, size: Size) -> None:
    h, w = size
    for k, (u, v, s) in enumerate(spots):
        x, y, r = u * w, v * h, (0.018 + 0.014 * s) * min(h, w)
        colour = (70, 136, 58, 190) if k % 3 else (196, 228, 130, 190)
        for lean in (-0.8, 0.0, 0.8):
            painter.polygon((x - 0.3 * r, y, x + 0.3 * r, y, x + lean * r, y - (1.5 - abs(lean) * 0.5) * r), colour)


def _grains(painter: ImageDraw.ImageDraw, spots: Spots, size: Size) -> None:
    h, w = size
    thickness = max(1, round(0.008 * min(h, w)))
    for k, (u, v, s) in enumerate(spots):
        x, y, r = u * w, v * h, (0.004 + 0.006 * s) * min(h, w)
        if k % 4:
            painter.ellipse((x - r, y - r, x + r, y + r), (188, 148, 90, 170))
        else:
            painter.arc((x - 9 * r, y - 2 * r, x + 9 * r, y + 4 * r), 200, 340, (200, 162, 104), thickness)


def _ripples(painter: ImageDraw.ImageDraw, spots: Spots, size: Size) -> None:
    h, w = size
    thickness = max(1, round(0.011 * min(h, w)))
    for k, (u, v, s) in enumerate(spots[:26]):
        x, y, r = u * w, v * h, (0.03 + 0.03 * s) * min(h, w)
        colour = (196, 230, 246, 150) if k % 2 else (24, 82, 140, 110)
        wave = [(x + (j / 4 - 1) * r, y + (0, 0.2, 0.3, 0.2)[j % 4] * r) for j in range(9)]
        painter.line(wave, colour, thickness)


def _bricks(painter: ImageDraw.ImageDraw, spots: Spots, size: Size) -> None:
    h, w = size
    row, brick = min(h, w) * 0.072, min(h, w) * 0.17
    thickness, mortar = max(1, round(0.011 * min(h, w))), (226, 196, 178)
    for u, v, s in spots[:22]:
        j = int(v * h / row)
        x, y = (int(u * w / brick) + 0.5 * (j % 2)) * brick, j * row
        painter.rectangle((x, y, x + brick, y + row), (206, 132, 100, 130) if s < 0.5 else (132, 66, 58, 110))
    for j in range(int(h / row) + 1):
        painter.line((0, j * row, w, j * row), mortar, thickness)
        for k in range(int(w / brick) + 2):
            x = (k + 0.5 * (j % 2)) * brick
            painter.line((x, j * row, x, (j + 1) * row), mortar, thickness)


def _flakes(painter: ImageDraw.ImageDraw, spots: Spots, size: Size) -> None:
    h, w = size
    thickness = max(1, round(0.011 * min(h, w)))
    for k, (u, v, s) in enumerate(spots):
        x, y, r = u * w, v * h, (0.007 + 0.006 * s) * min(h, w)
        if k % 3:
            painter.ellipse((x - r, y - r, x + r, y + r), (184, 206, 236))
        else:
            painter.arc((x - 8 * r, y, x + 8 * r, y + 4 * r), 190, 350, (196, 214, 240), thickness)


TEXTURES: dict[str, Callable[[ImageDraw.ImageDraw, Spots, Size], None]] = {
    "sky": _clouds,
    "grass": _tufts,
    "sand": _grains,
    "water": _ripples,
    "brick wall": _bricks,
    "snow": _flakes,
}
