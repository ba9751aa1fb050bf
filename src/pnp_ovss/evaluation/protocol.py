"""What counts: the void of the truth, and the classes that the mean is taken over."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Int, UInt8

from pnp_ovss.evaluation.metrics import IGNORE, Confusion, Over


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

    def confusion(self, counts: "Counts") -> Confusion:
        """Return the matrix to score: without the void, or with the void as background."""
        if self.void == "ignored":
            return counts.known
        whole = counts.known.counts.copy()
        whole[0] += counts.void
        return Confusion(whole)

    def miou(self, counts: "Counts", background: bool) -> float:
        """Return the score; ``background``: whether the data set scores a background. NaN where nothing counts."""
        return self.confusion(counts).miou(self.over, self.first(background))


@dataclass(frozen=True)
class Counts:
    """The pixels of some images, by label."""

    known: Confusion
    """Where the truth has a label."""
    void: Int[np.ndarray, " guess"]
    """What was guessed where the truth leaves it open."""

    @classmethod
    def empty(cls, labels: int) -> "Counts":
        """Return the counts of no image."""
        return cls(Confusion.empty(labels), np.zeros(labels, dtype=np.int64))

    @classmethod
    def of(cls, truth: UInt8[np.ndarray, "h w"], guess: UInt8[np.ndarray, "h w"], labels: int) -> "Counts":
        """Return the counts of one image: as ``Confusion.of``, and those of the void with them, in one go.

        Raises: ValueError if a map holds a value that is no label.
        """
        pairs = truth.astype(np.uint16) << 8 | guess
        table = np.bincount(pairs.ravel(), minlength=1 << 16).reshape(256, 256)
        known, void = table[:labels, :labels], table[IGNORE, :labels]
        if known.sum() + void.sum() != truth.size:
            raise ValueError(f"a map holds a value that is no label; 0 to {labels - 1} are wanted")
        return cls(Confusion(known), void)

    def __add__(self, other: "Counts") -> "Counts":
        return Counts(self.known + other.known, self.void + other.void)


PROTOCOLS = {
    "standard": Protocol(
        "standard",
        "ignored",
        "either",
        "pixels that the truth leaves open (255) are ignored; the mean is over the classes that occur in the truth or "
        "in the guess",
    ),
    "authors": Protocol(
        "authors",
        "background",
        "truth",
        "pixels that the truth leaves open (255) count as background, which is a class like any other; the mean is "
        "over the classes that occur in the truth; as in the code of PnP-OVSS's authors",
    ),
}
