"""A run over a data set: a record per image, written as soon as it is known; a stopped run goes on where it stopped.

What is scored is what ``Segmenter`` returns, or label maps that any other system wrote.
"""

import hashlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter

import numpy as np
from jaxtyping import Float, UInt8

from pnp_ovss.data.dataset import IGNORE, Dataset, Sample, table, translate
from pnp_ovss.data.files import read_values
from pnp_ovss.errors import InputError, PnpError
from pnp_ovss.evaluation.classes import ChooseClasses, present
from pnp_ovss.evaluation.metrics import Boundary, Counts
from pnp_ovss.evaluation.record import Record, read_record, record_path, write_record
from pnp_ovss.files import save_png
from pnp_ovss.pictures import class_colours, label_png
from pnp_ovss.runs import pipeline
from pnp_ovss.segmenter import Segmenter
from pnp_ovss.types import BACKGROUND, RGB, Vocabulary

Labels = UInt8[np.ndarray, "_ _"]
"""A label map of a data set: 0 is the background or no class, n the n-th class; in a truth 255 is ``IGNORE``."""


@dataclass(frozen=True)
class Task:
    """An image to predict: its truth and the classes to name, or why these cannot be had."""

    sample: Sample
    truth: Labels | None = None
    named: tuple[str, ...] = ()
    fault: InputError | None = None

    def photo(self) -> RGB:
        """Return the photo.

        Raises: InputError if it, or its truth, cannot be read.
        """
        if self.fault:
            raise self.fault
        return self.sample.photo()


@dataclass(frozen=True)
class Prediction:
    """What was predicted for an image, or why there is nothing."""

    labels: Labels | None = None
    fault: PnpError | None = None
    salience: UInt8[np.ndarray, "gh gw"] | None = None
    seconds: dict[str, float] = field(default_factory=dict)


Predict = Callable[[Iterable[Task]], Iterator[Prediction]]
"""Yields the prediction of each task, in order."""


@dataclass(frozen=True)
class Run:
    """What is scored, and where the records go."""

    dataset: Dataset
    choose: ChooseClasses
    predict: Predict
    folder: Path
    keep: bool = True
    """Write the label map beside the record, and leave an image that has its record; label maps from elsewhere may have
    changed since."""


def evaluate(run: Run, samples: Sequence[Sample]) -> Iterator[Record]:
    """Yield the record of every sample: first those that are there, then the others, made and written now.

    A sample that could not be scored before, or whose truth has changed, is done again.
    """
    rest, waiting = [], deque[Task]()
    for sample in samples:
        record = _earlier(run, sample) if run.keep else None
        if record is None:
            rest.append(sample)
        else:
            yield record

    def tasks() -> Iterator[Task]:
        for sample in rest:
            waiting.append(_task(run, sample))
            yield waiting[-1]

    for prediction in run.predict(tasks()):
        record = _scored(run, waiting.popleft(), prediction)
        write_record(run.folder, record)
        yield record


def segment(
    tasks: Iterable[Task],
    segmenter: Segmenter,
    dataset: Dataset,
    vocabulary: Vocabulary,
    batch: int = 1,
    workers: int = 1,
) -> Iterator[Prediction]:
    """Yield what the segmenter predicts for each task. ``workers``: photos that are read, or refined, at a time.

    A class is named by its words; those of the background, which become 0, only where every class is named.
    """
    label = {BACKGROUND: 0} | {name: number for number, name in enumerate(dataset.classes, 1)}

    def words(named: tuple[str, ...]) -> Vocabulary:
        named += (BACKGROUND,) if len(named) == len(dataset.classes) and BACKGROUND in vocabulary.words else ()
        return Vocabulary({cls: vocabulary.words[cls] for cls in named})

    items = (pipeline.Item(task.sample.key, task.photo, words(task.named)) for task in tasks)
    for outcome in pipeline.run(lambda: segmenter, items, batch=batch, readers=workers, finishers=workers):
        if outcome.result is not None:
            own = np.array([label[name] for name in outcome.result.classes], dtype=np.uint8)
            salience = _stretched(outcome.result.salience)
            yield Prediction(own[outcome.result.labels], salience=salience, seconds=outcome.seconds)
        elif outcome.photo is not None and outcome.fault is None:  # nothing was named
            yield Prediction(np.zeros(outcome.photo.shape[:2], dtype=np.uint8), seconds=outcome.seconds)
        else:
            yield Prediction(fault=outcome.fault, seconds=outcome.seconds)


def read_predictions(tasks: Iterable[Task], folder: Path, dataset: Dataset, values: str) -> Iterator[Prediction]:
    """Yield the label map of another system for each task; ``values`` as in ``read_prediction``."""
    for task in tasks:
        started = perf_counter()
        try:
            labels = read_prediction(folder, task.sample.key, dataset, values)
            yield Prediction(labels, task.fault, seconds={"read": perf_counter() - started})
        except InputError as error:
            yield Prediction(fault=task.fault or error)


def read_prediction(folder: Path, key: str, dataset: Dataset, values: str) -> Labels:
    """Return the label map ``<key>.png`` in the labels of the data set; pixels of the void value count as no class.

    ``values`` is what its values are: "file", those of the data set's own mask files; "index", the place in its list of
    classes from 0 on, the background first where it has one; "own", 0 for none and n for the n-th class.

    Raises: InputError if it is missing, damaged, or holds an unknown value.
    """
    path = folder / f"{key}.png"
    if not path.is_file():
        raise InputError(f"there is no prediction {path}; expected one PNG per image, named by its key")
    numbers = range(1, len(dataset.classes) + 1)
    to_label = table(numbers, {0: 0, IGNORE: IGNORE})
    if values == "file":
        to_label = dataset.to_label
    elif values == "index" and not dataset.background:
        to_label = table(range(len(numbers)), {IGNORE: IGNORE})
    labels = translate(read_values(path), to_label, f"the prediction {path}")
    labels[labels == IGNORE] = 0
    return labels


def _earlier(run: Run, sample: Sample) -> Record | None:
    path = record_path(run.folder, sample.key)
    try:
        record = read_record(path) if path.is_file() else None
        return record if record and not record.fault and record.truth == _digest(run.dataset.truth(sample)) else None
    except InputError:  # made anew
        return None


def _digest(truth: Labels) -> str:
    return hashlib.sha256(repr(truth.shape).encode() + truth.tobytes()).hexdigest()[:16]


def _task(run: Run, sample: Sample) -> Task:
    try:
        truth = run.dataset.truth(sample)
        return Task(sample, truth, run.choose(sample.key, truth))
    except InputError as error:
        return Task(sample, fault=error)


def _scored(run: Run, task: Task, prediction: Prediction) -> Record:
    key, truth, labels, started = task.sample.key, task.truth, prediction.labels, perf_counter()
    if truth is None or labels is None or prediction.fault:
        return Record(key, str(prediction.fault), seconds=prediction.seconds)
    if truth.shape != labels.shape:
        (h, w), (hp, wp) = truth.shape, labels.shape
        return Record(
            key,
            f"{key}: expected a label map of {w} x {h} pixels as the truth, got {wp} x {hp}; scale label maps to the "
            "photo's size, to the nearest pixel",
        )
    count = len(run.dataset.labels)
    counts, boundary = Counts.of(truth, labels, count), Boundary.of(truth, labels, count)
    if run.keep:
        colours = class_colours((BACKGROUND, *run.dataset.classes))
        save_png(run.folder / f"{key}.png", label_png(labels.astype(np.int32), colours))
    names = task.named, present(run.dataset, truth)
    seconds = prediction.seconds | {"score": perf_counter() - started}
    return Record(key, "", _digest(truth), counts, boundary, *names, prediction.salience, seconds)


def _stretched(salience: Float[np.ndarray, "cls gh gw"]) -> UInt8[np.ndarray, "gh gw"]:
    most = salience.max(axis=0)
    spread = max(most.max() - most.min(), np.finfo(most.dtype).tiny)
    return np.asarray(((most - most.min()) / spread * 255).round().astype(np.uint8))
