"""COCO 2017: 80 things with or without a background, 171 things and stuff, and the 133 panoptic classes."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int, Integer

from pnp_ovss.data.dataset import IGNORE, Dataset, Samples, benchmark, table
from pnp_ovss.data.files import annotations, collect, first_folder, from_masks, pairs, read_colours, whole_number
from pnp_ovss.data.rle import paint
from pnp_ovss.data.vocabulary import STUFF, THINGS
from pnp_ovss.errors import InputError

PANOPTIC_STUFF = (
    *(92, 93, 95, 100, 107, 109, 112, 118, 119, 122, 125, 128, 130, 133, 138, 141, 144, 145, 147, 148, 149, 151, 154),
    *(155, 156, 159, 161, 166, 168, 171, 175, 176, 177, 178, 180, 181, *range(184, 201)),
)
"""COCO's ids of the 53 stuff classes of the panoptic task."""

Paint = Callable[[str, Any, list[Any]], Integer[np.ndarray, "h w"]]
"""Returns the truth of an image from its key, its entry and its regions."""


def objects(root: Path, split: str | None, background: bool) -> Dataset:
    """Return COCO-Object: 80 objects, and all else as background, or only the pixels of the objects."""
    split, nothing = split or "val2017", 0 if background else IGNORE
    values = table(THINGS, dict.fromkeys((0, *STUFF, *PANOPTIC_STUFF), nothing) | {255: IGNORE})
    samples = pairs(root)
    if samples is None:
        places = (root / f"annotations/{split}", root / f"{split}_masks")
        converted = next((place for place in places if any(place.glob("*_instanceTrainIds.png"))), None)
        if converted is None or (root / f"annotations/instances_{split}.json").is_file():
            samples = _instances(root, split)
        else:
            values = table(range(1, len(THINGS) + 1), {0: nothing, 255: IGNORE})
            layout, ending = f"instanceTrainIds PNG, {split}", "_instanceTrainIds.png"
            samples = from_masks(converted, _photos(root, split), layout, ending)
    return benchmark(f"object{80 + background}", "COCO-Object", "coco-object", values, samples, background)


def stuff171(root: Path, split: str | None) -> Dataset:
    """Return COCO-Stuff: 80 things and 91 stuff classes; 255 is ignored."""
    split = split or "val2017"
    values = table([number - 1 for number in THINGS + STUFF], {255: IGNORE})  # the files count from 0
    samples = pairs(root)
    if samples is None:
        folders = ("stuffthingmaps", "annotations", "stuffthingmaps_trainval2017")
        masks = first_folder(root, *(f"{folder}/{split}" for folder in folders), f"{split}_masks")
        layout, ending = f"stuffthingmaps PNG, {split}", ".png"
        if any(masks.glob("*_labelTrainIds.png")):
            values = table(range(171), {255: IGNORE})
            layout, ending = f"labelTrainIds PNG, {split}", "_labelTrainIds.png"
        samples = from_masks(masks, _photos(root, split), layout, ending)
    return benchmark("stuff171", "COCO-Stuff", "coco-stuff", values, samples)


def panoptic133(root: Path, split: str | None) -> Dataset:
    """Return COCO's panoptic classes, 80 things and 53 stuff; unlabelled pixels are ignored.

    Masks are the official coloured PNG beside their JSON, or 8-bit PNG of category ids in ``masks/``.
    """
    values = table(THINGS + PANOPTIC_STUFF, {0: IGNORE, 255: IGNORE})
    samples = pairs(root) or _panoptic(root, split or "val2017")
    return benchmark("panoptic133", "COCO panoptic", "coco-panoptic", values, samples)


def from_instances(
    images: Mapping[int | str, Any], regions: Iterable[Any], photos: Path, layout: str, where: str, mask: Paint = paint
) -> Samples:
    """Return samples whose truth ``mask`` paints from regions.

    ``images``: what the annotation file, ``where``, says of each, by id.
    """
    by_image: dict[int | str, list[Any]] = defaultdict(list)
    for region in regions:
        by_image[region["image_id"]].append(region)
    ids = {Path(image["file_name"]).stem: number for number, image in images.items()}
    found = sorted((photos / image["file_name"] for image in images.values()), key=lambda path: path.stem)
    return collect(found, lambda key: partial(mask, key, images[ids[key]], by_image[ids[key]]), layout, where)


def _instances(root: Path, split: str) -> Samples:
    path = root / f"annotations/instances_{split}.json"
    with annotations(path) as content:
        images = {image["id"]: image for image in content["images"]}
        layout = f"{path.name}, painted in file order"
        return from_instances(images, content["annotations"], _photos(root, split), layout, path.name)


def _panoptic(root: Path, split: str) -> Samples:
    path = root / f"annotations/panoptic_{split}.json"
    with annotations(path) as content:
        listed = [(Path(entry["file_name"]).stem, entry["segments_info"]) for entry in content["annotations"]]
    photos, segments = _photos(root, split), dict(listed)
    masks = first_folder(root, f"annotations/panoptic_{split}", f"panoptic_{split}")
    found = [photos / f"{key}.jpg" for key in sorted(key for key, _ in listed)]
    layout = f"{path.name} and PNG"
    return collect(found, lambda k: partial(_segments, k, masks / f"{k}.png", segments[k]), layout, path.name)


def _segments(key: str, path: Path, segments: list[Any]) -> Int[np.ndarray, "h w"]:
    """Return category ids; a segment's number is R + 256 G + 65536 B, 0 where there is none."""
    try:
        category = {whole_number(segment, "id"): whole_number(segment, "category_id") for segment in segments}
    except InputError as error:
        raise InputError(f"{key} has a damaged segment: {error}") from error
    coded = read_colours(path).astype(np.int64) @ np.array([1, 256, 65536])
    numbers, index = np.unique(coded, return_inverse=True)
    strange = [number for number in numbers.tolist() if number and number not in category]
    if strange:
        raise InputError(f"the mask {path} holds the unknown segment {strange[0]}; fetch mask and JSON anew")
    categories = np.array([category.get(number, 0) for number in numbers.tolist()], dtype=np.int32)
    return np.asarray(categories[index].reshape(coded.shape))


def _photos(root: Path, split: str) -> Path:
    return first_folder(root, split, f"images/{split}", "images")
