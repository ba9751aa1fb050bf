"""Pascal VOC 2012 (20 classes), Pascal Context (59) and ADE20K (150)."""

from pathlib import Path

import numpy as np
from jaxtyping import Int, UInt8

from pnp_ovss.data.coco import from_instances
from pnp_ovss.data.dataset import IGNORE, Dataset, Samples, benchmark, table, translate
from pnp_ovss.data.files import annotations, first_folder, from_masks, from_split, pairs
from pnp_ovss.data.rle import paint

# Ids of the 59 classes among the 459 of trainval_merged.json. Both lists are alphabetical: the order is the same.
MERGED_IDS = (
    "2 9 18 19 22 23 25 31 33 34 44 45 46 59 65 68 72 80 85 98 104 105 113 115 144 158 159 162 187 189 207 220 232 258 "
    "259 260 284 295 296 308 324 326 347 349 354 355 360 366 368 397 415 416 420 424 427 440 445 454 458"
)
MERGED = table(map(int, MERGED_IDS.split()), dict.fromkeys(range(460), 0), size=460)
"""Id among the 459 -> label; 0 for those that are none of the 59 classes."""


def voc(root: Path, split: str | None, background: bool) -> Dataset:
    """Return VOC 2012, with its background as a class or only the pixels of the 20 classes; the border is ignored."""
    samples = pairs(root) or _devkit(root, split or "val")
    name, values = f"voc{20 + background}", _in_order(20, 0 if background else IGNORE)
    return benchmark(name, "Pascal VOC 2012", "voc", values, samples, background)


def context(root: Path, split: str | None, background: bool) -> Dataset:
    """Return Pascal Context, with all beyond the 59 classes as background or only the pixels of the 59 classes."""
    samples = pairs(root) or _context(root, split or "val")
    name, values = f"context{59 + background}", _in_order(59, 0 if background else IGNORE)
    return benchmark(name, "Pascal Context", "context", values, samples, background)


def ade150(root: Path, split: str | None) -> Dataset:
    """Return ADE20K as in MIT's scene parsing benchmark; 0, 'other', is ignored."""
    samples = pairs(root) or _ade(root, split or "validation")
    return benchmark("ade150", "ADE20K", "ade20k", _in_order(150, IGNORE), samples)


def _in_order(count: int, nothing: int) -> Int[np.ndarray, " value"]:
    """Return the table of masks whose values are the labels; ``nothing`` is the label of their 0."""
    return table(range(1, count + 1), {0: nothing, 255: IGNORE})


def _devkit(root: Path, split: str) -> Samples:
    base = first_folder(root, "VOC2012", "VOCdevkit/VOC2012", ".")
    keys, photos, masks = f"ImageSets/Segmentation/{split}.txt", "JPEGImages", "SegmentationClass"
    return from_split(base / keys, base / photos, base / masks, f"VOCdevkit, {split}")


def _context(root: Path, split: str) -> Samples:
    base = first_folder(root, "VOC2010", "VOCdevkit/VOC2010", ".")
    photos, masks, merged = base / "JPEGImages", base / "SegmentationClassContext", base / "trainval_merged.json"
    if masks.is_dir():
        keys = base / f"ImageSets/SegmentationContext/{split}.txt"
        return from_split(keys, photos, masks, f"SegmentationClassContext, {split}")
    with annotations(merged) as content:
        images = {image["image_id"]: image for image in content["images"] if image["phase"] == split}
        layout = f"{merged.name}, {split}"
        return from_instances(images, content["annos_segmentation"], photos, layout, merged.name, _mask)


def _mask(key: str, image: object, regions: list[object]) -> UInt8[np.ndarray, "h w"]:
    return translate(paint(key, image, regions), MERGED, f"the truth of {key}")


def _ade(root: Path, split: str) -> Samples:
    base = first_folder(root, "ADEChallengeData2016", ".")
    photos, masks = first_folder(base, f"images/{split}"), first_folder(base, f"annotations/{split}")
    return from_masks(masks, photos, f"ADEChallengeData2016, {split}")
