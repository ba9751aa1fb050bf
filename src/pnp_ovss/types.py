"""The values that pass between the stages, and the axis names every signature uses.

b        image of a batch
cls      named class, in the order given (without the background)
ch       channel of a score map: the background first where the setting has one, then the classes
layer    cross-attention layer, 0-based
head     attention head, 0-based
token    position in the tokenizer's output, special tokens included, 0-based
gh gw    rows and columns of the patch grid, from the top left
h w      rows and columns of the photo
"""

import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache

import numpy as np
from jaxtyping import Bool, Float, Int, Integer, UInt8
from torch import Tensor

from pnp_ovss.errors import InputError
from pnp_ovss.parts import Objects, find_objects

BACKGROUND = "background"

KEEP = 0.7
"""Classes above this confidence count. Source: PnP-OVSS, which keeps what GPT-4o is more than 70 % sure of."""

RGB = UInt8[np.ndarray, "h w 3"]
"""A photo: 8-bit RGB, rows from the top."""


@dataclass(frozen=True)
class Prompt:
    """The text a VLM reads, and where each class name stands in it."""

    text: str
    classes: tuple[str, ...]
    spans: tuple[tuple[int, int], ...]
    """Per class: first character and the one after the last, in ``text``."""


@dataclass(frozen=True)
class Attention:
    """Attention from text to image, with the gradient of the match logit.

    ``weights`` is the attention after softmax, in [0, 1], without the image's ``[CLS]``; ``gradient`` is
    d match / d weights. Both are float32 on the model's device, and 0 for padding tokens. ``layers`` says which layers
    the layer axis holds.
    """

    weights: Float[Tensor, "b layer head token gh gw"]
    gradient: Float[Tensor, "b layer head token gh gw"]
    membership: Float[Tensor, "b cls token"]
    """Share of each token in a class name: rows sum to 1. A prompt with fewer classes than its batch has rows of 0."""
    match: Float[Tensor, " b"]
    """Image-text-matching logit for 'they match', unbounded."""
    layers: tuple[int, ...]


Photos = Sequence[UInt8[np.ndarray, "_ _ 3"]]
"""Photos, which may differ in size."""

OnStep = Callable[[str, int, int], None]
"""Called before each step of long work with its name, the steps done and their total; it may raise to cancel."""


def ignore(name: str, done: int, total: int) -> None:
    """Do nothing between steps."""


@dataclass(frozen=True)
class Vocabulary:
    """Classes, in order, and the words that stand for each: those that a model is asked for. The class is the label.

    ``words`` has at least one word per class, and no word stands for two classes. Build one with ``of``, which checks
    what a user gives.
    """

    words: dict[str, tuple[str, ...]]
    name: str = "names"
    """Where it comes from: a benchmark's vocabulary, a file."""
    numbers: tuple[int, ...] = ()
    """The number of each class in its data set's own list; 1, 2, ... where empty."""
    aliases: dict[str, str] = field(default_factory=dict)
    """Further words by which ``find`` knows a class, which no model is asked for."""

    @classmethod
    def of(cls, classes: "Classes") -> "Vocabulary":
        """Return the classes of a list of names, of a mapping from class to its words, or from prompt to class.

        A value that is a text is the class of its key, the prompt; several prompts may have one class. White space
        within a name is folded to single spaces.

        Raises: InputError if there is no name, an empty one, one used twice (case is ignored), or no list of texts.

        >>> Vocabulary.of({"person": ["person", "child"], "dog": ["dog"]}).flat
        ('person', 'child', 'dog')
        >>> Vocabulary.of({"a tall giraffe": "giraffe", "man": "person", "woman": "person"}).words
        {'giraffe': ('a tall giraffe',), 'person': ('man', 'woman')}
        """
        if isinstance(classes, Vocabulary):
            return classes
        if isinstance(classes, str) or not isinstance(classes, Iterable):
            example = "a list of names such as ['dog', 'cat'], or {'person': ['person', 'child']}"
            given = f"one text, {classes!r}" if isinstance(classes, str) else type(classes).__name__
            raise InputError(f"expected {example}; got {given}")
        if isinstance(classes, Mapping):
            return cls.merged(_entry(name, words) for name, words in classes.items())
        return cls.merged((name, (name,)) for name in map(_folded, classes))

    @classmethod
    def merged(cls, entries: Iterable[tuple[str, tuple[str, ...]]]) -> "Vocabulary":
        """Return the vocabulary of classes and their words; a class that comes again, in any case, has all its words.

        Raises: InputError if there is none, or a name is empty or a word comes twice.
        """
        listed: dict[str, tuple[str, tuple[str, ...]]] = {}
        for name, words in entries:
            spelled, before = listed.get(name.casefold(), (name, ()))
            listed[name.casefold()] = spelled, (*before, *words)
        if not listed:
            raise InputError("expected at least one class name such as 'dog', got none")
        _check_once(listed)
        _check_once([word for _, words in listed.values() for word in words])
        return cls(dict(listed.values()))

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes."""
        return tuple(self.words)

    @property
    def flat(self) -> tuple[str, ...]:
        """All words, class by class."""
        return tuple(word for words in self.words.values() for word in words)

    @property
    def terms(self) -> tuple[str, ...]:
        """What each class is called in a question: its only word, or its name where it has several."""
        return tuple(words[0] if len(words) == 1 else name for name, words in self.words.items())

    def only(self, names: Iterable[str]) -> "Vocabulary":
        """Return the vocabulary of these of the classes, in their order."""
        return Vocabulary({name: self.words[name] for name in names}, self.name)

    def numbered(self) -> dict[int, str]:
        """Return the classes by number."""
        return dict(zip(self.numbers or range(1, len(self.words) + 1), self.words, strict=True))

    def find(self, text: str) -> str | None:
        """Return the class that a name or word stands for, case and spaces aside, or None."""
        return self._by_word.get(fold(text))

    @cached_property
    def _by_word(self) -> dict[str, str]:
        words = {fold(word): name for name, words in self.words.items() for word in words}
        aliases = {fold(word): name for word, name in self.aliases.items()}
        return aliases | words | {fold(name): name for name in self.words}


Classes = Vocabulary | Iterable[str] | Mapping[str, Iterable[str] | str]
"""What a user names classes by: a list of names, a mapping from class to its words or from prompt to class, or a
vocabulary."""


def spaced(name: str) -> str:
    """Return a name with single spaces between its words and none around them. Raises: InputError if it is no text."""
    if any("\ud800" <= character <= "\udfff" for character in name):
        raise InputError(f"the class name {name!r:.40} is no Unicode, which no model can read; write it anew")
    return " ".join(name.split())


def tidy(name: str) -> str:
    """Return a name in one line of printable characters, composed (NFC), single-spaced."""
    composed = unicodedata.normalize("NFC", name)
    return " ".join("".join(character if character.isprintable() else " " for character in composed).split())


@lru_cache(1 << 16)  # the nouns that a photo may not show are the same for every photo
def fold(name: str) -> str:
    """Return what names are compared by: in lower case and without spaces, for "tvmonitor" is "TV monitor"."""
    return "".join(tidy(name).casefold().split())


def _folded(name: object) -> str:
    if not isinstance(name, str):
        expected = "class names as texts, such as ['dog', 'cat'] for one photo"
        many = "a list of such lists for a list of photos"
        raise InputError(f"expected {expected}, or {many}; got a {type(name).__name__}")
    return spaced(name)


def _entry(name: object, words: object) -> tuple[str, tuple[str, ...]]:
    """Return class and words of an entry of a mapping: those of a class, or the class of a prompt."""
    if isinstance(words, str):
        return _folded(words), (_folded(name),)
    if not isinstance(words, Iterable):
        raise InputError(f"expected the words of class {name!r}, or the class of a prompt, got {words!r}")
    return _folded(name), tuple(map(_folded, words)) or (_folded(name),)


def _check_once(names: Iterable[str]) -> None:
    seen = set[str]()
    for name in names:
        if not name:
            raise InputError("a class name is empty; leave it out or write the name")
        if name.casefold() in seen:
            short = name if len(name) <= 40 else name[:37] + "..."
            raise InputError(f"class {short!r} is named twice; name each class once")
        seen.add(name.casefold())


@dataclass(frozen=True)
class Pass:
    """One pass of a method that looks at a photo several times."""

    visible: Bool[Tensor, "b gh gw"]
    """Patches that were not hidden."""
    maps: Float[Tensor, "b cls gh gw"]
    """Class maps, 0 where a patch was hidden."""
    match: Float[Tensor, " b"]
    """Match logit of the photo with those patches alone."""


@dataclass(frozen=True)
class ClassMaps:
    """What a method finds in one photo: a map per word of the vocabulary, on the method's own grid."""

    maps: Float[Tensor, "word gh gw"]
    vocabulary: Vocabulary
    match: float | None = None
    """Match logit of photo and prompt, where the method has one."""
    passes: tuple[Pass, ...] = ()
    """How the maps came about, where the method looks several times."""


@dataclass(frozen=True)
class Region:
    """Where a class, or one object of it, is in a photo. ``category`` is the number of the class, from 1."""

    name: str
    category: int
    mask: Bool[np.ndarray, "h w"]
    """At least one pixel."""
    confidence: float | None = None
    """How likely the region is right, in [0, 1], where it is known."""

    @property
    def area(self) -> int:
        """Pixels."""
        return int(self.mask.sum())

    @property
    def box(self) -> tuple[int, int, int, int]:
        """Left, top, and the column and row after the last, in pixels."""
        rows, columns = np.flatnonzero(self.mask.any(axis=1)), np.flatnonzero(self.mask.any(axis=0))
        return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


@dataclass(frozen=True)
class LabelMap:
    """The label map of a photo, read when it is needed: what the export formats take."""

    key: str
    """Names the files: a path with ``/`` and without suffix."""
    file_name: str
    """Of the photo: the key with the photo's own suffix."""
    height: int
    width: int
    classes: tuple[str, ...]
    """What the labels mean, a leading "background" included; empty where nothing was named."""
    read: Callable[[], Integer[np.ndarray, "..."]]
    """Returns the labels, which index ``classes``."""
    scores: tuple[float, ...] = ()
    """How likely each class's region is right, in [0, 1]; empty if not known."""
    model: str = ""
    photo: str = ""
    """Path or URL of the photo."""
    sha256: str = ""
    """Of the photo's file; empty if not known."""
    clean: Callable[[Integer[np.ndarray, "h w"], bool], Integer[np.ndarray, "h w"]] | None = None
    """Cleans labels that are read, such as ``refine.tidy.Tidy.clean``; it takes whether label 0 is the background."""
    instances: bool = False
    """Whether each object of a class is a region of its own."""
    objects: Callable[[], Objects] | None = None
    """Returns the objects, where they are known; else each connected part of a class is one."""
    subset: str = ""
    """"train" or "val" where a data set has these."""

    @property
    def place(self) -> str:
        """The photo's file, below the folder of its subset where there is one."""
        return f"{self.subset}/{self.file_name}" if self.subset else self.file_name

    @property
    def names(self) -> tuple[str, ...]:
        """The classes without the background."""
        return self.classes[1:] if self.classes[:1] == (BACKGROUND,) else self.classes

    def values(self, names: Sequence[str]) -> Integer[np.ndarray, "h w"]:
        """Return the number of each pixel's class in ``names``, from 1, and 0 for the background.

        Raises: InputError if the labels cannot be read or do not fit ``classes`` and the photo's size.
        """
        if not self.classes:
            return np.zeros((self.height, self.width), dtype=np.uint8)
        labels = self.read()
        if labels.shape != (self.height, self.width) or labels.max(initial=0) >= len(self.classes):
            fault = f"got {labels.shape} with labels up to {labels.max(initial=0)}; segment the photo again"
            expected = f"a label map of shape {(self.height, self.width)} with {len(self.classes)} classes"
            raise InputError(f"expected {expected} of {self.key}, {fault}")
        background = [0] * (len(self.classes) - len(self.names))
        labels = self.clean(labels, bool(background)) if self.clean else labels
        numbers = [*background, *(names.index(name) + 1 for name in self.names)]
        table, values = np.array(numbers, dtype=np.int32), np.empty(labels.shape, dtype=np.int32)
        for row, line in enumerate(labels):  # row by row: NumPy indexes by copies of eight bytes
            values[row] = table[line]
        return values

    def regions(self, names: Sequence[str]) -> Iterator[Region]:
        """Yield the region of every class that is there, but the background, in the order of ``names``.

        With ``instances`` each object of a class is a region. No pixel lies in two.
        """
        known = dict(zip(self.classes, self.scores, strict=False))
        found = self._objects(names)
        there = np.flatnonzero(count_labels(found.index, len(found.labels) + 1)[1:])
        for number in there[np.argsort(found.labels[there], kind="stable")].tolist():
            category = int(found.labels[number])
            name = names[category - 1]
            score = found.scores[number] if found.scores else known.get(name)
            yield Region(name, category, found.index == number + 1, score)

    def _objects(self, names: Sequence[str]) -> Objects:
        """Return the regions; their labels are the numbers of classes in ``names``."""
        if self.instances and self.objects:
            found = self.objects()
            index = self.clean(found.index, True) if self.clean else found.index
            numbers = [names.index(self.classes[label]) + 1 for label in found.labels]
            return Objects(index, np.array(numbers, dtype=np.int64), found.scores)
        values = self.values(names)
        return find_objects(values, True) if self.instances else Objects(values, np.arange(1, len(names) + 1))


def count_labels(labels: Integer[np.ndarray, "h w"], count: int) -> Int[np.ndarray, " count"]:
    """Return how many pixels have each of ``count`` labels; row by row, for NumPy counts in copies of eight bytes."""
    step = max(1, 2**20 // max(1, labels.shape[1]))
    parts = (labels[row : row + step].ravel() for row in range(0, len(labels), step))
    total: np.ndarray = sum((np.bincount(part, minlength=count) for part in parts), np.zeros(count, dtype=np.int64))
    return total
