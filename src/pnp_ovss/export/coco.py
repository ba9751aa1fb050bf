"""COCO: one JSON file, a region per photo and class as compressed run lengths, so that every pixel is kept.

Image, annotation and category ids count from 1; the background is no category. Boxes are (left, top, width, height).
Source: https://cocodataset.org/#format-data.
"""

import json
from collections.abc import Iterator, Sequence
from typing import Any

from pnp_ovss.data import rle
from pnp_ovss.export.results import Labelled, Region


def coco(results: Sequence[Labelled], names: Sequence[str]) -> Iterator[tuple[str, bytes]]:
    """Yield ``instances.json``."""
    yield "instances.json", as_json(dataset(results, names))


def dataset(results: Sequence[Labelled], names: Sequence[str]) -> dict[str, Any]:
    """Return a COCO data set; the n-th photo and the n-th name have id n."""
    annotations: list[dict[str, Any]] = []
    for image, result in enumerate(results, start=1):
        for region in result.regions(names):
            annotations.append({"id": len(annotations) + 1, "image_id": image} | _annotation(region))
    return {
        "info": {"description": "masks by pnp-ovss"},
        "licenses": [],
        "images": [
            {"id": number, "file_name": result.file_name, "width": result.width, "height": result.height}
            for number, result in enumerate(results, start=1)
        ],
        "annotations": annotations,
        "categories": [{"id": number, "name": name, "supercategory": ""} for number, name in enumerate(names, 1)],
    }


def as_json(content: Any) -> bytes:
    """Return the content as JSON; what UTF-8 lacks is escaped."""
    return (json.dumps(content, ensure_ascii=False) + "\n").encode("utf-8", errors="backslashreplace")


def _annotation(region: Region) -> dict[str, Any]:
    left, top, right, bottom = region.box
    told: dict[str, Any] = {
        "category_id": region.category,
        "segmentation": rle.encode(region.mask),
        "area": region.area,
        "bbox": [left, top, right - left, bottom - top],
        "iscrowd": 0,
    }
    return told if region.score is None else told | {"score": region.score}
