"""Scores of label maps against the truth. Counts add across images, shards and machines.

Not torchmetrics: its scores are averaged per image, and void pixels cannot count as background.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, Int, Integer, UInt8

IGNORE = 255
"""Truth pixels of this value count nowhere."""

Over = Literal["either", "truth", "one", "zero"]
"""What a mean over classes is taken over: classes in truth or prediction ("either"), classes in the truth ("truth"), or
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
    def of(
        cls, truth: Integer[np.ndarray, "h w"], prediction: Integer[np.ndarray, "hp wp"], classes: int
    ) -> "Confusion":
        """Return the matrix of one image; pixels whose truth is ``IGNORE`` are left out.

        Raises: ValueError if the maps differ in size or hold a label that is no class.

        >>> Confusion.of(np.array([[0, 1, 255]]), np.array([[1, 1, 1]]), 2).counts.tolist()
        [[0, 1], [0, 1]]
        """
        if truth.shape != prediction.shape:
            raise ValueError(f"expected maps of one size, got truth {truth.shape} and prediction {prediction.shape}")
        keep = truth != IGNORE
        rows, columns = truth[keep].astype(np.int64), prediction[keep].astype(np.int64)
        for name, values in (("truth", rows), ("prediction", columns)):
            if values.size and (values.min() < 0 or values.max() >= classes):
                raise ValueError(f"expected labels 0 to {classes - 1}, got {values.min()} to {values.max()} in {name}")
        return cls(np.bincount(rows * classes + columns, minlength=classes**2).reshape(classes, classes))

    def __add__(self, other: "Confusion") -> "Confusion":
        return Confusion(self.counts + other.counts)

    def iou(self) -> Float[np.ndarray, " cls"]:
        """Return each class's intersection over union; NaN for a class in neither truth nor prediction."""
        hit = np.diagonal(self.counts).astype(np.float64)
        return _ratio(hit, self.counts.sum(0) + self.counts.sum(1) - hit)

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
class Counts:
    """The pixels of some images, by label."""

    known: Confusion
    """Where the truth has a label."""
    void: Int[np.ndarray, " prediction"]
    """What was predicted where the truth leaves it open."""

    @classmethod
    def empty(cls, labels: int) -> "Counts":
        """Return the counts of no image."""
        return cls(Confusion.empty(labels), np.zeros(labels, dtype=np.int64))

    @classmethod
    def of(cls, truth: UInt8[np.ndarray, "h w"], prediction: UInt8[np.ndarray, "h w"], labels: int) -> "Counts":
        """Return the counts of one image: as ``Confusion.of``, and those of the void with them, in one go.

        Raises: ValueError if a map holds a value that is no label.
        """
        pairs = truth.astype(np.uint16) << 8 | prediction
        table = np.bincount(pairs.ravel(), minlength=1 << 16).reshape(256, 256)
        known, void = table[:labels, :labels], table[IGNORE, :labels]
        if known.sum() + void.sum() != truth.size:
            raise ValueError(f"expected labels 0 to {labels - 1}, got a map with another value")
        return cls(Confusion(known), void)

    def __add__(self, other: "Counts") -> "Counts":
        return Counts(self.known + other.known, self.void + other.void)


@dataclass(frozen=True)
class Protocol:
    """How pixel counts become a score."""

    name: str
    void: Literal["ignored", "background"]
    """What becomes of pixels that the truth leaves open."""
    over: Over
    """Which classes the mean is taken over."""
    meaning: str
    """The rule in a sentence."""

    def first(self, background: bool) -> int:
        """Return the first label that the mean counts: 0, or 1 where a data set scores no background."""
        return 0 if background or self.void == "background" else 1

    def confusion(self, counts: Counts) -> Confusion:
        """Return the matrix to score: without the void, or with the void as background."""
        if self.void == "ignored":
            return counts.known
        whole = counts.known.counts.copy()
        whole[0] += counts.void
        return Confusion(whole)

    def miou(self, counts: Counts, background: bool) -> float:
        """Return the score; ``background``: whether the data set scores a background. NaN where nothing counts."""
        return self.confusion(counts).miou(self.over, self.first(background))


VOID_IGNORED = (
    "pixels that the truth leaves open (255) are ignored; the mean is over the classes that occur in the truth or in "
    "the prediction"
)
VOID_AS_BACKGROUND = (
    "pixels that the truth leaves open (255) count as background, which is a class like any other; the mean is over "
    "the classes that occur in the truth; as in the code of PnP-OVSS's authors"
)
PROTOCOLS = {
    "standard": Protocol("standard", "ignored", "either", VOID_IGNORED),
    "authors": Protocol("authors", "background", "truth", VOID_AS_BACKGROUND),
}


@dataclass(frozen=True)
class Boundary:
    """Pixels near the edge of a class, per class: the right ones, those of the truth, those of the prediction."""

    counts: Int[np.ndarray, "3 cls"]

    @classmethod
    def empty(cls, classes: int) -> "Boundary":
        """Return the counts of no image."""
        return cls(np.zeros((3, classes), dtype=np.int64))

    @classmethod
    def of(cls, truth: Integer[np.ndarray, "h w"], prediction: Integer[np.ndarray, "h w"], classes: int) -> "Boundary":
        """Return the counts of one image, for a boundary ``REACH`` of the diagonal wide.

        Pixels whose truth is ``IGNORE`` are left out; towards them and the picture's border a region has a boundary.
        """
        reach = max(1, round(REACH * float(np.hypot(*truth.shape))))
        keep = truth != IGNORE
        near_truth, near_prediction = near_edge(truth, reach) & keep, near_edge(prediction, reach) & keep
        hit = near_truth & near_prediction & (truth == prediction)
        counted = (truth[hit], truth[near_truth], prediction[near_prediction])
        return cls(np.stack([np.bincount(labels, minlength=classes) for labels in counted]))

    def __add__(self, other: "Boundary") -> "Boundary":
        return Boundary(self.counts + other.counts)

    def iou(self) -> Float[np.ndarray, " cls"]:
        """Return each class's boundary IoU; NaN for a class in neither truth nor prediction."""
        hit, truth, prediction = self.counts.astype(np.float64)
        return _ratio(hit, truth + prediction - hit)

    def miou(self, first: int = 0) -> float:
        """Return the mean over the classes, from ``first`` on, that occur in the truth or in the prediction."""
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


def _ratio(hit: Float[np.ndarray, " cls"], union: np.ndarray) -> Float[np.ndarray, " cls"]:
    return np.asarray(np.divide(hit, union, out=np.full_like(hit, np.nan), where=union > 0))
