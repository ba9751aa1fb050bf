"""YOLO segmentation labels: a text file per photo, a line per part of a class, with the class from 0 and its outline.

A line is ``class x1 y1 x2 y2 ...``, x as a share of the width, y of the height, as ultralytics reads them. Of several
parts each is a line of its own; a hole is joined to its outline by a seam of no width. Corners lie on the borders
between pixels, moved ``INSET`` into the region. So a polygon covers a pixel's centre where the pixel is in the mask,
and a corner rounded down is a pixel of the mask.
Source: the segmentation data set format of ultralytics' documentation.
"""

import json
from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np
from jaxtyping import Bool

from pnp_ovss.files import as_text
from pnp_ovss.types import LabelMap

INSET = 1 / 64
"""Pixels. Below 0.1, so that tools which round to fifths of a pixel (COCO's) see the border itself."""

Point = tuple[float, float]
"""x and y in pixels from the photo's top left corner."""

Corner = tuple[int, int]
"""x and y of where four pixels meet."""

Hole = tuple[Corner, int, int]
"""Its top left corner, and where the walk around it starts and ends."""


def yolo(label_maps: Sequence[LabelMap], names: Sequence[str]) -> Iterator[tuple[str, bytes]]:
    """Yield ``labels/<key>.txt`` for each photo, empty where nothing is, and ``data.yaml``.

    With subsets it is ``labels/train/<key>.txt`` and ``labels/val/<key>.txt``.
    """
    for label_map in label_maps:
        folder = f"labels/{label_map.subset}" if label_map.subset else "labels"
        yield f"{folder}/{label_map.key}.txt", as_text(lines(label_map, names))
    yield "data.yaml", as_text(settings(names, any(label_map.subset for label_map in label_maps)))


def lines(label_map: LabelMap, names: Sequence[str]) -> Iterator[str]:
    """Yield a line for each part of each class."""
    for region in label_map.regions(names):
        for polygon in outlines(region.mask):
            shares = (share for x, y in polygon for share in (x / label_map.width, y / label_map.height))
            yield " ".join([str(region.category - 1), *(f"{share:.9g}" for share in shares)])


def settings(names: Sequence[str], subsets: bool = False) -> list[str]:
    """Return the lines of ``data.yaml``: where the photos are to be, beside the file, and the name of each class."""
    train, val = ("images/train", "images/val") if subsets else ("images", "images")
    head = [f"train: {train}", f"val: {val}", "names:" if names else "names: {}"]
    # JSON's text is YAML's too, but not its escapes of what needs two of them.
    quoted = [f"  {number}: {json.dumps(name, ensure_ascii=False)}" for number, name in enumerate(names)]
    return [*head, *quoted]


def outlines(mask: Bool[np.ndarray, "h w"]) -> list[list[Point]]:
    """Return a closed polygon for each part of the mask; pixels that touch at a corner are apart.

    A hole is joined to the polygon around it by a seam of no width, which is walked to and fro. By the even-odd rule,
    and by any other, the polygon covers the centres of the part's pixels and of no other.
    """
    points, after = list[Point](), list[int]()  # after: the point that comes next; -1: none
    sides: dict[Corner, int] = {}  # by the lower end of a unit of border that runs up: where its side starts
    outer, holes = list[int](), list[Hole]()  # outer: where polygons start
    for ring in _rings(mask):
        first, line = len(points), _inset(ring)
        if ring[0][1] == ring[1][1]:  # from its leftmost corner to the right; around holes the walk goes down
            outer.append(first)
        else:
            line.append(line[0])
            holes.append((ring[0], first, first + len(ring)))
        points += line
        after += [*range(first + 1, len(points)), -1]
        for start, ((x, y), (_, above)) in enumerate(pairwise([*ring, ring[0]]), start=first):
            sides |= {(x, low): start for low in range(above + 1, y + 1)}
    _join(points, after, sides, holes, mask)
    return [list(_walk(points, after, start)) for start in outer]


def _rings(mask: Bool[np.ndarray, "h w"]) -> Iterator[list[Corner]]:
    """Yield the corners of every closed border, from the leftmost and of those the topmost one on.

    The mask is to the right of the walk: around holes it turns left.
    """
    padded = np.pad(mask, 1).astype(np.int8)
    down, across = np.diff(padded, axis=0)[:, 1:-1], np.diff(padded, axis=1)[1:-1]
    # Every unit of border, from corner to corner, by its direction.
    steps: dict[Corner, list[tuple[int, int]]] = {}
    for grid, sign, start, step in (
        (down, 1, (0, 0), (1, 0)),  # the mask begins below: to the right
        (down, -1, (1, 0), (-1, 0)),  # it ends above: to the left
        (across, -1, (0, 0), (0, 1)),  # it ends on the left: down
        (across, 1, (0, 1), (0, -1)),  # it begins on the right: up
    ):
        for y, x in np.argwhere(grid == sign).tolist():
            steps.setdefault((x + start[0], y + start[1]), []).append(step)
    for first in sorted(steps):
        if not steps[first]:
            continue
        # No second ring meets here: of two, the one on the left has corners further left and is done.
        x, y = first
        ring, heading = list[Corner](), (0, 0)
        while not ring or (x, y) != first:
            ways = steps[x, y]
            # Where two pixels touch at a corner, the turn to the right stays with the pixel.
            right = (-heading[1], heading[0])
            way = ways.pop(ways.index(right) if right in ways else 0)
            if way != heading:
                ring.append((x, y))
            heading, x, y = way, x + way[0], y + way[1]
        yield ring


def _inset(ring: list[Corner]) -> list[Point]:
    """Return the ring moved into the mask, which is to the right of the walk."""
    corners = np.array(ring)
    # Of the two sides that meet in a corner one runs across, the other up or down.
    across, down = np.where(np.roll(corners, -1, 0) > np.roll(corners, 1, 0), INSET, -INSET).T
    return [(x, y) for x, y in (corners + np.stack([-down, across], 1)).tolist()]


def _join(points: list[Point], after: list[int], sides: dict[Corner, int], holes: list[Hole], mask: np.ndarray) -> None:
    """Put the holes into their polygons, each by a seam from its top left corner to the next border on the left.

    That border is the polygon's own, or that of another hole, which begins further left.
    """
    cells, width = mask.tobytes(), mask.shape[1]
    last: dict[int, int] = {}  # of each side with seams, the point after the one furthest up: its walk goes up
    for (column, row), first, end in sorted(holes, key=lambda hole: hole[0][::-1], reverse=True):
        begin = (row - 1) * width
        gap = cells.rfind(b"\0", begin, begin + column)
        x = gap + 1 - begin if gap >= 0 else 0
        side, met = sides[x, row], len(points)
        before = last.get(side, side)
        points += [(x + INSET, row - INSET)] * 2
        after += [first, after[before]]
        after[before], after[end], last[side] = met, met + 1, met + 1


def _walk(points: list[Point], after: list[int], start: int) -> Iterator[Point]:
    while start >= 0:
        yield points[start]
        start = after[start]
