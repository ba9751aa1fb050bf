"""supervision: its COCO layout, and its detections from a result in memory.

``sv.DetectionDataset.from_coco(photos, "_annotations.coco.json", force_masks=True)`` reads the file; class ids count
from 0 there, in the order of the categories. Masks are run lengths, so that every pixel is kept.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from pnp_ovss.errors import import_extra
from pnp_ovss.export.coco import dataset
from pnp_ovss.files import as_json
from pnp_ovss.types import LabelMap


def supervision(label_maps: Sequence[LabelMap], names: Sequence[str]) -> Iterator[tuple[str, bytes]]:
    """Yield ``_annotations.coco.json``, the name that this layout expects beside the photos."""
    yield "_annotations.coco.json", as_json(dataset(label_maps, names))


def detections(label_map: LabelMap, names: Sequence[str]) -> Any:
    """Return ``supervision.Detections``: a mask and box per class that is there, ``class_id`` from 0.

    Raises: ConfigError if supervision is not installed.
    """
    Detections = import_extra("supervision", "supervision", "to_supervision()").Detections
    regions = list(label_map.regions(names))
    if not regions:
        return Detections.empty()
    scores = [region.score for region in regions if region.score is not None]
    return Detections(
        xyxy=np.array([region.box for region in regions], dtype=np.float32),
        mask=np.stack([region.mask for region in regions]),
        confidence=np.array(scores, dtype=np.float32) if len(scores) == len(regions) else None,
        class_id=np.array([region.category - 1 for region in regions]),
        data={"class_name": np.array([region.name for region in regions])},
    )
