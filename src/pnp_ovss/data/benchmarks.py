"""Data sets by name, and where each keeps photos and truth: a function per class list finds samples below a folder.

Titles, usual splits and the numbers in the mask files are in ``benchmarks.json``.
"""

import json
import os
from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int, Integer

from pnp_ovss.data import dataset
from pnp_ovss.data.dataset import (
    IGNORE,
    Dataset,
    Samples,
    Size,
    check_size,
    first_folder,
    from_masks,
    from_split,
    pairs,
    table,
)
from pnp_ovss.data.rle import paint, whole_number
from pnp_ovss.data.vocabulary import class_names, read_lines
from pnp_ovss.errors import InputError, one_line
from pnp_ovss.files import expanded, read_json
from pnp_ovss.types import BACKGROUND

ANNOTATIONS = 10**9
"""Bytes of a data set's annotations at most; those of COCO's training photos have nearly half of that."""

ABOUT: dict[str, Any] = json.loads(Path(__file__).with_name("benchmarks.json").read_text(encoding="utf-8"))
"""By class list: ``data sets`` of it, and whether all beyond the classes is a background that is scored; ``title``;
``split``, the usual one; ``whole``, the number of its images, or numbers, and the SHA-256 of their ids, sorted, one a
line; ``source``, where to get it; ``folder``, in which it lies where several lie in one; ``ids`` of the classes in its
mask files if not 1, 2, ...; ``others`` there that are background; ``merged``, the ids of Context's classes among its
459."""

DATASETS = {name: (words, scored) for words, about in ABOUT.items() for name, scored in about["data sets"].items()}
"""The class list of each data set, and whether all beyond its classes is a background that is scored, or no class."""


def load_dataset(name: str, root: str | Path, split: str | None = None, protocol: str = "standard") -> Dataset:
    """Return a data set by its name; ``split``: None for the usual one; ``protocol`` "authors": with their truth.

    Raises: InputError if there is none of that name, or a file is missing: it says which, and where to get it.
    """
    if name not in DATASETS:
        raise InputError(f"no data set {name!r}; the data sets are {', '.join(DATASETS)}")
    root = Path(expanded(root))
    if not os.path.isdir(root):
        raise InputError(f"there is no folder {root}; give the one that holds the data set")
    try:
        return folder(root, split) if name == "folder" else _benchmark(name, root, split, protocol)
    except (InputError, KeyError, TypeError, AttributeError, OSError, ValueError) as error:
        damaged = f"annotations in {root} are damaged: {one_line(repr(error))}"  # they lack something, or name no file
        fault = error if isinstance(error, InputError) else damaged
        raise InputError(f"{fault}; {ABOUT[DATASETS[name][0]]['source']}") from error


def folder(root: Path, split: str | None) -> Dataset:
    """Return the photos of a folder, with a background if a class has that name in any case; 255 is ignored."""
    base = root / (split or "")
    samples = pairs(base)
    if samples is None:
        raise InputError(f"{base} lacks images/ or masks/")
    listed = next((path for path in (base / "classes.txt", root / "classes.txt") if os.path.isfile(path)), None)
    if listed is None:
        raise InputError(f"the class list {base / 'classes.txt'} is missing")
    names = _names_by_id(listed)
    things = {value: name for value, name in names.items() if name.casefold() != BACKGROUND}
    if not 0 < len(things) < IGNORE or max(names) >= IGNORE:
        raise InputError(f"{listed} lists no class, or an id above 254")
    if len({name.casefold() for name in things.values()}) < len(things):
        raise InputError(f"{listed} lists a name twice; name each class once")
    to_label = table(things, dict.fromkeys(names, 0) | {255: IGNORE})
    title, background = base.resolve().name, len(things) < len(names)  # the root may be "."
    classes, layout = tuple(things.values()), "folder"
    return Dataset(title, title, classes, background, samples.found, to_label, "folder", layout, samples.faults)


def voc(root: Path, split: str) -> Samples:
    """Return the samples of VOC 2012."""
    base = first_folder(root, "VOC2012", "VOCdevkit/VOC2012", ".")
    keys, masks = base / f"ImageSets/Segmentation/{split}.txt", base / "SegmentationClass"
    return from_split(keys, base / "JPEGImages", masks, f"VOCdevkit, {split}")


def context(root: Path, split: str) -> Samples:
    """Return the samples of Pascal Context, from PNG or from the JSON of 459 classes."""
    base = first_folder(root, "VOC2010", "VOCdevkit/VOC2010", ".")
    photos, masks = base / "JPEGImages", base / "SegmentationClassContext"
    if os.path.isdir(masks):
        keys = base / f"ImageSets/SegmentationContext/{split}.txt"
        return from_split(keys, photos, masks, f"SegmentationClassContext, {split}")
    merged = base / "trainval_merged.json"
    content, layout = read_json(merged, ANNOTATIONS), f"{merged.name}, {split}"
    images = {image["image_id"]: image for image in content["images"] if image["phase"] == split}
    return _instances(images, content["annos_segmentation"], photos, layout, merged.name, _merged)


def ade(root: Path, split: str) -> Samples:
    """Return the samples of ADE20K as in MIT's scene parsing benchmark."""
    base = first_folder(root, "ADEChallengeData2016", ".")
    photos, masks = first_folder(base, f"images/{split}"), first_folder(base, f"annotations/{split}")
    return from_masks(masks, photos, f"ADEChallengeData2016, {split}")


def objects(root: Path, split: str) -> Samples:
    """Return the samples of COCO-Object: the things in COCO-Stuff's masks, as GroupViT's converter writes them.

    All else there is background, what is unlabelled too. Where there is no mask, the annotations are painted.
    """
    ending = "_instanceTrainIds.png"
    for masks in (root / f"annotations/{split}", root / f"{split}_masks"):
        if any(masks.glob(f"*{ending}")):
            samples = from_masks(masks, _photos(root, split), f"instanceTrainIds PNG, {split}", ending)
            return replace(samples, ids=range(1, 81))
    try:
        masks = _stuff_masks(root, split)
        samples = from_masks(masks, _photos(root, split), f"things of stuffthingmaps PNG, {split}")
    except InputError:
        return replace(painted(root, split), lacks="COCO-Stuff's masks, which papers score, are not there")
    found = (replace(one, mask=partial(_category_ids, masks / f"{one.key}.png")) for one in samples.found)
    return replace(samples, found=tuple(found))


def painted(root: Path, split: str) -> Samples:
    """Return the samples of COCO-Object as PnP-OVSS is scored: of annotations that overlap, the first is on top.

    Source: ``Load_GroundTruth`` of its authors' code.
    """
    path = root / f"annotations/instances_{split}.json"
    content, layout = read_json(path, ANNOTATIONS), f"{path.name}, painted, the earlier over the later"
    images = {image["id"]: image for image in content["images"]}
    return _instances(images, content["annotations"][::-1], _photos(root, split), layout, path.name)


def stuff(root: Path, split: str) -> Samples:
    """Return the samples of COCO-Stuff."""
    masks = _stuff_masks(root, split)
    if any(masks.glob("*_labelTrainIds.png")):
        layout, ending = f"labelTrainIds PNG, {split}", "_labelTrainIds.png"
        return replace(from_masks(masks, _photos(root, split), layout, ending), ids=range(171))
    return from_masks(masks, _photos(root, split), f"stuffthingmaps PNG, {split}")


def panoptic(root: Path, split: str) -> Samples:
    """Return the samples of COCO panoptic: the official coloured PNG and their JSON."""
    path = root / f"annotations/panoptic_{split}.json"
    entries = read_json(path, ANNOTATIONS)["annotations"]
    listed = {Path(entry["file_name"]).stem: entry["segments_info"] for entry in entries}
    photos, name = _photos(root, split), f"panoptic_{split}"
    masks = first_folder(root, f"annotations/{name}", name)
    found = [photos / f"{key}.jpg" for key in sorted(listed)]
    truths = {key: partial(_segments, masks / f"{key}.png", segments) for key, segments in listed.items()}
    return dataset.collect(found, lambda key: truths[key], f"{path.name} and PNG", path.name)


FIND: dict[str, Callable[[Path, str], Samples]] = {
    "voc": voc,
    "context": context,
    "coco-object": objects,
    "coco-stuff": stuff,
    "coco-panoptic": panoptic,
    "ade20k": ade,
}
"""By class list. Each finds the samples of a split below a root folder."""

THEIRS = {"coco-object": painted}
"""The same for the truths that the authors of PnP-OVSS read otherwise."""


def _instances(
    images: dict[Any, Any], regions: list[Any], photos: Path, layout: str, where: str, painter: Any = None
) -> Samples:
    """Return samples whose truth ``painter`` paints from regions; ``images``: what the annotation file says, by id."""
    by_image: dict[Any, list[Any]] = defaultdict(list)
    for region in regions:
        by_image[region["image_id"]].append(region)
    truths = {
        Path(image["file_name"]).stem: partial(painter or _painted, image, by_image[n]) for n, image in images.items()
    }
    found = sorted((photos / image["file_name"] for image in images.values()), key=lambda path: path.stem)
    return dataset.collect(found, lambda key: truths[key], layout, where)


def _painted(image: Any, regions: list[Any], size: Size) -> Integer[np.ndarray, "h w"]:
    """Return the category ids of an image, once its annotations say that it is as large as its photo."""
    height, width = whole_number(image, "height"), whole_number(image, "width")
    check_size("its mask in the annotations", height, width, size)
    return paint(image, regions)


def _merged(image: Any, regions: list[Any], size: Size) -> Integer[np.ndarray, "h w"]:
    """Return labels from regions of the 459 classes of Context; 0 for those that are none of the 59."""
    labels = table(ABOUT["context"]["merged"], dict.fromkeys(range(460), 0), size=460)
    return dataset.translate(_painted(image, regions, size), labels, "the truth")


def _segments(path: Path, segments: list[Any], size: Size) -> Int[np.ndarray, "h w"]:
    """Return category ids; a segment's number is R + 256 G + 65536 B, 0 where there is none."""
    category = {whole_number(one, "id"): whole_number(one, "category_id") for one in segments}
    colours = np.asarray(dataset.open_mask(path, size).convert("RGB"))
    found = np.empty(colours.shape[:2], dtype=np.int32)
    for row, line in enumerate(colours):  # row by row: counting takes forty bytes per pixel
        numbers, index = np.unique(line.astype(np.int64) @ np.array([1, 256, 65536]), return_inverse=True)
        strange = [number for number in numbers.tolist() if number and number not in category]
        if strange:
            raise InputError(f"the mask {path} holds the unknown segment {strange[0]}; fetch it and its JSON anew")
        found[row] = np.array([category.get(number, 0) for number in numbers.tolist()], dtype=np.int32)[index]
    return found


def _category_ids(path: Path, size: Size) -> Integer[np.ndarray, "h w"]:
    """Return the category ids of a mask of COCO-Stuff, which are one more than its values; 0 where it is unlabelled."""
    values = dataset.read_values(path, size).astype(np.int32)
    return np.where(values == IGNORE, 0, values + 1)


def _stuff_masks(root: Path, split: str) -> Path:
    folders = ("stuffthingmaps", "annotations", "stuffthingmaps_trainval2017")
    return first_folder(root, *(f"{folder}/{split}" for folder in folders), f"{split}_masks")


def _photos(root: Path, split: str) -> Path:
    return first_folder(root, split, f"images/{split}", "images")


def _benchmark(name: str, root: Path, split: str | None, protocol: str) -> Dataset:
    """Return a data set of the table, from its own files or from ``images/`` and ``masks/`` with the same values."""
    words, background = DATASETS[name]
    about, classes, nothing = ABOUT[words], class_names(words), 0 if background else IGNORE
    find = THEIRS.get(words, FIND[words]) if protocol == "authors" else FIND[words]
    samples = pairs(root) or find(root, split or about["split"])
    ids = samples.ids or about.get("ids", range(1, len(classes) + 1))
    others = dict.fromkeys(about.get("others", ()), nothing) | {0: nothing, 255: IGNORE}
    title = f"{about['title']}, {len(classes)} classes" + (" and background" if background else "")
    values, rest = table(ids, others), (samples.layout, samples.faults, samples.lacks)
    return Dataset(name, title, classes, background, samples.found, values, words, *rest)


def _names_by_id(path: Path) -> dict[int, str]:
    names: dict[int, str] = {}
    for number, line in enumerate(read_lines(path)):
        before, colon, after = line.partition(":")
        numbered = colon and before.strip().isdecimal()
        names[int(before) if numbered else number] = after.strip() if numbered else line
    return names
