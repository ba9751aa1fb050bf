"""What a run is given: the drawn scenes as a data set, and the classes to name in each image."""

import hashlib
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from pnp_ovss.data.dataset import IGNORE, Dataset, Sample, table
from pnp_ovss.data.vocabulary import read_lines
from pnp_ovss.errors import InputError
from pnp_ovss.files import read_json
from pnp_ovss.mini import THINGS, draw
from pnp_ovss.naming.replies import parse_reply
from pnp_ovss.types import Vocabulary

ChooseClasses = Callable[[str, UInt8[np.ndarray, "h w"]], tuple[str, ...]]
"""Returns the classes to name, from an image's key and its truth, in the data set's order.

Raises: InputError if it knows nothing of that key."""


def scenes(count: int, seed: int, size: int) -> Dataset:
    """Return drawn scenes of a series as a data set: the things before a background."""

    def sample(index: int) -> Sample:
        scene = partial(draw, seed, index, size)
        return Sample(f"scene-{seed}-{index:05}", lambda: scene().image, lambda: scene().things_mask())

    title, layout = f"Drawn scenes, {len(THINGS)} things and background", f"series {seed}, {size} x {size} pixels"
    to_label, samples = table(range(1, len(THINGS) + 1), {0: 0, IGNORE: IGNORE}), tuple(map(sample, range(count)))
    return Dataset("scenes", title, THINGS, True, samples, to_label, "scenes", layout)


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
    if not path.is_file():
        raise InputError(f"there is no file of names {path}; give truth, given, or a file")
    title = f"{path.name} ({hashlib.sha256(path.read_bytes()).hexdigest()[:12]})"
    if path.suffix == ".json":
        listed = read_json(path)
        return title, lambda key, truth: _in_order(_of_image(listed, key), dataset, vocabulary)
    names = read_lines(path)
    strange = [name for name in names if vocabulary.find(name) not in dataset.classes]
    if strange:
        known = ", ".join(dataset.classes[:8])
        raise InputError(f"the names {path} hold {strange[0]!r}, which is no class of {dataset.name}: {known}, ...")
    chosen = _in_order(names, dataset, vocabulary)
    return title, lambda key, truth: chosen


def present(dataset: Dataset, truth: UInt8[np.ndarray, "h w"]) -> tuple[str, ...]:
    """Return the classes that a truth holds, without the background."""
    labels = np.flatnonzero(np.bincount(truth.ravel(), minlength=1))  # several times faster than np.unique
    return tuple(dataset.classes[label - 1] for label in labels.tolist() if 0 < label < IGNORE)


def _of_image(listed: dict[str, Any], key: str) -> list[str]:
    names = listed.get(key)
    if isinstance(names, str):
        return list(parse_reply(names, None).kept())
    if not (isinstance(names, list) and all(isinstance(name, str) for name in names)):
        raise InputError(f"expected a list of names for {key}, got {names!r:.40}; mend the file of names")
    return names


def _in_order(names: Iterable[str], dataset: Dataset, vocabulary: Vocabulary) -> tuple[str, ...]:
    """Return the classes so named. Names of no class are left out: a reply is data from outside."""
    found = {vocabulary.find(name) for name in names}
    return tuple(cls for cls in dataset.classes if cls in found)
