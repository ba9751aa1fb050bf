"""COCO's regions, polygons or run lengths, as masks and back, by pycocotools."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8
from pycocotools import mask as coco_mask

from pnp_ovss.errors import InputError

FARTHEST = 1 << 20
"""No corner lies so many pixels away."""

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
    text, region = isinstance(counts, str), {"size": [height, width], "counts": counts}
    runs = region if text else coco_mask.frPyObjects(region, height, width)
    mask = np.asarray(coco_mask.decode(runs))
    filled = mask.sum() == coco_mask.area(runs) if text else sum(counts) == mask.size
    if not filled:  # pycocotools leaves in the rest of the mask whatever was in memory
        raise ValueError("the runs do not fill the mask")
    return mask
