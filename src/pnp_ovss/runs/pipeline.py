"""The one way through many photos: read, name, segment, refine, hand on. A bad photo is reported; the rest go on.

Photos are read, and the last ones written, in threads while the model works on a batch. On a GPU it works while they
are refined, too; on a CPU both would want all cores, and take turns.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from threading import Lock
from time import perf_counter
from typing import Any

import torch

from pnp_ovss.concurrent import ahead
from pnp_ovss.errors import InputError, ModelError, PnpError
from pnp_ovss.files import Source
from pnp_ovss.models.gpu import beside
from pnp_ovss.naming import NamePhotos
from pnp_ovss.pictures import check_count
from pnp_ovss.segmentation import Segmentation
from pnp_ovss.segmenter import Located, Segmenter
from pnp_ovss.types import RGB, Vocabulary

Load = Callable[[], Segmenter]
"""Gives the segmenter, which is loaded at the first call."""


@dataclass(frozen=True)
class Item:
    """A photo to segment."""

    key: str
    read: Callable[[], tuple[RGB, Source | None]]
    """Gives the photo and the file it was read from, if it was. Raises: InputError if it cannot be read."""
    classes: Vocabulary | None = None
    """None: a namer says them; an empty one: there is nothing to look for."""
    company: bool = False
    """Whether it goes through the model for the sake of the others of its batch, and no further."""


@dataclass(eq=False)
class Outcome:
    """A photo on its way and at its end: a result, a fault, or neither where nothing was named."""

    key: str
    photo: RGB | None = None
    source: Source | None = None
    """The file that the photo was read from."""
    company: bool = False
    classes: Vocabulary | None = None
    located: Located | None = None
    """Class maps on the way to a result."""
    result: Segmentation | None = None
    fault: PnpError | None = None
    seconds: dict[str, float] = field(default_factory=dict)
    """Per stage: "read", "segment" (a share of its batch), "refine"."""


def run(
    segmenter: Load,
    items: Iterable[Item],
    name: NamePhotos | None = None,
    batch: int = 1,
    strict: bool = False,
    readers: int = 2,
    finishers: int = 1,
    finish: Callable[[Outcome], None] = lambda outcome: None,
) -> Iterator[Outcome]:
    """Yield the outcome of every item that is no company, in order; few photos are held at a time.

    Items are cut into batches of ``batch``, one after the other, and a batch goes through the model together: without
    those that cannot be read or have no classes, whose places stay empty, so that who goes together depends on nothing
    but the items. It counts, as a matrix product of another height rounds otherwise.
    ``segmenter`` loads the model when the first photo needs it. Where the class names of a batch cannot be used, its
    photos are tried one by one; ``strict``: that error is raised, since all photos share their classes. ``finish``
    takes each outcome, such as to write it, in the thread that refines; a photo is refined on all cores, so one at a
    time is enough, and on a CPU there is never more.

    Raises: PnpError if no photo can be done: the model cannot be loaded, or nobody names the photos any more.
    """
    reading, finishing = ThreadPoolExecutor(readers), ThreadPoolExecutor(finishers)
    turn = partial(_turn, Lock())
    try:
        started = ahead(lambda item: reading.submit(_read, item).result, items, readers + batch)
        located = _located(segmenter, turn, _named(started, name) if name else started, batch, strict)
        end = partial(_refined, segmenter, turn, finish)
        for group in ahead(lambda some: finishing.submit(end, some).result, _error_last(located), finishers + 1):
            yield from (outcome for outcome in group if not outcome.company)
    except torch.OutOfMemoryError as error:  # while naming, locating or refining
        raise ModelError("the GPU is full; use a smaller --batch-size, --dtype bfloat16 or --device cpu") from error
    finally:
        for pool in (reading, finishing):  # what is under way is waited for, and nothing else is started
            pool.shutdown(cancel_futures=True)


Turn = Callable[[Segmenter], AbstractContextManager[Any]]
"""Waits, where model and refinement compute on the same cores, until the other is done."""


def _turn(cores: Lock, segmenter: Segmenter) -> AbstractContextManager[Any]:
    return cores if segmenter.method.device.type == "cpu" else nullcontext()


def _error_last(outcomes: Iterator[list[Outcome]]) -> Iterator[list[Outcome] | BaseException]:
    """Yield the outcomes, then the error that ends them, which waits its turn until those before it are finished."""
    try:
        yield from outcomes
    except (Exception, KeyboardInterrupt) as error:
        yield error


def _read(item: Item) -> Outcome:
    begin = perf_counter()
    outcome = Outcome(item.key, company=item.company, classes=item.classes)
    try:
        outcome.photo, outcome.source = item.read()
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
    segmenter: Load, turn: Turn, outcomes: Iterator[Outcome], batch: int, strict: bool
) -> Iterator[list[Outcome]]:
    """Yield the outcomes in order, ``batch`` at a time, with the class maps of those that have classes."""
    while held := list(islice(outcomes, batch)):
        group = [one for one in held if not one.fault and one.classes is not None and one.classes.words]
        if not all(one.company for one in group):
            _locate(segmenter(), turn, group, strict)
        yield held


def _locate(model: Segmenter, turn: Turn, group: Sequence[Outcome], strict: bool) -> None:
    """Give each outcome its class maps, or the fault of its class names."""
    photos = [outcome.photo for outcome in group if outcome.photo is not None]
    vocabularies = [outcome.classes for outcome in group if outcome.classes]
    try:
        for vocabulary in vocabularies:
            check_count(vocabulary.classes)
        with turn(model):
            begin = perf_counter()
            located = model.locate(photos, vocabularies)
            seconds = (perf_counter() - begin) / len(group)
    except InputError as error:
        if strict:
            raise
        if len(group) == 1:
            group[0].fault = error
        for outcome in group if len(group) > 1 else ():
            _locate(model, turn, [outcome], strict)
        return
    for outcome, found in zip(group, located, strict=True):
        outcome.located = found
        outcome.seconds["segment"] = seconds


def _refined(
    segmenter: Load, turn: Turn, finish: Callable[[Outcome], None], group: list[Outcome] | BaseException
) -> list[Outcome]:
    """Refine and finish a batch: on a GPU together, else one photo after the other."""
    if isinstance(group, BaseException):
        raise group
    own = [outcome for outcome in group if not outcome.company]
    located = any(outcome.located for outcome in own)
    together = located and segmenter().method.device.type == "cuda"
    for some in [own] if together else [[outcome] for outcome in own]:
        _refine(segmenter, turn, [outcome for outcome in some if outcome.located])
        for outcome in some:
            finish(outcome)
    return group


def _refine(segmenter: Load, turn: Turn, group: Sequence[Outcome]) -> None:
    """Give each outcome its result, or the fault that there is no memory for it."""
    if not group:
        return
    model, located = segmenter(), [outcome.located for outcome in group if outcome.located]
    for outcome in group:
        outcome.located = None
    with turn(model), beside(model.method.device):
        begin = perf_counter()
        try:
            for outcome, result in zip(group, model.refine_all(located), strict=True):
                outcome.result = result
        except InputError as error:
            for outcome in group:
                outcome.fault = error
        seconds = (perf_counter() - begin) / len(group)
    for outcome in group:
        outcome.seconds["refine"] = seconds
