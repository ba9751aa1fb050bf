"""A benchmark: photos, their masks, and what the values in its mask files mean."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Int, Integer, UInt8

from pnp_ovss.data.vocabulary import class_names
from pnp_ovss.errors import InputError
from pnp_ovss.images import read_image
from pnp_ovss.types import BACKGROUND, RGB

IGNORE = 255
"""Label of pixels that count nowhere: the void of the truth."""
UNKNOWN = -1
"""In a table from values to labels: a value that the data set does not have."""
MOST_CLASSES = 254

Faults = tuple[tuple[str, str], ...]
"""Samples that are not scored although they are listed: key, and why in one line."""

Mask = Callable[[], Integer[np.ndarray, "h w"]]
"""Reads or paints a mask, with the values of the data set's own files.

Raises: InputError if that cannot be done."""


@dataclass(frozen=True)
class Sample:
    """A photo by its key, and its mask; both are read on demand."""

    key: str
    """A plain file name: results are files of that name."""
    image: Path | Callable[[], RGB]
    """The photo's file, or what draws it."""
    mask: Mask

    def photo(self) -> RGB:
        """Return the photo.

        Raises: InputError if it cannot be read.
        """
        return read_image(self.image) if isinstance(self.image, Path) else self.image()


@dataclass(frozen=True)
class Samples:
    """The samples found below a folder, the layout they came in, and those that are not scored."""

    found: tuple[Sample, ...]
    layout: str
    faults: Faults = ()


@dataclass(frozen=True)
class Dataset:
    """Photos with truth. Labels: 0 is the background, or no class at all; the n-th class is n; 255 is ``IGNORE``."""

    name: str
    title: str
    classes: tuple[str, ...]
    """Official names in official order, without the background."""
    background: bool
    """Whether "background" is a class of its own that is scored."""
    samples: tuple[Sample, ...]
    to_label: Int[np.ndarray, " value"]
    """Value in a mask file -> label; ``UNKNOWN`` where the data set has no such value."""
    words: str
    """The class list, whose vocabularies are the files ``<words>.<vocabulary>.txt``."""
    layout: str
    """Where the truth came from, in words."""
    faults: Faults = ()

    def __post_init__(self) -> None:
        if not 0 < len(self.classes) <= MOST_CLASSES:
            raise InputError(f"expected 1 to {MOST_CLASSES} classes, got {len(self.classes)} in {self.name}")

    @property
    def labels(self) -> tuple[str, ...]:
        """Name of every label from 0 on."""
        return (BACKGROUND if self.background else "no class", *self.classes)

    def truth(self, sample: Sample) -> UInt8[np.ndarray, "h w"]:
        """Return the sample's truth as labels, ``IGNORE`` where nothing is asked.

        Raises: InputError if the mask cannot be read or holds a value that is no label.
        """
        return translate(sample.mask(), self.to_label, f"the truth of {sample.key}")


def benchmark(
    name: str, title: str, words: str, to_label: Int[np.ndarray, " value"], samples: Samples, background: bool = False
) -> Dataset:
    """Return a data set whose classes are a list that ships with the package."""
    classes = class_names(words)
    title = f"{title}, {len(classes)} classes" + (" and background" if background else "")
    return Dataset(name, title, classes, background, samples.found, to_label, words, samples.layout, samples.faults)


def table(ids: Iterable[int], others: Mapping[int, int], size: int = 256) -> Int[np.ndarray, " value"]:
    """Return a table from values to labels: the n-th of ``ids`` has label n, ``others`` theirs, the rest ``UNKNOWN``.

    >>> table([7, 2], {0: 255}, size=8).tolist()
    [255, -1, 2, -1, -1, -1, -1, 1]
    """
    to_label = dict(others) | {value: label for label, value in enumerate(ids, 1)}
    filled = np.full(size, UNKNOWN, dtype=np.int16)
    filled[list(to_label)] = list(to_label.values())
    return filled


def translate(
    mask: Integer[np.ndarray, "h w"], table: Int[np.ndarray, " value"], what: str
) -> UInt8[np.ndarray, "h w"]:
    """Return ``table[mask]``.

    Raises: InputError naming the values that the table does not have.
    """
    least, most = (int(mask.min()), int(mask.max())) if mask.size else (0, 0)
    if least >= 0 and most < len(table):
        labels = table[mask]
        if not (labels == UNKNOWN).any():
            return np.asarray(labels, dtype=np.uint8)
    known = np.flatnonzero(table != UNKNOWN)
    strange = [value for value in np.unique(mask).tolist() if value not in known]
    raise InputError(
        f"{what} holds the unknown label id {', '.join(map(str, strange[:5]))}; expected those of its data set, from "
        f"{known[0]} to {known[-1]}: check that file and data set fit"
    )
