"""What the page does for its visitors: segment and name their photos, in one thread with a waiting line."""

import asyncio
import json
import shutil
import threading
import time
from collections.abc import AsyncIterator, Callable, Sequence, Set
from concurrent.futures import CancelledError, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np

from pnp_ovss.data.vocabulary import load_vocabulary, parse_classes
from pnp_ovss.errors import InputError
from pnp_ovss.images import decode_image
from pnp_ovss.methods import resolve_config
from pnp_ovss.methods.pnp import PnP
from pnp_ovss.models import VLM, load_vlm
from pnp_ovss.naming import Options, load_namer, name_photo
from pnp_ovss.pictures.palette import Palette
from pnp_ovss.runs.record import write_result
from pnp_ovss.segmentation import Segmentation
from pnp_ovss.segmenter import Segmenter
from pnp_ovss.types import RGB, OnStep, Pass, Vocabulary

MOST_NAMES = 60
MOST_WAITING = 16
"""Requests that may wait for their turn."""
MOST_OF_ONE = 2
"""Requests of one visitor that may be in the line."""
MOST_BYTES = 4_000_000_000
"""Of all files together; of more, the oldest go."""
KEEP = 3600
"""Seconds until what a visitor sent or was given is removed."""
SWEEP, POLL = 30, 0.02
"""Seconds between two sweeps of the files, and between two questions whether the work has gone on."""


class PageModels:
    """The models that a page offers, each loaded once.

    Photos of more than ``most_pixels`` are refused by their header, before anything is decoded. ``memory``: as
    ``Segmenter`` takes it.
    """

    def __init__(
        self, models: Sequence[str], device: str = "auto", most_pixels: int = 50_000_000, memory: int | None = None
    ) -> None:
        self.models = tuple(models)
        self.most_pixels, self.memory = most_pixels, memory
        self.palette = Palette(grows=True)
        """One colour and value per class, whoever names it."""
        self.vlm: Callable[[str], VLM] = cache(partial(load_vlm, device=device))
        """Loads a model once. Only the page's choices get here: a request with another one is refused before."""

    def photo(self, path: str | None) -> RGB:
        """Return the photo of an uploaded file.

        Raises: InputError if there is none, it is no picture, or it has more than ``most_pixels``.
        """
        if path is None:
            raise InputError("there is no photo yet; upload one, or pick a sample")
        return decode_image(Path(path).read_bytes(), "the photo", self.most_pixels)

    def name(self, photo: RGB, model: str) -> tuple[str, ...]:
        """Return the classes that the model's own matching head finds in the photo, the surest first.

        Candidates are the names it can know, where these are few, else those of COCO's objects.
        """
        vlm = self.vlm(model)
        vocabulary = Vocabulary.of(vlm.known) if vlm.known else load_vocabulary("coco-object")
        return name_photo(load_namer("itm", Options(vlm=lambda: vlm)), photo, vocabulary)

    def segment(
        self,
        path: str | None,
        names: str,
        model: str,
        preset: str,
        refiners: Sequence[str],
        on_step: OnStep,
        present: str = "all",
    ) -> tuple[Segmentation, tuple[Pass, ...]]:
        """Return the segmentation of an uploaded photo and its passes; ``names`` are as the command line takes them.

        Raises: PnpError, and what ``on_step`` raises, before the next step.
        """
        photo, vocabulary = self.photo(path), parse_classes(names)
        if (count := len(vocabulary.flat)) > MOST_NAMES:
            raise InputError(f"expected at most {MOST_NAMES} words, got {count}; name fewer")
        config = resolve_config(model, preset, refiners=tuple(dict.fromkeys(refiners)))
        segmenter = Segmenter(PnP(self.vlm(model), config), self.memory, present)
        (located,) = segmenter.locate([photo], [vocabulary], on_step)
        result = replace(segmenter.refine(located, on_step), palette=self.palette)
        return result, located.maps.passes if located.maps else ()


def write_downloads(result: Segmentation, photo: Path, folder: Path) -> list[str]:
    """Write what ``pnp-ovss segment`` does, a COCO file, and a ZIP of all; return label map, COCO and ZIP."""
    files = folder / "files"
    write_result(files, photo, np.asarray(result.photo), result, 0.0)
    coco = files / f"{photo.stem}.coco.json"
    coco.write_text(json.dumps(result.to_coco(photo.name), ensure_ascii=False), encoding="utf-8")
    packed = shutil.make_archive(str(folder / "segmentation"), "zip", files)
    return [str(files / f"{photo.stem}.png"), str(coco), packed]


def sweep(folder: Path, own: Set[Path], most: int = MOST_BYTES) -> None:
    """Remove the files that are ``KEEP`` old, and the oldest of those beyond ``most`` bytes; ``own`` ones stay."""
    files = [(path.stat(), path) for path in folder.rglob("*") if path not in own and path.is_file()]
    held = sum(stat.st_size for stat, _ in files)
    for stat, path in sorted(files, key=lambda file: file[0].st_mtime):
        if stat.st_mtime < time.time() - KEEP or held > most:
            path.unlink(missing_ok=True)
            held -= stat.st_size


def sweep_on(folder: Path) -> None:
    """Sweep the folder, in a thread, as long as it is there; the files that are there now stay."""

    def work() -> None:
        while folder.exists():
            with suppress(FileNotFoundError):  # gone meanwhile; the next sweep takes the others
                sweep(folder, own)
            time.sleep(SWEEP)

    own = frozenset(folder.rglob("*"))
    threading.Thread(target=work, daemon=True).start()


@dataclass(eq=False)
class _Job:
    visitor: str
    status: str = ""
    cancelled: bool = False

    def on_step(self, name: str, done: int, total: int) -> None:
        if self.cancelled:
            raise CancelledError
        self.status = f"{name} {done + 1} of {total}"


class WaitingLine:
    """One thread for the models and the line before it. To be used from one event loop."""

    def __init__(self) -> None:
        self._jobs: list[_Job] = []  # the first one is worked on
        self._thread = ThreadPoolExecutor(1, "model")

    async def run(self, visitor: str, work: Callable[[OnStep], Any]) -> AsyncIterator[Any]:
        """Yield what is going on, whenever that changes: who is before the visitor, or the step. The result comes last.

        Raises: InputError if too many wait already, or this visitor does; CancelledError after ``cancel``: a step
        under way is finished then, and the next visitor's work begins after it.
        """
        if sum(job.visitor == visitor for job in self._jobs) >= MOST_OF_ONE:
            raise InputError(f"{MOST_OF_ONE} of your requests are not done yet; wait for them, or cancel them")
        if len(self._jobs) > MOST_WAITING:
            raise InputError(f"too many at once: {MOST_WAITING} are waiting already; try again in a minute")
        job, status = _Job(visitor), ""
        self._jobs.append(job)
        future = self._thread.submit(work, job.on_step)
        try:
            while not future.done():
                if job.cancelled:
                    raise CancelledError
                before = self._jobs.index(job)
                now = f"waiting, {before} before you" if before else job.status
                if now != status:
                    yield now
                status = now
                await asyncio.sleep(POLL)
            yield future.result()
        finally:
            job.cancelled = True
            future.cancel()
            self._jobs.remove(job)

    def cancel(self, visitor: str) -> None:
        """End all that a visitor is waiting for."""
        for job in self._jobs:
            job.cancelled |= job.visitor == visitor
