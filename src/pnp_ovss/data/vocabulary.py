"""Class lists, and the words by which each class is named to a model. The words are part of every score."""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from pnp_ovss.errors import InputError
from pnp_ovss.files import expanded, read_text
from pnp_ovss.types import BACKGROUND, Vocabulary, fold, spaced, tidy

CLASSES = Path(__file__).parent / "classes"
PLAIN, ENGLISH, JOINED = "plain", "english", "joined"
"""The official names; the names that models are asked for, which are good English; and the official names without their
spaces, as SCLIP, and papers that compare with it, write those of COCO-Stuff and ADE20K: "corrclip+joined" has the words
of the vocabulary "corrclip" like that."""

BENCHMARKS: dict[str, list[int]] = json.loads((CLASSES / "numbers.json").read_text(encoding="ascii"))
"""The class lists that ship ("scenes": those of the drawn scenes), and their data set's numbers where not 1, 2, ..."""


def class_names(benchmark: str) -> tuple[str, ...]:
    """Return the class names of a list that ships, in official order."""
    return tuple(read_lines(CLASSES / f"{benchmark}.txt"))


def vocabularies(benchmark: str) -> tuple[str, ...]:
    """Return the names of the vocabularies that ship for a class list."""
    return (PLAIN, *sorted(path.name.split(".")[1] for path in CLASSES.glob(f"{benchmark}.*.txt")))


def load_vocabulary(source: str | Path) -> Vocabulary:
    """Return the classes of a list that ships (``BENCHMARKS``) or of a file, with the words each is asked for by.

    Of a list that ships these are good English, and the words of its other vocabularies are aliases; "voc.authors" has
    those of one vocabulary. A file has one class a line, with or without words: "person", "person: man, child" or
    "person=man|child"; # starts a comment. A class that comes twice counts once.

    Raises: InputError if it is neither, or the file has no class.

    >>> load_vocabulary("voc").words["diningtable"]
    ('dining table',)
    """
    benchmark, _, name = str(source).partition(".")
    if benchmark in BENCHMARKS and name in ("", *vocabularies(benchmark)):
        classes = class_names(benchmark)
        chosen = benchmark_vocabulary(name or default_vocabulary(benchmark), classes, benchmark).words
        named = {cls: chosen[cls] for cls in classes}
        others = [benchmark_vocabulary(other, classes, benchmark).words for other in vocabularies(benchmark)]
        known = _each_once({cls: [*named[cls], *(word for words in others for word in words[cls])] for cls in classes})
        aliases = {word: cls for cls, words in known.items() for word in words}
        return Vocabulary(named, str(source), tuple(BENCHMARKS[benchmark]), aliases)
    path = Path(expanded(source))
    if not os.path.isfile(path):
        raise InputError(f"there is no vocabulary {path}; give one of {', '.join(BENCHMARKS)}, or a file")
    listed: dict[str, tuple[str, list[str]]] = {}
    for name, words in map(_line, read_lines(path)):
        if cls := tidy(name):
            listed.setdefault(fold(cls), (cls, []))[1].extend(words)
    if not listed:
        raise InputError(f"the vocabulary {path} has no name; write one a line, such as 'dog'")
    return Vocabulary(_each_once(dict(listed.values())), str(path))


def default_vocabulary(benchmark: str) -> str:
    """Return the name of the vocabulary that a class list is asked for by: good English."""
    return ENGLISH if ENGLISH in vocabularies(benchmark) else PLAIN


def benchmark_vocabulary(name: str | Path, classes: Sequence[str], benchmark: str) -> Vocabulary:
    """Return a vocabulary of these classes: one that ships for the class list ``benchmark``, or that of a file.

    "voc.authors" and "authors" are one vocabulary of the class list "voc".

    A file has lines ``class: word, word``; "background" may be such a class. A class without a line is called by its
    own name. A word that several classes list counts for the one of that name, else for the first one; a class to
    which none is left keeps its own, shared. The background comes last.

    Raises: InputError if there is no such vocabulary, or the file names a class that is not among these.
    """
    name = str(name).removeprefix(f"{benchmark}.")
    if name in (JOINED, *(f"{one}+{JOINED}" for one in vocabularies(benchmark))):
        apart = benchmark_vocabulary(name.removesuffix(JOINED).removesuffix("+") or PLAIN, classes, benchmark).words
        return Vocabulary({cls: tuple(word.replace(" ", "") for word in apart[cls]) for cls in apart}, name)
    if name == PLAIN:
        return Vocabulary({cls: (cls,) for cls in classes}, name)
    known = (*vocabularies(benchmark), JOINED)
    path = CLASSES / f"{benchmark}.{name}.txt" if name in known else Path(name)
    if not os.path.isfile(path):
        raise InputError(f"there is no vocabulary {path}; give a file, or one of {', '.join(known)}")
    listed = dict(map(_line, read_lines(path)))
    strange = next((cls for cls in listed if cls not in (*classes, BACKGROUND)), None)
    if strange is not None:
        raise InputError(f"the vocabulary {path} has {strange!r}, which is no class of the data set")
    named = (*classes, BACKGROUND) if BACKGROUND in listed else classes
    return Vocabulary(_each_once({cls: listed.get(cls, ()) for cls in named}, shared=True), name)


def parse_classes(text: str) -> Vocabulary:
    """Return the classes of a text that separates them by commas or new lines; their words follow ``=``.

    A class that comes again has the words of both.

    Raises: InputError if there is none, an empty one, or a word that comes twice.

    >>> parse_classes("person=person|child, dog").words
    {'person': ('person', 'child'), 'dog': ('dog',)}
    """
    lines = [line.strip(" ,") for line in text.splitlines()]
    return _checked([_entry(entry) for line in lines if line for entry in line.split(",")])


def read_classes(path: Path) -> Vocabulary:
    """Return the classes of a file with one a line, as ``load_vocabulary`` reads it, but each word has to come once.

    Raises: InputError if the file cannot be read, it has no class, or a word comes twice.
    """
    return _checked([_line(line) for line in read_lines(path)])


def read_lines(path: Path) -> list[str]:
    """Return a file's lines, without comments, which start with #, and empty ones.

    Raises: InputError if it cannot be read.
    """
    return [name for line in read_text(path).splitlines() if (name := line.split("#")[0].strip())]


def _entry(text: str) -> tuple[str, list[str]]:
    """Return class and words of "person=man|child", "person|child" or "person"."""
    name, equals, words = text.partition("=")
    listed = (words if equals else name).split("|")
    return (name if equals else listed[0]).strip(), listed


def _line(text: str) -> tuple[str, list[str]]:
    """Return class and words of "person: man, child", or of an entry as in a text."""
    name, colon, words = text.partition(":")
    return (name.strip(), words.split(",")) if colon else _entry(text)


def _checked(listed: list[tuple[str, list[str]]]) -> Vocabulary:
    return Vocabulary.merged((spaced(name), tuple(map(spaced, words))) for name, words in listed)


def _each_once(listed: Mapping[str, Sequence[str]], shared: bool = False) -> dict[str, tuple[str, ...]]:
    """Return the words tidied, each for one class: that of its name, else the first.

    A class without any has its name, or with ``shared`` the words that it lists.
    """
    owner = {cls.casefold(): cls for cls in listed}
    kept: dict[str, dict[str, str]] = {cls: {} for cls in listed}
    for cls, words in listed.items():
        for word in map(tidy, words):
            if word and owner.setdefault(word.casefold(), cls) == cls:
                kept[cls].setdefault(word.casefold(), word)
    others = {cls: tuple(filter(None, map(tidy, words))) if shared else () for cls, words in listed.items()}
    return {cls: tuple(spelled.values()) or others[cls] or (cls,) for cls, spelled in kept.items()}
