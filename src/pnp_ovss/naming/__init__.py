"""Which classes a photo shows. A new namer is one file here and one line in ``NAMERS``."""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from multiprocessing.pool import AsyncResult, ThreadPool
from pathlib import Path
from typing import Any, TypeVar

from pnp_ovss.errors import ConfigError, ModelError, PnpError
from pnp_ovss.naming.base import KEEP, Namer, Naming, NoReply, NotStored
from pnp_ovss.types import RGB, Classes, Vocabulary

IN_A_ROW = 5
"""Photos without a reply, one after the other, until a run stops: then it is not the photos' fault."""

NamePhotos = Callable[[Iterable[tuple[str, RGB]]], Iterator[tuple[str, Vocabulary | PnpError | None]]]
"""Gives the classes of many photos, each with its key: None where nothing was named, or why a photo has none."""

Item = TypeVar("Item")
Done = TypeVar("Done")


@dataclass(frozen=True)
class Options:
    """The settings of namers; each takes what it needs."""

    names: tuple[str, ...] = ()
    """given: the names."""
    source: Path | None = None
    """cached: a file of names or replies, or the folder of a cache."""
    vlm: Callable[[], Any] | None = None
    """itm: gives the ``VLM`` that matches."""
    model: str | None = None
    """openai: a chat model; clip, caption: a short name, hub id or folder."""
    base_url: str | None = None
    """openai: another server than OpenAI's."""
    cache: Path | None = None
    """openai: folder of the replies."""
    timeout: float = 60.0
    """openai: seconds until a call has failed."""
    retries: int = 5
    """openai: further calls after one that failed."""
    device: str = "auto"
    dtype: str = "auto"


def load_namer(name: str, options: Options) -> Namer:
    """Return the namer of this name.

    Raises: ConfigError if there is none, or it lacks an option; ModelError if its model cannot be loaded.
    """
    if name not in NAMERS:
        raise ConfigError(f"no namer {name!r}; the namers are {', '.join(NAMERS)}")
    return NAMERS[name](options)


def name_photo(
    namer: Namer, image: RGB, candidates: Classes | None = None, key: str = "", keep: float = KEEP
) -> tuple[str, ...]:
    """Return the classes that the namer gives the photo with more than ``keep`` confidence, in its order.

    Raises: NoReply if this photo cannot be named, another PnpError if none can.
    """
    vocabulary = None if candidates is None else Vocabulary.of(candidates)
    return namer(image, vocabulary, key).kept(keep)


def photo_namer(namer: Namer, candidates: Vocabulary | None = None, keep: float = KEEP, calls: int = 1) -> NamePhotos:
    """Return what names many photos, as ``name_photos`` does, and gives their classes above ``keep`` confidence."""

    def name(photos: Iterable[tuple[str, RGB]]) -> Iterator[tuple[str, Vocabulary | PnpError | None]]:
        for key, naming in name_photos(namer, photos, candidates, calls):
            if isinstance(naming, Naming):
                kept = naming.kept(keep)
                yield key, Vocabulary.of(kept) if kept else None
            else:
                yield key, naming

    return name


def name_photos(
    namer: Namer, photos: Iterable[tuple[str, RGB]], candidates: Vocabulary | None = None, calls: int = 1
) -> Iterator[tuple[str, Naming | NoReply]]:
    """Yield key and classes of every photo, in order, ``calls`` at a time; what could not be named as the error.

    Photos are read as they are needed, at most twice the calls ahead.

    Raises: ModelError if ``IN_A_ROW`` photos in a row get no reply, or none can be named.
    """

    def name(photo: tuple[str, RGB]) -> tuple[str, Naming | NoReply]:
        key, image = photo
        try:
            return key, namer(image, candidates, key)
        except NoReply as error:
            return key, error

    silent = 0
    for key, naming in _ahead(name, photos, calls):
        silent = silent + 1 if isinstance(naming, NoReply) and not isinstance(naming, NotStored) else 0
        if silent == IN_A_ROW:
            raise ModelError(f"{silent} photos in a row got no reply, the last: {naming}; run it again later")
        yield key, naming


def _ahead(task: Callable[[Item], Done], items: Iterable[Item], workers: int) -> Iterator[Done]:
    """Yield the task's results, in order. Stopped early, it waits for nothing, for the threads are daemons."""
    if workers == 1:
        yield from map(task, items)
        return
    waiting: deque[AsyncResult[Done]] = deque()
    with ThreadPool(workers) as pool:
        for item in items:
            waiting.append(pool.apply_async(task, (item,)))
            if len(waiting) == 2 * workers:
                yield waiting.popleft().get()
        while waiting:
            yield waiting.popleft().get()


# Their modules are imported on use: a chat needs no torch model, and a captioner no other one.


def _given(options: Options) -> Namer:
    from pnp_ovss.naming.given import Given

    if not options.names:
        raise ConfigError("the given namer needs names; give them with --names 'dog, cat'")
    return Given(Vocabulary.of(options.names).classes)


def _openai(options: Options) -> Namer:
    from pnp_ovss.naming.openai import KEY, MODEL, OpenAI

    if options.cache is None:
        raise ConfigError("the openai namer needs a folder for the replies; give one with --cache")
    # The only place that asks the environment for the key: it is no option, so that no record of options holds it.
    key = os.environ.get(KEY)
    model = options.model or MODEL
    return OpenAI(options.cache, model, options.base_url, key, options.timeout, options.retries)


def _clip(options: Options) -> Namer:
    from pnp_ovss.models.clip import load_clip
    from pnp_ovss.naming.clip import ClipNamer

    return ClipNamer(load_clip(options.model or "clip-base", options.device, options.dtype))


def _itm(options: Options) -> Namer:
    from pnp_ovss.naming.itm import Itm

    if options.vlm is None:
        raise ConfigError("the itm namer needs a model; give one with --model, such as blip-large-flickr")
    return Itm.from_vlm(options.vlm())


def _caption(options: Options) -> Namer:
    from pnp_ovss.models.captioner import Captioner
    from pnp_ovss.naming.caption import CaptionNamer

    return CaptionNamer(Captioner(options.model or "blip-caption-base", options.device, options.dtype))


def _cached(options: Options) -> Namer:
    from pnp_ovss.naming.cached import Cached

    if options.source is None:
        raise ConfigError("the cached namer needs a file or folder; give one with --names-from")
    return Cached(options.source)


NAMERS: dict[str, Callable[[Options], Namer]] = {
    "given": _given,
    "openai": _openai,
    "clip": _clip,
    "itm": _itm,
    "caption": _caption,
    "cached": _cached,
}
