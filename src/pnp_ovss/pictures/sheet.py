"""The contact sheet: a row per scene with the truth, the labels, and the class map of each class as heat."""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int, UInt8
from PIL import Image, ImageOps

from pnp_ovss.pictures.palette import Colours, class_colours
from pnp_ovss.pictures.text import FAINT, INK, PAPER, below, beside, chip, legend, rounded, text
from pnp_ovss.types import BACKGROUND, RGB

TILE, GAP, GROUP, MARGIN = 180, 12, 48, 44  # pixels: a picture, between two, before the salience, around all
TITLE, PLAIN, SMALL = 30, 16, 14  # heights of letters
CAPTION = 54  # letters in a line of a caption
LINE = (226, 224, 218)

# Lightness grows evenly from the first to the last, so that the order is seen in grey as well.
_STOPS = [(26, 20, 56), (78, 34, 116), (150, 46, 112), (222, 84, 76), (248, 158, 74), (253, 236, 166)]
RAMP = np.stack([np.interp(np.linspace(0, 5, 256), range(6), stops) for stops in zip(*_STOPS, strict=True)], axis=1)
"""The colours of heat, from the least to the largest."""


@dataclass(frozen=True)
class SheetRow:
    """A scene and what was found in it. ``truth`` and ``labels`` index the sheet's classes."""

    photo: RGB
    truth: Int[np.ndarray, "h w"]
    labels: Int[np.ndarray, "h w"]
    salience: dict[str, Float[np.ndarray, "gh gw"]]
    """Per named class, on any scale: each map is drawn from its least to its largest value."""
    caption: str
    note: str


def contact_sheet(rows: Sequence[SheetRow], classes: Sequence[str], title: str, subtitle: str) -> Image.Image:
    """Return a sheet with a row for each scene: the scene, truth, labels, and the salience of each class as heat.

    A class has one colour on the whole sheet; the legend below holds those that occur, the background last.
    """
    colours = class_colours(classes)
    drawn = [_row(row, classes, colours) for row in rows]
    width = max(row.width for row in drawn)
    present = np.unique(np.concatenate([labels.ravel() for row in rows for labels in (row.truth, row.labels)]))
    order = sorted(present.tolist(), key=lambda index: classes[index] == BACKGROUND)
    entries = [(classes[index], "", colours[index].tolist()) for index in order]
    bar = Image.fromarray(np.rint(RAMP[None, ::4].repeat(10, 0)).astype(np.uint8))
    scale = [text("low", SMALL, FAINT), ImageOps.pad(bar, (64, 22), color=PAPER), text("high", SMALL, FAINT)]
    left = beside([text(heading, PLAIN, INK, TILE) for heading in ("scene", "truth", "labels")], GAP)
    head = beside([left, beside([text("salience", PLAIN, INK, TILE), *scale], 8)], GROUP)
    titles = below([text(title, TITLE), text(subtitle, PLAIN, FAINT, width)], 0)
    parts = [titles, below([head, *drawn], 14), Image.new("RGB", (width, 1), LINE), legend(entries, PLAIN, width)]
    return ImageOps.expand(below(parts, 20), MARGIN, PAPER)


def heat(photo: RGB, salience: Float[np.ndarray, "gh gw"]) -> RGB:
    """Return the photo in grey under the salience: dark where it is least, bright where it is largest."""
    height, width = photo.shape[:2]
    level = (salience - salience.min()) / (np.ptp(salience) or 1)
    smooth = Image.fromarray(level.astype(np.float32)).resize((width, height), Image.Resampling.BICUBIC)
    fine = np.asarray(smooth).clip(0, 1)
    grey = photo.mean(axis=2, keepdims=True, dtype=np.float32) / 255
    # The photo shades the heat; where there is none it shows by itself, darker than any heat.
    by_itself = 62 * grey * (1 - fine[..., None]) ** 2
    shaded: RGB = np.rint(RAMP[np.rint(255 * fine).astype(int)] * (0.6 + 0.4 * grey) + by_itself).astype(np.uint8)
    return shaded


def _row(row: SheetRow, classes: Sequence[str], colours: Colours) -> Image.Image:
    scene = beside([_tile(picture) for picture in (row.photo, colours[row.truth], colours[row.labels])], GAP)
    lines = textwrap.wrap(row.caption, CAPTION, max_lines=2, placeholder=" …") or [""]
    caption = below([text(line, SMALL, FAINT, 2 * TILE + GAP) for line in lines], -4)
    left = below([scene, beside([caption, text(row.note, SMALL, FAINT)], GAP)], 4)
    tiles = []
    for name, salience in row.salience.items():
        label = beside([chip(colours[classes.index(name)].tolist(), SMALL), text(name, SMALL, INK, TILE - 20)], 6)
        tiles.append(below([_tile(heat(row.photo, salience)), label], 4))
    return beside([left, beside(tiles, GAP)], GROUP) if tiles else left


def _tile(picture: UInt8[np.ndarray, "h w 3"]) -> Image.Image:
    """Return the picture whole and in the middle of a square, with round corners."""
    return rounded(ImageOps.pad(Image.fromarray(picture), (TILE, TILE), color=PAPER), 8)
