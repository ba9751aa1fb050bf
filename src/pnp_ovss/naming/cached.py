"""Names that are there already: replies in a cache, a file that ``pnp-ovss name`` wrote, or the authors' replies."""

import json
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from pnp_ovss.errors import InputError
from pnp_ovss.images import shown
from pnp_ovss.naming.base import MOST, Guess, Naming, NoReply
from pnp_ovss.naming.cache import Reply, ReplyCache
from pnp_ovss.naming.candidates import Candidates, fold
from pnp_ovss.naming.openai import read
from pnp_ovss.naming.pictures import fingerprint
from pnp_ovss.naming.replies import parse_reply
from pnp_ovss.types import BACKGROUND, RGB


class Cached:
    """Looks names up: in a folder by the photo's pixels, in a file by what the photo is called."""

    def __init__(self, place: Path) -> None:
        if not place.exists():
            raise InputError(f"there is no {shown(place)}; give a file of names or replies, or the folder of a cache")
        self.source = f"cached in {place.name}"
        self._place = place
        self._file = None if place.is_dir() else _read(place)

    def __call__(self, image: RGB, candidates: Candidates | None, key: str) -> Naming:
        """Return the names that are stored for the photo.

        Raises: NoReply if there are none.
        """
        if self._file is not None:
            if key not in self._file:
                raise NoReply(f"{shown(self._place)} has nothing for {key!r}; it goes by a photo's name without suffix")
            return read_entry(self._file[key], candidates)
        vocabulary = candidates.digest if candidates else "open"
        reply = self._replies.get((fingerprint(image), vocabulary))
        if reply is None:
            raise NoReply(f"{shown(self._place)} has no reply for {key!r} with this vocabulary")
        return read(reply, candidates)

    @cached_property
    def _replies(self) -> dict[tuple[str, str], Reply]:
        return {(question.photo, question.vocabulary): reply for question, reply in ReplyCache(self._place)}


def read_entry(entry: object, candidates: Candidates | None) -> Naming:
    """Return the names of a file's entry: a reply as text, a list of names, or an object that ``name`` wrote."""
    if isinstance(entry, str):
        return parse_reply(entry, candidates)
    notes: list[str] = []
    named: Mapping[str, Any] = {}
    if isinstance(entry, list) and all(isinstance(name, str) for name in entry):
        named = dict.fromkeys(entry, 1.0)
    elif isinstance(entry, dict) and isinstance(entry.get("names"), dict):
        named = entry["names"]
        if isinstance(entry.get("notes"), list):
            notes += [str(note) for note in entry["notes"]]
    else:
        notes.append("the entry holds no names")
    guesses: dict[str, Guess] = {}
    for text, confidence in named.items():
        name = candidates.find(text) if candidates else text
        if name is None:
            notes.append(f"{text!r} is not in the vocabulary")
        elif fold(name) == BACKGROUND:
            notes.append(f"{text!r} is there by itself")
        elif isinstance(confidence, int | float) and 0 <= confidence <= 1:
            guesses.setdefault(fold(name), Guess(name, float(confidence)))
        else:
            notes.append(f"{text!r} has no confidence from 0 to 1")
    return Naming(tuple(guesses.values()), tuple(notes), None if isinstance(entry, list) else MOST)


def _read(path: Path) -> dict[str, object]:
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(
            f"the names {shown(path)} cannot be read; a JSON file with an entry per photo is wanted"
        ) from error
    if isinstance(content, dict) and isinstance(content.get("photos"), dict):
        content = content["photos"]
    if not isinstance(content, dict):
        raise InputError(f"the names {shown(path)} hold no object; a JSON file with an entry per photo is wanted")
    return content
