"""Results as every format takes them: from a folder that ``segment`` or ``batch`` wrote, or straight from memory."""

import io
import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Integer
from PIL import Image

from pnp_ovss.errors import InputError
from pnp_ovss.images import MAX_PIXELS, no_warnings, shown
from pnp_ovss.segmentation import Segmentation
from pnp_ovss.types import BACKGROUND

MANIFEST, IMAGES, SHARDS = "manifest.json", "images", "shards"
"""What ``batch`` writes into its folder."""
OVERLAY = ".overlay.png"
SHARDS_HELD = 256
"""Parquet files whose label maps are held, as PNG, about a megabyte each: photos go by key, which all files share."""


@dataclass(frozen=True)
class Region:
    """Where a class is. ``category`` is the class's number, from 1."""

    name: str
    category: int
    mask: Bool[np.ndarray, "h w"]
    """At least one pixel."""
    score: float | None = None
    """In [0, 1], where the result is still in memory."""

    @property
    def area(self) -> int:
        """Pixels."""
        return int(self.mask.sum())

    @property
    def box(self) -> tuple[int, int, int, int]:
        """Left, top, and the column and row after the last, in pixels."""
        rows, columns = np.flatnonzero(self.mask.any(axis=1)), np.flatnonzero(self.mask.any(axis=0))
        return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


@dataclass(frozen=True)
class Labelled:
    """A photo's label map, read when asked for."""

    key: str
    """Names its files: a path with ``/`` and without suffix."""
    file_name: str
    """Of the photo: the key with the photo's own suffix."""
    height: int
    width: int
    classes: tuple[str, ...]
    """What the labels mean; empty where nothing was named."""
    read: Callable[[], Integer[np.ndarray, "h w"]]
    scores: tuple[float, ...] = ()
    """Per class, in [0, 1]; empty if not known."""
    model: str = ""
    photo: str = ""
    """Where the photo was."""

    def labels(self) -> Integer[np.ndarray, "h w"]:
        """Return the label map, which indexes ``classes``.

        Raises: InputError if it cannot be read or does not fit the record.
        """
        if not self.classes:
            return np.zeros((self.height, self.width), dtype=np.uint8)
        labels = self.read()
        if labels.shape != (self.height, self.width) or labels.max(initial=0) >= len(self.classes):
            raise InputError(
                f"the label map of {shown(self.key)} is {labels.shape} with labels up to {labels.max(initial=0)}, its "
                f"record says {(self.height, self.width)} and {len(self.classes)} classes; segment the photo again"
            )
        return labels

    def values(self, names: Sequence[str]) -> Integer[np.ndarray, "h w"]:
        """Return the label map with the number of each class in ``names``, from 1, and 0 for the background."""
        numbers = [
            0 if is_background(index, name) else names.index(name) + 1 for index, name in enumerate(self.classes)
        ]
        values: np.ndarray = np.array(numbers or [0])[self.labels()]
        return values

    def regions(self, names: Sequence[str]) -> Iterator[Region]:
        """Yield the region of every class that is there, but the background, in the order of ``names``."""
        values = self.values(names)
        scores = dict(zip(self.classes, self.scores, strict=False))
        for number in np.unique(values[values > 0]).tolist():
            name = names[number - 1]
            yield Region(name, number, values == number, scores.get(name))


def is_background(index: int, name: str) -> bool:
    """Return whether a label is the background, rather than a class of that name."""
    return (index, name) == (0, BACKGROUND)


def all_names(results: Sequence[Labelled], order: Sequence[str] = ()) -> tuple[str, ...]:
    """Return the name of every class but the background: ``order`` if given, else in order of first appearance.

    Raises: InputError if a result has a class that ``order`` lacks.
    """
    found = dict.fromkeys(
        name for result in results for index, name in enumerate(result.classes) if not is_background(index, name)
    )
    strange = [name for name in found if name not in order]
    if order and strange:
        raise InputError(f"the results have the class {strange[0]!r}, which the list of classes lacks; add it there")
    return tuple(order) or tuple(found)


def in_memory(result: Segmentation, file_name: str = "photo.jpg") -> Labelled:
    """Return a segmentation as formats take it. The score of a class is the mean of ``scores`` in its mask."""
    inside = [result.labels == label for label in range(len(result.classes))]
    means = [
        float(scores[mask].mean()) if mask.any() else 0.0 for scores, mask in zip(result.scores, inside, strict=True)
    ]
    return Labelled(
        key=Path(file_name).stem,
        file_name=file_name,
        height=result.labels.shape[0],
        width=result.labels.shape[1],
        classes=result.classes,
        read=lambda: result.labels,
        scores=tuple(means),
        model=result.model,
    )


def read_results(folder: Path) -> list[Labelled]:
    """Return what ``segment`` or ``batch`` wrote into a folder, sorted by key; label maps are read when asked for.

    Raises: InputError if it is no such folder, it is empty, or a file in it is missing or strange.
    """
    if not os.path.isdir(folder):
        raise InputError(f"there is no folder {shown(folder)}; give the one that segment or batch wrote")
    records = sorted(folder.glob("*.json"))
    of_segment = [record for record in records if record.with_suffix(".png").is_file()]
    by_batch = folder / MANIFEST in records and folder / MANIFEST not in of_segment
    if by_batch and of_segment:
        raise InputError(
            f"the folder {shown(folder)} holds results of batch, and of segment, such as {shown(of_segment[0].name)}; "
            "move one kind to a folder of its own"
        )
    results = list(_batched(folder) if by_batch else _segmented(folder, records))
    if not results:
        raise InputError(f"the folder {shown(folder)} holds no result; give the one that segment or batch wrote")
    return sorted({result.key: result for result in results}.values(), key=lambda result: result.key)


def _segmented(folder: Path, records: Sequence[Path]) -> Iterator[Labelled]:
    known = {place for record in records for place in (record.with_suffix(".png"), _overlay(record))}
    for path in sorted(folder.glob(f"*{OVERLAY}")):
        stem = path.name.removesuffix(OVERLAY)
        if path not in known and (folder / f"{stem}.png").is_file():
            raise InputError(f"{shown(path)} has no record {shown(stem)}.json beside it; segment that photo again")
    for record in records:
        told = _told(record)
        if "key" in told:
            raise InputError(f"{shown(record)} is a record of batch; give the folder that has its {MANIFEST}")
        yield _loose(folder, record, told)


def _batched(folder: Path) -> Iterator[Labelled]:
    """Yield the packed results and then those of their own, which are newer where a key has both."""
    maps = lru_cache(maxsize=SHARDS_HELD)(_maps)  # of this reading alone: the files may change before the next
    for path in sorted((folder / SHARDS).glob("*.parquet")):
        yield from _packed(path, maps)
    for record in sorted((folder / IMAGES).rglob("*.json")):
        yield _loose(folder / IMAGES, record, _told(record))


def _overlay(record: Path) -> Path:
    """Return the overlay that ``segment`` writes beside a record."""
    return record.with_name(record.stem + OVERLAY)


def _told(record: Path) -> dict[str, Any]:
    """Return what a record tells, nothing where it is no object."""
    try:
        told = json.loads(record.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{shown(record)} is cut short or no record; segment that photo again") from error
    return told if isinstance(told, dict) else {}


def _loose(base: Path, record: Path, told: dict[str, Any]) -> Labelled:
    labels = record.with_suffix(".png")
    key = record.relative_to(base).with_suffix("").as_posix()
    result = _result(told, key, shown(record), partial(_decode, labels, shown(labels)))
    if result.classes and not labels.is_file():
        raise InputError(f"{shown(record)} has no label map {shown(labels.name)} beside it; segment that photo again")
    return result


def _packed(path: Path, maps: Callable[[Path], dict[str, bytes]]) -> Iterator[Labelled]:
    for row in _rows(path, ["key", "photo", "width", "height", "classes", "model"]):
        key = str(row["key"])
        if not key or Path(key).is_absolute() or ".." in Path(key).parts:
            raise InputError(f"{shown(path)} has the key {key!r}; a path below the photos is wanted")
        place = f"{shown(path)}, {shown(key)}"
        yield _result(row, key, place, partial(_unpack, maps, path, key, place))


def _rows(path: Path, columns: list[str]) -> list[dict[str, Any]]:
    try:
        from pyarrow import parquet
    except ImportError as error:
        raise InputError(
            f"{shown(path)} needs pyarrow, which is not installed; run pip install 'pnp-ovss[batch]'"
        ) from error
    try:
        rows: list[dict[str, Any]] = parquet.read_table(path, columns=columns).to_pylist()
    except (OSError, ValueError) as error:  # pyarrow's own errors are children of these
        raise InputError(f"{shown(path)} is cut short or no Parquet file of batch; run batch again") from error
    return rows


def _maps(path: Path) -> dict[str, bytes]:
    """Return the label maps of a Parquet file by key, as PNG; photos in which nothing was named have none."""
    return {row["key"]: row["labels"] or b"" for row in _rows(path, ["key", "labels"])}


def _unpack(maps: Callable[[Path], dict[str, bytes]], path: Path, key: str, place: str) -> Integer[np.ndarray, "h w"]:
    return _decode(io.BytesIO(maps(path).get(key, b"")), place)


def _result(told: Any, key: str, place: str, read: Callable[[], Integer[np.ndarray, "h w"]]) -> Labelled:
    """Return the result that a record tells of.

    Raises: InputError if it is no record.
    """
    photo, classes = told.get("photo"), told.get("classes")
    height, width = told.get("height"), told.get("width")
    fits = (
        isinstance(photo, str)
        and isinstance(classes, list)
        and all(isinstance(name, str) and name for name in classes)
        and len(set(classes)) == len(classes)
        and all(type(side) is int and side > 0 for side in (height, width))
        and height * width <= MAX_PIXELS
    )
    if not fits:
        raise InputError(f"{place} is no record of a result; give a folder that segment or batch wrote, and no other")
    suffix = Path(photo).suffix or ".jpg"
    return Labelled(
        key, key + suffix, height, width, tuple(classes), read, model=str(told.get("model") or ""), photo=photo
    )


def _decode(place: Path | io.BytesIO, name: str) -> Integer[np.ndarray, "h w"]:
    """Return the values of a palette picture."""
    try:
        with no_warnings, Image.open(place, formats=("PNG",)) as picture:
            mode, values = picture.mode, np.asarray(picture)
    except Exception as error:  # Pillow's decoders raise whatever they stumble over
        raise InputError(f"the label map {name} is missing, cut short or damaged; segment that photo again") from error
    if mode not in ("P", "L"):
        raise InputError(f"the label map {name} has mode {mode}; one channel of labels is wanted")
    return values
