"""Scores of label maps against the truth. A confusion matrix adds across images, shards and machines."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, Int, Integer

IGNORE = 255
"""Truth pixels of this value count nowhere."""

Over = Literal["either", "truth", "one", "zero"]
"""What a mean over classes is taken over: classes in truth or guess ("either"), classes in the truth ("truth"), or all
of them, where one that is in neither counts as 1 ("one") or as 0 ("zero")."""

REACH = 0.02
"""Width of a boundary as a share of the picture's diagonal. Source: Cheng et al., Boundary IoU, CVPR 2021."""


@dataclass(frozen=True)
class Confusion:
    """Pixel counts: row = truth, column = guess. ``a + b`` pools two sets of images."""

    counts: Int[np.ndarray, "truth guess"]

    @classmethod
    def empty(cls, classes: int) -> "Confusion":
        """Return the matrix of no image."""
        return cls(np.zeros((classes, classes), dtype=np.int64))

    @classmethod
    def of(cls, truth: Integer[np.ndarray, "h w"], guess: Integer[np.ndarray, "hg wg"], classes: int) -> "Confusion":
        """Return the matrix of one image; pixels whose truth is ``IGNORE`` are left out.

        Raises: ValueError if the maps differ in size or hold a label that is no class.
        """
        if truth.shape != guess.shape:
            raise ValueError(f"truth is {truth.shape} and guess {guess.shape}; maps of one size are wanted")
        keep = truth != IGNORE
        rows, columns = truth[keep].astype(np.int64), guess[keep].astype(np.int64)
        for name, values in (("truth", rows), ("guess", columns)):
            if values.size and (values.min() < 0 or values.max() >= classes):
                raise ValueError(f"{name} holds labels {values.min()} to {values.max()}; 0 to {classes - 1} are wanted")
        return cls(np.bincount(rows * classes + columns, minlength=classes**2).reshape(classes, classes))

    def __add__(self, other: "Confusion") -> "Confusion":
        return Confusion(self.counts + other.counts)

    def iou(self) -> Float[np.ndarray, " cls"]:
        """Return each class's intersection over union; NaN for a class in neither truth nor guess."""
        hit = np.diagonal(self.counts).astype(np.float64)
        union = self.counts.sum(0) + self.counts.sum(1) - hit
        return np.asarray(np.divide(hit, union, out=np.full_like(hit, np.nan), where=union > 0))

    def miou(self, over: Over = "either", first: int = 0) -> float:
        """Return the mean IoU of the classes from ``first`` on, in one of its four meanings; NaN over no class."""
        iou = self.iou()[first:]
        if over in ("one", "zero"):
            return float(np.nan_to_num(iou, nan=float(over == "one")).mean())
        counted = iou[self.counts.sum(1)[first:] > 0] if over == "truth" else iou[np.isfinite(iou)]
        return float(counted.mean()) if counted.size else float("nan")

    def frequency_weighted_iou(self) -> float:
        """Return the mean IoU, each class weighed by its share of the truth's pixels; NaN without a pixel."""
        truth = self.counts.sum(1)
        return float(np.nansum(truth * self.iou()) / truth.sum()) if truth.sum() else float("nan")

    def pixel_accuracy(self) -> float:
        """Return the share of pixels whose label is right; NaN without a pixel."""
        pixels = self.counts.sum()
        return float(np.trace(self.counts) / pixels) if pixels else float("nan")


@dataclass(frozen=True)
class Boundary:
    """Pixels near the edge of a class, per class: right ones (``hit``), those of the truth and those of the guess."""

    hit: Int[np.ndarray, " cls"]
    truth: Int[np.ndarray, " cls"]
    guess: Int[np.ndarray, " cls"]

    @classmethod
    def empty(cls, classes: int) -> "Boundary":
        """Return the counts of no image."""
        return cls(*(np.zeros(classes, dtype=np.int64) for _ in range(3)))

    @classmethod
    def of(cls, truth: Integer[np.ndarray, "h w"], guess: Integer[np.ndarray, "h w"], classes: int) -> "Boundary":
        """Return the counts of one image, for a boundary ``REACH`` of the diagonal wide.

        Pixels whose truth is ``IGNORE`` are left out; towards them and the picture's border a region has a boundary.
        """
        reach = max(1, round(REACH * float(np.hypot(*truth.shape))))
        keep = truth != IGNORE
        near_truth, near_guess = near_edge(truth, reach) & keep, near_edge(guess, reach) & keep
        hit = near_truth & near_guess & (truth == guess)
        return cls(
            np.bincount(truth[hit], minlength=classes),
            np.bincount(truth[near_truth], minlength=classes),
            np.bincount(guess[near_guess], minlength=classes),
        )

    def __add__(self, other: "Boundary") -> "Boundary":
        return Boundary(self.hit + other.hit, self.truth + other.truth, self.guess + other.guess)

    def iou(self) -> Float[np.ndarray, " cls"]:
        """Return each class's boundary IoU; NaN for a class in neither truth nor guess."""
        union = self.truth + self.guess - self.hit
        return np.asarray(np.divide(self.hit, union, out=np.full(len(union), np.nan), where=union > 0))

    def miou(self, first: int = 0) -> float:
        """Return the mean over the classes, from ``first`` on, that occur in the truth or in the guess."""
        iou = self.iou()[first:]
        return float(np.nanmean(iou)) if np.isfinite(iou).any() else float("nan")


def near_edge(labels: Integer[np.ndarray, "h w"], reach: int) -> Bool[np.ndarray, "h w"]:
    """Return where another label, or the picture's border, is within ``reach`` pixels, along both axes."""
    near = np.ones(labels.shape, dtype=bool)
    if min(labels.shape) > 2 * reach:
        least, most = labels, labels
        for axis in (0, 1):
            least = _running(np.minimum, least, 2 * reach + 1, axis)
            most = _running(np.maximum, most, 2 * reach + 1, axis)
        near[reach:-reach, reach:-reach] = least != most
    return near


def _running(extreme: np.ufunc, values: np.ndarray, width: int, axis: int) -> np.ndarray:
    """Return the extreme of every window of ``width`` along the axis, by windows of 1, 2, 4, ... pixels."""
    covered = 1
    while covered < width:
        step = min(covered, width - covered)
        before, behind = (values[:-step], values[step:]) if axis == 0 else (values[:, :-step], values[:, step:])
        values, covered = extreme(before, behind), covered + step
    return values
