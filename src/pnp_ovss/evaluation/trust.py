"""What confidences are worth: how well they order regions, and whether they mean what they say."""

from collections.abc import Iterator

import numpy as np
from jaxtyping import Bool, Float

Sure = Float[np.ndarray, " region"]
"""Confidences, in [0, 1]."""
Right = Bool[np.ndarray, " region"]
BINS = 10


def average_precision(sure: Sure, right: Right) -> float:
    """Return the mean, over the right regions, of the share of right ones among those at least as sure; NaN if none is.

    1: all right ones are surer than all wrong ones. Equals are taken together.
    """
    if not right.any():
        return float("nan")
    levels, place = np.unique(-sure, return_inverse=True)
    hits, all_ = (np.bincount(place, weights, len(levels)).cumsum() for weights in (right, None))
    return float((hits / all_)[place][right].mean())


def calibration_error(sure: Sure, right: Right) -> float:
    """Return the expected calibration error: how far the share of right regions is from the mean confidence of a bin.

    Ten bins of one width, weighed by their regions. Source: Guo et al., On Calibration of Modern Neural Networks, ICML
    2017. NaN without a region.
    """
    rows = list(reliability(sure, right))
    return sum(count * abs(mean - share) for *_, count, mean, share in rows) / len(sure) if rows else float("nan")


def reliability(sure: Sure, right: Right) -> Iterator[tuple[float, float, int, float, float]]:
    """Yield of each bin that holds a region: its ends, its regions, their mean confidence, the share of right ones."""
    bins = np.minimum((sure * BINS).astype(int), BINS - 1)
    for number in range(BINS):
        if (own := bins == number).any():
            yield number / BINS, (number + 1) / BINS, int(own.sum()), float(sure[own].mean()), float(right[own].mean())


def risk_coverage(sure: Sure, right: Right) -> Iterator[tuple[float, float]]:
    """Yield coverage and risk: the share of regions that are kept, the surest first, and that of wrong ones among them.

    One point for each confidence that occurs. Source: El-Yaniv and Wiener, On the Foundations of Noise-free Selective
    Classification, JMLR 2010.
    """
    levels, place = np.unique(-sure, return_inverse=True)
    kept, wrong = (np.bincount(place, weights, len(levels)).cumsum() for weights in (None, ~right))
    yield from zip((kept / max(1, len(sure))).tolist(), (wrong / kept).tolist(), strict=True)
