"""The connected parts of a label map. Pixels that touch at a corner alone are apart, as in polygons."""

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
