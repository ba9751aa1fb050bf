"""Methods side by side: a row per photo, a column per method."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageOps

from pnp_ovss.pictures import class_colours
from pnp_ovss.pictures.figures import (
    FAINT,
    GAP,
    INK,
    MARGIN,
    PAPER,
    PLAIN,
    SMALL,
    TITLE,
    Labels,
    below,
    beside,
    legend,
    paint,
    resized,
    rounded,
    text,
)
from pnp_ovss.types import BACKGROUND, RGB

TILE = 240
"""Side of a photo's square, in pixels."""


@dataclass(frozen=True)
class Column:
    """What one method, or the target, says of every photo."""

    title: str
    note: str
    """Below the title, such as the time per photo."""
    labels: Sequence[Labels]
    """Per photo; values index the classes of the sheet."""


def comparison_sheet(photos: Sequence[RGB], columns: Sequence[Column], classes: Sequence[str]) -> Image.Image:
    """Return a sheet with the photos in its first column and each column's labels, painted over them, beside.

    A class has one colour on the whole sheet. The legend below holds the classes that occur, the background last.
    """
    colours, background = class_colours(classes), classes[0] == BACKGROUND
    drawn = [_column(Column("photo", "", []), photos)]
    for column in columns:
        pairs = zip(photos, column.labels, strict=True)
        small = [(resized(photo, TILE), resized(labels.astype(np.int32), TILE)) for photo, labels in pairs]
        drawn.append(_column(column, [paint(photo, labels, colours, background) for photo, labels in small]))
    table = beside(drawn, GAP)
    present = {label for column in columns for labels in column.labels for label in np.unique(labels).tolist()}
    order = sorted(present, key=lambda label: (classes[label] == BACKGROUND, label))
    key = legend([(classes[label], "", colours[label].tolist()) for label in order], PLAIN, table.width)
    heading = text("Methods side by side", TITLE)
    return ImageOps.expand(below([heading, table, key], 20), MARGIN, PAPER)


def _column(column: Column, pictures: Sequence[RGB]) -> Image.Image:
    head = below([text(column.title, PLAIN, INK, TILE), text(column.note, SMALL, FAINT, TILE)], 0)
    tiles = [ImageOps.pad(Image.fromarray(resized(one, TILE)), (TILE, TILE), color=PAPER) for one in pictures]
    return below([head, *(rounded(tile, 8) for tile in tiles)], GAP)
