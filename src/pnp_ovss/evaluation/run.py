"""A run over a data set: a record per image, written as soon as it is known; a stopped run goes on where it stopped.

In a label map 0 is the background or no class, n the n-th class of the data set; in a truth 255 is ``IGNORE``.

What is scored is what ``Segmenter`` returns, or label maps that any other system wrote.
"""

import hashlib
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence, Set
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
from jaxtyping import Float

from pnp_ovss.data.dataset import IGNORE, Dataset, Sample, read_values, table, translate
from pnp_ovss.data.vocabulary import BENCHMARKS, read_lines
from pnp_ovss.errors import InputError, PnpError
from pnp_ovss.evaluation.metrics import Labels, count
from pnp_ovss.evaluation.record import Record, read_record, write_record
from pnp_ovss.files import Source, expanded, look, read_json, save_png
from pnp_ovss.mini import THINGS, draw
from pnp_ovss.naming.replies import parse_reply
from pnp_ovss.pictures import class_colours, label_png
from pnp_ovss.runs import pipeline
from pnp_ovss.runs.record import source_of
from pnp_ovss.segmenter import Segmenter
from pnp_ovss.types import BACKGROUND, RGB, Vocabulary

ChooseClasses = Callable[[str, Labels], tuple[str, ...]]
"""Returns the classes to name, from an image's key and its truth, in the data set's order.

Raises: InputError if it knows nothing of that key."""


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
    confidence: dict[str, float] = field(default_factory=dict)
    """Of each class that has a region."""
    fault: PnpError | None = None
    seconds: dict[str, float] = field(default_factory=dict)
    source: Source | None = None
    """The file of the photo that was segmented; None where it is drawn, or the prediction comes from elsewhere."""
    company: bool = False
    """Whether it has its record, and is there for the others of its batch."""

    def read(self) -> tuple[RGB, Source | None]:
        """Return the photo and its file.

        Raises: InputError if it, or its truth, cannot be read.
        """
        if self.fault:
            raise self.fault
        return self.sample.read()


@dataclass(frozen=True)
class Run:
    """What is scored, and where the records go."""

    dataset: Dataset
    choose: ChooseClasses
    predict: Callable[[Iterable[Task]], Iterator[Task]]
    """Yields each task that is no company, in order, with its prediction or fault."""
    folder: Path
    keep: bool = True
    """Write the label map beside the record, and leave an image that has its record; label maps from elsewhere may have
    changed since."""
    batch: int = 1
    """Images that ``predict`` does together, cut by their place among all, whatever has its record."""


def scenes(count: int, seed: int, size: int) -> Dataset:
    """Return drawn scenes of a series as a data set: the things before a background."""

    def sample(index: int) -> Sample:
        scene = partial(draw, seed, index, size)
        return Sample(f"scene-{seed}-{index:05}", lambda: scene().image, lambda size: scene().things_mask())

    title, layout = f"Drawn scenes, {len(THINGS)} things and background", f"series {seed}, {size} x {size} pixels"
    to_label, samples = table(range(1, len(THINGS) + 1), {0: 0, IGNORE: IGNORE}), tuple(map(sample, range(count)))
    return Dataset("scenes", title, THINGS, True, samples, to_label, "scenes", layout)


def load_choice(
    source: str, dataset: Dataset, vocabulary: Vocabulary, protocol: str = "standard"
) -> tuple[str, ChooseClasses]:
    """Return what a report calls the choice, and the choice: "given" (every class), "truth", or that of a file.

    A ``.json`` file holds names per key: lists, or replies of GPT-4o as the authors keep them. Any other file holds
    names, one a line, that every image gets. By the protocol "authors" a reply without confidences is kept whole, and
    one of which nothing is kept stands for the first class. Source: ``Load_predicted_classes`` of their code.

    Raises: InputError if there is no such file, or it has a name that is no class and no word of the vocabulary.
    """
    if source in ("given", "truth"):
        return source, lambda key, truth: dataset.classes if source == "given" else _present(dataset, truth)
    path = Path(expanded(source))
    if not os.path.isfile(path):
        raise InputError(f"there is no file of names {path}; give truth, given, or a file")
    title = f"{path.name} ({hashlib.sha256(path.read_bytes()).hexdigest()[:12]})"
    if path.suffix == ".json":
        listed, theirs = read_json(path), protocol == "authors"
        title += f", else {dataset.classes[0]}" if theirs else ""
        return title, lambda key, truth: _of_image(listed.get(key), key, dataset, vocabulary, theirs)
    names = read_lines(path)
    strange = [name for name in names if vocabulary.find(name) not in dataset.classes]
    if strange:
        raise InputError(f"the names {path} hold {strange[0]!r}, which is no class of {dataset.name}")
    chosen = _in_order(names, dataset, vocabulary)
    return title, lambda key, truth: chosen


def evaluate(run: Run, samples: Sequence[Sample], changed: Callable[[int], None]) -> Iterator[Record]:
    """Yield the record of every sample: first those that are there, then the others, made and written now.

    A sample that could not be scored before, or whose photo or truth has changed, is done again; ``changed`` is called
    with the number of the latter.
    """
    rest, count = set[int](), 0
    for number, sample in enumerate(samples):
        record = _earlier(run, sample) if run.keep else None
        if record and _is_current(run, sample, record):
            yield record
        else:
            rest.add(number)
            count += record is not None
    changed(count)
    for task in run.predict(_tasks(run, samples, rest)):
        record = _scored(run, task)
        write_record(run.folder, record)
        yield record


def _tasks(run: Run, samples: Sequence[Sample], rest: Set[int]) -> Iterator[Task]:
    """Yield the tasks of all batches that have one to do, by its number."""
    for first in range(0, len(samples), run.batch):
        numbers = range(first, min(first + run.batch, len(samples)))
        if not rest.isdisjoint(numbers):
            yield from (_task(run, samples[number], number not in rest) for number in numbers)


def segment(
    tasks: Iterable[Task], segmenter: Segmenter, dataset: Dataset, words: Vocabulary, batch: int = 1, workers: int = 1
) -> Iterator[Task]:
    """Yield each task that is no company with what the segmenter predicts.

    ``workers``: photos read at a time, and on a GPU refined. A class is named by its words; those of the background,
    which become 0, only where the data set scores one and every class is named.
    """
    label = {BACKGROUND: 0} | {name: number for number, name in enumerate(dataset.classes, 1)}
    waiting = deque[Task]()

    def items() -> Iterator[pipeline.Item]:
        for task in tasks:
            if not task.company:
                waiting.append(task)
            every = dataset.background and len(task.named) == len(dataset.classes) and BACKGROUND in words.words
            named = (*task.named, BACKGROUND) if every else task.named
            classes = Vocabulary({cls: words.words[cls] for cls in named})
            yield pipeline.Item(task.sample.key, task.read, classes, task.company)

    for outcome in pipeline.run(lambda: segmenter, items(), batch=batch, readers=workers, finishers=workers):
        task = waiting.popleft()
        task.fault, task.seconds, task.source = outcome.fault, outcome.seconds, outcome.source
        if outcome.result is not None:
            own = np.array([label[name] for name in outcome.result.classes], dtype=np.uint8)
            task.labels, task.salience = own[outcome.result.labels], outcome.result.salience.max(axis=0, initial=0)
            found = outcome.result.label_map()
            scores = zip(found.classes, found.scores, outcome.result.areas.values(), strict=True)
            task.confidence = {name: score for name, score, area in scores if area and name != BACKGROUND}
            absent = outcome.result.presence.absent if outcome.result.presence else ()
            task.named = tuple(name for name in task.named if name not in absent)
        elif outcome.photo is not None:  # nothing was named
            task.labels = np.zeros(outcome.photo.shape[:2], dtype=np.uint8)
        yield task


def read_predictions(tasks: Iterable[Task], folder: Path, dataset: Dataset, values: str) -> Iterator[Task]:
    """Yield each task with the label map of another system; ``values`` as in ``read_prediction``."""
    for task in tasks:
        try:
            _check_photo(folder, task.sample)
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
    if not os.path.isfile(path):
        raise InputError(f"there is no prediction {path}; give a PNG per image, named by its key")
    first = 1 if values == "own" or dataset.background else 0
    own = table(range(first, first + len(dataset.classes)), {0: 0, IGNORE: IGNORE})
    to_label = dataset.to_label if values == "file" else own
    labels = translate(read_values(path), to_label, f"the prediction {path}")
    labels[labels == IGNORE] = 0
    return labels


def _check_photo(folder: Path, sample: Sample) -> None:
    """Raise InputError if the label map is ours, and was made of another content of the photo, as its record says."""
    path = folder / f"{sample.key}.json"
    source = source_of(read_json(path)) if isinstance(sample.image, Path) and path.is_file() else None
    if isinstance(sample.image, Path) and source and not source.is_unchanged(look(sample.image)):
        advice = "segment it again, or remove the record to score it all the same"
        raise InputError(f"{path} is the record of another photo than {sample.image} is now; {advice}")


def _present(dataset: Dataset, truth: Labels) -> tuple[str, ...]:
    """Return the classes that a truth holds, without the background."""
    labels = np.flatnonzero(np.bincount(truth.ravel(), minlength=1))  # several times faster than np.unique
    return tuple(dataset.classes[label - 1] for label in labels.tolist() if 0 < label < IGNORE)


def _of_image(names: Any, key: str, dataset: Dataset, vocabulary: Vocabulary, theirs: bool) -> tuple[str, ...]:
    """Return the classes of a file's entry: of a list in the data set's order, of a reply by numbers, in its own."""
    if isinstance(names, str):
        numbers = tuple(BENCHMARKS.get(dataset.words, ()))
        naming = parse_reply(names, Vocabulary(vocabulary.only(dataset.classes).words, numbers=numbers), by_number=True)
        without = theirs and not any(one.confidence for one in naming.classes)
        kept = tuple(one.name for one in naming.classes) if without else naming.kept()
        return kept or dataset.classes[:1] if theirs else kept
    if not (isinstance(names, list) and all(isinstance(name, str) for name in names)):
        raise InputError(f"expected a list of names for {key}, got {names!r:.40}; mend the file of names")
    return _in_order(names, dataset, vocabulary)


def _in_order(names: Iterable[str], dataset: Dataset, vocabulary: Vocabulary) -> tuple[str, ...]:
    """Return the classes so named. Names of no class are left out: a reply is data from outside."""
    found = {vocabulary.find(name) for name in names}
    return tuple(cls for cls in dataset.classes if cls in found)


def _earlier(run: Run, sample: Sample) -> Record | None:
    with suppress(InputError):  # there is none, or it is damaged
        record = read_record(run.folder / f"{sample.key}.json")
        whole = not record.fault and os.path.isfile(run.folder / f"{sample.key}.png")
        return record if whole else None
    return None


def _is_current(run: Run, sample: Sample, record: Record) -> bool:
    if isinstance(sample.image, Path) and not (record.photo and record.photo.is_unchanged(look(sample.image))):
        return False
    with suppress(InputError):  # the sample is done again, and says so
        return record.truth == _digest(run.dataset.truth(sample))
    return False


def _digest(truth: Labels) -> str:
    return hashlib.sha256(repr(truth.shape).encode() + truth.tobytes()).hexdigest()[:16]


def _task(run: Run, sample: Sample, company: bool) -> Task:
    try:
        truth = run.dataset.truth(sample)
        return Task(sample, truth, run.choose(sample.key, truth), company=company)
    except InputError as error:
        return Task(sample, fault=error, company=company)


def _scored(run: Run, task: Task) -> Record:
    key, truth, labels, started = task.sample.key, task.truth, task.labels, perf_counter()
    if truth is None or labels is None or task.fault:
        return Record(key, str(task.fault), seconds=task.seconds)
    if truth.shape != labels.shape:
        sizes = f"expected a label map of the truth's size {truth.shape}, got {labels.shape}"
        return Record(key, f"{key}: {sizes}; scale label maps to the photo's size")
    counts, true = count(truth, labels, len(run.dataset.labels)), _present(run.dataset, truth)
    if run.keep:
        colours = class_colours((BACKGROUND, *run.dataset.classes))
        save_png(run.folder / f"{key}.png", label_png(labels.astype(np.int32), colours))
    seconds = task.seconds | {"score": round(perf_counter() - started, 5)}
    return Record(
        key, "", _digest(truth), counts, task.named, true, task.salience, seconds, task.confidence, task.source
    )
