"""A run over a data set: a record per image, written as soon as it is known; a stopped run goes on where it stopped."""

import hashlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

import numpy as np
from jaxtyping import UInt8

from pnp_ovss.data import Dataset, Sample
from pnp_ovss.errors import InputError
from pnp_ovss.evaluation.guess import Guess, Guesser
from pnp_ovss.evaluation.metrics import Boundary
from pnp_ovss.evaluation.names import Names, true
from pnp_ovss.evaluation.protocol import Counts
from pnp_ovss.evaluation.record import Record, place, read_record, write_record
from pnp_ovss.files import save_png
from pnp_ovss.pictures import class_colours, label_png
from pnp_ovss.types import BACKGROUND


@dataclass(frozen=True)
class Work:
    """What is done with each image, and where its result goes."""

    dataset: Dataset
    names: Names
    guess: Guesser
    folder: Path
    """Where the records go."""
    keep: bool = True
    """Write the label map beside the record, and leave an image that has its record; label maps from elsewhere may have
    changed since."""


def evaluate(work: Work, samples: Sequence[Sample], batch: int = 1, workers: int = 1) -> Iterator[Record]:
    """Yield the record of every sample in turn: those already there as they are, the others made and written now.

    A sample that could not be scored before, or whose truth has changed, is done again.
    """
    groups = [samples[start : start + batch] for start in range(0, len(samples), batch)]
    if workers == 1:
        for group in groups:
            yield from _group(work, group)
        return
    pool = ThreadPoolExecutor(workers)
    try:
        for records in pool.map(lambda group: _group(work, group), groups):
            yield from records
    finally:
        pool.shutdown(cancel_futures=True)


def score(
    truth: UInt8[np.ndarray, "h w"], guess: UInt8[np.ndarray, "hg wg"], labels: int, key: str
) -> tuple[Counts, Boundary]:
    """Return the counts of one image.

    Raises: InputError if truth and guess differ in size.
    """
    if truth.shape != guess.shape:
        (h, w), (hg, wg) = truth.shape, guess.shape
        raise InputError(
            f"{key}: the label map is {wg} x {hg} pixels and the truth {w} x {h}; one size is wanted: scale label maps "
            "to the photo's size, to the nearest pixel"
        )
    return Counts.of(truth, guess, labels), Boundary.of(truth, guess, labels)


def records_of(folders: Sequence[Path], keys: Sequence[str]) -> list[Record]:
    """Return the record of each key from the first folder that has one without a fault, else with one.

    Raises: InputError if a key is missing.
    """
    found, missing = [], []
    for key in keys:
        records = [read_record(path) for folder in folders if (path := place(folder, key)).is_file()]
        if not records:
            missing.append(key)
        else:
            found.append(next((record for record in records if not record.fault), records[0]))
    if missing:
        raise InputError(
            f"{len(missing)} of {len(keys)} images have no result, {', '.join(missing[:3])} among them; run the shards "
            "that lack them, then merge again"
        )
    return found


def shard(samples: Sequence[Sample], index: int, count: int) -> Sequence[Sample]:
    """Return the ``index``-th of ``count`` parts, counted from 1: every ``count``-th sample."""
    return samples[index - 1 :: count]


def _group(work: Work, samples: Sequence[Sample]) -> list[Record]:
    done = {sample.key: _earlier(work, sample) if work.keep else None for sample in samples}
    fresh = {record.key: record for record in _make(work, [s for s in samples if done[s.key] is None])}
    return [done[sample.key] or fresh[sample.key] for sample in samples]


def _earlier(work: Work, sample: Sample) -> Record | None:
    path = place(work.folder, sample.key)
    if not path.is_file():
        return None
    try:
        record = read_record(path)
        same = not record.fault and record.truth == _digest(work.dataset.truth(sample))
    except InputError:  # made anew
        return None
    return record if same else None


def _digest(truth: UInt8[np.ndarray, "h w"]) -> str:
    return hashlib.sha256(repr(truth.shape).encode() + truth.tobytes()).hexdigest()[:16]


def _make(work: Work, samples: Sequence[Sample]) -> Iterator[Record]:
    """Yield a record per sample, in whatever order, each already written."""
    asked, truths = [], {}
    for sample in samples:
        try:
            truth = work.dataset.truth(sample)
            asked.append((sample, work.names.choose(sample.key, truth)))
            truths[sample.key] = truth
        except InputError as error:
            yield _kept(work, Record(sample.key, fault=str(error)))
    if not asked:
        return
    for (sample, named), guess in zip(asked, work.guess(asked), strict=True):
        yield _kept(work, _scored(work, sample.key, truths[sample.key], named, guess))


def _scored(
    work: Work, key: str, truth: UInt8[np.ndarray, "h w"], named: tuple[str, ...], guess: Guess | InputError
) -> Record:
    if isinstance(guess, InputError):
        return Record(key, fault=str(guess))
    started = perf_counter()
    try:
        counts, boundary = score(truth, guess.labels, len(work.dataset.labels), key)
    except InputError as error:
        return Record(key, fault=str(error))
    if work.keep:
        colours = class_colours((BACKGROUND, *work.dataset.classes))
        save_png(work.folder / f"{key}.png", label_png(guess.labels.astype(np.int32), colours))
    seconds = guess.seconds | {"score": perf_counter() - started}
    names = named, true(work.dataset, truth)
    return Record(key, "", _digest(truth), counts, boundary, *names, guess.salience, seconds)


def _kept(work: Work, record: Record) -> Record:
    write_record(work.folder, record)
    return record
