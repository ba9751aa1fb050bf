"""What is kept of each image: its label map as a picture, and a small JSON with all that a score needs."""

import json
from base64 import b64decode, b64encode
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from pnp_ovss.errors import InputError
from pnp_ovss.evaluation.metrics import Boundary, Confusion
from pnp_ovss.evaluation.protocol import Counts
from pnp_ovss.files import write_text
from pnp_ovss.images import shown


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
    true: tuple[str, ...] = ()
    salience: UInt8[np.ndarray, "gh gw"] | None = None
    """The largest of the classes' salience, stretched to 0-255; for pictures."""
    seconds: dict[str, float] = field(default_factory=dict)
    """Per stage."""


def place(folder: Path, key: str) -> Path:
    """Return where an image's record lies; its label map lies beside it as PNG."""
    return folder / f"{key}.json"


def write_record(folder: Path, record: Record) -> None:
    """Write the record; it is whole or not there.

    Raises: InputError if it cannot be written.
    """
    told: dict[str, Any] = {"key": record.key}
    if record.fault:
        told["fault"] = record.fault
    if record.counts is not None and record.boundary is not None:
        rows, columns = np.nonzero(record.counts.known.counts)
        triples = np.stack([rows, columns, record.counts.known.counts[rows, columns]], axis=1)
        void = np.flatnonzero(record.counts.void)
        edge = np.stack([record.boundary.hit, record.boundary.truth, record.boundary.guess])
        near = np.flatnonzero(edge.any(axis=0))
        told |= {
            "truth": record.truth,
            "labels": len(record.counts.void),
            "pixels": triples.tolist(),
            "void": np.stack([void, record.counts.void[void]], axis=1).tolist(),
            "boundary": np.concatenate([near[:, None], edge[:, near].T], axis=1).tolist(),
            "named": record.named,
            "true": record.true,
        }
    if record.salience is not None:
        told["salience"] = [*record.salience.shape, b64encode(record.salience.tobytes()).decode("ascii")]
    told["seconds"] = {stage: round(spent, 5) for stage, spent in record.seconds.items()}
    write_text(place(folder, record.key), json.dumps(told, ensure_ascii=False, allow_nan=False) + "\n")


def read_record(path: Path) -> Record:
    """Return the record that ``write_record`` wrote.

    Raises: InputError if it cannot be read.
    """
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
        seconds = {str(stage): float(spent) for stage, spent in told["seconds"].items()}
        if "pixels" not in told:
            return Record(told["key"], told["fault"], seconds=seconds)
        labels = told["labels"]
        known = np.zeros((labels, labels), dtype=np.int64)
        void, edge = np.zeros(labels, dtype=np.int64), np.zeros((3, labels), dtype=np.int64)
        for truth, guess, count in told["pixels"]:
            known[truth, guess] = count
        for guess, count in told["void"]:
            void[guess] = count
        for label, *three in told["boundary"]:
            edge[:, label] = three
        return Record(
            told["key"],
            told.get("fault", ""),
            told["truth"],
            Counts(Confusion(known), void),
            Boundary(*edge),
            tuple(told["named"]),
            tuple(told["true"]),
            _salience(told.get("salience")),
            seconds,
        )
    except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
        raise InputError(f"the result {shown(path)} cannot be read; delete it, and it is made anew") from error


def _salience(told: list[Any] | None) -> UInt8[np.ndarray, "gh gw"] | None:
    if told is None:
        return None
    height, width, text = told
    return np.frombuffer(b64decode(text), dtype=np.uint8).reshape(height, width)
