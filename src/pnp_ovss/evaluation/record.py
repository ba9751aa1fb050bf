"""What a run keeps: a manifest of what it was made with, and per image a small JSON with all that a score needs.

Beside an image's record lies its label map as PNG.
"""

import os
import zlib
from base64 import b64decode, b64encode
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from pnp_ovss._version import VERSION
from pnp_ovss.data import Dataset
from pnp_ovss.errors import InputError
from pnp_ovss.evaluation.metrics import Counts
from pnp_ovss.files import Source, as_json, read_json, write_bytes
from pnp_ovss.runs.record import about_model as about, check_same
from pnp_ovss.segmenter import Segmenter
from pnp_ovss.types import Vocabulary

FORMAT = 4
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
    named: Sequence[str] = ()
    """The classes that were asked for."""
    true: Sequence[str] = ()
    """The classes of the truth."""
    salience: Float[np.ndarray, "gh gw"] | None = None
    """The largest of the classes' salience; for pictures."""
    seconds: dict[str, float] = field(default_factory=dict)
    """Per stage."""
    confidence: dict[str, float] = field(default_factory=dict)
    """Of each class that has a region; empty where nothing says it."""
    photo: Source | None = None
    """The file that was segmented; None where the photo is drawn, or the label map comes from elsewhere."""


def about_data(dataset: Dataset, name: str, split: str | None) -> dict[str, Any]:
    """Return what is scored; ``name`` is that of the data set in its table."""
    where = {"dataset": name, "title": dataset.title, "split": split, "layout": dataset.layout}
    return where | {"classes": list(dataset.classes), "nothing": dataset.labels[0], "version": VERSION}


def about_model(segmenter: Segmenter, dtype: str, names: str, vocabulary: Vocabulary) -> dict[str, Any]:
    """Return what predicts, and the names it is given."""
    method = segmenter.method
    words = {cls: list(words) for cls, words in vocabulary.words.items() if words != (cls,)}
    made_with = about(method.model, method.revision, method.device.type, dtype, method.config)
    return made_with | {"method": method.name, "names": names, "vocabulary": vocabulary.name, "words": words}


def write_manifest(folder: Path, settings: dict[str, Any], **contents: Any) -> None:
    """Write the manifest of a run: its settings, and ``root`` of the data set, ``keys`` and ``faults``.

    Raises: ConfigError naming the first setting that differs from those of the run that is there.
    """
    path = folder / "manifest.json"
    if os.path.isfile(path):
        check_run(folder, settings)
    write_bytes(path, as_json(_sealed({"format": FORMAT, "settings": settings, **contents}), indent=1))


def check_run(folder: Path, settings: dict[str, Any]) -> None:
    """Raise ConfigError naming the first setting in which the run in ``folder`` differs; its title may be another."""
    before = read_manifest(folder)["settings"]
    check_same(str(folder), before | {"title": settings["title"]}, settings)


def read_manifest(folder: Path) -> dict[str, Any]:
    """Return a run's manifest.

    Raises: InputError if there is none that can be read.
    """
    path = folder / "manifest.json"
    sealed = read_json(path)
    if sealed.get("format") != FORMAT:
        raise InputError(f"the run in {folder} is of another version; give another --out")
    return _unsealed(sealed, path)


def write_record(folder: Path, record: Record) -> None:
    """Write the record; it is whole or not there.

    Raises: InputError if it cannot be written.
    """
    content = {name: _encode(value) for name, value in vars(record).items()}
    write_bytes(folder / f"{record.key}.json", as_json(_sealed(content)))


def read_record(path: Path) -> Record:
    """Return the record that ``write_record`` wrote.

    Raises: InputError if it cannot be read, or is not as it was written.
    """
    content = _unsealed(read_json(path), path)
    arrays = {name: _decode(content[name]) for name in ("counts", "salience") if content[name]}
    photo = Source(**content["photo"]) if content["photo"] else None
    return Record(**content | arrays | {"photo": photo})


def load_records(folders: Sequence[Path], keys: Sequence[str]) -> list[Record]:
    """Return the record of each key from the first folder that has one without a fault, else with one.

    Raises: InputError if a key is missing.
    """
    found = [[folder / f"{key}.json" for folder in folders] for key in keys]
    records = [[read_record(path) for path in paths if os.path.isfile(path)] for paths in found]
    missing = [key for key, some in zip(keys, records, strict=True) if not some]
    if missing:
        listed = ", ".join(missing[:3])
        raise InputError(f"{len(missing)} of {len(keys)} images have no result: {listed}; run their shards")
    return [min(some, key=lambda record: record.fault != "") for some in records]


def _sealed(content: dict[str, Any]) -> dict[str, Any]:
    """Return the content of a file with its digest."""
    return {"digest": sha256(as_json(content)).hexdigest()[:16], **content}


def _unsealed(sealed: dict[str, Any], path: Path) -> dict[str, Any]:
    """Return the content of a file with its digest.

    Raises: InputError if it has changed since it was written.
    """
    content = {name: value for name, value in sealed.items() if name != "digest"}
    if _sealed(content) != sealed:
        raise InputError(f"{path} is damaged; remove it, or give another --out")
    return content


def _encode(value: Any) -> Any:
    if isinstance(value, Source):
        return asdict(value)
    if not isinstance(value, np.ndarray):
        return value
    values = b64encode(zlib.compress(value.tobytes())).decode("ascii")
    return {"type": value.dtype.str, "shape": value.shape, "values": values}


def _decode(stored: dict[str, Any]) -> np.ndarray:
    values = zlib.decompress(b64decode(stored["values"]))
    return np.frombuffer(values, stored["type"]).reshape(stored["shape"])
