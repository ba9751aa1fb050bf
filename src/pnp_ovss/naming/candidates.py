"""The names a namer may choose from: a benchmark's class list, a file, or names given one by one."""

import hashlib
import json
import re
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from pnp_ovss.data.coco import STUFF, THINGS
from pnp_ovss.data.vocabulary import class_names, load_vocabulary, read_lines, vocabularies
from pnp_ovss.errors import InputError
from pnp_ovss.images import shown
from pnp_ovss.types import BACKGROUND

LONGEST = 100
"""Characters of a name. Longer ones are sentences, and no class."""

BENCHMARKS: dict[str, tuple[str, tuple[int, ...]]] = {
    "voc": ("voc", ()),
    "context": ("context", ()),
    "coco-object": ("coco-objects", THINGS),
    "coco-stuff": ("coco-stuff", THINGS + STUFF),
    "coco-panoptic": ("coco-panoptic", ()),
    "ade20k": ("ade20k", ()),
}
"""Vocabularies that ship: the class list, and its data set's numbers for the classes, where these are not 1, 2, ..."""
DRAWN = "scenes"
"""The vocabulary of the drawn scenes: things and stuff."""


@dataclass(frozen=True)
class Candidates:
    """Names to choose from. Build it with ``of`` or ``load``, which tidy what comes in."""

    title: str
    names: tuple[str, ...]
    numbers: dict[int, str] = field(default_factory=dict)
    """The name that a number stands for in a list shown to a model."""
    aliases: dict[str, str] = field(default_factory=dict)
    """Other words for a name, folded."""

    @classmethod
    def of(
        cls,
        names: Iterable[str],
        title: str = "names",
        numbers: Iterable[int] = (),
        aliases: Mapping[str, str] | None = None,
    ) -> "Candidates":
        """Return the names tidied, in order, each once; empty ones are left out.

        ``numbers`` go with the names, 1, 2, ... without them. ``aliases``: name per other word.

        Raises: InputError if no name is left, or one is longer than ``LONGEST``.
        """
        listed = [tidy(name) for name in names]
        kept: dict[str, str] = {}
        numbered: dict[int, str] = {}
        for number, name in zip(list(numbers) or range(1, len(listed) + 1), listed, strict=True):
            if len(name) > LONGEST:
                raise InputError(
                    f"the vocabulary {title} has a name of {len(name)} characters, {name[:37]!r}...; {LONGEST} at most "
                    "are wanted: shorten it, or leave it out"
                )
            if name and fold(name) not in kept:
                kept[fold(name)] = name
                numbered[number] = name
        if not kept:
            raise InputError(f"the vocabulary {title} has no name; one name a line is wanted, such as 'dog'")
        others = {fold(word): kept[fold(name)] for word, name in (aliases or {}).items() if fold(name) in kept}
        return cls(title, tuple(kept.values()), numbered, {word: n for word, n in others.items() if word not in kept})

    @cached_property
    def _known(self) -> dict[str, str]:
        return self.aliases | {fold(name): name for name in self.names}

    def find(self, text: str) -> str | None:
        """Return the name that a text means, or None: upper and lower case and spaces aside, a name or an alias.

        What stands in brackets behind a name, and what follows a semicolon, is passed over where it does not belong to
        the name.
        """
        for form in (text, re.sub(r"\([^()]*\)\s*$", "", text), text.split(";")[0]):
            found = self._known.get(fold(form))
            if found is not None:
                return found
        return None

    @cached_property
    def digest(self) -> str:
        """Hash of the names and their numbers: two vocabularies with one digest ask the same."""
        return hashlib.sha256(json.dumps(sorted(self.numbers.items())).encode()).hexdigest()


def load_candidates(source: str | Path) -> Candidates:
    """Return a vocabulary that ships (``BENCHMARKS``, or "scenes"), or that of a file with one name a line.

    Raises: InputError if it is neither, or the file cannot be used.
    """
    if str(source) in BENCHMARKS:
        words, numbers = BENCHMARKS[str(source)]
        names = class_names(words)
        aliases: dict[str, str] = {}
        for vocabulary in vocabularies(words):
            label = load_vocabulary(vocabulary, names, words).label
            aliases |= {word: name for word, name in label.items() if name != BACKGROUND}
        return Candidates.of(names, str(source), numbers, aliases)
    if str(source) == DRAWN:
        from pnp_ovss.mini import STUFF, THINGS

        return Candidates.of(THINGS + STUFF, DRAWN)
    path = Path(source).expanduser()
    if not path.is_file():
        known = ", ".join((*BENCHMARKS, DRAWN))
        raise InputError(f"there is no vocabulary {shown(path)}; give one of {known}, or a file with one name a line")
    return Candidates.of(read_lines(path), shown(path))


def tidy(name: str) -> str:
    """Return a name in one line of printable characters, composed (NFC), single-spaced."""
    composed = unicodedata.normalize("NFC", name)
    return " ".join("".join(character if character.isprintable() else " " for character in composed).split())


def fold(name: str) -> str:
    """Return what names are compared by: in lower case and without spaces, for "tvmonitor" is "TV monitor"."""
    return "".join(tidy(name).casefold().split())
