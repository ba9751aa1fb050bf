"""Pictures of results: a photo under its classes' colours, class maps as heat, and the contact sheet of the demo."""

import base64
import io
import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from jaxtyping import Float, Int, UInt8
from PIL import Image, ImageDraw, ImageFont, ImageOps

from pnp_ovss.errors import printable
from pnp_ovss.parts import find_parts
from pnp_ovss.pictures import Colours, class_colours
from pnp_ovss.types import BACKGROUND, RGB, count_labels

Labels = Int[np.ndarray, "h w"]
ClassMap = Float[np.ndarray, "gh gw"]

SMALLEST, THINNEST, LARGEST = 360, 24, 6_000_000
"""Longer side and any side that a picture is enlarged to, and pixels it is reduced to, before it is drawn on."""
STRENGTH = 0.55
"""Weight of a class's colour over the photo."""
SEEN = 6
"""Thicknesses of a border that a part with a border is wide, if it is square."""
HEAT, LETTERS = 220, 15
"""Beside an overlay, in pixels: the longer side of a tile of heat, height of the names."""
TILE, GAP, GROUP, MARGIN = 180, 12, 48, 44
"""On a sheet, in pixels: a tile, between two (beside an overlay as well), before the salience, around all."""
TITLE, PLAIN, SMALL = 30, 16, 14
"""Heights of its letters, in pixels."""
CAPTION = 54
"""Letters in a line of a caption."""
PAPER = (251, 250, 247)
INK = (43, 46, 54)
FAINT = (128, 132, 142)
WARNING = (178, 34, 34)
LONGEST = 15
"""Letter heights that a name may be wide in a legend."""
TRANSPOSE = Image.Transpose.TRANSPOSE

# Lightness grows evenly from the first to the last, so that the order is seen in grey as well.
_STOPS = [(26, 20, 56), (78, 34, 116), (150, 46, 112), (222, 84, 76), (248, 158, 74), (253, 236, 166)]
RAMP = np.stack([np.interp(np.linspace(0, 5, 256), range(6), stops) for stops in zip(*_STOPS, strict=True)], axis=1)
"""The colours of heat, from the least to the largest."""


def overlay(
    photo: RGB,
    labels: Labels,
    classes: Sequence[str],
    strength: float = STRENGTH,
    colours: Colours | None = None,
    doubts: Sequence[str] = (),
    objects: Labels | None = None,
) -> Image.Image:
    """Return the photo with each class in its colour, thin borders between them, and a legend of names and area shares.

    The background is the photo as it is; ``strength`` is that of ``paint``. The legend is to the right of an upright
    photo, else below; it never hides anything. ``doubts`` are lines above the photo. ``objects``, the object of each
    pixel or 0, are outlined instead of the classes. Small photos are enlarged, huge ones reduced.

    Raises: ValueError if photo and labels differ in size.
    """
    if photo.shape[:2] != labels.shape:
        raise ValueError(f"expected labels of the photo's size {photo.shape[:2]}, got {labels.shape}")
    colours = class_colours(classes) if colours is None else colours
    height, width = labels.shape
    scale = math.ceil(SMALLEST / max(height, width)) * min(1.0, (LARGEST / (height * width)) ** 0.5)
    size = max(THINNEST, round(width * scale)), max(THINNEST, round(height * scale))
    large = np.asarray(Image.fromarray(photo).resize(size, Image.Resampling.BOX))
    large_labels = _nearest(labels, size)
    outlined = None if objects is None else _nearest(objects, size)
    painted = Image.fromarray(paint(large, large_labels, colours, classes[0] == BACKGROUND, strength, outlined))
    areas = count_labels(labels, len(classes)) / labels.size
    largest_first = sorted(range(len(classes)), key=lambda index: (classes[index] == BACKGROUND, -areas[index]))
    entries = [(classes[index], share(areas[index]), colours[index].tolist()) for index in largest_first]
    margin = min(72, max(13, round((size[0] * size[1]) ** 0.5 / 36)))
    if height > width:
        whole = beside([painted, legend(entries, margin, 1)], margin)
    else:
        whole = below([painted, legend(entries, margin, size[0])], margin * 3 // 4)
    lines = [line for doubt in doubts for line in _wrapped(doubt, margin, whole.width)]
    if lines:
        whole = below([below([text(line, margin, WARNING) for line in lines], 0), whole], margin // 2)
    return ImageOps.expand(whole, margin, PAPER)


def _wrapped(line: str, size: int, width: int) -> list[str]:
    """Return the line in parts that are no wider than ``width`` in letters of ``size`` pixels, if words allow."""
    parts = [""]
    for word in line.split():
        longer = f"{parts[-1]} {word}".strip()
        parts = [*parts[:-1], longer] if length(longer, size) <= width or not parts[-1] else [*parts, word]
    return parts


def _nearest(labels: Labels, size: tuple[int, int]) -> Int[np.ndarray, "_ _"]:
    """Return the labels at another size (w, h)."""
    return np.asarray(Image.fromarray(labels.astype(np.int32)).resize(size, Image.Resampling.NEAREST))


def paint(
    photo: RGB,
    labels: Labels,
    colours: Colours,
    background: bool,
    strength: float = STRENGTH,
    objects: Labels | None = None,
) -> RGB:
    """Return the photo under the classes' colours, with borders between the parts that can be seen, or the objects.

    Label 0 is the photo as it is if it is the background. ``strength``: weight of the colours, 0 to 1; at 0 nothing but
    the photo is left, at 1 nothing of the photo under them.
    """
    if not strength:
        return photo
    colour = photo.astype(np.float32)
    grey, faded = colour.mean(axis=2, keepdims=True), 0.8 * min(1, strength / STRENGTH)
    under = (1 - faded) * colour + faded * grey
    tinted = (1 - strength) * under + strength * colours.astype(np.float32)[labels]
    if background:
        tinted = np.where((labels == 0)[..., None], colour, tinted)
    border = np.zeros(labels.shape, dtype=bool)
    thickness = max(1, round(labels.size**0.5 / 500))  # pixels
    if objects is None:
        parts, objects = find_parts(labels), labels
        seen = (parts.areas >= (SEEN * thickness) ** 2)[parts.index]  # borders around dust would hide the photo
    else:
        thickness, seen = 2 * thickness, np.ones(labels.shape, dtype=bool)
    for ahead, behind in ((np.s_[thickness:], np.s_[:-thickness]), (np.s_[:, thickness:], np.s_[:, :-thickness])):
        border[ahead] |= (objects[ahead] != objects[behind]) & seen[ahead] & seen[behind]
    tinted[border] = 0.1 * tinted[border] + 0.9 * 255
    return _to_bytes(tinted)


def panels(
    photo: RGB,
    labels: Labels,
    classes: Sequence[str],
    salience: Float[np.ndarray, "cls gh gw"],
    colours: Colours | None = None,
    doubts: Sequence[str] = (),
) -> Image.Image:
    """Return the overlay with its legend, and to its right the class map of each named class as heat.

    Each tile runs from the class's own least to its largest salience. Tiles fill columns as high as the overlay.
    """
    left, small = overlay(photo, labels, classes, colours=colours, doubts=doubts), resized(photo, HEAT)
    tiles = [
        below([Image.fromarray(heat(small, class_map)), text(name, LETTERS, INK, small.shape[1])], 0)
        for name, class_map in zip(classes[-len(salience) :], salience, strict=True)
    ]
    if not tiles:  # all classes were dropped
        return left
    right = columns(tiles, max(1, (left.height - GAP) // tiles[0].height), GAP)
    return beside([left, ImageOps.expand(right, (0, GAP, GAP, 0), PAPER)], 0)


@dataclass(frozen=True)
class SheetRow:
    """A scene and what was found in it. ``truth`` and ``labels`` index the sheet's classes."""

    photo: RGB
    truth: Labels
    labels: Labels
    salience: dict[str, ClassMap]
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
    present = {label for row in rows for label in np.unique([row.truth, row.labels]).tolist()}
    order = sorted(present, key=lambda label: (classes[label] == BACKGROUND, label))
    bar = Image.fromarray(_to_bytes(RAMP[None, ::4].repeat(10, 0)))
    scale = [text("low", SMALL, FAINT), ImageOps.pad(bar, (64, 22), color=PAPER), text("high", SMALL, FAINT)]
    left = beside([text(heading, PLAIN, INK, TILE) for heading in ("scene", "truth", "labels")], GAP)
    head = beside([left, beside([text("salience", PLAIN, INK, TILE), *scale], 8)], GROUP)
    titles = below([text(title, TITLE), text(subtitle, PLAIN, FAINT, width)], 0)
    key = legend([(classes[label], "", colours[label].tolist()) for label in order], PLAIN, width)
    parts = [titles, below([head, *drawn], 14), Image.new("RGB", (width, 1), (226, 224, 218)), key]
    return ImageOps.expand(below(parts, 20), MARGIN, PAPER)


def heat(photo: RGB, salience: ClassMap) -> RGB:
    """Return the photo in grey under the salience: dark where it is least, bright where it is largest."""
    level = ((salience - salience.min()) / (np.ptp(salience) or 1)).astype(np.float32)
    fine = np.asarray(Image.fromarray(level).resize(photo.shape[1::-1], Image.Resampling.BICUBIC)).clip(0, 1)
    grey = photo.mean(axis=2, keepdims=True, dtype=np.float32) / 255
    # The photo shades the heat; where there is none it shows by itself, darker than any heat.
    by_itself = 62 * grey * (1 - fine[..., None]) ** 2
    return _to_bytes(RAMP[np.rint(255 * fine).astype(int)] * (0.6 + 0.4 * grey) + by_itself)


def resized(photo: np.ndarray, side: int) -> np.ndarray:
    """Return a photo, or a label map by its nearest pixels, with this longer side."""
    height, width = (max(1, round(length * side / max(photo.shape[:2]))) for length in photo.shape[:2])
    way = Image.Resampling.NEAREST if photo.ndim == 2 else Image.Resampling.LANCZOS
    return np.asarray(Image.fromarray(photo).resize((width, height), way))


def data_url(picture: Image.Image, kind: str = "JPEG") -> str:
    """Return the picture as a URL that holds it, for a page without files."""
    buffer = io.BytesIO()
    picture.save(buffer, kind, quality=84)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"


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


def _to_bytes(values: Float[np.ndarray, "h w 3"]) -> RGB:
    return np.asarray(np.rint(values), dtype=np.uint8)


@cache
def font(size: int) -> ImageFont.ImageFont | ImageFont.FreeTypeFont:
    """Return the font that Pillow brings along; ``size`` in pixels. It holds little beyond ASCII."""
    return ImageFont.load_default(size)


def share(part: float) -> str:
    """Return a share of the whole as people read it: ``34 %``, ``3.4 %``, ``< 0.1 %``, ``0 %``.

    >>> share(0.034)
    '3.4 %'
    """
    if 0 < part < 0.0005:
        return "< 0.1 %"
    return f"{100 * part:.1f} %" if 0 < part < 0.0995 else f"{100 * part:.0f} %"


def length(line: str, size: int) -> int:
    """Return how wide a line is in letters of ``size`` pixels."""
    return math.ceil(font(size).getlength(line))


def text(line: str, size: int, colour: tuple[int, int, int] = INK, width: int = 0, right: bool = False) -> Image.Image:
    """Return a line in letters of ``size`` pixels; it is cut with an ellipsis where it is wider than ``width``.

    ``width`` 0: as wide as the line; ``right``: it ends at the right.
    """
    rest = cut = printable(line)
    room = width or length(cut, size)
    while rest and length(cut, size) > room:
        rest = rest[:-1].rstrip()
        cut = f"{rest}…"
    picture = Image.new("RGB", (room, round(1.6 * size)), PAPER)
    start, anchor = (room, "rm") if right else (0, "lm")
    ImageDraw.Draw(picture).text((start, picture.height // 2), cut, colour, font(size), anchor=anchor)
    return picture


def legend(entries: Sequence[tuple[str, str, Sequence[int]]], size: int, width: int) -> Image.Image:
    """Return entries of name, note and colour, lettered ``size`` pixels high, in as many columns as ``width`` holds."""
    names = min(LONGEST * size, max(length(printable(name), size) for name, _, _ in entries))
    notes = max(length(note, size) for _, note, _ in entries)
    lines = [
        beside([chip(colour, size), text(name, size, INK, names), text(note, size, FAINT, notes, True)], size // 2)
        for name, note, colour in entries
    ]
    fitting = max(1, (width + 2 * size) // (lines[0].width + 2 * size))
    return columns(lines, math.ceil(len(lines) / fitting), 2 * size)


def chip(colour: Sequence[int], size: int) -> Image.Image:
    """Return a square of colour with round corners, as high as a line of text."""
    square = rounded(Image.new("RGB", (size, size), tuple(colour)), size // 4)
    return ImageOps.pad(square, (size, round(1.6 * size)), color=PAPER)


def rounded(picture: Image.Image, radius: int) -> Image.Image:
    """Return the picture with smooth round corners."""
    fine = 4
    stencil = Image.new("L", (fine * picture.width, fine * picture.height))
    ImageDraw.Draw(stencil).rounded_rectangle((0, 0, stencil.width - 1, stencil.height - 1), fine * radius, fill=255)
    return Image.composite(picture, Image.new("RGB", picture.size, PAPER), stencil.reduce(fine))


def beside(pictures: Sequence[Image.Image], gap: int) -> Image.Image:
    """Return the pictures from left to right on paper, their tops in one line."""
    width = sum(picture.width + gap for picture in pictures) - gap
    paper = Image.new("RGB", (width, max(picture.height for picture in pictures)), PAPER)
    left = 0
    for picture in pictures:
        paper.paste(picture, (left, 0))
        left += picture.width + gap
    return paper


def below(pictures: Sequence[Image.Image], gap: int) -> Image.Image:
    """Return the pictures from top to bottom on paper, their left sides in one line."""
    return beside([picture.transpose(TRANSPOSE) for picture in pictures], gap).transpose(TRANSPOSE)


def columns(pictures: Sequence[Image.Image], rows: int, gap: int) -> Image.Image:
    """Return the pictures in columns of so many rows."""
    starts = range(0, len(pictures), rows)
    return beside([below(pictures[start : start + rows], 0) for start in starts], gap)
