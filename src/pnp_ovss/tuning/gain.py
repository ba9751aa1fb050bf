"""What new settings gain over the old ones, and whether photos enough say so."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

FEW = 30
"""Photos below which a gain is hardly known."""
LEAST = 10
"""Photos below which no gain is certain: those of a bootstrap are too much alike."""
MISTAKES = 0.05
"""How often a gain that is no gain may be taken for one."""
RESAMPLES = 20_000

Rewards = Sequence[Float[np.ndarray, " _"]]
"""Of each photo, the reward of each class's mask."""


@dataclass(frozen=True)
class Gain:
    """How much more the mean reward is, and an interval for what it would be on other photos of the kind."""

    mean: float
    low: float
    high: float
    photos: int

    @property
    def certain(self) -> bool:
        """Whether the interval lies above 0, on photos enough for one."""
        return self.low > 0 and self.photos >= LEAST

    def __str__(self) -> str:
        return f"{self.mean:+.3f} ({self.low:+.3f} to {self.high:+.3f})"


def gain(before: Rewards, after: Rewards, candidates: int = 1, seed: int = 0) -> Gain:
    """Return the gain of the mean reward over all masks, with its interval by bootstrap over photos.

    ``after`` was the best of so many ``candidates`` on the same photos, which alone lets it look better than it is: the
    interval is that of 1 - ``MISTAKES`` / ``candidates`` (Bonferroni).
    """
    masks = np.array([len(values) for values in before], dtype=np.float64)
    more = np.array([new.sum() - old.sum() for old, new in zip(before, after, strict=True)])
    chosen = np.random.default_rng(seed).integers(len(masks), size=(RESAMPLES, len(masks)))
    means = more[chosen].sum(1) / masks[chosen].sum(1)
    tail = MISTAKES / candidates / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    return Gain(float(more.sum() / masks.sum()), float(low), float(high), len(masks))
