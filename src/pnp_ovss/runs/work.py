"""One process at work: the next photos are read and the last ones refined in threads while the model sees a batch."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from itertools import islice
from time import perf_counter
from typing import Any, TypeVar

import numpy as np
import torch
from jaxtyping import UInt8

from pnp_ovss.errors import InputError, ModelError, PnpError
from pnp_ovss.images import decode_image
from pnp_ovss.naming import Options, load_namer, name_photos
from pnp_ovss.naming.base import KEEP, Namer, Naming
from pnp_ovss.pictures import check_count
from pnp_ovss.runs.photos import Source, fetch
from pnp_ovss.runs.results import Results
from pnp_ovss.segmentation import Segmentation
from pnp_ovss.segmenter import Segmenter
from pnp_ovss.store import Folder
from pnp_ovss.types import RGB, Vocabulary

READERS, FINISHERS = 2, 1
"""Threads. A photo is refined on all cores, so one at a time is enough."""

Item = TypeVar("Item")
Done = TypeVar("Done")


@dataclass(frozen=True)
class Names:
    """What to look for: the same ``classes`` in every photo, or what a namer says of each."""

    classes: tuple[str, ...] = ()
    namer: str = ""
    options: Options = field(default_factory=Options)
    """Without its ``vlm``, which is the segmenter's own."""
    candidates: Vocabulary | None = None
    keep: float = KEEP
    calls: int = 1


@dataclass(frozen=True)
class Job:
    """What is done with every photo. It can be sent to another machine."""

    out: str
    """Folder of the results: a path or an address."""
    names: Names
    model: str
    preset: str = "auto"
    device: str = "auto"
    dtype: str = "auto"
    revision: str | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    batch: int = 1
    """Photos the model sees at a time."""


@dataclass(frozen=True)
class Outcome:
    """A photo that is done: its result is written, or, with a ``fault``, why there is none."""

    key: str
    fault: str = ""


Read = Callable[[], bytes]
"""Gives a photo's file. Raises: InputError if it cannot be read."""
Asked = tuple[Source, RGB | PnpError, tuple[str, ...]]
"""A photo, or why there is none, and what to look for in it."""
Named = tuple[Source, UInt8[np.ndarray, "_ _ 3"], tuple[str, ...]]
"""A photo and what to look for in it; the photos of a batch differ in size."""


def work_here(job: Job, sources: Iterable[Source]) -> Iterator[Outcome]:
    """Do the photos in this process; yield each as soon as its result is written."""
    yield from Worker(job)((source, partial(fetch, source.place)) for source in sources)


class Worker:
    """Does photos with one model, which is loaded at the first one that can be read."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._results = Results(Folder(job.out))

    @cached_property
    def segmenter(self) -> Segmenter:
        """The model with its settings."""
        job = self._job
        chosen = (job.model, job.preset, job.device, job.dtype, job.revision)
        return Segmenter.from_pretrained(*chosen, **job.settings)

    @cached_property
    def _namer(self) -> Namer:
        options = replace(self._job.names.options, vlm=lambda: self.segmenter.vlm)
        return load_namer(self._job.names.namer, options)

    def __call__(self, photos: Iterable[tuple[Source, Read]]) -> Iterator[Outcome]:
        """Do the photos and yield them in whatever order; few of them are held at a time.

        Raises: PnpError if no photo can be done: the model cannot be loaded or does not know the classes that all
        photos share, nobody names them any more, or results cannot be written.
        """
        batch = self._job.batch
        with ThreadPoolExecutor(READERS) as readers, ThreadPoolExecutor(FINISHERS) as finishers:
            loaded = ahead(_load, photos, readers, READERS + batch)
            try:
                yield from ahead(_call, self._seen(self._asked(loaded)), finishers, FINISHERS + batch)
            except torch.OutOfMemoryError as error:  # while naming, seeing or refining
                raise ModelError("the GPU is full; use a smaller --batch-size or --dtype bfloat16") from error

    def _asked(self, loaded: Iterator[tuple[Source, RGB | InputError]]) -> Iterator[Asked]:
        names = self._job.names
        if names.classes:
            yield from ((source, photo, names.classes) for source, photo in loaded)
            return
        held: dict[str, tuple[Source, RGB]] = {}
        faults: deque[Asked] = deque()

        def readable() -> Iterator[tuple[str, RGB]]:
            for source, photo in loaded:
                if isinstance(photo, InputError):
                    faults.append((source, photo, ()))
                else:
                    held[source.key] = source, photo
                    yield source.key, photo

        for key, naming in name_photos(self._namer, readable(), names.candidates, names.calls):
            source, photo = held.pop(key)
            while faults:
                yield faults.popleft()
            if isinstance(naming, Naming):
                yield source, photo, naming.kept(names.keep)
            else:
                yield source, naming, ()
        yield from faults

    def _seen(self, asked: Iterator[Asked]) -> Iterator[Callable[[], Outcome]]:
        """Yield what finishes each photo, once the model has seen it."""
        group: list[Named] = []
        for source, photo, classes in asked:
            if isinstance(photo, PnpError):
                yield partial(self._give_up, source, photo)
            elif not classes:
                yield partial(self._finish, source, photo, None, 0.0)
            else:
                group.append((source, photo, classes))
            if len(group) == self._job.batch:
                yield from self._look(group)
                group = []
        if group:
            yield from self._look(group)

    def _look(self, group: Sequence[Named]) -> Iterator[Callable[[], Outcome]]:
        sources, photos, classes = zip(*group, strict=True)
        segmenter, started = self.segmenter, perf_counter()
        try:
            for names in classes:
                check_count(names)
            finishes = segmenter.see(photos, classes)
        except InputError as error:
            if self._job.names.classes:  # they are the same for every photo
                raise
            if len(group) == 1:
                yield partial(self._give_up, sources[0], error)
            else:
                for one in group:
                    yield from self._look([one])
            return
        seconds = (perf_counter() - started) / len(group)
        for source, photo, finish in zip(sources, photos, finishes, strict=True):
            yield partial(self._finish, source, photo, finish, seconds)

    def _finish(self, source: Source, photo: RGB, finish: Callable[[], Segmentation] | None, seconds: float) -> Outcome:
        started = perf_counter()
        result = finish() if finish else None
        self._results.write(source.key, source.place, photo, result, seconds + perf_counter() - started)
        return Outcome(source.key)

    def _give_up(self, source: Source, fault: PnpError) -> Outcome:
        told = f"{source.key}: {fault}"
        self._results.write_fault(source.key, source.place, told)
        return Outcome(source.key, told)


def ahead(task: Callable[[Item], Done], items: Iterable[Item], pool: Executor, most: int) -> Iterator[Done]:
    """Yield the task's result of every item, in order, with at most so many under way or waiting to be taken.

    Stopped early, it waits for those under way and starts no other.
    """
    rest = iter(items)
    waiting: deque[Future[Done]] = deque()
    try:
        waiting.extend(pool.submit(task, item) for item in islice(rest, most))
        while waiting:
            yield waiting.popleft().result()
            waiting.extend(pool.submit(task, item) for item in islice(rest, 1))
    finally:
        for future in waiting:
            future.cancel()


def _load(found: tuple[Source, Read]) -> tuple[Source, RGB | InputError]:
    source, read = found
    try:
        return source, decode_image(read(), "the file")  # the fault says whose
    except InputError as error:
        return source, error


def _call(finish: Callable[[], Outcome]) -> Outcome:
    return finish()
