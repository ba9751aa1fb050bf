"""COCO 2017: 80 things with or without a background, 171 things and stuff, and the 133 panoptic classes."""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int
from PIL import Image

from pnp_ovss.data.dataset import (
    IGNORE,
    NO_FAULT,
    Dataset,
    Faults,
    Kinds,
    Sample,
    first_folder,
    from_file,
    once,
    pairs,
    read_json,
    table,
    whole,
)
from pnp_ovss.data.rle import paint
from pnp_ovss.data.vocabulary import STUFF, THINGS, class_names
from pnp_ovss.errors import InputError

PANOPTIC_STUFF = (
    *(92, 93, 95, 100, 107, 109, 112, 118, 119, 122, 125, 128, 130, 133, 138, 141, 144, 145, 147, 148, 149, 151, 154),
    *(155, 156, 159, 161, 166, 168, 171, 175, 176, 177, 178, 180, 181, *range(184, 201)),
)
"""COCO's ids of the 53 stuff classes of the panoptic task."""

PHOTOS = ("{split}", "images/{split}", "images")
SOURCE = "fetch val2017.zip and {archive} from https://cocodataset.org/#download and unpack them into one folder"

Listed = tuple[tuple[Sample, ...], Faults, str]


def object81(root: Path, split: str | None = None) -> Dataset:
    """Return COCO-Object: 80 objects, and all else as background.

    Raises: InputError if it is not there.
    """
    return _objects("object81", root, split or "val2017", background=True)


def object80(root: Path, split: str | None = None) -> Dataset:
    """Return COCO-Object where only the pixels of the 80 objects are asked for.

    Raises: InputError if it is not there.
    """
    return _objects("object80", root, split or "val2017", background=False)


def stuff171(root: Path, split: str | None = None) -> Dataset:
    """Return COCO-Stuff: 80 things and 91 stuff classes; 255 is ignored.

    Raises: InputError if it is not there.
    """
    split = split or "val2017"
    source = SOURCE.format(archive="stuffthingmaps_trainval2017.zip")
    classes, ids = class_names("coco-stuff"), THINGS + STUFF
    values = {number - 1: label for label, number in enumerate(ids, 1)}  # the files count from 0
    samples, faults, layout = _from_pairs(root, source)
    if not samples:
        masks = first_folder(
            root, _below(("stuffthingmaps", "annotations", "stuffthingmaps_trainval2017"), split), source
        )
        if any(masks.glob("*_labelTrainIds.png")):
            values = {label - 1: label for label in range(1, len(ids) + 1)}
            samples, faults = _from_masks(root, masks, split, "_labelTrainIds.png", source)
            layout = f"labelTrainIds PNG, {split}"
        else:
            samples, faults = _from_masks(root, masks, split, ".png", source)
            layout = f"stuffthingmaps PNG, {split}"
    title = "COCO-Stuff, 171 classes"
    return Dataset(
        "stuff171", title, classes, False, samples, table(values | {255: IGNORE}), "coco-stuff", layout, faults
    )


def panoptic133(root: Path, split: str | None = None) -> Dataset:
    """Return COCO's panoptic classes, 80 things and 53 stuff; unlabelled pixels are ignored.

    Masks are the official coloured PNG beside their JSON, or 8-bit PNG of category ids in ``masks/``.

    Raises: InputError if it is not there.
    """
    split = split or "val2017"
    source = SOURCE.format(archive="panoptic_annotations_trainval2017.zip")
    values = {0: IGNORE, 255: IGNORE} | {number: label for label, number in enumerate(THINGS + PANOPTIC_STUFF, 1)}
    samples, faults, layout = _from_pairs(root, source)
    if not samples:
        samples, faults, layout = _panoptic(root, split, source)
    title = "COCO panoptic, 133 classes"
    names = class_names("coco-panoptic")
    return Dataset("panoptic133", title, names, False, samples, table(values), "coco-panoptic", layout, faults)


def _objects(name: str, root: Path, split: str, background: bool) -> Dataset:
    source = SOURCE.format(archive="annotations_trainval2017.zip")
    nothing = 0 if background else IGNORE
    by_id = {number: label for label, number in enumerate(THINGS, 1)}
    others = dict.fromkeys((0, *STUFF, *PANOPTIC_STUFF), nothing)
    values = others | by_id | {255: IGNORE}
    samples, faults, layout = _from_pairs(root, source)
    converted = next(
        (f for f in _folders(root, ("annotations",), split) if any(f.glob("*_instanceTrainIds.png"))), None
    )
    if samples:
        layout += ", category ids"
    elif (root / f"annotations/instances_{split}.json").is_file() or converted is None:
        samples, faults, layout = _instances(root, split, source)
    else:
        values = {0: nothing, 255: IGNORE} | {label: label for label in range(1, len(THINGS) + 1)}
        samples, faults = _from_masks(root, converted, split, "_instanceTrainIds.png", source)
        layout = f"instanceTrainIds PNG, {split}"
    title = "COCO-Object, 80 classes" + (" and background" if background else "")
    names = class_names("coco-object")
    return Dataset(name, title, names, background, samples, table(values), "coco-object", layout, faults)


def _instances(root: Path, split: str, source: str) -> Listed:
    """Return samples whose truth is painted from the instances in file order, the later over the earlier."""
    wanted: dict[str, Kinds] = {
        "images": {"id": int | str, "file_name": str},
        "annotations": {"image_id": int | str},
    }
    content = read_json(root / f"annotations/instances_{split}.json", wanted, source)
    photos = first_folder(root, [place.format(split=split) for place in PHOTOS], source)
    regions: dict[int | str, list[dict[str, Any]]] = {image["id"]: [] for image in content["images"]}
    for region in content["annotations"]:
        regions.setdefault(region["image_id"], []).append(region)
    images = {Path(image["file_name"]).stem: image for image in content["images"]}
    keys, faults = once(sorted(Path(i["file_name"]).stem for i in content["images"]), f"instances_{split}.json")
    samples = tuple(
        Sample(key, photos / images[key]["file_name"], partial(paint, key, images[key], regions[images[key]["id"]]))
        for key in keys
    )
    return samples, faults, f"instances_{split}.json, painted in file order"


def _panoptic(root: Path, split: str, source: str) -> Listed:
    wanted: dict[str, Kinds] = {"annotations": {"file_name": str, "segments_info": list}}
    content = read_json(root / f"annotations/panoptic_{split}.json", wanted, source)
    photos = first_folder(root, [place.format(split=split) for place in PHOTOS], source)
    masks = first_folder(root, (f"annotations/panoptic_{split}", f"panoptic_{split}"), source)
    segments = {Path(entry["file_name"]).stem: entry["segments_info"] for entry in content["annotations"]}
    keys, faults = once(
        sorted(Path(entry["file_name"]).stem for entry in content["annotations"]), f"panoptic_{split}.json"
    )
    samples = tuple(
        Sample(key, photos / f"{key}.jpg", partial(_segments, key, masks / f"{key}.png", segments[key])) for key in keys
    )
    return samples, faults, f"panoptic_{split}.json and PNG"


def _segments(key: str, path: Path, segments: list[Any]) -> Int[np.ndarray, "h w"]:
    """Return category ids; a segment's number is R + 256 G + 65536 B, 0 where there is none."""
    try:
        category = {whole(segment, "id"): whole(segment, "category_id") for segment in segments}
    except InputError as error:
        raise InputError(f"{key} has a damaged segment: {error}") from error
    try:
        with Image.open(path, formats=("PNG",)) as picture:
            red, green, blue = np.moveaxis(np.asarray(picture.convert("RGB")).astype(np.int64), -1, 0)
    except FileNotFoundError as error:
        raise InputError(f"there is no mask {path}; check the data set's folder") from error
    except Exception as error:  # Pillow's decoders raise whatever they stumble over
        raise InputError(f"the mask {path} is cut short or damaged; fetch it again") from error
    numbers, index = np.unique(red + 256 * green + 65536 * blue, return_inverse=True)
    strange = [number for number in numbers.tolist() if number and number not in category]
    if strange:
        raise InputError(f"the mask {path} holds the unknown segment {strange[0]}; fetch mask and JSON anew")
    return np.array([category.get(number, 0) for number in numbers.tolist()], dtype=np.int32)[index].reshape(red.shape)


def _from_pairs(root: Path, source: str) -> Listed:
    return *pairs(root, source), "images/ and masks/"


def _from_masks(root: Path, masks: Path, split: str, ending: str, source: str) -> tuple[tuple[Sample, ...], Faults]:
    photos = first_folder(root, [place.format(split=split) for place in PHOTOS], source)
    found = [path for path in sorted(masks.glob(f"*{ending}")) if ending != ".png" or "TrainIds" not in path.name]
    if not found:
        raise InputError(f"{masks} holds no mask; {source}")
    keys = [path.name.removesuffix(ending) for path in found]
    return tuple(Sample(k, photos / f"{k}.jpg", from_file(p)) for k, p in zip(keys, found, strict=True)), NO_FAULT


def _below(folders: tuple[str, ...], split: str) -> list[str]:
    return [f"{folder}/{split}" for folder in folders] + [f"{split}_masks"]


def _folders(root: Path, folders: tuple[str, ...], split: str) -> list[Path]:
    return [path for name in _below(folders, split) if (path := root / name).is_dir()]
