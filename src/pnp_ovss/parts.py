"""The connected parts of a label map, and its objects. Pixels that touch at a corner are apart, as in polygons."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int, Integer
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


def find_objects(
    labels: Integer[np.ndarray, "h w"],
    background: bool,
    least: int | float = 0,
    masks: Sequence[Bool[np.ndarray, "_ _"]] = (),
) -> Objects:
    """Return the objects of a label map, but those of fewer pixels than ``least``.

    They are the connected parts of each label, unless ``masks`` of things, which may overlap, divide them. From the
    largest on a mask of which most pixels have one label is an object, less what larger ones have; if it is left less
    than half of these pixels, it is none. What is left of a part goes to the nearest object of its label. An object of
    a mask may have several parts. ``background``: label 0 is none of the classes.
    """
    parts = find_parts(labels)
    things, owners = _things(labels, background, masks)
    for label in np.unique(owners):
        own = labels == label
        seeds = own & (things > 0)
        rest = own & ~seeds & np.isin(parts.index, parts.index[seeds])
        if rest.any():
            nearest = ndimage.distance_transform_edt(~seeds, return_distances=False, return_indices=True)
            things[rest] = things[tuple(nearest)][rest]
    index = np.where(things > 0, things - 1, len(owners) + parts.index)
    owners = np.concatenate([owners, parts.labels])
    there, first, areas = np.unique(index, return_index=True, return_counts=True)
    kept = (owners[there] >= background) & (areas >= least)
    order = np.lexsort((first[kept], owners[there[kept]]))
    number = np.zeros(len(owners), dtype=np.int32)
    number[there[kept][order]] = np.arange(1, len(order) + 1)
    return Objects(number[index], owners[there[kept][order]])


def _things(
    labels: Integer[np.ndarray, "h w"], background: bool, masks: Sequence[Bool[np.ndarray, "_ _"]]
) -> tuple[Int[np.ndarray, "h w"], Int[np.ndarray, " thing"]]:
    """Return the objects of masks, from 1 on, 0 where there is none, and the label of each."""
    things, owners = np.zeros(labels.shape, dtype=np.int32), list[int]()
    for mask in sorted(masks, key=np.count_nonzero, reverse=True):
        counts = np.bincount(labels[mask], minlength=1)  # a mask may be empty
        label = int(counts.argmax())
        own = mask & (labels == label) & (things == 0)
        if label >= background and 2 * counts[label] > counts.sum() and 2 * own.sum() > counts[label]:
            owners.append(label)
            things[own] = len(owners)
    return things, np.array(owners, dtype=np.int64)
