"""COCO: one JSON file, a region per photo and class as compressed run lengths, so that every pixel is kept.

Image, annotation and category ids count from 1; the background is no category. Boxes are (left, top, width, height).
Source: https://cocodataset.org/#format-data.
"""

from collections.abc import Iterator, Sequence
from typing import Any

from pnp_ovss.data import rle
from pnp_ovss.files import as_json
from pnp_ovss.types import LabelMap, Region


def coco(label_maps: Sequence[LabelMap], names: Sequence[str]) -> Iterator[tuple[str, bytes]]:
    """Yield ``instances.json``."""
    yield "instances.json", as_json(dataset(label_maps, names))


def dataset(label_maps: Sequence[LabelMap], names: Sequence[str]) -> dict[str, Any]:
    """Return a COCO data set; the n-th photo and the n-th name have id n."""
    images, annotations = [], list[dict[str, Any]]()
    for number, label_map in enumerate(label_maps, start=1):
        size = {"width": label_map.width, "height": label_map.height}
        images.append({"id": number, "file_name": label_map.file_name} | size)
        for region in label_map.regions(names):
            annotations.append({"id": len(annotations) + 1, "image_id": number} | _annotation(region))
    return {
        "info": {"description": "masks by pnp-ovss"},
        "licenses": [],
        "images": images,
        "annotations": annotations,
        "categories": [{"id": number, "name": name, "supercategory": ""} for number, name in enumerate(names, 1)],
    }


def _annotation(region: Region) -> dict[str, Any]:
    left, top, right, bottom = region.box
    annotation: dict[str, Any] = {
        "category_id": region.category,
        "segmentation": rle.encode(region.mask),
        "area": region.area,
        "bbox": [left, top, right - left, bottom - top],
        "iscrowd": 0,
    }
    return annotation if region.score is None else annotation | {"score": region.score}
