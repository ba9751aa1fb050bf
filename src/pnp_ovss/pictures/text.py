"""Lettering: names and numbers as they are drawn into pictures."""

import math
import unicodedata
from bisect import bisect_right
from functools import cache

from PIL import ImageFont

PAPER = (251, 250, 247)
INK = (43, 46, 54)
FAINT = (128, 132, 142)

Font = ImageFont.ImageFont | ImageFont.FreeTypeFont


@cache
def font(size: int) -> Font:
    """Return the font that Pillow brings along; ``size`` in pixels."""
    return ImageFont.load_default(size)


def share(part: float) -> str:
    """Return a share of the whole as people read it: ``34 %``, ``3.4 %``, ``< 0.1 %``, ``0 %``."""
    if part <= 0:
        return "0 %"
    if part < 0.0005:
        return "< 0.1 %"
    return f"{100 * part:.1f} %" if part < 0.0995 else f"{100 * part:.0f} %"


def legible(name: str, otherwise: str) -> str:
    """Return the name in letters the font has: as it is, without its accents, or else ``otherwise``.

    Pillow's own font holds little beyond ASCII, and no font file is sure to be on a machine.
    """
    plain = "".join(c for c in unicodedata.normalize("NFKD", name) if not unicodedata.combining(c))
    return next((text for text in (name, plain) if text and all(_has(letter) for letter in text)), otherwise)


def fitted(text: str, lettering: Font, width: int) -> str:
    """Return the text, cut with an ellipsis where it is wider than ``width`` pixels."""
    if lettering.getlength(text) <= width:
        return text
    # A longer piece is wider, so the longest that fits is found by halving: names may be long.
    kept = bisect_right(range(1, len(text)), width, key=lambda end: math.ceil(lettering.getlength(text[:end] + "…")))
    return text[:kept].rstrip() + "…"


def wrapped(text: str, lettering: Font, width: int, lines: int) -> list[str]:
    """Return the text broken at spaces into at most so many lines of ``width`` pixels; the last one is cut to fit."""
    rows: list[str] = []
    for word in text.split():
        if rows and (len(rows) == lines or lettering.getlength(f"{rows[-1]} {word}") <= width):
            rows[-1] += f" {word}"
        else:
            rows.append(word)
    return [fitted(row, lettering, width) for row in rows]


@cache
def _has(letter: str) -> bool:
    """Return whether the font draws this letter, rather than the box that stands for all it lacks."""
    if letter.isspace():
        return letter == " "
    if not letter.isprintable():
        return False
    size = 16
    missing = font(size).getmask("\U0010ffff")
    drawn = font(size).getmask(letter)
    return drawn.size != missing.size or bytes(drawn) != bytes(missing)
