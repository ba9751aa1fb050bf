"""Which classes each image is asked for: all, those of its truth, or those of a file."""

import hashlib
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from pnp_ovss.data import IGNORE, Dataset
from pnp_ovss.errors import InputError
from pnp_ovss.naming.replies import parse_reply
from pnp_ovss.types import Vocabulary

ChooseClasses = Callable[[str, UInt8[np.ndarray, "h w"]], tuple[str, ...]]
"""Returns the classes to name, from an image's key and its truth, in the data set's order.

Raises: InputError if it knows nothing of that key."""


def load_choice(source: str, dataset: Dataset, vocabulary: Vocabulary) -> tuple[str, ChooseClasses]:
    """Return what a report calls the choice, and the choice: "given" (every class), "truth", or that of a file.

    A ``.json`` file holds names per key: lists, or replies of GPT-4o as the authors keep them. Any other file holds
    names, one a line, that every image gets.

    Raises: InputError if there is no such file, or it has a name that is no class and no word of the vocabulary.
    """
    if source == "given":
        return source, lambda key, truth: dataset.classes
    if source == "truth":
        return source, lambda key, truth: present(dataset, truth)
    path = Path(source).expanduser()
    try:
        content = path.read_bytes()
        text = content.decode("utf-8-sig")
        listed = json.loads(text) if path.suffix == ".json" else None
    except (OSError, ValueError) as error:
        raise InputError(
            f"the names {path} cannot be read; give 'given', 'truth', a .json file of names per image, or a file with "
            "one name a line"
        ) from error
    title = f"{path.name} ({hashlib.sha256(content).hexdigest()[:12]})"
    if isinstance(listed, dict):
        return title, lambda key, truth: _of_image(listed, key, dataset, vocabulary)
    if listed is not None:
        raise InputError(f"expected an object of names per image key in {path}, got a {type(listed).__name__}")
    chosen = _of_all([line.split("#")[0].strip() for line in text.splitlines()], title, dataset, vocabulary)
    return title, lambda key, truth: chosen


def present(dataset: Dataset, truth: UInt8[np.ndarray, "h w"]) -> tuple[str, ...]:
    """Return the classes that a truth holds, without the background."""
    labels = np.flatnonzero(np.bincount(truth.ravel(), minlength=1))  # several times faster than np.unique
    return tuple(dataset.classes[label - 1] for label in labels.tolist() if 0 < label < IGNORE)


def _of_all(lines: Iterable[str], title: str, dataset: Dataset, vocabulary: Vocabulary) -> tuple[str, ...]:
    names = [line for line in lines if line]
    strange = [name for name in names if vocabulary.find(name) not in dataset.classes]
    if strange or not names:
        raise InputError(
            f"the names {title} hold {f'{strange[0]!r}, which is no class of' if strange else 'no name for'} "
            f"{dataset.name}; its classes are {', '.join(dataset.classes[:8])}, ..."
        )
    return _in_order(names, dataset, vocabulary)


def _of_image(listed: dict[str, Any], key: str, dataset: Dataset, vocabulary: Vocabulary) -> tuple[str, ...]:
    """Return the names of one image. Those that are no class are left out: a reply is data from outside."""
    if key not in listed:
        raise InputError(f"the file of names has none for {key}; add its key, with an empty list if there is none")
    names = list(parse_reply(listed[key], None).kept()) if isinstance(listed[key], str) else listed[key]
    if not (isinstance(names, list) and all(isinstance(name, str) for name in names)):
        raise InputError(f"expected a list of names for {key}, got {names!r:.40}; mend the file of names")
    return _in_order(names, dataset, vocabulary)


def _in_order(names: Iterable[str], dataset: Dataset, vocabulary: Vocabulary) -> tuple[str, ...]:
    found = {vocabulary.find(name) for name in names}
    return tuple(cls for cls in dataset.classes if cls in found)
