"""Class lists, and the words by which each class is named to a model. The words are part of every score."""

from dataclasses import dataclass
from pathlib import Path

from pnp_ovss.errors import InputError
from pnp_ovss.images import shown
from pnp_ovss.types import BACKGROUND

CLASSES = Path(__file__).parent / "classes"
PLAIN = "plain"


@dataclass(frozen=True)
class Vocabulary:
    """The words for each class; no word stands for two classes."""

    name: str
    words: dict[str, tuple[str, ...]]
    """Per class, in the data set's order, at least one word. The background's, if any, are under "background"."""

    @property
    def label(self) -> dict[str, str]:
        """Class per word, the word in lower case."""
        return {word.casefold(): name for name, words in self.words.items() for word in words}


def class_names(words: str) -> tuple[str, ...]:
    """Return the names of a class list that ships with the package, in official order."""
    return tuple(read_lines(CLASSES / f"{words}.txt"))


def vocabularies(words: str) -> tuple[str, ...]:
    """Return the names of the vocabularies that ship for a class list."""
    return (PLAIN, *sorted(path.name.split(".")[1] for path in CLASSES.glob(f"{words}.*.txt")))


def load_vocabulary(name: str | Path, classes: tuple[str, ...], words: str) -> Vocabulary:
    """Return a vocabulary that ships for the class list ``words``, or that of a file, for these classes.

    A file has lines ``class: word, word``; "background" may be such a class. A class without a line is called by its
    own name. A word that several classes list counts for the one of that name, else for the first one; the
    background comes last.

    Raises: InputError if there is no such vocabulary, or the file names a class that the data set does not have.
    """
    if str(name) == PLAIN:
        return Vocabulary(PLAIN, {cls: (cls,) for cls in classes})
    path = CLASSES / f"{words}.{name}.txt" if str(name) in vocabularies(words) else Path(name)
    if not path.is_file():
        raise InputError(
            f"there is no vocabulary {shown(path)}; give a file, or one of {', '.join(vocabularies(words))}"
        )
    listed: dict[str, list[str]] = {}
    for line in read_lines(path):
        cls, _, rest = line.partition(":")
        listed[cls.strip()] = [" ".join(word.split()) for word in rest.split(",") if word.strip()]
    strange = [cls for cls in listed if cls not in (*classes, BACKGROUND)]
    if strange:
        raise InputError(
            f"the vocabulary {shown(path)} has words for {strange[0]!r}, which is no class of the data set"
        )
    return Vocabulary(str(name), _without_doubles({cls: listed.get(cls) or [cls] for cls in (*classes, BACKGROUND)}))


def _without_doubles(listed: dict[str, list[str]]) -> dict[str, tuple[str, ...]]:
    owner = {cls.casefold(): cls for cls in listed}
    for cls, words in listed.items():
        for word in words:
            owner.setdefault(word.casefold(), cls)
    kept = {
        cls: tuple(dict.fromkeys(word for word in words if owner[word.casefold()] == cls)) or (cls,)
        for cls, words in listed.items()
    }
    if kept[BACKGROUND] == (BACKGROUND,):
        del kept[BACKGROUND]
    return kept


def read_lines(path: Path) -> list[str]:
    """Return a file's lines, without comments, which start with #, and empty ones.

    Raises: InputError if it cannot be read.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()  # Windows may begin it with a mark
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"the class list {shown(path)} cannot be read; text in UTF-8 is wanted") from error
    return [name for line in lines if (name := line.split("#")[0].strip())]
