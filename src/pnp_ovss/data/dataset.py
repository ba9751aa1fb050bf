"""A benchmark: photos, their masks, and what the values in its mask files mean."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Int, Integer, UInt8

from pnp_ovss.errors import InputError
from pnp_ovss.images import read_image
from pnp_ovss.types import BACKGROUND, RGB

IGNORE = 255
"""Label of pixels that count nowhere: the void of the truth."""
UNKNOWN = -1
"""In a table from values to labels: a value that the data set does not have."""

Table = Int[np.ndarray, " value"]
"""Label of every value in a mask file."""

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
    ids: Sequence[int] = ()
    """Values of the classes in the mask files; empty: those of the benchmark."""


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
    to_label: Table
    """Value in a mask file -> label; ``UNKNOWN`` where the data set has no such value."""
    words: str
    """The class list, whose vocabularies are the files ``<words>.<vocabulary>.txt``."""
    layout: str
    """Where the truth came from, in words."""
    faults: Faults = ()

    @property
    def labels(self) -> tuple[str, ...]:
        """Name of every label from 0 on."""
        return (BACKGROUND if self.background else "no class", *self.classes)

    def truth(self, sample: Sample) -> UInt8[np.ndarray, "h w"]:
        """Return the sample's truth as labels, ``IGNORE`` where nothing is asked.

        Raises: InputError if the mask cannot be read or holds a value that is no label.
        """
        try:
            return translate(sample.mask(), self.to_label, "the truth")
        except InputError as error:
            raise InputError(f"{sample.key}: {error}") from error


def table(ids: Iterable[int], others: Mapping[int, int], size: int = 256) -> Table:
    """Return a table from values to labels: the n-th of ``ids`` has label n, ``others`` theirs, the rest ``UNKNOWN``.

    >>> table([7, 2], {0: 255}, size=8).tolist()
    [255, -1, 2, -1, -1, -1, -1, 1]
    """
    to_label = dict(others) | {value: label for label, value in enumerate(ids, 1)}
    filled = np.full(size, UNKNOWN, dtype=np.int16)
    filled[list(to_label)] = list(to_label.values())
    return filled


def translate(mask: Integer[np.ndarray, "h w"], table: Table, what: str) -> UInt8[np.ndarray, "h w"]:
    """Return ``table[mask]``.

    Raises: InputError naming the values that the table does not have.
    """
    if mask.min(initial=0) >= 0 and mask.max(initial=0) < len(table):
        labels = table[mask]
        if not (labels == UNKNOWN).any():
            return np.asarray(labels, dtype=np.uint8)
    known = np.flatnonzero(table != UNKNOWN)
    strange = ", ".join(map(str, np.setdiff1d(mask, known)[:5].tolist()))
    raise InputError(f"{what} holds the unknown label id {strange}; expected {known[0]} to {known[-1]}")
