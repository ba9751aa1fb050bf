"""Names that are there already: your own, replies in a cache, a file that ``pnp-ovss name`` wrote, other replies.

A cache holds one file per question, so that no question is paid for twice.
"""

import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from pnp_ovss._version import VERSION
from pnp_ovss.errors import ConfigError, InputError
from pnp_ovss.files import read_json, write_text
from pnp_ovss.images import fingerprint
from pnp_ovss.naming import Naming, NotStored, Options
from pnp_ovss.naming.replies import Claim, named, parse_reply
from pnp_ovss.types import RGB, Vocabulary

REFUSALS = {"refused": "the model refused: ", "filtered": "the server's content filter refused: "}


Question = dict[str, str]
"""All that decides a reply: ``fingerprint`` of the "photo", ``digest`` of the "vocabulary", "model", and "prompt", the
hash of everything said beside photo and names."""


@dataclass(frozen=True)
class Reply:
    """What came back."""

    text: str
    status: str = "answered"
    """Or "refused": the model would not; "filtered": the server would not; "cut": it is too long."""
    tokens_in: int = 0
    tokens_out: int = 0

    def read(self, candidates: Vocabulary | None) -> Naming:
        """Return the names of the reply; of one that was refused none, with the reason as a note."""
        if self.status in REFUSALS:
            return Naming((), (REFUSALS[self.status] + " ".join(self.text.split())[:200],))
        naming = parse_reply(self.text, candidates)
        notes = ("the reply was cut short", *naming.notes) if self.status == "cut" else naming.notes
        return replace(naming, notes=notes)


@dataclass(frozen=True)
class Given:
    """Returns a list of names, the same for every photo; of those that are not in a vocabulary, a note."""

    names: tuple[str, ...]
    source: str = "given"

    @classmethod
    def load(cls, options: Options) -> "Given":
        """Return the namer with the names of the options."""
        if not options.names:
            raise ConfigError("the given namer needs names; give them with --names 'dog, cat'")
        return cls(Vocabulary.of(options.names).classes)

    def __call__(self, image: RGB, candidates: Vocabulary | None, key: str) -> Naming:
        """Return the names, each with confidence 1."""
        return read_entry([*self.names], candidates)


class Cached:
    """Looks names up: in a folder by the photo's pixels, in a file by what the photo is called."""

    def __init__(self, place: Path) -> None:
        if not os.path.exists(place):
            raise InputError(f"there is no {place}; give a file of names or replies, or the folder of a cache")
        self.source = f"cached in {place.name}"
        self._place = place
        content = {} if os.path.isdir(place) else read_json(place)
        photos = content.get("photos")
        self._entries: dict[str, Any] = photos if isinstance(photos, dict) else content
        self._replies = {(asked["photo"], asked["vocabulary"]): reply for asked, reply in replies(place)}

    @classmethod
    def load(cls, options: Options) -> "Cached":
        """Return the namer with the source of the options."""
        if options.source is None:
            raise ConfigError("the cached namer needs a file or folder; give one with --names-from")
        return cls(options.source)

    def __call__(self, image: RGB, candidates: Vocabulary | None, key: str) -> Naming:
        """Return the names that are stored for the photo.

        Raises: NotStored if there are none.
        """
        if key in self._entries:
            return read_entry(self._entries[key], candidates)
        if not os.path.isdir(self._place):
            raise NotStored(f"{self._place} has nothing for {key!r}; it goes by a photo's name without suffix")
        reply = self._replies.get((fingerprint(image), digest(candidates)))
        if reply is None:
            raise NotStored(f"{self._place} has no reply for {key!r} with this vocabulary")
        return reply.read(candidates)


def digest(candidates: Vocabulary | None) -> str:
    """Return a hash of names and their numbers: vocabularies of one digest ask the same. "open" without any."""
    if candidates is None:
        return "open"
    asked = sorted(zip(candidates.numbered(), candidates.terms, strict=True))
    return hashlib.sha256(json.dumps(asked).encode()).hexdigest()


def reply_file(cache: Path, question: Question) -> Path:
    """Return the file of a question's reply in the folder of a cache."""
    name = hashlib.sha256(json.dumps(question, sort_keys=True).encode()).hexdigest()
    return cache / name[:2] / f"{name}.json"


def load_reply(path: Path) -> tuple[Question, Reply] | None:
    """Return what a file of a cache holds, if it is there. A damaged one counts as absent."""
    try:
        record = read_json(path)
        question = {part: record["question"][part] for part in ("photo", "vocabulary", "model", "prompt")}
        reply = Reply(**record["reply"])
        return (question, reply) if isinstance(reply.text, str) else None
    except (InputError, KeyError, TypeError):
        return None


def save_reply(path: Path, question: Question, reply: Reply) -> None:
    """Write the reply to a file of its own, which is whole or not there.

    Raises: InputError if that cannot be done.
    """
    record = {"question": question, "reply": asdict(reply), "version": VERSION}
    write_text(path, json.dumps(record, indent=1, ensure_ascii=False) + "\n")


def replies(cache: Path) -> Iterator[tuple[Question, Reply]]:
    """Yield all questions and replies of a cache, in the order of their files."""
    return filter(None, map(load_reply, sorted(cache.glob("??/*.json"))))


def read_entry(entry: Any, candidates: Vocabulary | None) -> Naming:
    """Return the names of a file's entry: a reply as text, a list of names, or an object that ``name`` wrote."""
    if isinstance(entry, str):
        return parse_reply(entry, candidates)
    if isinstance(entry, list):
        certain = [Claim(str(name), confidence=1.0) for name in entry]
        return replace(named(certain, [], candidates), most=None)
    names = entry.get("names") if isinstance(entry, dict) else None
    if not isinstance(names, dict):
        return Naming((), ("the entry holds no names",))
    shares = {name: share for name, share in names.items() if isinstance(share, int | float) and 0 <= share <= 1}
    claims = [Claim(name, confidence=shares.get(name)) for name in names]
    notes = entry.get("notes")
    return named(claims, [*map(str, notes)] if isinstance(notes, list) else [], candidates)
