"""What is written for a photo, a label map and a record of how it came about, and reading it again.

``segment`` writes ``<name>.png``, ``.overlay.png`` and ``.json`` into one folder. ``batch`` writes by key:
``images/<key>.png`` and ``.json``, the record last: where it lies, the other is whole. ``faults/<key>.json`` says why a
photo has none. ``shards/00000.parquet`` and so on hold results that have left ``images/``. Whatever dies in between, a
key counts once.

A result belongs to the content of a photo: its record holds place, size, time and SHA-256 of the file. So that a run
that goes on need not open every record, ``state/index-*.json`` repeat that; what they lack is read from the record.
"""

import io
import json
import os
import secrets
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, astuple, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import torch
from PIL import Image

from pnp_ovss.data import rle
from pnp_ovss.errors import ConfigError, InputError, import_extra
from pnp_ovss.files import Folder, Source, as_json, as_png, parse_json, reachable, read_json
from pnp_ovss.images import MAX_PIXELS, Place, readable
from pnp_ovss.parts import Objects
from pnp_ovss.pictures import MOST_CLASSES
from pnp_ovss.redaction import bare
from pnp_ovss.segmentation import ABOUT, Segmentation
from pnp_ovss.types import BACKGROUND, RGB, LabelMap

BOTH = "{} and {} would both be written {}; rename one, or give each its own --out"
"""Said of two photos whose results have one name."""

MANIFEST, IMAGES, FAULTS, SHARDS, STATE = "manifest.json", "images", "faults", "shards", "state"
OVERLAYS, NUMBERS, LISTED = "overlays", f"{STATE}/classes.json", f"{STATE}/listed.json"
"""What ``batch`` writes into its folder."""
FOLDERS = (IMAGES, FAULTS, SHARDS, OVERLAYS, STATE)

INDEXED = 4096
"""Results in a file of the index."""
READERS = 16
"""Files that are read at a time where many small ones are: a store answers late."""
LATER = ("file", "values", "confidence", "instances")
"""Columns that the Parquet files of earlier versions lack."""

Entry = tuple[Source, int, int]
"""A result in the index: of which file, and the bytes of its record and label map, by which damaged ones are found."""


def make_record(
    key: str, source: Source, photo: RGB, result: Segmentation | None, seconds: float, instances: bool = False
) -> dict[str, Any]:
    """Return the record of a photo; ``result`` is None where nothing was named. A URL is stored without its secrets."""
    if result is not None:
        return result.record(key, source, seconds, instances)
    size = {"width": photo.shape[1], "height": photo.shape[0]}
    return {"key": key, **source.about()} | size | {"classes": [], "areas": {}, "segments": []}


def write_result(
    folder: Path,
    path: Place,
    photo: RGB,
    result: Segmentation,
    seconds: float,
    source: Source | None = None,
    instances: bool = False,
) -> None:
    """Write the three files of a photo as ``Segmentation.save`` does.

    ``path`` is where the photo came from, and ``source`` what its file was, if known.
    """
    replace(result, photo=photo).save(folder, path.stem, source or str(path), seconds, instances)


def _places(folder: Path, photo: Place) -> tuple[Path, Path, Path]:
    """Return where ``segment`` writes a photo's label map, overlay and record."""
    stem = folder / photo.stem
    return Path(f"{stem}.png"), Path(f"{stem}.overlay.png"), Path(f"{stem}.json")


def check_places(folder: Path, photos: Sequence[Place]) -> None:
    """Raise InputError if a result would take the place of a photo or of another photo's result."""
    with reachable("a photo", "has a name that no file has", "check the paths"):
        sources = {os.path.realpath(photo) for photo in photos}
    taken: dict[str, Place] = {}
    for photo in photos:
        for place in _places(folder, photo):
            if os.path.realpath(place) in sources:
                raise InputError(f"{place} is a photo and would be overwritten; give another --out")
            holder = taken.setdefault(os.path.realpath(place), photo)
            if holder is not photo:
                raise InputError(BOTH.format(holder, photo, f"to {place}"))


def numbers_in(folder: Path, but: Sequence[Place] = ()) -> dict[str, int]:
    """Return the value of each class in the label maps that ``segment`` wrote, but those of photos to be done anew."""
    numbers, again = dict[str, int](), {_places(folder, photo)[2] for photo in but}
    for path in sorted(folder.glob("*.json")):
        record: dict[str, Any] = {}
        with suppress(InputError):  # a damaged one, or another file
            record = {} if path in again else read_json(path)
        classes = record.get("classes") or ()
        for name, number in zip(classes, record.get("values") or range(len(classes)), strict=False):
            if name != BACKGROUND and 0 < number <= MOST_CLASSES and number not in numbers.values():
                numbers.setdefault(name, number)
    return numbers


def source_of(record: Mapping[str, Any]) -> Source | None:
    """Return the file that a record is of, or None if it does not say, as those of earlier versions."""
    try:
        source = Source(record["photo"], **record["file"])
    except (KeyError, TypeError):
        return None
    texts = source.place, source.modified, source.sha256
    return source if all(isinstance(text, str) for text in texts) else None


class Results:
    """The results of a run in its folder. Raises: InputError where a file cannot be read or written."""

    def __init__(self, folder: Folder, instances: bool = False) -> None:
        self.folder, self.instances = folder, instances
        """Whether records and overlays have each object by itself."""

    def write(self, key: str, source: Source, photo: RGB, result: Segmentation | None, seconds: float) -> Entry:
        """Write a photo's label map and record; ``None`` where nothing was named. A fault of before is forgotten."""
        self.forget_fault(key)  # before the record, after which nobody looks again
        labels = b"" if result is None else as_png(result.label_png())
        if labels:
            self.folder.write(f"{IMAGES}/{key}.png", labels)
        record = as_json(make_record(key, source, photo, result, seconds, self.instances))
        self.folder.write(f"{IMAGES}/{key}.json", record)
        return source.stored(), len(record), len(labels)

    def write_overlay(self, key: str, result: Segmentation) -> None:
        """Write the photo under its classes' colours."""
        self.folder.write(f"{OVERLAYS}/{key}.png", as_png(result.overlay(instances=self.instances)))

    def numbers(self) -> dict[str, int]:
        """Return the values of classes that the run met so far, where it did not know them before."""
        content = self.folder.read(NUMBERS)
        return {str(name): int(number) for name, number in parse_json(content, NUMBERS).items()} if content else {}

    def write_numbers(self, numbers: dict[str, int]) -> None:
        """Write down the values of classes."""
        self.folder.write(NUMBERS, as_json(numbers))

    def listed(self) -> list[str] | None:
        """Return the photos that a run which has not done all had to do at first; None: that is not known."""
        with suppress(InputError, KeyError, TypeError):
            return [str(key) for key in parse_json(self.folder.read(LISTED) or b"", LISTED)["photos"]]
        return None

    def write_listed(self, keys: Iterable[str]) -> None:
        """Write down the photos that a run has to do; none: it has done all."""
        self.folder.write(LISTED, as_json({"photos": list(keys)}))

    def write_fault(self, key: str, place: str, fault: str) -> None:
        """Write down why a photo has no result."""
        self.folder.write(f"{FAULTS}/{key}.json", as_json({"key": key, "photo": bare(place), "fault": fault}))

    def forget_fault(self, key: str) -> None:
        """Remove what says why a photo has no result."""
        self.folder.remove(f"{FAULTS}/{key}.json")

    def fault(self, key: str) -> str:
        """Return why a photo has no result, as far as that is written down, or nothing."""
        place = f"{FAULTS}/{key}.json"
        content = self.folder.read(place)
        return str(parse_json(content, place)["fault"]) if content else ""

    def sweep(self, packed: Set[str]) -> None:
        """Remove the label maps that a run left which died while it packed them."""
        names = set(self.folder.names(IMAGES))
        for key in packed:
            if f"{key}.png" in names and f"{key}.json" not in names:
                self.folder.remove(f"{IMAGES}/{key}.png")

    def written(self) -> set[str]:
        """Return the keys of the records that are not packed, whole or not."""
        return {name.removesuffix(".json") for name in self.folder.names(IMAGES) if name.endswith(".json")}

    def loose(self) -> dict[str, Entry]:
        """Return the results that are not packed, without damaged ones, by key.

        Few records are opened: the others are in the index, and as large as it says.
        """
        sizes, indexed = self.folder.sizes(IMAGES), self._index()
        found: dict[str, Entry] = {}
        unknown = []
        for key in (name.removesuffix(".json") for name in sizes if name.endswith(".json")):
            entry = indexed.get(key)
            if entry and entry[1:] == (sizes[f"{key}.json"], sizes.get(f"{key}.png", 0)):
                found[key] = entry
            else:
                unknown.append(key)
        with ThreadPoolExecutor(READERS) as pool:
            read = pool.map(lambda key: self._entry(key, sizes.get(f"{key}.png", 0)), unknown)
            return found | {key: entry for key, entry in zip(unknown, read, strict=True) if entry}

    def _entry(self, key: str, labels: int) -> Entry | None:
        """Return the result whose record is there, or None if it is damaged."""
        place = f"{IMAGES}/{key}.json"
        content = self.folder.read(place) or b""
        with suppress(InputError):
            record = parse_json(content, place)
            source = source_of(record)
            if source and (labels or record.get("classes") == []):
                return source, len(content), labels
        return None

    def _index(self) -> dict[str, Entry]:
        """Return what the index says; a damaged file of it counts as absent."""
        found: dict[str, Entry] = {}
        for name in self.folder.names(STATE):
            if name.startswith("index-"):
                with suppress(InputError, ValueError, TypeError):
                    for key, entry in parse_json(self.folder.read(f"{STATE}/{name}") or b"", name).items():
                        *about, record, labels = entry
                        found[key] = Source(*about), record, labels
        return found

    def index(self, entries: Mapping[str, Entry], anew: bool = False) -> None:
        """Add results to the index; ``anew``: instead of all that it has."""
        for name in self.folder.names(STATE) if anew else ():
            if name.startswith("index-"):
                self.folder.remove(f"{STATE}/{name}")
        keys = list(entries)
        for start in range(0, len(keys), INDEXED):
            part = {key: entries[key] for key in keys[start : start + INDEXED]}
            content = {key: (*astuple(source), *sizes) for key, (source, *sizes) in part.items()}
            self.folder.write(f"{STATE}/index-{secrets.token_hex(8)}.json", as_json(content))

    def packed(self) -> dict[str, dict[str, Source]]:
        """Return which file each result in a Parquet file is of, by the Parquet file's name and by key."""
        shards = {name: read_shard(self.folder, name, ["key", "photo", "file"]) for name in self.shards()}
        return {name: {row["key"]: source_of(row) or Source("") for row in shards[name]} for name in shards}

    def shards(self) -> list[str]:
        """Return the names of the Parquet files."""
        return sorted(f"{SHARDS}/{name}" for name in self.folder.names(SHARDS) if name.endswith(".parquet"))

    def pack(self, name: str, keys: Iterable[str]) -> None:
        """Move the results of these keys into a Parquet file, beside those that it has."""
        before = read_shard(self.folder, name) if name in self.shards() else []
        rows = {row["key"]: row for row in before} | {key: self._row(key) for key in keys}
        self._write_shard(name, rows)
        self._remove(keys)

    def forget(self, loose: Set[str], packed: Set[str], shards: Mapping[str, Mapping[str, Source]]) -> None:
        """Remove results, some that are not packed and some that are; ``shards`` says what the Parquet files hold."""
        self._remove(loose)
        for key in loose:
            self.folder.remove(f"{OVERLAYS}/{key}.png")
        for name in (name for name, held in shards.items() if held.keys() & packed):
            rows = {row["key"]: row for row in read_shard(self.folder, name)}
            self._write_shard(name, {key: rows[key] for key in rows.keys() - packed})

    def _write_shard(self, name: str, rows: Mapping[str, dict[str, Any]]) -> None:
        """Write a Parquet file of these rows, or none where there is no row."""
        pyarrow, parquet = load_pyarrow()
        if not rows:
            self.folder.remove(name)
            return
        table = pyarrow.Table.from_pylist([rows[key] for key in sorted(rows)], schema=_schema(pyarrow))
        buffer = io.BytesIO()
        parquet.write_table(table, buffer, compression="zstd")
        self.folder.write(name, buffer.getvalue())

    def _remove(self, keys: Iterable[str]) -> None:
        for key in keys:  # the record first: a label map without one is no result
            self.folder.remove(f"{IMAGES}/{key}.json")
            self.folder.remove(f"{IMAGES}/{key}.png")

    def _row(self, key: str) -> dict[str, Any]:
        place = f"{IMAGES}/{key}"
        record = parse_json(self.folder.read(f"{place}.json") or b"", place)
        for part in record["segments"]:
            part["counts"] = part["segmentation"]["counts"]
        for name in ("areas", "confidence"):
            record[name] = [record[name][cls] for cls in record["classes"]] if name in record else None
        if record["classes"]:
            record["labels"] = self.folder.read(f"{place}.png")
            record["config"] = json.dumps(record["config"])
            record["presence"] = json.dumps(record.get("presence"))
        return record


def _schema(pyarrow: Any) -> Any:
    text, whole, number = pyarrow.string(), pyarrow.int32(), pyarrow.float64()
    segment = {"class": text, "label": whole, "area": pyarrow.int64(), "counts": text, "confidence": number}
    file = {"size": pyarrow.int64(), "modified": text, "sha256": text}
    columns = {"key": text, "photo": text, "file": pyarrow.struct(file), "width": whole, "height": whole}
    columns |= {
        "classes": pyarrow.list_(text),
        "values": pyarrow.list_(whole),
        "areas": pyarrow.list_(number),
        "match": number,
    }
    columns["refined"] = pyarrow.list_(whole)
    columns |= {"confidence": pyarrow.list_(number), "presence": text, "doubts": pyarrow.list_(text)}
    columns |= {"labels": pyarrow.binary(), "instances": pyarrow.bool_()}
    columns |= {"segments": pyarrow.list_(pyarrow.struct(segment))}
    columns |= dict.fromkeys(ABOUT, text) | {"seconds": number, "config": text}
    return pyarrow.schema(columns)


def read_shard(folder: Folder, name: str, columns: list[str] | None = None) -> list[dict[str, Any]]:
    """Return the rows of a Parquet file of ``batch``, or only these columns of them, which are then all that is read.

    Raises: ConfigError if pyarrow is not installed; InputError if it is no whole Parquet file.
    """
    _, parquet = load_pyarrow()
    path = f"{folder.root}/{name}"
    try:
        if columns:
            there = parquet.read_schema(path, filesystem=folder.files).names
            columns = [column for column in columns if column in there or column not in LATER]
        table = parquet.read_table(path, columns=columns, filesystem=folder.files, partitioning=None)
        return list(table.select(columns or table.column_names).to_pylist())
    except (OSError, ValueError, KeyError) as error:  # pyarrow's own errors are children of these
        fault = "is no whole Parquet file of a run; remove it, and its photos are done again"
        raise InputError(f"{folder.place}/{name} {fault}") from error


def load_pyarrow() -> tuple[Any, Any]:
    """Return pyarrow and its module for Parquet.

    Raises: ConfigError if it is not installed.
    """
    return import_extra("pyarrow", "batch", "Parquet"), import_extra("pyarrow.parquet", "batch", "Parquet")


def load_results(folder: Path) -> list[LabelMap]:
    """Return what ``segment`` or ``batch`` wrote into a folder, sorted by key; label maps are decoded when needed.

    Packed label maps are copied into a temporary file, so that each Parquet file is read once and none is held.

    Raises: InputError if there is no such folder, it holds no result, or a record in it cannot be read.
    """
    # What is not packed is newer where a key has both.
    results = {result.key: result for result in (*_packed(folder), *_loose(folder))}
    if not results:
        fault = f"{folder} holds no result" if os.path.isdir(folder) else f"there is no folder {folder}"
        raise InputError(f"{fault}; give the one that segment or batch wrote")
    return [results[key] for key in sorted(results)]


def _loose(folder: Path) -> Iterator[LabelMap]:
    for base, pattern in ((folder, "*.json"), (folder / IMAGES, "**/*.json")):
        for path in sorted(base.glob(pattern)):
            labels = path.with_suffix(".png")
            if path == folder / MANIFEST and not labels.is_file():
                continue  # that of a run, not the record of a photo of this name
            key = path.relative_to(base).with_suffix("").as_posix()
            yield _label_map(read_json(path), key, path, partial(_decode, labels, labels), partial(read_json, path))


def _packed(folder: Path) -> Iterator[LabelMap]:
    columns = ["key", "photo", "file", "width", "height", "classes", "values", "model", "labels", "confidence"]
    columns += ["instances", "segments"]
    copies = _Copies()
    for path in sorted((folder / SHARDS).glob("*.parquet")):
        for row in read_shard(Folder(folder), f"{SHARDS}/{path.name}", columns):
            place = f"{path}, {row['key']}"
            labels = partial(copies.decode, *copies.add(row["labels"] or b""), place)
            segments = copies.add(as_json({"segments": row["segments"]})) if row.get("instances") else (0, 0)
            yield _label_map(row, row["key"], place, labels, partial(copies.parse, *segments, place))


class _Copies:
    """Packed label maps in a temporary file, which is there as long as this is."""

    def __init__(self) -> None:
        self.file, self.size = tempfile.TemporaryFile(buffering=0), 0  # noqa: SIM115

    def __del__(self) -> None:
        self.file.close()

    def add(self, content: bytes) -> tuple[int, int]:
        """Append a label map; return the bytes before it, and its own."""
        with reachable("the temporary folder", "cannot be written", "make room, or set TMPDIR to another"):
            self.file.write(content)
        self.size += len(content)
        return self.size - len(content), len(content)

    def read(self, start: int, size: int) -> bytes:
        self.file.seek(start)
        return self.file.read(size)

    def decode(self, start: int, size: int, place: str) -> np.ndarray:
        return _decode(io.BytesIO(self.read(start, size)), place)

    def parse(self, start: int, size: int, place: str) -> dict[str, Any]:
        return parse_json(self.read(start, size), place)


def _label_map(
    record: dict[str, Any],
    key: str,
    place: object,
    read: Callable[[], np.ndarray],
    again: Callable[[], dict[str, Any]],
) -> LabelMap:
    """Return the label map of a record; ``again`` reads its segments when they are needed."""
    try:
        if key.startswith("/") or ".." in PurePosixPath(key).parts:
            raise ValueError(key)
        photo, model = str(record["photo"]), record.get("model") or ""
        size = int(record["height"]), int(record["width"])
        if min(size) < 1 or size[0] * size[1] > MAX_PIXELS:
            raise ValueError(size)
        classes = tuple(map(str, record["classes"]))
        values = list(map(int, record.get("values") or range(len(classes))))  # earlier versions had no other values
        sha256 = (record.get("file") or {}).get("sha256", "")  # nor a file
        if len(values) != len(classes) or not all(0 <= value < 256 for value in values):
            raise ValueError(values)
        known = record.get("confidence") or []
        scores = tuple(map(float, (known[name] for name in classes) if isinstance(known, dict) else known))
    except (AttributeError, KeyError, TypeError, ValueError, OverflowError) as error:
        raise InputError(f"{place} is no record of a result; give a folder that segment or batch wrote") from error
    file_name = key + (Path(photo).suffix or ".jpg")
    if values != list(range(len(classes))):
        read = partial(_indices, read, values)
    objects = partial(_objects, again, size, classes, place) if record.get("instances") else None
    return LabelMap(key, file_name, *size, classes, read, scores, model, photo, sha256=sha256, objects=objects)


def _objects(
    again: Callable[[], dict[str, Any]], size: tuple[int, int], classes: tuple[str, ...], place: object
) -> Objects:
    """Return the objects of a record whose segments they are."""
    index, labels, scores = np.zeros(size, dtype=np.int32), list[int](), list[float]()
    try:
        for number, part in enumerate(again()["segments"], start=1):
            index[rle.decode(part.get("segmentation") or part, *size) > 0] = number
            labels.append(classes.index(part["class"]))
            scores += [] if part.get("confidence") is None else [float(part["confidence"])]
    except (AttributeError, InputError, KeyError, TypeError, ValueError) as error:
        raise InputError(f"{place} has segments that are no objects; segment the photo again") from error
    return Objects(index, np.array(labels, dtype=np.int64), tuple(scores) if len(scores) == len(labels) else ())


def _indices(read: Callable[[], np.ndarray], values: list[int]) -> np.ndarray:
    """Return labels that index the classes, from a label map with these values; others are beyond all classes."""
    table = np.full(256, len(values))
    table[values] = range(len(values))
    return np.asarray(table[read()])


def _decode(file: Path | io.BytesIO, place: object) -> np.ndarray:
    """Return the values of a palette picture."""
    with readable(f"the label map {place}"), Image.open(file, formats=("PNG",)) as picture:
        return np.array(picture)


def about_model(name: str, revision: str, device: str, dtype: str, config: Any) -> dict[str, Any]:
    """Return what every run writes down of its model and settings."""
    about = {"model": name, "revision": revision, "device": device, "dtype": dtype}
    about |= {"torch": torch.__version__, "transformers": version("transformers")}
    return about | {"config": asdict(config)}


def check_same(folder: str, before: dict[str, Any], now: dict[str, Any]) -> None:
    """Raise ConfigError naming the first setting in which a run that is to go on differs from what is in ``folder``."""
    now = json.loads(json.dumps(now))
    for name in (*now, *before):
        old, new = before.get(name), now.get(name)
        if isinstance(old, dict) and isinstance(new, dict):
            check_same(folder, old, new)
        elif old != new:
            old, new = (f"{json.dumps(value, ensure_ascii=False):.60}" for value in (old, new))
            advice = "give another --out, or the settings of that run"
            raise ConfigError(f"{folder} holds a run with {name} {old}, and {new} is asked for; {advice}")
