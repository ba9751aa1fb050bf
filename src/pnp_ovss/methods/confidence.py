"""How likely a class's region is right: whether the photo shows the class, and how clearly the region is its own."""

from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np
from jaxtyping import Bool, Float, Int

from pnp_ovss.parts import Objects

EVEN = 0.5
"""The chance that a photo shows a class, for a model that can say nothing of it."""
WEIGHTS: Mapping[str, float] = {"bias": -4.0, "chance": 0.6, "focus": 4.0}
"""For a model nobody has calibrated: about those of mini-blip. At even chances the confidence is 0.5 at most: that
of a region with all the salience of its class."""
SURE = 8.0
"""Log odds beyond which a chance counts no more."""


def rate_regions(
    labels: Int[np.ndarray, "h w"],
    salience: Float[np.ndarray, "cls gh gw"],
    chances: Sequence[float],
    weights: Mapping[str, float] = WEIGHTS,
    first: int = 1,
) -> Float[np.ndarray, " cls"]:
    """Return how likely each class's region is right, in [0, 1]; 0 for a class without a region.

    The log odds of it are a weighted sum of the log odds that the photo shows the class, from ``chances``, and of the
    focus: the share of the class's salience, above its least, that lies in the region. ``first`` is the label of the
    first class.
    """
    odds, focus, there = region_odds(labels, salience, chances, first)
    sure = weights["bias"] + weights["chance"] * odds + weights["focus"] * focus
    rated: np.ndarray = np.where(there, 1 / (1 + np.exp(-sure)), 0.0)
    return rated


def region_odds(
    labels: Int[np.ndarray, "h w"],
    salience: Float[np.ndarray, "cls gh gw"],
    chances: Sequence[float],
    first: int = 1,
) -> tuple[Float[np.ndarray, " cls"], Float[np.ndarray, " cls"], Bool[np.ndarray, " cls"]]:
    """Return what ``rate_regions`` weighs: the log odds of each class's chance, and its focus in [0, 1].

    The last are the classes that have a pixel.
    """
    pixels = _pixels(labels, salience.shape, first)
    inside = pixels[first:] / np.maximum(pixels.sum(0), 1)
    above = salience.astype(np.float64) - salience.min((1, 2), initial=np.inf)[:, None, None]
    total = above.sum((1, 2))
    focus = np.divide((above * inside).sum((1, 2)), total, out=np.zeros_like(total), where=total > 0)
    chance = np.asarray(chances, dtype=np.float64)
    with np.errstate(divide="ignore"):
        odds = np.clip(np.log(chance) - np.log1p(-chance), -SURE, SURE)
    return odds, focus, np.asarray(pixels[first:].any((1, 2)))


def rate_objects(
    objects: Objects, salience: Float[np.ndarray, "cls gh gw"], confidence: Float[np.ndarray, " cls"], first: int = 1
) -> tuple[float, ...]:
    """Return how likely each object is right, in [0, 1].

    That is the confidence of its class for the object with the most salience of its class, above its least, and for
    another one as much less as it has less salience. Ours: no class that has two objects is in the drawn scenes it was
    chosen on.
    """
    cells = _pixels(objects.index, (len(objects.labels), *salience.shape[1:]), 1)
    inside = cells[1:] / np.maximum(cells.sum(0), 1)
    above = salience.astype(np.float64) - salience.min((1, 2), initial=np.inf)[:, None, None]
    classes = objects.labels - first
    mass = (above[classes] * inside).sum((1, 2))
    most = np.zeros(len(salience))
    np.maximum.at(most, classes, mass)
    share = np.divide(mass, most[classes], out=np.ones_like(mass), where=most[classes] > 0)
    return tuple((confidence[classes] * share).tolist())


def _pixels(labels: np.ndarray, grid: tuple[int, ...], first: int) -> Int[np.ndarray, "label gh gw"]:
    """Return how many pixels of each label lie in each cell of the grid; a row of cells at a time, to save memory."""
    (height, width), (classes, rows, columns) = labels.shape, grid
    column = np.arange(width) * columns // width
    ends = [-(-row * height // rows) for row in range(rows + 1)]
    size = (first + classes) * columns
    strips = (labels[start:end] * columns + column for start, end in pairwise(ends))
    return np.stack([np.bincount(strip.ravel(), minlength=size).reshape(-1, columns) for strip in strips], axis=1)
