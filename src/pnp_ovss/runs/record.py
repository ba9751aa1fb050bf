"""What is written for a photo, a label map and a record of how it came about, and reading it again.

``segment`` writes ``<name>.png``, ``.overlay.png`` and ``.json`` into one folder. ``batch`` writes by key:
``images/<key>.png`` and ``.json``, the record last: where it lies, the other is whole. ``faults/<key>.json`` says why a
photo has none. ``shards/00000.parquet`` holds the results of the photos whose key falls to that shard; those in it have
left ``images/``. Whatever dies in between, a key counts once.
"""

import io
import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from functools import partial
from importlib.metadata import version
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import torch
from jaxtyping import Integer
from PIL import Image

from pnp_ovss.data import rle
from pnp_ovss.errors import ConfigError, InputError, import_extra
from pnp_ovss.files import Folder, as_json, as_png, parse_json, read_json, remove, save_png, write_bytes
from pnp_ovss.images import readable
from pnp_ovss.pictures import class_colours, label_png, overlay
from pnp_ovss.segmentation import Segmentation
from pnp_ovss.types import BACKGROUND, RGB, LabelMap

MANIFEST, IMAGES, FAULTS, SHARDS = "manifest.json", "images", "faults", "shards"
"""What ``batch`` writes into its folder."""

Labels = Integer[np.ndarray, "..."]
"""What a label map's file holds; whether it fits the record shows later."""


def make_record(key: str, place: str, photo: RGB, result: Segmentation | None, seconds: float) -> dict[str, Any]:
    """Return the record of a photo: what was found, and the settings, model and version that found it.

    ``place`` is the photo's path or URL, ``seconds`` what it took; ``result`` is None where nothing was named.
    ``segments`` holds the region of each class that is there, but the background, as COCO's compressed run lengths.
    """
    record = {"key": key, "photo": place, "width": photo.shape[1], "height": photo.shape[0]}
    if result is None:
        return record | {"classes": [], "areas": {}, "segments": []}
    record |= {"classes": list(result.classes), "areas": {name: round(area, 6) for name, area in result.areas.items()}}
    if result.quality is not None:
        named = result.classes[len(result.classes) - len(result.quality) :]
        record["quality"] = {name: round(float(q), 6) for name, q in zip(named, result.quality, strict=True)}
    return record | {
        "match": None if result.match is None else round(result.match, 6),
        "method": result.method,
        "model": result.model,
        "revision": result.revision,
        "version": result.version,
        "seconds": round(seconds, 3),
        "config": asdict(result.config),
        "segments": _segments(result),
    }


def _segments(result: Segmentation) -> list[dict[str, Any]]:
    found = []
    for label, name in enumerate(result.classes):
        mask = result.labels == label
        if (label, name) != (0, BACKGROUND) and mask.any():
            region = rle.encode(mask)
            found.append({"class": name, "label": label, "area": int(mask.sum()), "segmentation": region})
    return found


def write_result(folder: Path, path: Path, photo: RGB, result: Segmentation, seconds: float) -> None:
    """Write the three files of a photo, the record last: where it lies, the others are whole and belong to it.

    ``path`` is where the photo came from, ``seconds`` what it took.

    Raises: InputError if a file cannot be written.
    """
    labels, picture, record = _places(folder, path)
    remove(record)  # one of an earlier run, whose classes may be others
    save_png(labels, label_png(result.labels, class_colours(result.classes)))
    save_png(picture, overlay(photo, result.labels, result.classes))
    files = {"labels": labels.name, "overlay": picture.name}
    write_bytes(record, as_json(files | make_record(path.stem, str(path), photo, result, seconds), indent=2))


def _places(folder: Path, photo: Path) -> tuple[Path, Path, Path]:
    """Return where ``segment`` writes a photo's label map, overlay and record."""
    return folder / f"{photo.stem}.png", folder / f"{photo.stem}.overlay.png", folder / f"{photo.stem}.json"


def check_places(folder: Path, photos: Sequence[Path]) -> None:
    """Raise InputError if a result would take the place of a photo or of another photo's result."""
    sources = {os.path.realpath(photo) for photo in photos}
    taken: dict[str, Path] = {}
    for photo in photos:
        for place in _places(folder, photo):
            if os.path.realpath(place) in sources:
                raise InputError(f"{place} is a photo and would be overwritten; give another --out")
            holder = taken.setdefault(os.path.realpath(place), photo)
            if holder is not photo:
                raise InputError(
                    f"{holder} and {photo} would both be written to {place}; rename one, or give each its own --out"
                )


class Results:
    """The results of a run in its folder. Raises: InputError where a file cannot be read or written."""

    def __init__(self, folder: Folder) -> None:
        self.folder = folder

    def write(self, key: str, place: str, photo: RGB, result: Segmentation | None, seconds: float) -> None:
        """Write a photo's label map and record; ``None`` where nothing was named."""
        if result is not None:
            picture = label_png(result.labels, class_colours(result.classes))
            self.folder.write(f"{IMAGES}/{key}.png", as_png(picture))
        self.folder.write(f"{IMAGES}/{key}.json", as_json(make_record(key, place, photo, result, seconds)))

    def write_fault(self, key: str, place: str, fault: str) -> None:
        """Write down why a photo has no result."""
        self.folder.write(f"{FAULTS}/{key}.json", as_json({"key": key, "photo": place, "fault": fault}))

    def fault(self, key: str) -> str:
        """Return why a photo has no result, as far as that is written down, or nothing."""
        content = self.folder.read(f"{FAULTS}/{key}.json")
        return str(parse_json(content, f"{FAULTS}/{key}.json")["fault"]) if content else ""

    def forget_fault(self, key: str) -> None:
        """Remove what is written down of why a photo has no result."""
        self.folder.remove(f"{FAULTS}/{key}.json")

    def has(self, key: str) -> bool:
        """Return whether the photo's own record is there, as it is until it is packed."""
        return self.folder.read(f"{IMAGES}/{key}.json") is not None

    def keys_in(self, below: str) -> set[str]:
        """Return the keys of the results in ``images`` (those that are not packed) or of the faults."""
        return {name.removesuffix(".json") for name in self.folder.names(below) if name.endswith(".json")}

    def packed(self) -> set[str]:
        """Return the keys of the results in Parquet files."""
        return {row["key"] for name in self.shards() for row in read_shard(self.folder, name, ["key"])}

    def shards(self) -> list[str]:
        """Return the names of the Parquet files."""
        return [f"{SHARDS}/{name}" for name in self.folder.names(SHARDS) if name.endswith(".parquet")]

    def pack(self, shard: int, keys: Sequence[str]) -> None:
        """Move the results of these keys into the shard's Parquet file, where they take the place of older ones."""
        if not keys:
            return
        pyarrow, parquet = load_pyarrow()
        name = f"{SHARDS}/{shard:05}.parquet"
        rows = {row["key"]: row for row in read_shard(self.folder, name)} if name in self.shards() else {}
        rows |= {key: self._row(key) for key in keys}
        table = pyarrow.Table.from_pylist([rows[key] for key in sorted(rows)], schema=_schema(pyarrow))
        buffer = io.BytesIO()
        parquet.write_table(table, buffer, compression="zstd")
        self.folder.write(name, buffer.getvalue())
        for key in keys:  # the record first: a label map without one is no result
            self.folder.remove(f"{IMAGES}/{key}.json")
            self.folder.remove(f"{IMAGES}/{key}.png")

    def _row(self, key: str) -> dict[str, Any]:
        record = parse_json(self.folder.read(f"{IMAGES}/{key}.json") or b"", f"{IMAGES}/{key}.json")
        return record | {
            "labels": self.folder.read(f"{IMAGES}/{key}.png") if record["classes"] else None,
            "segments": [part | {"counts": part["segmentation"]["counts"]} for part in record["segments"]],
            "config": json.dumps(record["config"]) if "config" in record else None,
            "areas": [record["areas"][name] for name in record["classes"]],
        }


def _schema(pyarrow: Any) -> Any:
    text, whole, number = pyarrow.string(), pyarrow.int32(), pyarrow.float64()
    segment = pyarrow.struct({"class": text, "label": whole, "area": pyarrow.int64(), "counts": text})
    columns = {"key": text, "photo": text, "width": whole, "height": whole}
    columns |= {"classes": pyarrow.list_(text), "areas": pyarrow.list_(number), "match": number}
    columns |= {"labels": pyarrow.binary(), "segments": pyarrow.list_(segment)}
    columns |= {"method": text, "model": text, "revision": text, "version": text, "seconds": number, "config": text}
    return pyarrow.schema(columns)


def read_shard(folder: Folder, name: str, columns: list[str] | None = None) -> list[dict[str, Any]]:
    """Return the rows of a Parquet file of ``batch``, or only these columns of them, which are then all that is read.

    Raises: ConfigError if pyarrow is not installed; InputError if it is no whole Parquet file.
    """
    _, parquet = load_pyarrow()
    try:
        table = parquet.read_table(f"{folder.root}/{name}", columns=columns, filesystem=folder.files, partitioning=None)
        rows: list[dict[str, Any]] = table.select(columns or table.column_names).to_pylist()
    except (OSError, ValueError, KeyError) as error:  # pyarrow's own errors are children of these
        raise InputError(
            f"{folder.place}/{name} is no whole Parquet file of a run; remove it, and its photos are done again"
        ) from error
    return rows


def load_pyarrow() -> tuple[Any, Any]:
    """Return pyarrow and its module for Parquet.

    Raises: ConfigError if it is not installed.
    """
    return import_extra("pyarrow", "batch", "Parquet"), import_extra("pyarrow.parquet", "batch", "Parquet")


def load_results(folder: Path) -> list[LabelMap]:
    """Return what ``segment`` or ``batch`` wrote into a folder, sorted by key; label maps are decoded when needed.

    Raises: InputError if there is no such folder, it holds no result, or a record in it cannot be read.
    """
    if not os.path.isdir(folder):
        raise InputError(f"there is no folder {folder}; give the one that segment or batch wrote")
    # What is not packed is newer where a key has both.
    results = {result.key: result for result in (*_packed(folder), *_loose(folder))}
    if not results:
        raise InputError(f"the folder {folder} holds no result; give the one that segment or batch wrote")
    return [results[key] for key in sorted(results)]


def _loose(folder: Path) -> Iterator[LabelMap]:
    for base, pattern in ((folder, "*.json"), (folder / IMAGES, "**/*.json")):
        for path in sorted(base.glob(pattern)):
            labels = path.with_suffix(".png")
            if path == folder / MANIFEST and not labels.is_file():
                continue  # that of a run, not the record of a photo of this name
            key = path.relative_to(base).with_suffix("").as_posix()
            yield _label_map(read_json(path), key, str(path), partial(_decode, labels, str(labels)))


def _packed(folder: Path) -> Iterator[LabelMap]:
    columns = ["key", "photo", "width", "height", "classes", "model", "labels"]
    for path in sorted((folder / SHARDS).glob("*.parquet")):
        for row in read_shard(Folder(folder), f"{SHARDS}/{path.name}", columns):
            place = f"{path}, {row['key']}"
            yield _label_map(row, row["key"], place, partial(_unpack, row["labels"], place))


def _label_map(record: dict[str, Any], key: str, place: str, read: Callable[[], Labels]) -> LabelMap:
    try:
        photo, classes = str(record["photo"]), tuple(map(str, record["classes"]))
        height, width = int(record["height"]), int(record["width"])
        if PurePosixPath(key).is_absolute() or ".." in PurePosixPath(key).parts:
            raise ValueError(key)
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{place} is no record of a result; give a folder that segment or batch wrote") from error
    file_name = key + (Path(photo).suffix or ".jpg")
    return LabelMap(key, file_name, height, width, classes, read, model=record.get("model") or "", photo=photo)


def _unpack(content: bytes, place: str) -> Labels:
    return _decode(io.BytesIO(content), place)


def _decode(file: Path | io.BytesIO, place: str) -> Labels:
    """Return the values of a palette picture."""
    with readable(f"the label map {place}"), Image.open(file, formats=("PNG",)) as picture:
        labels: Labels = np.asarray(picture)
    return labels


def about_model(name: str, revision: str, device: str, dtype: str, config: Any) -> dict[str, Any]:
    """Return what every run writes down of its model and settings."""
    return {
        "model": name,
        "revision": revision,
        "device": device,
        "dtype": dtype,
        "torch": torch.__version__,
        "transformers": version("transformers"),
        "config": asdict(config),
    }


def check_same(folder: str, before: dict[str, Any], now: dict[str, Any]) -> None:
    """Raise ConfigError naming the first setting in which a run that is to go on differs from what is in ``folder``."""
    old, new = dict(_leaves(before)), dict(_leaves(json.loads(json.dumps(now))))
    for name in (*new, *old):
        if old.get(name) != new.get(name):
            raise ConfigError(
                f"{folder} holds a run with {name[-1]} {_brief(old.get(name))}, and {_brief(new.get(name))} is asked "
                "for; give another --out, or the settings of that run"
            )


def _leaves(settings: dict[str, Any], above: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    for name, value in settings.items():
        if isinstance(value, dict):
            yield from _leaves(value, (*above, name))
        else:
            yield (*above, name), value


def _brief(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else text[:57] + "..."
