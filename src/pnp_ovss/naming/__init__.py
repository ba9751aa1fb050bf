"""Which classes a photo shows. A new namer is one file here and one line in ``NAMERS``."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from importlib import import_module
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from pnp_ovss.concurrent import ahead
from pnp_ovss.errors import ConfigError, InputError, ModelError, PnpError
from pnp_ovss.types import KEEP, RGB, Classes, Vocabulary

NAMERS = {
    "given": "cached.Given",
    "openai": "openai.OpenAI",
    "clip": "scores.ClipNamer",
    "itm": "scores.Itm",
    "caption": "caption.CaptionNamer",
    "cached": "cached.Cached",
}
"""Module and class by name; imported on use, for a chat needs no torch model, and a captioner no other one."""

IN_A_ROW = 5
"""Photos without a reply, one after the other, until a run stops: then it is not the photos' fault."""

MOST = 25
"""Names of a photo: a prompt of more is no longer read well, or not at all. Source: the authors' question to GPT-4o."""

NamePhotos = Callable[[Iterable[tuple[str, RGB]]], Iterator[tuple[str, Vocabulary | PnpError | None]]]
"""Gives the classes of many photos, each with its key: None where nothing was named, or why a photo has none."""


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
    base_url: str | None = field(default=None, repr=False)
    """openai: another server than OpenAI's."""
    cache: Path | None = None
    """openai: folder of the replies."""
    timeout: float = 60.0
    """openai: seconds until a call has failed."""
    retries: int = 5
    """openai: further calls after one that failed."""
    device: str = "auto"
    dtype: str = "auto"


class NoReply(ModelError):
    """No answer came for one photo. Others may fare better."""


class NotStored(NoReply):
    """No names are stored for one photo."""


@dataclass(frozen=True)
class NamedClass:
    """A class and how sure the namer is that the photo shows it, in [0, 1]."""

    name: str
    confidence: float


@dataclass(frozen=True)
class Naming:
    """The classes of one photo, each once, and a line for everything odd about how they came."""

    classes: tuple[NamedClass, ...]
    notes: tuple[str, ...] = ()
    most: int | None = MOST
    """How many of them count; None: all, for somebody has chosen them."""

    def kept(self, above: float = KEEP) -> tuple[str, ...]:
        """Return the names with more than this confidence, the surest ``most`` of them, in the namer's order."""
        sure = [named for named in self.classes if named.confidence > above]
        chosen = sorted(sure, key=lambda named: -named.confidence)[: self.most]
        return tuple(named.name for named in sure if named in chosen)


@runtime_checkable
class Namer(Protocol):
    """Says which classes a photo shows."""

    @property
    def source(self) -> str:
        """What names the classes, in words: "itm by mini-blip"."""

    def __call__(self, image: RGB, candidates: Vocabulary | None, key: str) -> Naming:
        """Return the classes of a photo, all of them among ``candidates`` where there are any.

        ``key`` is what the photo is called; only a namer that looks names up needs it.

        Raises: NoReply if this photo cannot be named, while others may; another PnpError if none can.
        """


def load_namer(name: str, options: Options) -> Namer:
    """Return the namer of this name.

    Raises: ConfigError if there is none, or it lacks an option; ModelError if its model cannot be loaded.
    """
    if name not in NAMERS:
        raise ConfigError(f"no namer {name!r}; the namers are {', '.join(NAMERS)}")
    module, kind = NAMERS[name].split(".")
    namer: Namer = getattr(import_module(f"pnp_ovss.naming.{module}"), kind).load(options)
    return namer


def name_photo(
    namer: Namer, image: RGB, candidates: Classes | None = None, key: str = "", keep: float = KEEP
) -> tuple[str, ...]:
    """Return the classes that the namer gives the photo with more than ``keep`` confidence, in its order.

    Raises: NoReply if this photo cannot be named, another PnpError if none can.
    """
    vocabulary = None if candidates is None else Vocabulary.of(candidates)
    return namer(image, vocabulary, key).kept(keep)


def photo_namer(namer: Namer, candidates: Vocabulary | None = None, keep: float = KEEP, calls: int = 1) -> NamePhotos:
    """Return what names many photos, as ``name_photos`` does, and gives their classes above ``keep`` confidence.

    Classes of a vocabulary keep their words.
    """

    def name(photos: Iterable[tuple[str, RGB]]) -> Iterator[tuple[str, Vocabulary | PnpError | None]]:
        for key, naming in name_photos(namer, photos, candidates, calls):
            if isinstance(naming, NoReply):
                yield key, naming
            else:
                kept = naming.kept(keep)
                try:
                    found = candidates.only(kept) if candidates else Vocabulary.of(kept) if kept else None
                    yield key, found if kept else None
                except InputError as error:  # a name that no model can read
                    yield key, error

    return name


def name_photos(
    namer: Namer, photos: Iterable[tuple[str, RGB]], candidates: Vocabulary | None = None, calls: int = 1
) -> Iterator[tuple[str, Naming | NoReply]]:
    """Yield key and classes of every photo, in order, ``calls`` at a time; what could not be named as the error.

    Photos are read as they are needed, at most twice the calls ahead. Stopped early, it waits for no call.

    Raises: ModelError if ``IN_A_ROW`` photos in a row get no reply, or none can be named.
    """

    def name(photo: tuple[str, RGB]) -> tuple[str, Naming | NoReply]:
        key, image = photo
        try:
            return key, namer(image, candidates, key)
        except NoReply as error:
            return key, error

    silent = 0
    # Its threads are daemons; those of concurrent.futures would keep the process alive.
    with ThreadPool(calls) as pool:
        side_by_side = ahead(lambda photo: pool.apply_async(name, (photo,)).get, photos, 2 * calls)
        for key, naming in side_by_side if calls > 1 else map(name, photos):
            silent = silent + 1 if isinstance(naming, NoReply) and not isinstance(naming, NotStored) else 0
            if silent == IN_A_ROW:
                raise ModelError(f"{silent} photos in a row got no reply, the last: {naming}; run it again later")
            yield key, naming
