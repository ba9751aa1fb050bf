"""Where each benchmark keeps photos and truth: a function per class list, which finds the samples below a root folder.

Titles, usual splits and the numbers in the mask files are in ``benchmarks.json``.
"""

import json
from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int, Integer

from pnp_ovss.data import dataset
from pnp_ovss.data.dataset import Mask, Samples, first_folder, from_masks, from_split
from pnp_ovss.data.rle import paint, whole_number
from pnp_ovss.errors import InputError
from pnp_ovss.files import read_json

ABOUT: dict[str, Any] = json.loads(Path(__file__).with_name("benchmarks.json").read_text(encoding="utf-8"))
"""By class list: ``data sets`` of it, and whether all beyond the classes is a background that is scored; ``title``;
``split``, the usual one; ``source``, where to get it; ``ids`` of the classes in its mask files if not 1, 2, ...;
``others`` there that are background; ``merged``, the ids of Context's classes among its 459."""


def voc(root: Path, split: str) -> Samples:
    """Return the samples of VOC 2012."""
    base = first_folder(root, "VOC2012", "VOCdevkit/VOC2012", ".")
    keys, masks = base / f"ImageSets/Segmentation/{split}.txt", base / "SegmentationClass"
    return from_split(keys, base / "JPEGImages", masks, f"VOCdevkit, {split}")


def context(root: Path, split: str) -> Samples:
    """Return the samples of Pascal Context, from PNG or from the JSON of 459 classes."""
    base = first_folder(root, "VOC2010", "VOCdevkit/VOC2010", ".")
    photos, masks = base / "JPEGImages", base / "SegmentationClassContext"
    if masks.is_dir():
        keys = base / f"ImageSets/SegmentationContext/{split}.txt"
        return from_split(keys, photos, masks, f"SegmentationClassContext, {split}")
    merged = base / "trainval_merged.json"
    content, layout = read_json(merged), f"{merged.name}, {split}"
    images = {image["image_id"]: image for image in content["images"] if image["phase"] == split}
    return _instances(images, content["annos_segmentation"], photos, layout, merged.name, _merged)


def ade(root: Path, split: str) -> Samples:
    """Return the samples of ADE20K as in MIT's scene parsing benchmark."""
    base = first_folder(root, "ADEChallengeData2016", ".")
    photos, masks = first_folder(base, f"images/{split}"), first_folder(base, f"annotations/{split}")
    return from_masks(masks, photos, f"ADEChallengeData2016, {split}")


def objects(root: Path, split: str) -> Samples:
    """Return the samples of COCO-Object: masks with labels where they are and the annotations are not."""
    path, ending = root / f"annotations/instances_{split}.json", "_instanceTrainIds.png"
    places = (root / f"annotations/{split}", root / f"{split}_masks")
    masks = next((place for place in places if any(place.glob(f"*{ending}"))), None)
    if masks and not path.is_file():
        samples = from_masks(masks, _photos(root, split), f"instanceTrainIds PNG, {split}", ending)
        return replace(samples, ids=range(1, 81))
    content, layout = read_json(path), f"{path.name}, painted in file order"
    images = {image["id"]: image for image in content["images"]}
    return _instances(images, content["annotations"], _photos(root, split), layout, path.name)


def stuff(root: Path, split: str) -> Samples:
    """Return the samples of COCO-Stuff."""
    folders = ("stuffthingmaps", "annotations", "stuffthingmaps_trainval2017")
    masks = first_folder(root, *(f"{folder}/{split}" for folder in folders), f"{split}_masks")
    if any(masks.glob("*_labelTrainIds.png")):
        layout, ending = f"labelTrainIds PNG, {split}", "_labelTrainIds.png"
        return replace(from_masks(masks, _photos(root, split), layout, ending), ids=range(171))
    return from_masks(masks, _photos(root, split), f"stuffthingmaps PNG, {split}")


def panoptic(root: Path, split: str) -> Samples:
    """Return the samples of COCO panoptic: the official coloured PNG and their JSON."""
    path = root / f"annotations/panoptic_{split}.json"
    entries = read_json(path)["annotations"]
    listed = {Path(entry["file_name"]).stem: entry["segments_info"] for entry in entries}
    photos, name = _photos(root, split), f"panoptic_{split}"
    masks = first_folder(root, f"annotations/{name}", name)

    def mask(key: str) -> Mask:
        return partial(_segments, masks / f"{key}.png", listed[key])

    found = [photos / f"{key}.jpg" for key in sorted(listed)]
    return dataset.collect(found, mask, f"{path.name} and PNG", path.name)


FIND: dict[str, Callable[[Path, str], Samples]] = {
    "voc": voc,
    "context": context,
    "coco-object": objects,
    "coco-stuff": stuff,
    "coco-panoptic": panoptic,
    "ade20k": ade,
}
"""By class list. Each finds the samples of a split below a root folder."""


def _instances(
    images: dict[Any, Any], regions: list[Any], photos: Path, layout: str, where: str, painter: Any = paint
) -> Samples:
    """Return samples whose truth ``painter`` paints from regions; ``images``: what the annotation file says, by id."""
    by_image: dict[Any, list[Any]] = defaultdict(list)
    for region in regions:
        by_image[region["image_id"]].append(region)
    ids = {Path(image["file_name"]).stem: number for number, image in images.items()}
    found = [photos / image["file_name"] for image in images.values()]

    def mask(key: str) -> Mask:
        return partial(painter, images[ids[key]], by_image[ids[key]])

    return dataset.collect(sorted(found, key=lambda path: path.stem), mask, layout, where)


def _merged(image: Any, regions: list[Any]) -> Integer[np.ndarray, "h w"]:
    """Return labels from regions of the 459 classes of Context; 0 for those that are none of the 59."""
    labels = dataset.table(ABOUT["context"]["merged"], dict.fromkeys(range(460), 0), size=460)
    return dataset.translate(paint(image, regions), labels, "the truth")


def _segments(path: Path, segments: list[Any]) -> Int[np.ndarray, "h w"]:
    """Return category ids; a segment's number is R + 256 G + 65536 B, 0 where there is none."""
    category = {whole_number(one, "id"): whole_number(one, "category_id") for one in segments}
    colours = np.asarray(dataset.open_mask(path).convert("RGB"))
    coded = colours.astype(np.int64) @ np.array([1, 256, 65536])
    numbers, index = np.unique(coded, return_inverse=True)
    strange = [number for number in numbers.tolist() if number and number not in category]
    if strange:
        raise InputError(f"the mask {path} holds the unknown segment {strange[0]}; fetch it and its JSON anew")
    categories = np.array([category.get(number, 0) for number in numbers.tolist()], dtype=np.int32)
    return np.asarray(categories[index].reshape(coded.shape))


def _photos(root: Path, split: str) -> Path:
    return first_folder(root, split, f"images/{split}", "images")
