"""Captions that are true of a scene, and captions that are almost true.

A negative differs from its positive in one name only, so nothing but looking for that name helps. Names are mostly
swapped for similar things, and several are asked at once: a match that is decided too easily leaves no gradient.
"""

from dataclasses import dataclass

import numpy as np

from pnp_ovss.mini.scenes import SIMILAR, STUFF, THINGS

NAMES: tuple[str, ...] = (*THINGS, *STUFF)
COUNTABLE = {*THINGS, "brick wall"}
PROMPT = "a picture of {}"
SENTENCES = (
    "{}",
    "a picture of {}",
    "a photo of {}",
    "a drawing of {}",
    "a picture with {}",
    "there is {}",
    "we see {} here",
    "this is an image of {}",
    "this scene shows {}",
)
# How often a caption names: one class, some things, all things, things and stuff.
SUBJECTS = (0.2, 0.35, 0.2, 0.25)


@dataclass(frozen=True)
class Caption:
    """A text and the class names it claims."""

    text: str
    names: tuple[str, ...]


def listed(names: tuple[str, ...]) -> str:
    """``a dog, an umbrella and sand``."""
    articles = {name: "an" if name[0] in "aeiou" else "a" for name in names}
    nouns = [f"{articles[name]} {name}" if name in COUNTABLE else name for name in names]
    return " and ".join([", ".join(nouns[:-1]), nouns[-1]] if len(nouns) > 1 else nouns)


def subjects(rng: np.random.Generator, things: tuple[str, ...], stuff: tuple[str, ...], words: int) -> tuple[str, ...]:
    """Some of the classes present, in random order, at least one and with at most ``words`` words between them."""
    kind = rng.choice(len(SUBJECTS), p=SUBJECTS)
    mixed = [*things, *stuff]
    if kind == 0:
        chosen = [mixed[rng.integers(len(mixed))]]
    elif kind == 1:
        chosen = list(rng.permutation(things)[: rng.integers(1, len(things) + 1)])
    elif kind == 2:
        chosen = list(rng.permutation(things))
    else:
        chosen = list(rng.permutation(mixed)[: rng.integers(1, len(mixed) + 1)])
    while len(chosen) > 1 and _words(chosen) > words:
        chosen.pop()
    return tuple(str(name) for name in chosen)


def corrupted(
    rng: np.random.Generator, names: tuple[str, ...], present: tuple[str, ...], words: int
) -> tuple[str, ...]:
    """The names with one of them swapped for an absent class (mostly a similar one), or with an absent one added."""
    absent = [name for name in NAMES if name not in present]
    wrong = list(names)
    at = int(rng.integers(len(names)))
    if rng.random() < 0.25 and _words(names) < words:
        choices = [name for name in absent if name in THINGS or len(present) > 4]
        wrong.insert(int(rng.integers(len(names) + 1)), choices[rng.integers(len(choices))])
        return tuple(wrong)
    similar = [name for name in SIMILAR.get(names[at], ()) if name in absent]
    kind = STUFF if names[at] in STUFF else THINGS
    choices = similar if similar and rng.random() < 0.7 else [name for name in absent if name in kind]
    wrong[at] = choices[rng.integers(len(choices))]
    return tuple(wrong)


def pair(
    rng: np.random.Generator, things: tuple[str, ...], stuff: tuple[str, ...], words: int
) -> tuple[Caption, Caption]:
    """A caption that is true and one, in the same form, that is not."""
    names = subjects(rng, things, stuff, words)
    wrong = corrupted(rng, names, (*things, *stuff), words)
    if rng.random() < 0.65 or _words(names) * 2 > words:
        return Caption(PROMPT.format(" ".join(names)), names), Caption(PROMPT.format(" ".join(wrong)), wrong)
    form = SENTENCES[rng.integers(len(SENTENCES))]
    return Caption(form.format(listed(names)), names), Caption(form.format(listed(wrong)), wrong)


def _words(names: tuple[str, ...] | list[str]) -> int:
    return sum(name.count(" ") + 1 for name in names)
