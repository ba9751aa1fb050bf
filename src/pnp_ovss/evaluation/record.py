"""What a run keeps: a manifest of what it was made with, and per image a small JSON with all that a score needs.

Beside an image's record lies its label map as PNG.
"""

from base64 import b64decode, b64encode
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8

from pnp_ovss._version import VERSION
from pnp_ovss.data import Dataset
from pnp_ovss.errors import InputError
from pnp_ovss.evaluation.metrics import Boundary, Confusion, Counts
from pnp_ovss.files import as_json, read_json, write_bytes
from pnp_ovss.runs.record import about_model as about
from pnp_ovss.runs.record import check_same
from pnp_ovss.segmenter import Segmenter
from pnp_ovss.types import Vocabulary

FORMAT = 2
"""Of manifest and records; raised when older ones cannot be read any more."""


@dataclass(frozen=True)
class Record:
    """The result of one image. With a ``fault`` it has no counts."""

    key: str
    fault: str = ""
    """Why the image could not be scored, in one line."""
    truth: str = ""
    """Digest of the truth it was scored against."""
    counts: Counts | None = None
    boundary: Boundary | None = None
    named: tuple[str, ...] = ()
    """The classes that were asked for."""
    true: tuple[str, ...] = ()
    """The classes of the truth."""
    salience: UInt8[np.ndarray, "gh gw"] | None = None
    """The largest of the classes' salience, stretched to 0-255; for pictures."""
    seconds: dict[str, float] = field(default_factory=dict)
    """Per stage."""


def about_data(dataset: Dataset, name: str, split: str | None) -> dict[str, Any]:
    """Return what is scored; ``name`` is that of the data set in its table."""
    return {
        "dataset": name,
        "title": dataset.title,
        "split": split,
        "layout": dataset.layout,
        "classes": list(dataset.classes),
        "nothing": dataset.labels[0],
        "version": VERSION,
    }


def about_model(segmenter: Segmenter, dtype: str, names: str, vocabulary: Vocabulary) -> dict[str, Any]:
    """Return what predicts, and the names it is given."""
    method = segmenter.method
    device = getattr(method, "device", torch.device("cpu"))  # a method need not have one
    return about(method.model, method.revision, device.type, dtype, method.config) | {
        "names": names,
        "vocabulary": vocabulary.name,
        "words": {cls: list(words) for cls, words in vocabulary.words.items() if words != (cls,)},
    }


def write_manifest(folder: Path, settings: dict[str, Any], **contents: Any) -> None:
    """Write the manifest of a run: its settings, and ``root`` of the data set, ``keys`` and ``faults``.

    Raises: ConfigError naming the first setting that differs from those of the run that is there.
    """
    path = folder / "manifest.json"
    if path.is_file():
        check_run(folder, settings)
    manifest = {"format": FORMAT, "settings": settings, **contents}
    write_bytes(path, as_json(manifest, indent=1))


def check_run(folder: Path, settings: dict[str, Any]) -> None:
    """Raise ConfigError naming the first setting in which the run in ``folder`` differs; its title may be another."""
    before = read_manifest(folder)["settings"]
    check_same(str(folder), before | {"title": settings["title"]}, settings)


def read_manifest(folder: Path) -> dict[str, Any]:
    """Return a run's manifest.

    Raises: InputError if there is none that can be read.
    """
    path = folder / "manifest.json"
    try:
        manifest = read_json(path)
        known = manifest["format"] == FORMAT and manifest["keys"]
    except (InputError, KeyError) as error:
        raise InputError(f"{folder} holds no run that can be read; give a folder that evaluate wrote") from error
    if not known:
        raise InputError(f"{path} is of another version; score the images anew with another --out")
    return manifest


def record_path(folder: Path, key: str) -> Path:
    """Return where an image's record lies."""
    return folder / f"{key}.json"


def write_record(folder: Path, record: Record) -> None:
    """Write the record; it is whole or not there.

    Raises: InputError if it cannot be written.
    """
    content: dict[str, Any] = {"key": record.key}
    if record.fault:
        content["fault"] = record.fault
    if record.counts is not None and record.boundary is not None:
        known, void = record.counts.known.counts, record.counts.void
        content |= {
            "truth": record.truth,
            "labels": len(void),
            "pixels": np.column_stack([*np.nonzero(known), known[np.nonzero(known)]]).tolist(),
            "void": _nonzero(void[None]),
            "boundary": _nonzero(record.boundary.counts),
            "named": record.named,
            "true": record.true,
        }
    if record.salience is not None:
        content["salience"] = [*record.salience.shape, b64encode(record.salience.tobytes()).decode("ascii")]
    content["seconds"] = {stage: round(spent, 5) for stage, spent in record.seconds.items()}
    write_bytes(record_path(folder, record.key), as_json(content))


def read_record(path: Path) -> Record:
    """Return the record that ``write_record`` wrote.

    Raises: InputError if it cannot be read.
    """
    try:
        content = read_json(path)
        seconds = {str(stage): float(spent) for stage, spent in content["seconds"].items()}
        if "pixels" not in content:
            return Record(content["key"], content["fault"], seconds=seconds)
        return _scored(content, seconds)
    except (InputError, ValueError, KeyError, TypeError, IndexError) as error:
        raise InputError(f"the result {path} cannot be read; delete it, and it is made anew") from error


def load_records(folders: Sequence[Path], keys: Sequence[str]) -> list[Record]:
    """Return the record of each key from the first folder that has one without a fault, else with one.

    Raises: InputError if a key is missing.
    """
    found, missing = [], []
    for key in keys:
        records = [read_record(path) for folder in folders if (path := record_path(folder, key)).is_file()]
        if records:
            found.append(next((record for record in records if not record.fault), records[0]))
        else:
            missing.append(key)
    if missing:
        raise InputError(
            f"{len(missing)} of {len(keys)} images have no result, {', '.join(missing[:3])} among them; run the shards "
            "that lack them, then merge again"
        )
    return found


def _nonzero(rows: np.ndarray) -> list[list[int]]:
    """Return [column, values...] of the columns that hold anything."""
    columns = np.flatnonzero(rows.any(axis=0))
    listed: list[list[int]] = np.column_stack([columns, rows[:, columns].T]).tolist()
    return listed


def _scored(content: dict[str, Any], seconds: dict[str, float]) -> Record:
    labels, salience = content["labels"], None
    known, rows = np.zeros((labels, labels), dtype=np.int64), np.zeros((4, labels), dtype=np.int64)
    for truth, prediction, count in content["pixels"]:
        known[truth, prediction] = count
    for label, count in content["void"]:
        rows[0, label] = count
    for label, *boundary in content["boundary"]:
        rows[1:, label] = boundary
    if "salience" in content:
        height, width, text = content["salience"]
        salience = np.frombuffer(b64decode(text), dtype=np.uint8).reshape(height, width)
    counts, names = Counts(Confusion(known), rows[0]), (tuple(content["named"]), tuple(content["true"]))
    return Record(content["key"], "", content["truth"], counts, Boundary(rows[1:]), *names, salience, seconds)
