"""What a namer is, and what it returns."""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from pnp_ovss.errors import ModelError
from pnp_ovss.naming.candidates import Candidates
from pnp_ovss.types import RGB

KEEP = 0.7
"""Names above this confidence count. Source: PnP-OVSS, which keeps what GPT-4o is more than 70 % sure of."""

MOST = 25
"""Names of a photo: a prompt of more is no longer read well, or not at all. Source: the authors' question to GPT-4o."""


@dataclass(frozen=True)
class Guess:
    """A name and how sure the namer is that the photo shows it, in [0, 1]."""

    name: str
    confidence: float


@dataclass(frozen=True)
class Naming:
    """The names of one photo, each once, and a line for everything odd about how they came."""

    guesses: tuple[Guess, ...]
    notes: tuple[str, ...] = ()
    most: int | None = MOST
    """How many of them count; None: all, for somebody has chosen them."""

    def kept(self, above: float = KEEP) -> tuple[str, ...]:
        """Return the names with more than this confidence, the surest ``most`` of them, in the namer's order."""
        sure = [guess for guess in self.guesses if guess.confidence > above]
        chosen = sorted(sure, key=lambda guess: -guess.confidence)[: self.most]
        return tuple(guess.name for guess in sure if guess in chosen)


@runtime_checkable
class Namer(Protocol):
    """Says which classes a photo shows."""

    @property
    def source(self) -> str:
        """Who names, in words: "itm by mini-blip"."""

    def __call__(self, image: RGB, candidates: Candidates | None, key: str) -> Naming:
        """Return the names of a photo, all of them ``candidates`` where there are any.

        ``key`` is what the photo is called; only a namer that looks names up needs it.

        Raises: NoReply if this photo cannot be named, while others may; another PnpError if none can.
        """


@runtime_checkable
class Stoppable(Protocol):
    """A namer that may be waiting for something."""

    def stop(self) -> None:
        """Wait no more."""


class NoReply(ModelError):
    """One photo got no names: no answer came, or none is stored. Others may fare better."""
