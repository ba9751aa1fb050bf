"""The one way through many photos: read, name, segment, refine, hand on. A bad photo is reported; the rest go on.

Photos are read, and the last ones refined, in threads while the model works on a batch.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any

import torch

from pnp_ovss.errors import InputError, ModelError, PnpError
from pnp_ovss.naming import NamePhotos
from pnp_ovss.pictures import check_count
from pnp_ovss.segmentation import Segmentation
from pnp_ovss.segmenter import Located, Segmenter
from pnp_ovss.types import RGB, Vocabulary


@dataclass(frozen=True)
class Item:
    """A photo to segment."""

    key: str
    read: Callable[[], RGB]
    """Gives the photo. Raises: InputError if it cannot be read."""
    classes: Vocabulary | None = None
    """None: a namer says them; an empty one: there is nothing to look for."""


@dataclass(eq=False)
class Outcome:
    """A photo on its way and at its end: a result, a fault, or neither where nothing was named."""

    key: str
    photo: RGB | None = None
    classes: Vocabulary | None = None
    located: Located | None = None
    """On its way only: between the model and the refinement."""
    result: Segmentation | None = None
    fault: PnpError | None = None
    seconds: dict[str, float] = field(default_factory=dict)
    """Per stage: "read", "segment" (a share of its batch), "refine"."""


def run(
    segmenter: Callable[[], Segmenter],
    items: Iterable[Item],
    name: NamePhotos | None = None,
    batch: int = 1,
    strict: bool = False,
    readers: int = 2,
    finishers: int = 1,
    finish: Callable[[Outcome], None] | None = None,
) -> Iterator[Outcome]:
    """Yield the outcome of every item, in order; few photos are held at a time.

    ``segmenter`` loads the model when the first photo needs it. Where the class names of a batch cannot be used, its
    photos are tried one by one; ``strict``: that error is raised, since all photos share their classes. ``finish``
    takes each outcome, such as to write it, in a thread while the model works. What stops the run is raised when the
    photos that the model is done with are finished, and yielded.

    Raises: PnpError if no photo can be done: the model cannot be loaded, or nobody names the photos any more.
    """

    def located(outcomes: Iterator[Outcome]) -> Iterator[Outcome | BaseException]:
        try:
            yield from _located(segmenter, outcomes, batch, strict)
        except (Exception, KeyboardInterrupt) as error:
            yield error

    def end(outcome: Outcome | BaseException) -> Outcome:
        if isinstance(outcome, BaseException):
            raise outcome
        if outcome.located is not None:
            begin = perf_counter()
            outcome.result, outcome.located = segmenter().refine(outcome.located), None
            outcome.seconds["refine"] = perf_counter() - begin
        if finish:
            finish(outcome)
        return outcome

    try:
        with ThreadPoolExecutor(readers) as reading, ThreadPoolExecutor(finishers) as finishing:
            started = ahead(_read, items, reading, readers + batch)
            named = _named(started, name) if name else started
            yield from ahead(end, located(named), finishing, finishers + batch)
    except torch.OutOfMemoryError as error:  # while naming, locating or refining
        raise ModelError("the GPU is full; use a smaller --batch-size, --dtype bfloat16 or --device cpu") from error


def ahead(task: Callable[[Any], Outcome], given: Iterable[Any], pool: Executor, most: int) -> Iterator[Outcome]:
    """Yield the task's result for everything given, in order, with at most so many under way or waiting to be taken.

    Closed early, it waits for those under way and starts no other.
    """
    waiting: deque[Future[Outcome]] = deque()
    try:
        for one in given:
            waiting.append(pool.submit(task, one))
            if len(waiting) == most:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        for future in waiting:
            future.cancel()


def _read(item: Item) -> Outcome:
    begin = perf_counter()
    outcome = Outcome(item.key, classes=item.classes)
    try:
        outcome.photo = item.read()
    except InputError as error:
        outcome.fault = error
    outcome.seconds["read"] = perf_counter() - begin
    return outcome


def _named(outcomes: Iterator[Outcome], name: NamePhotos) -> Iterator[Outcome]:
    waiting: deque[Outcome] = deque()

    def unnamed() -> Iterator[tuple[str, RGB]]:
        for outcome in outcomes:
            waiting.append(outcome)
            if outcome.photo is not None and outcome.classes is None:
                yield outcome.key, outcome.photo

    for _, answer in name(unnamed()):
        while waiting[0].photo is None or waiting[0].classes is not None:
            yield waiting.popleft()
        outcome = waiting.popleft()
        if isinstance(answer, PnpError):
            outcome.fault = answer
        else:
            outcome.classes = answer
        yield outcome
    yield from waiting


def _located(
    segmenter: Callable[[], Segmenter], outcomes: Iterator[Outcome], batch: int, strict: bool
) -> Iterator[Outcome]:
    """Yield the outcomes in order, located where they have classes; ``batch`` of those go together."""
    held: list[Outcome] = []
    group: list[Outcome] = []
    for outcome in outcomes:
        held.append(outcome)
        if not outcome.fault and outcome.classes and outcome.classes.words:
            group.append(outcome)
        if len(group) == batch:
            _locate(segmenter(), group, strict)
            yield from held
            held, group = [], []
    if group:
        _locate(segmenter(), group, strict)
    yield from held


def _locate(model: Segmenter, group: Sequence[Outcome], strict: bool) -> None:
    begin = perf_counter()
    photos = [outcome.photo for outcome in group if outcome.photo is not None]
    vocabularies = [outcome.classes for outcome in group if outcome.classes]
    try:
        for vocabulary in vocabularies:
            check_count(vocabulary.classes)
        found = model.locate(photos, vocabularies)
    except InputError as error:
        if strict:
            raise
        if len(group) == 1:
            group[0].fault = error
        else:
            for outcome in group:
                _locate(model, [outcome], strict)
        return
    for outcome, located in zip(group, found, strict=True):
        outcome.located = located
        outcome.seconds["segment"] = (perf_counter() - begin) / len(group)
