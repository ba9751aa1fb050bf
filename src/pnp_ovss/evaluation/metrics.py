"""Scores of label maps against the truth. A confusion matrix adds across images, shards and machines."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

IGNORE = 255
"""Truth pixels of this value count nowhere."""


@dataclass(frozen=True)
class Confusion:
    """Pixel counts: row = truth, column = guess. ``a + b`` pools two sets of images."""

    counts: Int[np.ndarray, "truth guess"]

    @classmethod
    def empty(cls, classes: int) -> "Confusion":
        """Return the matrix of no image."""
        return cls(np.zeros((classes, classes), dtype=np.int64))

    @classmethod
    def of(cls, truth: Int[np.ndarray, "h w"], guess: Int[np.ndarray, "hg wg"], classes: int) -> "Confusion":
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
        return np.divide(hit, union, out=np.full_like(hit, np.nan), where=union > 0)

    def miou(self) -> float:
        """Return the mean IoU over the classes that occur in the truth or in the guess; NaN if none does."""
        iou = self.iou()
        return float(np.nanmean(iou)) if np.isfinite(iou).any() else float("nan")

    def pixel_accuracy(self) -> float:
        """Return the share of pixels whose label is right; NaN without a pixel."""
        pixels = self.counts.sum()
        return float(np.trace(self.counts) / pixels) if pixels else float("nan")
