"""Scores of label maps against the truth. Counts add across images, shards and machines.

Not torchmetrics: its scores are averaged per image, and void pixels cannot count as background.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, Int, Integer

IGNORE = 255
"""Truth pixels of this value count nowhere."""

Labels = Integer[np.ndarray, "h w"]
"""A label map: 0 to 255 per pixel."""

Counts = Int[np.ndarray, "row label"]
"""The pixels of some images, which is all that a score needs; those of several sets add. A row per label of the truth
and one of the void hold the labels predicted there; then three rows of pixels near an edge, as of ``boundary``."""

Over = Literal["truth", "either", "one", "zero"]
"""What a mean over classes is taken over: classes in the truth ("truth"), classes in truth or prediction ("either"), or
all of them, where one that is in neither counts as 1 ("one") or as 0 ("zero")."""

REACH = 0.02
"""Width of a boundary as a share of the picture's diagonal. Source: Cheng et al., Boundary IoU, CVPR 2021."""


@dataclass(frozen=True)
class Confusion:
    """Pixel counts: row = truth, column = prediction. ``a + b`` pools two sets of images."""

    counts: Int[np.ndarray, "truth prediction"]

    @classmethod
    def empty(cls, classes: int) -> "Confusion":
        """Return the matrix of no image."""
        return cls(np.zeros((classes, classes), dtype=np.int64))

    @classmethod
    def of(cls, truth: Labels, prediction: Integer[np.ndarray, "hp wp"], classes: int) -> "Confusion":
        """Return the matrix of one image; pixels whose truth is ``IGNORE`` are left out.

        Raises: ValueError if the maps differ in size or hold a label that is no class.

        >>> Confusion.of(np.array([[0, 1, 255]]), np.array([[1, 1, 1]]), 2).counts.tolist()
        [[0, 1], [0, 1]]
        """
        return cls(_pairs(truth, prediction, classes)[:-1])

    def __add__(self, other: "Confusion") -> "Confusion":
        return Confusion(self.counts + other.counts)

    def iou(self) -> Float[np.ndarray, " cls"]:
        """Return each class's intersection over union; NaN for a class in neither truth nor prediction."""
        return _iou(np.diagonal(self.counts), self.counts.sum(1), self.counts.sum(0))

    def miou(self, over: Over = "either", first: int = 0) -> float:
        """Return the mean IoU of the classes from ``first`` on, in one of its four meanings; NaN over no class."""
        iou = self.iou()[first:]
        if over in ("one", "zero"):
            return float(np.nan_to_num(iou, nan=float(over == "one")).mean())
        return mean_of_known(iou[self.counts.sum(1)[first:] > 0] if over == "truth" else iou)

    def frequency_weighted_iou(self) -> float:
        """Return the mean IoU, each class weighed by its share of the truth's pixels; NaN without a pixel."""
        truth = self.counts.sum(1)
        return float(np.nansum(truth * self.iou()) / truth.sum()) if truth.sum() else float("nan")

    def pixel_accuracy(self) -> float:
        """Return the share of pixels whose label is right; NaN without a pixel."""
        pixels = self.counts.sum()
        return float(np.trace(self.counts) / pixels) if pixels else float("nan")


def no_counts(labels: int) -> Counts:
    """Return the counts of no image."""
    return np.zeros((labels + 4, labels), dtype=np.int64)


def count(truth: Labels, prediction: Labels, labels: int) -> Counts:
    """Return the counts of one image; ``IGNORE`` in the truth is the void.

    Raises: ValueError if a map holds a value that is no label.
    """
    return np.concatenate([_pairs(truth, prediction, labels), boundary(truth, prediction, labels)])


def confusion_of(counts: Counts, void: bool = False) -> Confusion:
    """Return the matrix of counts without the void, or with the ``void`` as background."""
    matrix = counts[:-4].copy()
    if void:
        matrix[0] += counts[-4]
    return Confusion(matrix)


def boundary_iou(counts: Counts) -> Float[np.ndarray, " cls"]:
    """Return each class's boundary IoU; NaN for a class in neither truth nor prediction."""
    return _iou(*counts[-3:])


@dataclass(frozen=True)
class Protocol:
    """How pixel counts become a score."""

    name: str
    void: bool
    """Whether pixels that the truth leaves open count as background."""
    over: Over
    """Which classes the mean is taken over."""
    meaning: str
    """The rule in a sentence."""

    def first(self, background: bool) -> int:
        """Return the first label that the mean counts: 0, or 1 where a data set scores no background."""
        return 0 if background or self.void else 1

    def miou(self, counts: Counts, background: bool) -> float:
        """Return the score; ``background``: whether the data set scores a background. NaN where nothing counts."""
        return confusion_of(counts, self.void).miou(self.over, self.first(background))


STANDARD = "void pixels (255) are ignored; the mean is over the classes in the truth or in the prediction"
AUTHORS = "void pixels (255) are background; the mean is over the classes in the truth, as in the authors' code"
PROTOCOLS = {
    "standard": Protocol("standard", False, "either", STANDARD),
    "authors": Protocol("authors", True, "truth", AUTHORS),
}


def boundary(truth: Labels, prediction: Labels, classes: int) -> Int[np.ndarray, "3 classes"]:
    """Return pixels near the edge of a class, per class: the right ones, those of the truth, those of the prediction.

    A boundary is ``REACH`` of the diagonal wide. Pixels whose truth is ``IGNORE`` are left out; towards them and the
    picture's border a region has a boundary.
    """
    reach = max(1, round(REACH * float(np.hypot(*truth.shape))))
    keep = truth != IGNORE
    near_truth, near_prediction = near_edge(truth, reach) & keep, near_edge(prediction, reach) & keep
    hit = near_truth & near_prediction & (truth == prediction)
    counted = truth[hit], truth[near_truth], prediction[near_prediction]
    return np.stack([np.bincount(labels, minlength=classes) for labels in counted])


def mean_of_known(values: Float[np.ndarray, " cls"]) -> float:
    """Return the mean of the values that are numbers; NaN if there is none."""
    known = values[np.isfinite(values)]
    return float(known.mean()) if known.size else float("nan")


def near_edge(labels: Labels, reach: int) -> Bool[np.ndarray, "h w"]:
    """Return where another label, or the picture's border, is within ``reach`` pixels, along both axes."""
    near, width = np.ones(labels.shape, dtype=bool), 2 * reach + 1
    if min(labels.shape) >= width:
        least, most = (_running(extreme, labels, width) for extreme in (np.minimum, np.maximum))
        near[reach:-reach, reach:-reach] = least != most
    return near


def _running(extreme: np.ufunc, values: np.ndarray, width: int) -> np.ndarray:
    """Return the extreme of every square window, by windows of 1, 2, 4, ... pixels along one axis after the other."""
    for _ in ("down", "across"):
        covered = 1
        while covered < width:
            step = min(covered, width - covered)
            values, covered = extreme(values[:-step], values[step:]), covered + step
        values = values.T
    return values


def _pairs(truth: Labels, prediction: Integer[np.ndarray, "hp wp"], labels: int) -> Counts:
    """Return the pixels per label of truth (the last row: void) and prediction, in one go for it is faster."""
    if truth.shape != prediction.shape:
        raise ValueError(f"expected maps of one size, got {truth.shape} and {prediction.shape}")
    pairs = truth.astype(np.uint16) << 8 | prediction.astype(np.uint16)
    table = np.bincount(pairs.ravel(), minlength=1 << 16).reshape(256, 256)
    table = table[[*range(labels), IGNORE], :labels]
    if table.sum() != truth.size:
        raise ValueError(f"expected labels 0 to {labels - 1}, got a map with another value")
    return table


def _iou(hit: np.ndarray, truth: np.ndarray, prediction: np.ndarray) -> Float[np.ndarray, " cls"]:
    union = (truth + prediction - hit).astype(np.float64)
    return np.asarray(np.divide(hit, union, out=np.full_like(union, np.nan), where=union > 0))
