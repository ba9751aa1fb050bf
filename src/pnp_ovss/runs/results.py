"""Results by key: a label map and a record per photo, packed into Parquet files if wanted.

``images/<key>.png`` and ``.json`` are a photo's result, the record written last: where it lies, the other is whole.
``faults/<key>.json`` says why a photo has none. ``shards/00000.parquet`` holds the results of the photos whose key
falls to that shard; those in it have left ``images/``. Whatever dies in between, a key counts once.
"""

import io
import json
from collections.abc import Iterable, Sequence
from hashlib import sha256
from typing import Any

import numpy as np
from jaxtyping import Int

from pnp_ovss.data import rle
from pnp_ovss.errors import ConfigError, InputError
from pnp_ovss.pictures import class_colours, label_png
from pnp_ovss.runs.record import about
from pnp_ovss.segmentation import Segmentation
from pnp_ovss.store import Folder
from pnp_ovss.types import BACKGROUND, RGB

FORMATS = ("files", "parquet")
IMAGES, FAULTS, SHARDS = "images", "faults", "shards"


class Results:
    """The results of a run in its folder."""

    def __init__(self, folder: Folder) -> None:
        self.folder = folder

    def write(self, key: str, place: str, photo: RGB, result: Segmentation | None, seconds: float) -> None:
        """Write a photo's label map and record; ``None`` where nothing was named.

        Raises: InputError if a file cannot be written.
        """
        told: dict[str, Any] = {"key": key, "photo": place, "width": photo.shape[1], "height": photo.shape[0]}
        if result is None:
            told |= {"classes": [], "areas": {}, "segments": []}
        else:
            buffer = io.BytesIO()
            label_png(result.labels, class_colours(result.classes)).save(buffer, format="PNG")
            self.folder.write(f"{IMAGES}/{key}.png", buffer.getvalue())
            told |= about(place, photo, result, seconds) | {"segments": segments(result.labels, result.classes)}
        self.folder.write(f"{IMAGES}/{key}.json", _json(told))

    def write_fault(self, key: str, place: str, fault: str) -> None:
        """Write down why a photo has no result."""
        self.folder.write(f"{FAULTS}/{key}.json", _json({"key": key, "photo": place, "fault": fault}))

    def fault(self, key: str) -> str:
        """Return why a photo has no result, as far as that is written down, or nothing."""
        name = f"{FAULTS}/{key}.json"
        return str(json.loads(self.folder.read(name))["fault"]) if self.folder.has(name) else ""

    def has(self, key: str) -> bool:
        """Return whether the photo's own record is there, as it is until it is packed."""
        return self.folder.has(f"{IMAGES}/{key}.json")

    def loose(self) -> set[str]:
        """Return the keys of the results that are not packed."""
        return {name.removesuffix(".json") for name in self.folder.names(IMAGES) if name.endswith(".json")}

    def packed(self) -> set[str]:
        """Return the keys of the results in Parquet files."""
        return {key for name in self.shards() for key in self._table(name, ["key"])["key"].to_pylist()}

    def shards(self) -> list[str]:
        """Return the names of the Parquet files."""
        return [f"{SHARDS}/{name}" for name in self.folder.names(SHARDS) if name.endswith(".parquet")]

    def forget_faults(self, done: Iterable[str]) -> None:
        """Remove the faults of photos that are done now."""
        faulty = {name.removesuffix(".json") for name in self.folder.names(FAULTS) if name.endswith(".json")}
        for key in faulty.intersection(done):
            self.folder.remove(f"{FAULTS}/{key}.json")

    def pack(self, shard: int, keys: Sequence[str]) -> None:
        """Move the results of these keys into the shard's Parquet file, where they take the place of older ones."""
        pyarrow, parquet = _pyarrow()
        name, rows = f"{SHARDS}/{shard:05}.parquet", {}
        if self.folder.has(name):
            rows = {row["key"]: row for row in self._table(name).to_pylist()}
        rows |= {key: self._row(key) for key in keys}
        table = pyarrow.Table.from_pylist([rows[key] for key in sorted(rows)], schema=_schema(pyarrow))
        buffer = io.BytesIO()
        parquet.write_table(table, buffer, compression="zstd")
        self.folder.write(name, buffer.getvalue())
        for key in keys:  # the record first: a label map without one is no result
            self.folder.remove(f"{IMAGES}/{key}.json")
            self.folder.remove(f"{IMAGES}/{key}.png")

    def _table(self, name: str, columns: list[str] | None = None) -> Any:
        """Return a Parquet file, or only these columns of it, which are then all that is read."""
        pyarrow, parquet = _pyarrow()
        with self.folder.open(name) as file:
            try:
                table = parquet.read_table(file, columns=columns)
                table.column("key")
            except (pyarrow.ArrowException, KeyError) as error:
                raise InputError(
                    f"{self.folder.place}/{name} is no whole Parquet file of a run; remove it, and its photos are done "
                    "again"
                ) from error
        return table

    def _row(self, key: str) -> dict[str, Any]:
        told: dict[str, Any] = json.loads(self.folder.read(f"{IMAGES}/{key}.json"))
        labels = self.folder.read(f"{IMAGES}/{key}.png") if told["classes"] else None
        parts = [part | {"counts": part["segmentation"]["counts"]} for part in told["segments"]]
        config = json.dumps(told["config"]) if "config" in told else None
        areas = [told["areas"][name] for name in told["classes"]]
        return told | {"labels": labels, "segments": parts, "config": config, "areas": areas}


def segments(labels: Int[np.ndarray, "h w"], classes: Sequence[str]) -> list[dict[str, Any]]:
    """Return the region of every class that is there, but the background, as COCO's compressed run lengths."""
    found = []
    for label, name in enumerate(classes):
        mask = labels == label
        if (label, name) != (0, BACKGROUND) and mask.any():
            region = rle.encode(mask)
            found.append({"class": name, "label": label, "area": int(mask.sum()), "segmentation": region})
    return found


def shard_of(key: str, shards: int) -> int:
    """Return the shard that a key falls to, evenly and always the same."""
    return int.from_bytes(sha256(key.encode("utf-8", "surrogateescape")).digest()[:8], "big") % shards


def check_parquet() -> None:
    """Raise ConfigError if Parquet cannot be written here."""
    _pyarrow()


def _schema(pyarrow: Any) -> Any:
    segment = [("class", pyarrow.string()), ("label", pyarrow.int32()), ("area", pyarrow.int64())]
    return pyarrow.schema([
        ("key", pyarrow.string()),
        ("photo", pyarrow.string()),
        ("width", pyarrow.int32()),
        ("height", pyarrow.int32()),
        ("classes", pyarrow.list_(pyarrow.string())),
        ("areas", pyarrow.list_(pyarrow.float64())),
        ("match", pyarrow.float64()),
        ("labels", pyarrow.binary()),
        ("segments", pyarrow.list_(pyarrow.struct([*segment, ("counts", pyarrow.string())]))),
        ("model", pyarrow.string()),
        ("revision", pyarrow.string()),
        ("version", pyarrow.string()),
        ("seconds", pyarrow.float64()),
        ("config", pyarrow.string()),
    ])  # fmt: skip


def _json(told: dict[str, Any]) -> bytes:
    text = json.dumps(told, ensure_ascii=False, allow_nan=False) + "\n"
    return text.encode("utf-8", errors="backslashreplace")


def _pyarrow() -> tuple[Any, Any]:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise ConfigError(
            "Parquet needs pyarrow, which is not installed; run pip install 'pnp-ovss[batch]', or take --format files"
        ) from error
    return pyarrow, parquet
