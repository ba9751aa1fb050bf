"""Lettering and layout: lines of text, legends, and pictures side by side on paper."""

import math
from collections.abc import Sequence
from functools import cache

from PIL import Image, ImageDraw, ImageFont, ImageOps

from pnp_ovss.errors import printable

Colour = tuple[int, int, int]

PAPER = (251, 250, 247)
INK = (43, 46, 54)
FAINT = (128, 132, 142)
LONGEST = 15
"""Letter heights that a name may be wide in a legend."""
TRANSPOSE = Image.Transpose.TRANSPOSE


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


def text(line: str, size: int, colour: Colour = INK, width: int = 0, right: bool = False) -> Image.Image:
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
