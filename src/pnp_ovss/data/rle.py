"""COCO's regions, polygons or run lengths, as masks: the same pixels as pycocotools paints.

Source: Lin et al., COCO, maskApi.c (rleFrPoly, rleFrString, rleToString), written anew for numpy.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

from pnp_ovss.data.dataset import whole
from pnp_ovss.errors import InputError

FINER = 5
"""A polygon's border is walked on a grid so many times finer than the pixels."""
FARTHEST = 1 << 20
"""No corner lies so many pixels away; the walk to one would fill the memory."""


def paint(key: str, image: Any, regions: Sequence[Any]) -> Int[np.ndarray, "h w"]:
    """Return the category ids of an image: its regions in file order, the later over the earlier; 0 where none is.

    Raises: InputError naming the image by its key if its annotations are damaged.
    """
    try:
        mask = np.zeros((whole(image, "height"), whole(image, "width")), dtype=np.int32)
        for region in regions:
            mask[decode(region.get("segmentation"), *mask.shape) > 0] = whole(region, "category_id")
    except InputError as error:
        raise InputError(f"{key} has a damaged annotation: {error}") from error
    return mask


def decode(region: Any, height: int, width: int) -> UInt8[np.ndarray, "h w"]:
    """Return 1 inside the region, else 0. A region is polygons ``[[x, y, ...], ...]``, or runs ``{size, counts}``.

    Raises: InputError if it is neither, a polygon is none, or its runs do not fill the mask.
    """
    if isinstance(region, list):
        mask = np.zeros((height, width), dtype=np.uint8)
        for polygon in region:
            mask |= fill(_corners(polygon), height, width)
        return mask
    if not isinstance(region, dict) or "counts" not in region:
        raise InputError("a region is neither polygons nor run lengths; the data set's own annotations are wanted")
    runs = _runs(region["counts"])
    if runs.sum() != height * width:
        raise InputError(f"a region's runs cover {runs.sum()} pixels of {height * width}; fetch the annotations again")
    return np.repeat(np.arange(len(runs)) % 2, runs).astype(np.uint8).reshape(width, height).T


def _corners(polygon: Any) -> Float[np.ndarray, "corner 2"]:
    try:
        numbers = np.asarray(polygon, dtype=np.float64)
    except (TypeError, ValueError, OverflowError):
        numbers = np.empty(0)
    if numbers.size == 0 or numbers.size % 2 or not np.abs(numbers).max() < FARTHEST:  # nor is NaN a corner
        raise InputError(f"a polygon is {polygon!r:.40}; pairs of x and y are wanted: fetch the annotations again")
    return numbers.reshape(-1, 2)


def _runs(counts: Any) -> Int[np.ndarray, " run"]:
    try:
        runs = np.asarray(lengths(counts) if isinstance(counts, str) else counts, dtype=np.int64)
    except (TypeError, ValueError, OverflowError):
        runs = np.array(-1)
    if runs.ndim != 1 or (runs < 0).any():
        raise InputError(f"a region's runs are {counts!r:.40}; lengths >= 0 are wanted: fetch the annotations again")
    return runs


def encode(mask: Bool[np.ndarray, "h w"]) -> dict[str, Any]:
    """Return the mask as COCO's compressed run lengths, ``{"size": [h, w], "counts": text}``: what pycocotools writes.

    Runs go down the columns, the first one outside the mask, if only of length 0.
    """
    pixels = np.concatenate([[False], mask.T.ravel()])
    ends = np.flatnonzero(pixels[1:] != pixels[:-1])
    runs = np.diff(np.concatenate([[0], ends, [mask.size]]))
    return {"size": list(mask.shape), "counts": letters(runs.tolist())}


def letters(runs: Sequence[int]) -> str:
    """Return run lengths in COCO's compressed form, which ``lengths`` reads."""
    text = []
    for index, run in enumerate(runs):
        value = run - (runs[index - 2] if index > 2 else 0)
        more = True
        while more:
            low, value = value & 0x1F, value >> 5
            more = value != (-1 if low & 0x10 else 0)
            text.append(chr(low + (0x20 if more else 0) + 48))
    return "".join(text)


def lengths(text: str) -> list[int]:
    """Return the run lengths in COCO's compressed form: 5 bits a letter, from the third on as differences."""
    runs: list[int] = []
    value = shift = 0
    for letter in text:
        code = ord(letter) - 48
        value |= (code & 0x1F) << shift
        shift += 5
        if code & 0x20:
            continue
        if code & 0x10:
            value -= 1 << shift
        runs.append(value + (runs[-2] if len(runs) > 2 else 0))
        value = shift = 0
    return runs


def fill(corners: Float[np.ndarray, "corner 2"], height: int, width: int) -> UInt8[np.ndarray, "h w"]:
    """Return the mask of one polygon of (x, y) in pixels."""
    x, y = _border(np.trunc(FINER * corners + 0.5).astype(np.int64))
    step = np.flatnonzero(np.diff(x)) + 1  # where the border goes on to another fine column
    column = (np.minimum(x[step], x[step - 1]) + 0.5) / FINER - 0.5
    row = np.ceil(np.clip((np.minimum(y[step], y[step - 1]) + 0.5) / FINER - 0.5, 0, height))
    inside = (column == np.floor(column)) & (column >= 0) & (column <= width - 1)
    crossings = (column[inside] * height + row[inside]).astype(np.int64)
    # Down each column, pixels after an odd number of crossings are inside.
    parity = np.cumsum(np.bincount(crossings, minlength=height * width + 1))[: height * width] % 2
    return parity.astype(np.uint8).reshape(width, height).T


def _border(corners: Int[np.ndarray, "corner 2"]) -> tuple[Int[np.ndarray, " point"], Int[np.ndarray, " point"]]:
    """Return the x and y of every fine point on the closed border, in the order of the walk."""
    walked = [_line(start, end) for start, end in zip(corners.tolist(), np.roll(corners, -1, 0).tolist(), strict=True)]
    points = np.concatenate(walked)
    return points[:, 0], points[:, 1]


def _line(start: Sequence[int], end: Sequence[int]) -> Int[np.ndarray, "point 2"]:
    """Return the points of a line, both ends included; it is drawn from the lesser end so that both ways agree."""
    (xs, ys), (xe, ye) = start, end
    flat = abs(xe - xs) >= abs(ye - ys)
    turned = xs > xe if flat else ys > ye
    if turned:
        xs, ys, xe, ye = xe, ye, xs, ys
    dx, dy = xe - xs, ye - ys
    along = np.arange(abs(dx if flat else dy) + 1)
    slope = (dy / dx if dx else 0.0) if flat else dx / dy
    across = np.trunc((ys if flat else xs) + slope * along + 0.5).astype(np.int64)
    points = np.stack((xs + along, across) if flat else (across, ys + along), axis=1)
    return points[::-1] if turned else points
