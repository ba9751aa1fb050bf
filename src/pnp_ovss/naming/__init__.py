"""Which classes a photo shows. A new namer is one file here and one line in ``NAMERS``."""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from pnp_ovss.errors import ConfigError
from pnp_ovss.naming.base import KEEP, Guess, Namer, Naming, NoReply, Stoppable
from pnp_ovss.naming.candidates import BENCHMARKS, Candidates, load_candidates
from pnp_ovss.naming.endpoint import KEY, Patience
from pnp_ovss.types import RGB, Vocabulary

__all__ = [
    "BENCHMARKS",
    "KEEP",
    "NAMERS",
    "Candidates",
    "Guess",
    "Namer",
    "Naming",
    "NoReply",
    "Options",
    "load_candidates",
    "load_namer",
    "name_photo",
    "name_photos",
]


@dataclass(frozen=True)
class Options:
    """What namers can be told; each takes what it needs."""

    names: tuple[str, ...] = ()
    """given: the names."""
    source: Path | None = None
    """cached: a file of names or replies, or the folder of a cache."""
    vlm: Callable[[], Any] | None = None
    """itm: gives the ``VLM`` that matches. Not named here, for its package loads seconds of libraries."""
    model: str | None = None
    """openai: a chat model; clip, caption: a short name, hub id or folder."""
    base_url: str | None = None
    """openai: another server than OpenAI's."""
    cache: Path | None = None
    """openai: folder of the replies."""
    patience: Patience | None = None
    """openai: how long to try."""
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
    namer: Namer,
    image: RGB,
    vocabulary: Candidates | Sequence[str] | None = None,
    key: str = "",
    keep: float = KEEP,
) -> tuple[str, ...]:
    """Return the names that the namer gives the photo with more than ``keep`` confidence, in its order.

    Raises: NoReply if this photo cannot be named, another PnpError if none can.
    """
    if vocabulary is not None and not isinstance(vocabulary, Candidates):
        vocabulary = Candidates.of(vocabulary)
    return namer(image, vocabulary, key).kept(keep)


def name_photos(
    namer: Namer, photos: Iterable[tuple[str, RGB]], candidates: Candidates | None, workers: int = 1
) -> Iterator[tuple[str, Naming | NoReply]]:
    """Yield key and names of every photo, in order, ``workers`` at a time; what could not be named as the error.

    Photos are read as they are needed, never more than twice the workers ahead. Stopped early, it waits for the calls
    under way and starts no other.
    """

    def name(key: str, image: RGB) -> tuple[str, Naming | NoReply]:
        try:
            return key, namer(image, candidates, key)
        except NoReply as error:
            return key, error

    rest = iter(photos)
    if workers == 1:
        for key, image in rest:
            yield name(key, image)
        return
    with ThreadPoolExecutor(workers, thread_name_prefix="namer") as pool:
        waiting: list[Future[tuple[str, Naming | NoReply]]] = []
        try:
            waiting += [pool.submit(name, *photo) for photo in islice(rest, 2 * workers)]
            while waiting:
                yield waiting.pop(0).result()
                waiting += [pool.submit(name, *photo) for photo in islice(rest, 1)]
        except BaseException:
            for future in waiting:
                future.cancel()
            if isinstance(namer, Stoppable):
                namer.stop()
            raise


def photo_namer(namer: Namer, candidates: Any = None, keep: float = KEEP, calls: int = 1) -> Any:
    """Return what names many photos, and gives their classes above ``keep`` confidence."""

    def name(photos: Iterable[tuple[str, RGB]]) -> Iterator[Any]:
        for key, naming in name_photos(namer, photos, candidates, calls):
            kept = naming.kept(keep) if isinstance(naming, Naming) else ()
            yield key, Vocabulary.of(kept) if kept else None if isinstance(naming, Naming) else naming

    return name


# The models load on use: a chat needs no torch model, and a captioner no other one.


def _given(options: Options) -> Namer:
    from pnp_ovss.naming.given import Given

    if not options.names:
        raise ConfigError("the given namer needs names; give them with --names 'dog, cat'")
    return Given(Candidates.of(options.names).names)


def _openai(options: Options) -> Namer:
    from pnp_ovss.naming.openai import MODEL, OpenAI

    if options.cache is None:
        raise ConfigError("the openai namer needs a folder for the replies; give one with --cache")
    # The only place that asks the environment for the key: it is no option, so that no record of options holds it.
    key = os.environ.get(KEY)
    return OpenAI(options.cache, options.model or MODEL, options.base_url, key, options.patience)


def _clip(options: Options) -> Namer:
    from pnp_ovss.models.clip import load_clip
    from pnp_ovss.naming.clip import ClipNamer

    return ClipNamer(load_clip(options.model or "clip-base", options.device, options.dtype))


def _itm(options: Options) -> Namer:
    from pnp_ovss.naming.itm import Itm

    if options.vlm is None:
        raise ConfigError("the itm namer needs a model; give one with --model, such as blip-large-flickr")
    return Itm.by(options.vlm())


def _caption(options: Options) -> Namer:
    from pnp_ovss.naming.caption import Captioner, CaptionNamer

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
