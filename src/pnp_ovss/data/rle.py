"""COCO's regions, polygons or run lengths, as masks and back."""

from collections.abc import Sequence
from operator import index
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8
from pycocotools import mask as coco_mask

from pnp_ovss.errors import InputError

FARTHEST = 1 << 20
"""No corner lies so many pixels away."""

FURTHEST = 30
"""Bits below the last digit of a run's length."""

LONGEST = 16
"""Times its photo's pixels that the outlines of a region may be long, in pixels: pycocotools keeps five points for
each."""


def whole_number(entry: Any, name: str) -> int:
    """Return the whole number under ``name`` in an object of annotations.

    Raises: InputError if there is none, or it is beyond what three bytes of colour can number.
    """
    value = entry.get(name) if isinstance(entry, dict) else None
    if not isinstance(value, int) or not 0 <= value < 1 << 24:
        raise InputError(f"expected a whole number as {name}, got {value!r:.40}; fetch the annotations again")
    return value


def paint(image: Any, regions: Sequence[Any]) -> Int[np.ndarray, "h w"]:
    """Return the category ids of an image: its regions in file order, the later over the earlier; 0 where none is.

    Raises: InputError if its annotations are damaged.
    """
    height, width = whole_number(image, "height"), whole_number(image, "width")
    mask = np.zeros((height, width), dtype=np.int32)
    for region in regions:
        inside = decode(region.get("segmentation"), height, width) > 0
        mask[inside] = whole_number(region, "category_id")
    return mask


def decode(region: Any, height: int, width: int) -> UInt8[np.ndarray, "h w"]:
    """Return 1 inside the region, else 0. A region is polygons ``[[x, y, ...], ...]``, or runs ``{size, counts}``.

    Raises: InputError if it is neither, a polygon is none, or its runs do not fill the mask.
    """
    try:
        if isinstance(region, list):
            return _from_polygons(region, height, width)
        return _from_runs(region["counts"], height, width)
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        expected = f"expected polygons [[x, y, ...], ...] or runs of {height * width} pixels"
        raise InputError(f"{expected}, got {region!r:.40}; fetch the annotations again") from error


def encode(mask: Bool[np.ndarray, "h w"]) -> dict[str, Any]:
    """Return the mask as COCO's compressed run lengths, ``{"size": [h, w], "counts": text}``.

    >>> encode(np.array([[False, True]]))
    {'size': [1, 2], 'counts': '11'}
    """
    runs = coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8))
    return {"size": list(mask.shape), "counts": runs["counts"].decode("ascii")}


def _from_polygons(region: list[Any], height: int, width: int) -> UInt8[np.ndarray, "h w"]:
    for corners in (np.array(polygon, dtype=np.float64) for polygon in region):
        near = (np.abs(corners) < FARTHEST).all()  # nor is NaN near
        if corners.ndim != 1 or not corners.size or corners.size % 2 or not near:
            raise ValueError("a polygon is no pairs of x and y")
    large = (polygon for polygon in region if len(polygon) > 4)  # fewer corners cover no pixel
    clipped = [_clipped(np.array(one, dtype=np.float64).reshape(-1, 2), height, width) for one in large]
    if sum(np.abs(some - np.roll(some, 1, axis=0)).sum() for some in clipped) > LONGEST * (height + 1) * (width + 1):
        raise ValueError("the outlines fill the photo many times")
    polygons = [some.ravel().tolist() for some in clipped if len(some) > 2]
    if not polygons:
        return np.zeros((height, width), dtype=np.uint8)
    runs = coco_mask.merge(coco_mask.frPyObjects(polygons, height, width))
    return np.asarray(coco_mask.decode(runs))


def _clipped(corners: Float[np.ndarray, "n 2"], height: int, width: int) -> Float[np.ndarray, "m 2"]:
    """Return the part of a polygon that lies in the photo or less than its height and width away from it.

    One within is returned as it is. The cut is that far away so that it moves nothing in the photo: pycocotools rounds
    corners. Source: Sutherland and Hodgman, "Reentrant polygon clipping", 1974.
    """
    for axis, length in enumerate((width, height)):
        for bound, sign in ((-length, 1), (2 * length, -1)):
            before = np.roll(corners, 1, axis=0)
            inside, inside_before = (sign * (ends[:, axis] - bound) for ends in (corners, before))
            crosses = (inside < 0) != (inside_before < 0)
            share = inside_before / np.where(crosses, inside_before - inside, 1)
            crossing = before + share[:, None] * (corners - before)
            kept = np.stack([crosses, inside >= 0], 1)
            corners = np.stack([crossing, corners], 1)[kept]
    return corners


def _from_runs(counts: Any, height: int, width: int) -> UInt8[np.ndarray, "h w"]:
    """Return the mask of runs, of 0 and of 1 in turn, column by column.

    Without pycocotools, which reads and writes beyond its memory where a text ends within a number.
    """
    runs = _numbers(counts) if isinstance(counts, str) else np.array(list(map(index, counts)), dtype=np.int64)
    if ((runs < 0) | (runs > height * width)).any() or runs.sum() != height * width:
        raise ValueError("the runs do not fill the mask")
    values = np.arange(len(runs), dtype=np.uint8) % 2
    return np.asarray(np.repeat(values, runs).reshape(width, height).T)


def _numbers(text: str) -> Int[np.ndarray, " n"]:
    """Return the numbers that COCO's text stands for.

    Each is digits of 5 bits, the lowest first, as characters from "0" on: 32 is added where another digit follows, and
    the highest bit of the last one is the sign. From the fourth on they are differences to the last but one.
    """
    digits = np.frombuffer(text.encode("ascii"), dtype=np.uint8).astype(np.int64) - ord("0")
    last = np.flatnonzero(digits & 32 == 0)
    if not digits.size:
        return digits
    if digits.min() < 0 or digits.max() > 63 or not last.size or last[-1] != len(digits) - 1:
        raise ValueError("the text is no run lengths")
    first = np.concatenate([[0], last[:-1] + 1])
    place = 5 * (np.arange(len(digits)) - np.repeat(first, last - first + 1))
    if place.max() > FURTHEST:
        raise ValueError("a run is longer than any photo")
    numbers = np.add.reduceat((digits & 31) << place, first)
    numbers -= ((digits[last] & 16) >> 4) << (place[last] + 5)
    numbers[1::2], numbers[2::2] = numbers[1::2].cumsum(), numbers[2::2].cumsum()
    return numbers
