"""COCO's regions, polygons or run lengths, as masks and back, by pycocotools."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Int, UInt8
from pycocotools import mask as coco_mask

from pnp_ovss.data.files import whole_number
from pnp_ovss.errors import InputError

FARTHEST = 1 << 20
"""No corner lies so many pixels away; pycocotools would fill the memory on the way to it."""


def paint(key: str, image: Any, regions: Sequence[Any]) -> Int[np.ndarray, "h w"]:
    """Return the category ids of an image: its regions in file order, the later over the earlier; 0 where none is.

    Raises: InputError naming the image by its key if its annotations are damaged.
    """
    try:
        mask = np.zeros((whole_number(image, "height"), whole_number(image, "width")), dtype=np.int32)
        for region in regions:
            mask[decode(region.get("segmentation"), *mask.shape) > 0] = whole_number(region, "category_id")
    except InputError as error:
        raise InputError(f"{key} has a damaged annotation: {error}") from error
    return mask


def decode(region: Any, height: int, width: int) -> UInt8[np.ndarray, "h w"]:
    """Return 1 inside the region, else 0. A region is polygons ``[[x, y, ...], ...]``, or runs ``{size, counts}``.

    Raises: InputError if it is neither, a polygon is none, or its runs do not fill the mask.
    """
    if isinstance(region, list):
        polygons = [corners for corners in map(_corners, region) if len(corners) > 4]  # fewer corners cover no pixel
        if not polygons:
            return np.zeros((height, width), dtype=np.uint8)
        return np.asarray(coco_mask.decode(coco_mask.merge(coco_mask.frPyObjects(polygons, height, width))))
    if not isinstance(region, dict) or "counts" not in region:
        raise InputError("expected a region as polygons or run lengths; fetch the data set's own annotations")
    return _from_runs(region["counts"], height, width)


def encode(mask: Bool[np.ndarray, "h w"]) -> dict[str, Any]:
    """Return the mask as COCO's compressed run lengths, ``{"size": [h, w], "counts": text}``.

    >>> encode(np.array([[False, True]]))
    {'size': [1, 2], 'counts': '11'}
    """
    runs = coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8))
    return {"size": list(mask.shape), "counts": runs["counts"].decode("ascii")}


def _corners(polygon: Any) -> list[int | float]:
    numbers = polygon if isinstance(polygon, list) else []
    near = all(isinstance(number, int | float) and abs(number) < FARTHEST for number in numbers)  # nor is NaN near
    if not numbers or len(numbers) % 2 or not near:
        raise InputError(f"expected a polygon as pairs of x and y, got {polygon!r:.40}; fetch the annotations again")
    return numbers


def _from_runs(counts: Any, height: int, width: int) -> UInt8[np.ndarray, "h w"]:
    region = {"size": [height, width], "counts": counts}
    try:
        if not isinstance(counts, str):
            region = coco_mask.frPyObjects(region, height, width)
        mask = np.asarray(coco_mask.decode(region))
        short = mask.sum() != coco_mask.area(region) if isinstance(counts, str) else sum(counts) != mask.size
        if short:  # pycocotools leaves in the rest of the mask whatever was in memory
            raise ValueError("the runs do not fill the mask")
    except (TypeError, ValueError, OverflowError) as error:
        raise InputError(
            f"expected run lengths of {height * width} pixels, got {counts!r:.40}; fetch the annotations again"
        ) from error
    return mask
