"""Names that somebody gives: the same for every photo."""

from dataclasses import dataclass

from pnp_ovss.naming.base import Guess, Naming
from pnp_ovss.naming.candidates import Candidates
from pnp_ovss.types import RGB


@dataclass(frozen=True)
class Given:
    """Returns a list of names; of those that are not in the vocabulary, if there is one, a note."""

    names: tuple[str, ...]
    source: str = "given"

    def __call__(self, image: RGB, candidates: Candidates | None, key: str) -> Naming:
        """Return the names, each with confidence 1."""
        found = {name: candidates.find(name) if candidates else name for name in self.names}
        notes = [f"{name!r} is not in the vocabulary" for name, known in found.items() if known is None]
        return Naming(tuple(Guess(name, 1.0) for name in dict.fromkeys(found.values()) if name), tuple(notes), None)
