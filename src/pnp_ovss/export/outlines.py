"""The border of a mask as polygons that fill to exactly that mask, holes included.

Corners lie on the borders between pixels, moved ``INSET`` into the region. So a polygon covers a pixel's centre where
the pixel is in the mask, and a corner rounded down is a pixel of the mask.
"""

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
from jaxtyping import Bool

INSET = 1 / 64
"""Pixels. Below 0.1, so that tools which round to fifths of a pixel (COCO's) see the border itself."""

Point = tuple[float, float]
"""x and y in pixels from the photo's top left corner."""


def outlines(mask: Bool[np.ndarray, "h w"]) -> list[list[Point]]:
    """Return a closed polygon for each part of the mask; pixels that touch at a corner are apart.

    A hole is joined to the polygon around it by a seam of no width, which is walked to and fro. By the even-odd rule,
    and by any other, the polygon covers the centres of the part's pixels and of no other.
    """
    rings = list(_rings(mask))
    outer = [ring for ring in rings if _area(ring) > 0]
    holes = sorted((ring for ring in rings if _area(ring) < 0), key=lambda ring: min(ring))
    polygons = [_inset(ring) for ring in outer]
    for hole in holes:
        _join(polygons, _inset(hole), mask, min(hole))
    return polygons


def _rings(mask: Bool[np.ndarray, "h w"]) -> Iterator[list[tuple[int, int]]]:
    """Yield the corners of every closed border. The mask is to the right of the walk: around holes it turns left."""
    padded = np.pad(mask, 1).astype(np.int8)
    down, across = np.diff(padded, axis=0)[:, 1:-1], np.diff(padded, axis=1)[1:-1]
    # Every unit of border, from corner to corner, by its direction.
    steps: dict[tuple[int, int], list[tuple[int, int]]] = {}
    for grid, sign, start, step in (
        (down, 1, (0, 0), (1, 0)),  # the mask begins below: to the right
        (down, -1, (1, 0), (-1, 0)),  # it ends above: to the left
        (across, -1, (0, 0), (0, 1)),  # it ends on the left: down
        (across, 1, (0, 1), (0, -1)),  # it begins on the right: up
    ):
        for y, x in np.argwhere(grid == sign).tolist():
            steps.setdefault((x + start[0], y + start[1]), []).append(step)
    for first in sorted(steps):
        if first not in steps:
            continue
        # No second ring meets here: of two, the one on the left has corners further left and is done.
        x, y = first
        ring: list[tuple[int, int]] = []
        heading = (0, 0)
        while not ring or (x, y) != first:
            ways = steps[x, y]
            # Where two pixels touch at a corner, the turn to the right stays with the pixel.
            way = next((way for way in ways if way == (-heading[1], heading[0])), ways[0])
            ways.remove(way)
            if not ways:
                del steps[x, y]
            if way != heading:
                ring.append((x, y))
            heading = way
            x, y = x + way[0], y + way[1]
        yield ring


def _area(ring: list[tuple[int, int]]) -> float:
    """Return the area, below 0 where the walk is counterclockwise: around a hole."""
    return sum(x * after_y - after_x * y for (x, y), (after_x, after_y) in pairwise([*ring, ring[0]])) / 2


def _inset(ring: list[tuple[int, int]]) -> list[Point]:
    """Return the ring moved into the mask, which is to the right of the walk."""
    moved = []
    for index, (x, y) in enumerate(ring):
        before, after = ring[index - 1], ring[(index + 1) % len(ring)]
        # Of the two sides that meet here one runs across, the other up or down.
        to_right, to_bottom = after[0] > before[0], after[1] > before[1]
        moved.append((x - INSET if to_bottom else x + INSET, y + INSET if to_right else y - INSET))
    return moved


def _join(
    polygons: list[list[Point]], hole: list[Point], mask: Bool[np.ndarray, "h w"], corner: tuple[int, int]
) -> None:
    """Put the hole into its polygon, by a seam from the hole's top left ``corner`` to the next border on the left.

    That border is the polygon's own, or that of a hole which begins further left and is joined already.
    """
    column, row = corner
    gaps = np.flatnonzero(~mask[row - 1, :column])
    end = (int(gaps[-1]) + 1 if len(gaps) else 0) + INSET, row - INSET
    start = hole.index((column - INSET, row - INSET))
    detour = [end, *hole[start:], *hole[: start + 1], end]
    for polygon in polygons:
        for index, (here, after) in enumerate(pairwise([*polygon, polygon[0]])):
            if here[0] == after[0] == end[0] and after[1] <= end[1] <= here[1]:
                polygon[index + 1 : index + 1] = detour
                return
