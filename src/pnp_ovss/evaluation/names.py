"""Which classes are named to the model for each image: all, the true ones, or those of a file."""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from pnp_ovss.data import IGNORE, Dataset
from pnp_ovss.errors import InputError
from pnp_ovss.images import shown
from pnp_ovss.naming.replies import parse_reply
from pnp_ovss.types import Vocabulary

Chooser = Callable[[str, UInt8[np.ndarray, "h w"]], tuple[str, ...]]
"""Classes to name, from an image's key and its truth, in the data set's order.

Raises: InputError if it knows nothing of that key."""


@dataclass(frozen=True)
class Names:
    """A way to choose the names, and how it is called in a report."""

    source: str
    meaning: str
    choose: Chooser


def load_names(source: str, dataset: Dataset, vocabulary: Vocabulary) -> Names:
    """Return who names the classes: "given" (all of them, every time), "truth", or a file.

    A ``.json`` file holds names per key: lists, or replies of GPT-4o as the authors keep them. Any other file holds
    names, one a line, that every image gets.

    Raises: InputError if there is no such file, or it has a name that is no class and no word of the vocabulary.
    """
    if source == "given":
        return Names("given", "every class is named for every image", lambda key, truth: dataset.classes)
    if source == "truth":
        return Names("truth", "each image is given the classes of its truth", lambda key, truth: true(dataset, truth))
    path = Path(source).expanduser()
    try:
        content = path.read_bytes()
        text = content.decode("utf-8-sig")
        perkey = json.loads(text) if path.suffix == ".json" else None
    except (OSError, ValueError) as error:
        raise InputError(
            f"the names {shown(path)} cannot be read; give 'given', 'truth', a .json file of names per image, or a "
            "file with one name a line"
        ) from error
    told = f"{path.name} ({hashlib.sha256(content).hexdigest()[:12]})"
    known = _known(dataset, vocabulary)
    if perkey is None:
        names = [line for line in (line.split("#")[0].strip() for line in text.splitlines()) if line]
        return _same(told, names, dataset, known)
    if not isinstance(perkey, dict):
        raise InputError(f"the names {shown(path)} hold no object; names per image key are wanted")
    return Names(told, f"each image is given the names of {path.name}", _Listed(perkey, dataset.classes, known))


def true(dataset: Dataset, truth: UInt8[np.ndarray, "h w"]) -> tuple[str, ...]:
    """Return the classes that a truth holds, without the background."""
    present = np.flatnonzero(np.bincount(truth.ravel(), minlength=1))  # several times faster than np.unique
    return tuple(dataset.classes[label - 1] for label in present.tolist() if 0 < label < IGNORE)


def _same(told: str, names: Sequence[str], dataset: Dataset, known: Mapping[str, str]) -> Names:
    strange = [name for name in names if _folded(name) not in known]
    if strange or not names:
        raise InputError(
            f"the names {told} hold {f'{strange[0]!r}, which is no class of' if strange else 'no name for'} "
            f"{dataset.name}; its classes are {', '.join(dataset.classes[:8])}, ..."
        )
    chosen = _ordered({known[_folded(name)] for name in names}, dataset.classes)
    return Names(told, f"every image is given {len(chosen)} names", lambda key, truth: chosen)


@dataclass(frozen=True)
class _Listed:
    """Names per image. Those that are no class of the data set are left out: a reply is data from outside."""

    perkey: Mapping[str, object]
    classes: tuple[str, ...]
    known: Mapping[str, str]

    def __call__(self, key: str, truth: UInt8[np.ndarray, "h w"]) -> tuple[str, ...]:
        if key not in self.perkey:
            raise InputError(f"the file of names has none for {key}; add its key, with an empty list if there is none")
        listed = self.perkey[key]
        names = list(parse_reply(listed, None).kept()) if isinstance(listed, str) else listed
        if not (isinstance(names, list) and all(isinstance(name, str) for name in names)):
            raise InputError(f"the file of names has {type(listed).__name__} for {key}; a list of names is wanted")
        return _ordered({self.known[_folded(n)] for n in names if _folded(n) in self.known}, self.classes)


def _known(dataset: Dataset, vocabulary: Vocabulary) -> dict[str, str]:
    words = {word: cls for cls, listed in vocabulary.words.items() if cls in dataset.classes for word in listed}
    return {_folded(word): cls for word, cls in (words | {cls: cls for cls in dataset.classes}).items()}


def _folded(name: str) -> str:
    """Return the name in lower case without spaces: replies write "tvmonitor" and "tv monitor"."""
    return "".join(name.casefold().split())


def _ordered(chosen: set[str], classes: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(cls for cls in classes if cls in chosen)
