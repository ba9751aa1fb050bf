"""The connected parts of a label map, and its objects. Pixels that touch at a corner are apart, as in polygons."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Int, Integer
from scipy import ndimage


@dataclass(frozen=True)
class Parts:
    """The parts of a label map, label by label, each label's from the top left."""

    index: Int[np.ndarray, "h w"]
    """The part of each pixel, from 0."""
    labels: Int[np.ndarray, " part"]
    """The label of each part."""
    areas: Int[np.ndarray, " part"]
    """Pixels of each part, at least 1."""


@dataclass(frozen=True)
class Objects:
    """The objects of a label map, label by label, each label's from the top left; none overlap."""

    index: Integer[np.ndarray, "h w"]
    """The object of each pixel, from 1; 0 where there is none."""
    labels: Int[np.ndarray, " object"]
    """The label of each object."""
    scores: tuple[float, ...] = ()
    """How likely each object is right, in [0, 1]; empty if not known."""


def find_parts(labels: Integer[np.ndarray, "h w"]) -> Parts:
    """Return the connected parts of each label, 0 included.

    >>> find_parts(np.array([[1, 0, 1], [1, 0, 1]])).labels
    array([0, 1, 1])
    """
    index, owners, first = np.zeros(labels.shape, dtype=np.int32), [np.zeros(0, dtype=np.int64)], 0
    values = np.unique(labels).tolist()
    ranks = np.searchsorted(values, labels) + 1
    for value, box in zip(values, ndimage.find_objects(ranks), strict=True):
        found, count = ndimage.label(labels[box] == value)
        own = found > 0
        index[box][own] = found[own] - 1 + first
        owners.append(np.full(count, value))
        first += count
    return Parts(index, np.concatenate(owners), np.bincount(index.ravel(), minlength=first))


def find_objects(labels: Integer[np.ndarray, "h w"], background: bool, least: int | float = 0) -> Objects:
    """Return the connected parts of each label as objects, but those of fewer pixels than ``least``.

    ``background``: label 0 is none of the classes.
    """
    parts = find_parts(labels)
    kept = (parts.labels >= background) & (parts.areas >= least)
    number = (np.cumsum(kept) * kept).astype(parts.index.dtype)
    return Objects(number[parts.index], parts.labels[kept])
