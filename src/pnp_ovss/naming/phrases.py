"""The nouns of a caption, by a few rules and no grammar: captions of pictures are simple sentences."""

import re

from pnp_ovss.naming.candidates import Candidates, fold


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Words that end a noun phrase, and words within one that are no part of the name.
STOPS = _words(
    "a an the this that these those some many several few two three four five six seven eight nine ten one and or "
    "but with without of in on at by to from for near over under behind beside between next front above below "
    "across along around through into onto up down off out is are was were be being has have having there it its "
    "his her their he she they who which while as very other another each both all no not together against inside "
    "outside background foreground middle top bottom side left right picture photo photograph image view close lot "
    "group bunch couple pair piece set looks looking stands sits lies walks runs holds rides eats plays flies"
)
ADJECTIVES = _words(
    "red green blue yellow white black brown grey gray orange pink purple dark light bright colorful colourful old "
    "new young small little big large huge tiny tall short long empty full open closed wooden metal plastic striped "
    "beautiful cute wet dry sunny cloudy snowy different various"
)
# Words in -ing that name a thing; all others in captions say what something does.
THINGS_IN_ING = _words(
    "building ceiling painting railing awning clothing king ring string wing swing crossing parking bedding"
)
IRREGULAR = {
    "people": "person",
    "men": "person",
    "women": "person",
    "children": "person",
    "kids": "person",
    "man": "person",
    "woman": "person",
    "boy": "person",
    "girl": "person",
    "child": "person",
    "kid": "person",
    "buses": "bus",
    "mice": "mouse",
    "geese": "goose",
    "sheep": "sheep",
    "knives": "knife",
    "shelves": "shelf",
    "leaves": "leaf",
    "skis": "skis",
    "scissors": "scissors",
    "stairs": "stairs",
}
WORD = re.compile(r"[^\W_]+(?:-[^\W_]+)*")
MOST_WORDS = 3


def nouns(caption: str, candidates: Candidates | None) -> tuple[str, ...]:
    """Return what a caption names: names of the vocabulary, the longest first where they overlap, or its nouns.

    A plural counts as its singular, and a man, woman or child as a person.
    """
    words = [word.casefold() for word in WORD.findall(caption)]
    return _known(words, candidates) if candidates else _open(words)


def singular(word: str) -> str:
    """Return a word's singular, as far as simple rules know it."""
    if word in IRREGULAR:
        return IRREGULAR[word]
    if len(word) > 4 and word.endswith("ies"):
        return word[:-3] + "y"
    if len(word) > 4 and word.endswith(("ches", "shes", "sses", "xes", "zes")):
        return word[:-2]
    plural = len(word) > 3 and word.endswith("s") and not word.endswith(("ss", "us", "is"))
    return word[:-1] if plural else word


def _known(words: list[str], candidates: Candidates) -> tuple[str, ...]:
    longest = max(len(WORD.findall(name)) for name in (*candidates.names, *candidates.aliases))
    found, place = [], 0
    while place < len(words):
        for count in range(min(longest, len(words) - place), 0, -1):
            phrase = words[place : place + count]
            forms = (" ".join(phrase), " ".join([*phrase[:-1], singular(phrase[-1])]))
            name = next((name for form in forms if (name := candidates.find(form))), None)
            if name is not None:
                found.append(name)
                place += count
                break
        else:
            place += 1
    return tuple(dict.fromkeys(found))


def _open(words: list[str]) -> tuple[str, ...]:
    phrases: list[list[str]] = [[]]
    for word in words:
        acts = word.endswith("ing") and word not in THINGS_IN_ING
        if word in STOPS or acts or word.isdigit():
            phrases.append([])
        elif word not in ADJECTIVES:
            phrases[-1].append(word)
    named = [[*phrase[:-1], singular(phrase[-1])][-MOST_WORDS:] for phrase in phrases if phrase]
    return tuple({fold(name): name for name in map(" ".join, named)}.values())
