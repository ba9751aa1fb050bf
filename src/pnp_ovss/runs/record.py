"""What is written for a photo: a label map, an overlay to look at, and a record of how they came about."""

import json
import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pnp_ovss.errors import InputError
from pnp_ovss.images import shown
from pnp_ovss.pictures import class_colours, label_png, overlay
from pnp_ovss.segmentation import Segmentation
from pnp_ovss.store import remove, save_png, write_text
from pnp_ovss.types import RGB

LONGEST = 255
"""Bytes of a file's name that common file systems take."""


def places(folder: Path, photo: Path) -> tuple[Path, Path, Path]:
    """Return where a photo's label map, overlay and record go."""
    return folder / f"{photo.stem}.png", folder / f"{photo.stem}.overlay.png", folder / f"{photo.stem}.json"


def check_places(folder: Path, photos: Sequence[Path]) -> None:
    """Raise InputError if a result would have too long a name, or the place of a photo or of another photo's result."""
    sources = {os.path.realpath(photo) for photo in photos}
    taken: dict[str, Path] = {}
    for photo in photos:
        for place in places(folder, photo):
            if len(os.fsencode(place.name)) > LONGEST:
                raise InputError(f"{shown(photo)} has too long a name: its results' would not fit; rename it")
            if os.path.realpath(place) in sources:
                raise InputError(f"{shown(place)} is a photo and would be overwritten; give another --out")
            holder = taken.setdefault(os.path.realpath(place), photo)
            if holder is not photo:
                raise InputError(
                    f"{shown(holder)} and {shown(photo)} would both be written to {shown(place)}; rename one, or give "
                    "each its own --out"
                )


def write_result(folder: Path, path: Path, photo: RGB, result: Segmentation, seconds: float) -> None:
    """Write the three files of a photo, the record last: where it lies, the others are whole and belong to it.

    ``path`` is where the photo came from, ``seconds`` what it took.

    Raises: InputError if a file cannot be written.
    """
    labels, picture, record = places(folder, path)
    remove(record)  # one of an earlier run, whose classes may be others
    save_png(labels, label_png(result.labels, class_colours(result.classes)))
    save_png(picture, overlay(photo, result.labels, result.classes))
    told = {"labels": labels.name, "overlay": picture.name} | about(str(path), photo, result, seconds)
    write_text(record, json.dumps(told, indent=2, ensure_ascii=False) + "\n")


def about(place: str, photo: RGB, result: Segmentation, seconds: float) -> dict[str, Any]:
    """Return what a record tells: of which photo, what was found, and who found it how."""
    return {
        "photo": place,
        "width": photo.shape[1],
        "height": photo.shape[0],
        "classes": list(result.classes),
        "areas": {name: round(area, 6) for name, area in result.areas.items()},
        **quality(result),
        "match": round(result.match, 6),
        "model": result.model,
        "revision": result.revision,
        "version": result.version,
        "seconds": round(seconds, 3),
        "config": asdict(result.config),
    }


def quality(result: Segmentation) -> dict[str, Any]:
    """Return what a record tells of the masks' quality: nothing where nobody asked."""
    if result.quality is None:
        return {}
    named = result.classes[len(result.classes) - len(result.quality) :]
    return {"quality": {name: round(float(value), 6) for name, value in zip(named, result.quality, strict=True)}}
