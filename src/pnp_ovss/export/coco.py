"""COCO: one JSON file, a region per photo and class as compressed run lengths, so that every pixel is kept.

Image, annotation and category ids count from 1; the background is no category. Boxes are (left, top, width, height).
supervision's layout has the same file under another name, and its detections are made from a result in memory.
Source: https://cocodataset.org/#format-data.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from pnp_ovss.data import rle
from pnp_ovss.errors import import_extra
from pnp_ovss.files import as_json
from pnp_ovss.types import LabelMap, Region


def coco(label_maps: Sequence[LabelMap], names: Sequence[str]) -> Iterator[tuple[str, bytes]]:
    """Yield ``instances.json``, or ``instances_train.json`` and ``instances_val.json``, whose photos are apart."""
    for subset in sorted({label_map.subset for label_map in label_maps}):
        own = [label_map for label_map in label_maps if label_map.subset == subset]
        yield f"instances{'_' if subset else ''}{subset}.json", as_json(dataset(own, names))


def supervision(label_maps: Sequence[LabelMap], names: Sequence[str]) -> Iterator[tuple[str, bytes]]:
    """Yield ``_annotations.coco.json``, the name that supervision expects beside the photos.

    ``sv.DetectionDataset.from_coco(photos, "_annotations.coco.json", force_masks=True)`` reads it; class ids count from
    0 there, in the order of the categories.
    """
    yield "_annotations.coco.json", as_json(dataset(label_maps, names))


def dataset(label_maps: Sequence[LabelMap], names: Sequence[str]) -> dict[str, Any]:
    """Return a COCO data set; the n-th photo and the n-th name have id n."""
    images, annotations = [], list[dict[str, Any]]()
    for number, label_map in enumerate(label_maps, start=1):
        size = {"width": label_map.width, "height": label_map.height}
        images.append({"id": number, "file_name": label_map.place} | size)
        for region in label_map.regions(names):
            annotations.append({"id": len(annotations) + 1, "image_id": number} | _annotation(region))
    categories = [{"id": number, "name": name, "supercategory": ""} for number, name in enumerate(names, 1)]
    about = {"info": {"description": "masks by pnp-ovss"}, "licenses": []}
    return about | {"images": images, "annotations": annotations, "categories": categories}


def _annotation(region: Region) -> dict[str, Any]:
    left, top, right, bottom = region.box
    annotation = {"category_id": region.category, "segmentation": rle.encode(region.mask), "area": region.area}
    annotation |= {"bbox": [left, top, right - left, bottom - top], "iscrowd": 0}
    return annotation if region.confidence is None else annotation | {"score": region.confidence}


def detections(label_map: LabelMap, names: Sequence[str]) -> Any:
    """Return ``supervision.Detections``: a mask and box per class that is there, ``class_id`` from 0.

    Raises: ConfigError if supervision is not installed.
    """
    Detections = import_extra("supervision", "supervision", "to_supervision()").Detections
    regions = list(label_map.regions(names))
    if not regions:
        return Detections.empty()
    scores = [region.confidence for region in regions if region.confidence is not None]
    return Detections(
        xyxy=np.array([region.box for region in regions], dtype=np.float32),
        mask=np.stack([region.mask for region in regions]),
        confidence=np.array(scores, dtype=np.float32) if len(scores) == len(regions) else None,
        class_id=np.array([region.category - 1 for region in regions]),
        data={"class_name": np.array([region.name for region in regions])},
    )
