"""The grounds of the scenes: a colour gradient and a calm texture each; both are data, in ``grounds.json``."""

import json
from collections.abc import Mapping
from math import pi
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from pnp_ovss.mini.drawing import Canvas

Size = tuple[int, int]  # (h, w) in pixels
Texture = dict[str, Any]
Spots = list[list[float]]  # across, down, size, each in [0, 1)

_DATA: dict[str, Any] = json.loads(Path(__file__).with_name("grounds.json").read_text(encoding="utf-8"))
TEXTURES: dict[str, Texture] = _DATA["grounds"]
GROUNDS: list[tuple[str | None, str, str]] = list(map(tuple, _DATA["places"]))
"""Upper ground or None, lower ground, and how a caption says it."""


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
            if shape == "arc":
                painter.arc(points, mark["from"], mark["to"], colour, thickness)
            elif shape == "line":
                painter.line(points, colour, thickness)
            elif shape == "ellipse":
                painter.ellipse(points, colour)
            else:
                painter.polygon(points, colour)


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
