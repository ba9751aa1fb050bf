"""Pascal Context: the 59 most frequent classes, with the background (context60) or without (context59)."""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from pnp_ovss.data.dataset import (
    IGNORE,
    Dataset,
    Faults,
    Kinds,
    Sample,
    first_folder,
    from_file,
    once,
    pairs,
    read_json,
    read_split,
    table,
    translate,
)
from pnp_ovss.data.rle import paint
from pnp_ovss.data.vocabulary import class_names

SOURCE = (
    "fetch the VOC 2010 photos from http://host.robots.ox.ac.uk/pascal/VOC/voc2010 and trainval_merged.json of PASCAL "
    "in Detail, and put the file into VOCdevkit/VOC2010"
)
# Ids of the 59 classes among the 459 of trainval_merged.json. Both lists are alphabetical: the order is the same.
MERGED_IDS = (
    *(2, 9, 18, 19, 22, 23, 25, 31, 33, 34, 44, 45, 46, 59, 65, 68, 72, 80, 85, 98, 104, 105, 113, 115, 144, 158, 159),
    *(
        162,
        187,
        189,
        207,
        220,
        232,
        258,
        259,
        260,
        284,
        295,
        296,
        308,
        324,
        326,
        347,
        349,
        354,
        355,
        360,
        366,
        368,
        397,
    ),
    *(415, 416, 420, 424, 427, 440, 445, 454, 458),
)
MERGED = table(dict.fromkeys(range(460), 0) | {number: label for label, number in enumerate(MERGED_IDS, 1)}, size=460)
"""Id among the 459 -> label; 0 for those that are none of the 59 classes."""


def context60(root: Path, split: str | None = None) -> Dataset:
    """Return Pascal Context with everything beyond the 59 classes as background.

    Raises: InputError if it is not there.
    """
    return _context("context60", root, split or "val", background=True)


def context59(root: Path, split: str | None = None) -> Dataset:
    """Return Pascal Context where only the pixels of the 59 classes are asked for.

    Raises: InputError if it is not there.
    """
    return _context("context59", root, split or "val", background=False)


def _context(name: str, root: Path, split: str, background: bool) -> Dataset:
    classes = class_names("context")
    (samples, faults), layout = pairs(root, SOURCE), "images/ and masks/"
    if not samples:
        base = first_folder(root, ("VOC2010", "VOCdevkit/VOC2010", "."), SOURCE)
        masks = base / "SegmentationClassContext"
        if masks.is_dir():
            keys, faults = read_split(base / f"ImageSets/SegmentationContext/{split}.txt", SOURCE)
            samples = tuple(Sample(k, base / f"JPEGImages/{k}.jpg", from_file(masks / f"{k}.png")) for k in keys)
            layout = f"SegmentationClassContext, {split}"
        else:
            samples, faults = _merged(base, split)
            layout = f"trainval_merged.json, {split}"
    values = {0: 0 if background else IGNORE, 255: IGNORE} | {number: number for number in range(1, len(classes) + 1)}
    title = f"Pascal Context, {len(classes)} classes" + (" and background" if background else "")
    return Dataset(name, title, classes, background, samples, table(values), "context", layout, faults)


def _merged(base: Path, split: str) -> tuple[tuple[Sample, ...], Faults]:
    wanted: dict[str, Kinds] = {
        "images": {"image_id": int | str, "file_name": str, "phase": str},
        "annos_segmentation": {"image_id": int | str},
    }
    content = read_json(base / "trainval_merged.json", wanted, SOURCE)
    images = {image["image_id"]: image for image in content["images"] if image["phase"] == split}
    regions: dict[int | str, list[dict[str, Any]]] = {number: [] for number in images}
    for region in content["annos_segmentation"]:
        if region["image_id"] in regions:
            regions[region["image_id"]].append(region)
    named = {Path(image["file_name"]).stem: number for number, image in images.items()}
    keys, faults = once(sorted(Path(image["file_name"]).stem for image in images.values()), "trainval_merged.json")
    return tuple(
        Sample(key, base / f"JPEGImages/{key}.jpg", partial(_mask, key, images[named[key]], regions[named[key]]))
        for key in keys
    ), faults


def _mask(key: str, image: dict[str, Any], regions: list[dict[str, Any]]) -> UInt8[np.ndarray, "h w"]:
    return translate(paint(key, image, regions), MERGED, f"the truth of {key}")
