"""Names by a captioner: it describes the photo in several ways, and what its captions agree on counts.

The nouns of a caption are found by a few rules and no grammar, for captions of pictures are simple sentences.
"""

import json
import re
from pathlib import Path

from pnp_ovss.models.blip import Captioner
from pnp_ovss.naming import NamedClass, Naming, Options
from pnp_ovss.types import RGB, Vocabulary, fold

WORD = re.compile(r"[^\W_]+(?:-[^\W_]+)*")
MOST_WORDS = 3
"""Of a noun where there is no vocabulary: "front of a brick building" gives "brick building"."""

NONSENSE = "araf"
"""How words begin that blip-caption-large makes up, as "arafed man" or "there is a araffe". Much public code for its
captions drops them; no source says where they come from."""

_PHRASES = json.loads(Path(__file__).with_name("phrases.json").read_text(encoding="utf-8"))
STOPS, ADJECTIVES, THINGS_IN_ING = (
    frozenset(" ".join(_PHRASES[kind]).split()) for kind in ("stops", "adjectives", "things in -ing")
)
"""Words that end a noun phrase; words in one that are no part of the name; nouns in -ing, where others are verbs."""
SINGULARS: dict[str, str] = _PHRASES["singulars"]
"""Singulars that no rule gives, and the person that a man or a child is."""
ENDINGS: dict[str, str] = _PHRASES["plural endings"]
"""What stands for a plural's ending, a regular expression; the first that fits counts."""


class CaptionNamer:
    """Reads the nouns of a photo's captions."""

    def __init__(self, captioner: Captioner) -> None:
        self.source = f"caption by {captioner.name}"
        self._captioner = captioner

    @classmethod
    def load(cls, options: Options) -> "CaptionNamer":
        """Return the namer with the model of the options."""
        return cls(Captioner(options.model or "blip-caption-base", options.device, options.dtype))

    def __call__(self, image: RGB, candidates: Vocabulary | None, key: str) -> Naming:
        """Return what the captions name; the confidence is the share of the captions that name it, by probability."""
        captions = self._captioner.captions(image)
        shares: dict[str, float] = {}
        for caption, share in captions:
            for name in nouns(caption, candidates):
                shares[name] = min(1.0, shares.get(name, 0.0) + share)
        classes = sorted(map(NamedClass, shares, shares.values()), key=lambda named: -named.confidence)
        return Naming(tuple(classes), (f"caption: {captions[0][0]}",))


def nouns(caption: str, candidates: Vocabulary | None) -> tuple[str, ...]:
    """Return what a caption names: names of the vocabulary, the longest first where they overlap, or its nouns.

    A plural counts as its singular, and a man, woman or child as a person.

    >>> nouns("two small dogs sitting on a couch", None)
    ('dog', 'couch')
    """
    words = [word.casefold() for word in WORD.findall(caption)]
    return _known(words, candidates) if candidates else _open(words)


def singular(word: str) -> str:
    """Return a word's singular, as far as simple rules know it."""
    if word in SINGULARS:
        return SINGULARS[word]
    for plural, end in ENDINGS.items():
        if re.search(plural, word):
            return re.sub(plural, end, word)
    return word


def _known(words: list[str], candidates: Vocabulary) -> tuple[str, ...]:
    longest = max(len(WORD.findall(name)) for name in (*candidates.classes, *candidates.flat))
    found = []
    while words:
        for count in range(min(longest, len(words)), 0, -1):
            *first, last = words[:count]
            name = candidates.find(" ".join([*first, last])) or candidates.find(" ".join([*first, singular(last)]))
            if name:
                found.append(name)
                break
        words = words[count:]
    return tuple(dict.fromkeys(found))


def _open(words: list[str]) -> tuple[str, ...]:
    phrases: list[list[str]] = [[]]
    for word in words:
        is_verb = word.endswith("ing") and word not in THINGS_IN_ING
        if word in STOPS or is_verb or word.isdigit():
            phrases.append([])
        elif word not in ADJECTIVES and not word.startswith(NONSENSE):
            phrases[-1].append(word)
    named = [[*phrase[:-1], singular(phrase[-1])][-MOST_WORDS:] for phrase in phrases if phrase]
    return tuple({fold(name): name for name in map(" ".join, named)}.values())
