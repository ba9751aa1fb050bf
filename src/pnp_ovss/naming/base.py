"""What a namer is, and what it returns."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from pnp_ovss.errors import ModelError
from pnp_ovss.types import RGB, Vocabulary

KEEP = 0.7
"""Names above this confidence count. Source: PnP-OVSS, which keeps what GPT-4o is more than 70 % sure of."""
MOST = 25
"""Names of a photo: a prompt of more is no longer read well, or not at all. Source: the authors' question to GPT-4o."""


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
