"""A run over a data set: a record per image, written as soon as it is known; a stopped run goes on where it stopped.

In a label map 0 is the background or no class, n the n-th class of the data set; in a truth 255 is ``IGNORE``.

What is scored is what ``Segmenter`` returns, or label maps that any other system wrote.
"""

import hashlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter

import numpy as np
from jaxtyping import Float

from pnp_ovss.data.dataset import IGNORE, Dataset, Sample, read_values, table, translate
from pnp_ovss.errors import InputError, PnpError
from pnp_ovss.evaluation.inputs import ChooseClasses, present
from pnp_ovss.evaluation.metrics import Labels, count
from pnp_ovss.evaluation.record import Record, read_record, write_record
from pnp_ovss.files import save_png
from pnp_ovss.pictures import class_colours, label_png
from pnp_ovss.runs import pipeline
from pnp_ovss.segmenter import Segmenter
from pnp_ovss.types import BACKGROUND, RGB, Vocabulary


@dataclass(eq=False)
class Task:
    """An image on its way: what is asked of it, then what was predicted, or why there is nothing."""

    sample: Sample
    truth: Labels | None = None
    named: tuple[str, ...] = ()
    """The classes to name."""
    labels: Labels | None = None
    """The prediction."""
    salience: Float[np.ndarray, "gh gw"] | None = None
    fault: PnpError | None = None
    seconds: dict[str, float] = field(default_factory=dict)

    def photo(self) -> RGB:
        """Return the photo.

        Raises: InputError if it, or its truth, cannot be read.
        """
        if self.fault:
            raise self.fault
        return self.sample.photo()


@dataclass(frozen=True)
class Run:
    """What is scored, and where the records go."""

    dataset: Dataset
    choose: ChooseClasses
    predict: Callable[[Iterable[Task]], Iterator[Task]]
    """Yields each task, in order, with its prediction or fault."""
    folder: Path
    keep: bool = True
    """Write the label map beside the record, and leave an image that has its record; label maps from elsewhere may have
    changed since."""


def evaluate(run: Run, samples: Sequence[Sample]) -> Iterator[Record]:
    """Yield the record of every sample: first those that are there, then the others, made and written now.

    A sample that could not be scored before, or whose truth has changed, is done again.
    """
    rest = []
    for sample in samples:
        if run.keep and (record := _earlier(run, sample)):
            yield record
        else:
            rest.append(sample)
    for task in run.predict(_task(run, sample) for sample in rest):
        record = _scored(run, task)
        write_record(run.folder, record)
        yield record


def segment(
    tasks: Iterable[Task], segmenter: Segmenter, dataset: Dataset, words: Vocabulary, batch: int = 1, workers: int = 1
) -> Iterator[Task]:
    """Yield each task with what the segmenter predicts. ``workers``: photos that are read, or refined, at a time.

    A class is named by its words; those of the background, which become 0, only where every class is named.
    """
    label = {BACKGROUND: 0} | {name: number for number, name in enumerate(dataset.classes, 1)}
    waiting = deque[Task]()

    def items() -> Iterator[pipeline.Item]:
        for task in tasks:
            waiting.append(task)
            every = len(task.named) == len(dataset.classes) and BACKGROUND in words.words
            named = (*task.named, BACKGROUND) if every else task.named
            classes = Vocabulary({cls: words.words[cls] for cls in named})
            yield pipeline.Item(task.sample.key, task.photo, classes)

    for outcome in pipeline.run(lambda: segmenter, items(), batch=batch, readers=workers, finishers=workers):
        task = waiting.popleft()
        task.fault, task.seconds = outcome.fault, outcome.seconds
        if outcome.result is not None:
            own = np.array([label[name] for name in outcome.result.classes], dtype=np.uint8)
            task.labels, task.salience = own[outcome.result.labels], outcome.result.salience.max(axis=0)
        elif outcome.photo is not None:  # nothing was named
            task.labels = np.zeros(outcome.photo.shape[:2], dtype=np.uint8)
        yield task


def read_predictions(tasks: Iterable[Task], folder: Path, dataset: Dataset, values: str) -> Iterator[Task]:
    """Yield each task with the label map of another system; ``values`` as in ``read_prediction``."""
    for task in tasks:
        try:
            task.labels = read_prediction(folder, task.sample.key, dataset, values)
        except InputError as error:
            task.fault = task.fault or error
        yield task


def read_prediction(folder: Path, key: str, dataset: Dataset, values: str) -> Labels:
    """Return the label map ``<key>.png`` in the labels of the data set; pixels of the void value count as no class.

    ``values`` is what its values are: "file", those of the data set's own mask files; "index", the place in its list of
    classes from 0 on, the background first where it has one; "own", 0 for none and n for the n-th class.

    Raises: InputError if it is missing, damaged, or holds an unknown value.
    """
    path = folder / f"{key}.png"
    if not path.is_file():
        raise InputError(f"there is no prediction {path}; give a PNG per image, named by its key")
    first = 1 if values == "own" or dataset.background else 0
    to_label = table(range(first, first + len(dataset.classes)), {0: 0, IGNORE: IGNORE})
    if values == "file":
        to_label = dataset.to_label
    labels = translate(read_values(path), to_label, f"the prediction {path}")
    labels[labels == IGNORE] = 0
    return labels


def _earlier(run: Run, sample: Sample) -> Record | None:
    try:
        record = read_record(run.folder / f"{sample.key}.json")
        same = record.truth == _digest(run.dataset.truth(sample))
        return None if record.fault or not same else record
    except InputError:  # there is none, or it is made anew
        return None


def _digest(truth: Labels) -> str:
    return hashlib.sha256(repr(truth.shape).encode() + truth.tobytes()).hexdigest()[:16]


def _task(run: Run, sample: Sample) -> Task:
    try:
        truth = run.dataset.truth(sample)
        return Task(sample, truth, run.choose(sample.key, truth))
    except InputError as error:
        return Task(sample, fault=error)


def _scored(run: Run, task: Task) -> Record:
    key, truth, labels, started = task.sample.key, task.truth, task.labels, perf_counter()
    if truth is None or labels is None or task.fault:
        return Record(key, str(task.fault), seconds=task.seconds)
    if truth.shape != labels.shape:
        sizes = f"expected a label map of the truth's size {truth.shape}, got {labels.shape}"
        return Record(key, f"{key}: {sizes}; scale label maps to the photo's size")
    counts, true = count(truth, labels, len(run.dataset.labels)), present(run.dataset, truth)
    if run.keep:
        colours = class_colours((BACKGROUND, *run.dataset.classes))
        save_png(run.folder / f"{key}.png", label_png(labels.astype(np.int32), colours))
    seconds = task.seconds | {"score": round(perf_counter() - started, 5)}
    return Record(key, "", _digest(truth), counts, task.named, true, task.salience, seconds)
