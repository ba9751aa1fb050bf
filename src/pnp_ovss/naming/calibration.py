"""From a score that means nothing by itself to a confidence for which 70 % is the place to cut."""

from dataclasses import dataclass
from math import log

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from pnp_ovss.naming.base import KEEP

EVEN = log(KEEP / (1 - KEEP))
"""Log odds of ``KEEP``."""


@dataclass(frozen=True)
class Calibration:
    """``confidence = sigmoid(slope * (score - cut) + EVEN)``: ``KEEP`` where the score is ``cut``."""

    slope: float = 1.0
    cut: float = EVEN
    """By default, scores are log odds and the confidence is their sigmoid."""

    def __call__(self, scores: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """Return the confidences, in [0, 1]."""
        return torch.sigmoid(self.slope * (scores - self.cut) + EVEN)


def calibrate(scores: Float[Tensor, "photo name"], present: Bool[Tensor, "photo name"]) -> Calibration:
    """Return the calibration whose cut gives the best F1 over all photos and names, on photos whose names are known.

    The slope is that of a logistic regression of ``present`` on the scores, so that the confidences spread as the
    scores do. The cut lies half-way between the two scores around it.
    """
    order = scores.flatten().double().sort(descending=True)
    right = present.flatten()[order.indices].double().cumsum(0)
    taken = torch.arange(1, len(right) + 1)
    best = int((2 * right / (taken + present.sum())).argmax())  # F1 = 2 right / (taken + wanted)
    after = min(best + 1, len(right) - 1)
    return Calibration(_slope(scores, present), float(order.values[[best, after]].mean()))


def _slope(scores: Tensor, present: Tensor, steps: int = 50) -> float:
    """Return the slope of the logistic regression by Newton's method, a little held back so that it stays finite."""
    x = scores.flatten().double()
    middle, spread = x.mean(), x.std().clamp_min(1e-9)
    design = torch.stack([torch.ones_like(x), (x - middle) / spread], 1)
    truth = present.flatten().double()
    weights = torch.zeros(2, dtype=torch.float64)
    ridge = 1e-3 * torch.eye(2, dtype=torch.float64)
    for _ in range(steps):
        guess = torch.sigmoid(design @ weights)
        gradient = design.T @ (guess - truth) + ridge @ weights
        curvature = (design * (guess * (1 - guess))[:, None]).T @ design + ridge
        weights = weights - torch.linalg.solve(curvature, gradient)
    return max(float(weights[1] / spread), 1e-6)
