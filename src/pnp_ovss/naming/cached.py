"""Names that are there already: replies in a cache, a file that ``pnp-ovss name`` wrote, or the authors' replies.

A cache holds one file per question, so that no question is paid for twice.
"""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from pnp_ovss._version import VERSION
from pnp_ovss.errors import InputError
from pnp_ovss.files import write_text
from pnp_ovss.images import fingerprint
from pnp_ovss.naming.base import MOST, Naming, NotStored
from pnp_ovss.naming.replies import Claim, named, parse_reply
from pnp_ovss.types import RGB, Vocabulary

Status = Literal["answered", "refused", "filtered", "cut"]
REMARKS = {
    "refused": "the model refused: ",
    "filtered": "the server's content filter refused: ",
    "cut": "the reply was cut short",
}


@dataclass(frozen=True)
class Question:
    """All that decides the reply."""

    photo: str
    """Fingerprint of the pixels."""
    vocabulary: str
    """``digest`` of the names."""
    model: str
    prompt: str
    """Digest of everything said beside the photo and the names."""

    def place(self, folder: Path) -> Path:
        """Return the file of its reply in the folder of a cache."""
        name = hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()
        return folder / name[:2] / f"{name}.json"


@dataclass(frozen=True)
class Reply:
    """What came back. ``refused``: the model would not; ``filtered``: the server would not; ``cut``: too long."""

    text: str
    status: Status = "answered"
    tokens_in: int = 0
    tokens_out: int = 0


class Cached:
    """Looks names up: in a folder by the photo's pixels, in a file by what the photo is called."""

    def __init__(self, place: Path) -> None:
        if not place.exists():
            raise InputError(f"there is no {place}; give a file of names or replies, or the folder of a cache")
        self.source = f"cached in {place.name}"
        self._place = place
        self._entries = None if place.is_dir() else _entries(place)

    def __call__(self, image: RGB, candidates: Vocabulary | None, key: str) -> Naming:
        """Return the names that are stored for the photo.

        Raises: NotStored if there are none.
        """
        if self._entries is None:
            reply = self._replies.get((fingerprint(image), digest(candidates)))
            if reply is None:
                raise NotStored(f"{self._place} has no reply for {key!r} with this vocabulary")
            return read_reply(reply, candidates)
        if key not in self._entries:
            raise NotStored(f"{self._place} has nothing for {key!r}; it goes by a photo's name without suffix")
        return read_entry(self._entries[key], candidates)

    @cached_property
    def _replies(self) -> dict[tuple[str, str], Reply]:
        return {(question.photo, question.vocabulary): reply for question, reply in replies(self._place)}


def digest(candidates: Vocabulary | None) -> str:
    """Return a hash of names and their numbers: vocabularies of one digest ask the same. "open" without any."""
    if candidates is None:
        return "open"
    return hashlib.sha256(json.dumps(sorted(candidates.numbered().items())).encode()).hexdigest()


def load_reply(cache: Path, question: Question) -> Reply | None:
    """Return the reply to a question, if it is in the cache. Damaged files count as absent."""
    found = _read(question.place(cache))
    return found[1] if found else None


def save_reply(cache: Path, question: Question, reply: Reply) -> None:
    """Write the reply to a file of its own, which is whole or not there.

    Raises: InputError if that cannot be done.
    """
    record = {"question": asdict(question), "reply": asdict(reply), "version": VERSION}
    write_text(question.place(cache), json.dumps(record, indent=1, ensure_ascii=False) + "\n")


def replies(cache: Path) -> Iterator[tuple[Question, Reply]]:
    """Yield all questions and replies of a cache, in the order of their files."""
    return filter(None, map(_read, sorted(cache.glob("??/*.json"))))


def read_reply(reply: Reply, candidates: Vocabulary | None) -> Naming:
    """Return the names of a reply; of one that was refused none, with the reason as a note."""
    if reply.status in ("refused", "filtered"):
        return Naming((), (REMARKS[reply.status] + " ".join(reply.text.split())[:200],))
    naming = parse_reply(reply.text, candidates)
    return naming if reply.status == "answered" else replace(naming, notes=(REMARKS["cut"], *naming.notes))


def read_entry(entry: Any, candidates: Vocabulary | None) -> Naming:
    """Return the names of a file's entry: a reply as text, a list of names, or an object that ``name`` wrote."""
    if isinstance(entry, str):
        return parse_reply(entry, candidates)
    if isinstance(entry, list) and all(isinstance(name, str) for name in entry):
        return named([Claim(name, confidence=1.0) for name in entry], [], candidates, most=None)
    names, notes = (entry.get("names"), entry.get("notes", [])) if isinstance(entry, dict) else (None, [])
    if not isinstance(names, dict) or not isinstance(notes, list):
        return Naming((), ("the entry holds no names",))
    odd = [name for name, share in names.items() if not (isinstance(share, int | float) and 0 <= share <= 1)]
    notes = [*map(str, notes), *(f"{name!r} has no confidence from 0 to 1" for name in odd)]
    claims = [Claim(name, confidence=float(share)) for name, share in names.items() if name not in odd]
    return named(claims, notes, candidates, MOST)


def _read(path: Path) -> tuple[Question, Reply] | None:
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        return Question(**record["question"]), Reply(**record["reply"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _entries(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError):
        content = None
    if isinstance(content, dict) and isinstance(content.get("photos"), dict):
        content = content["photos"]
    if not isinstance(content, dict):
        raise InputError(f"the names {path} cannot be read; expected a JSON file with an entry per photo")
    return content
