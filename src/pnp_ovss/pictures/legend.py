"""Legends: a chip of colour, a name and a note per class, in columns."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw

from pnp_ovss.pictures.text import FAINT, INK, PAPER, fitted, font

LONGEST, SHORTEST = 18, 8
"""Width a name may take, and what is left of it to fit two columns, in letter heights."""
MANY = 6
"""More entries than this make two columns, even if names must be cut for it."""


@dataclass(frozen=True)
class Entry:
    """A line of a legend."""

    name: str
    note: str
    colour: tuple[int, int, int]


def legend(entries: Sequence[Entry], size: int, width: int | None = None, height: int | None = None) -> Image.Image:
    """Return the entries on paper, lettered ``size`` pixels high, in columns that fill ``width`` or ``height``.

    At least one column and one row are drawn, however narrow the space is; with neither given it is one column.
    """
    lettering = font(size)
    note_width = max(round(lettering.getlength(entry.note)) for entry in entries)
    left = size + size // 2  # where names start, after the chip
    beside = left + (size + note_width if note_width else 0)
    gap, line, longest = 2 * size, round(1.6 * size), LONGEST * size
    if width is not None and len(entries) > MANY:
        longest = max(SHORTEST * size, min(longest, (width - gap) // 2 - beside))
    names = [fitted(entry.name, lettering, longest) for entry in entries]
    column = beside + max(math.ceil(lettering.getlength(name)) for name in names)
    if width is not None:
        columns = min(len(entries), max(1, (width + gap) // (column + gap)))
        rows = -(-len(entries) // columns)
    else:
        rows = min(len(entries), max(1, (height or len(entries) * line) // line))
        columns = -(-len(entries) // rows)
    picture = Image.new("RGB", (columns * (column + gap) - gap, rows * line), PAPER)
    draw = ImageDraw.Draw(picture)
    for index, (entry, name) in enumerate(zip(entries, names, strict=True)):
        x, y = index // rows * (column + gap), index % rows * line
        middle = y + line // 2
        picture.paste(entry.colour, (x, middle - size // 2), rounded(size, size, size // 4))
        draw.text((x + left, middle), name, INK, lettering, anchor="lm")
        draw.text((x + column, middle), entry.note, FAINT, lettering, anchor="rm")
    return picture


def rounded(width: int, height: int, radius: int) -> Image.Image:
    """Return the stencil of a rectangle with smooth round corners."""
    fine = 4
    stencil = Image.new("L", (fine * width, fine * height))
    ImageDraw.Draw(stencil).rounded_rectangle((0, 0, fine * width - 1, fine * height - 1), fine * radius, fill=255)
    return stencil.reduce(fine)
