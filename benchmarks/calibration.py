"""A namer's calibration, chosen on photos or scenes whose names are known."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from pnp_ovss.methods.presence import Calibration


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
    target = present.flatten().double()
    weights = torch.zeros(2, dtype=torch.float64)
    ridge = 1e-3 * torch.eye(2, dtype=torch.float64)
    for _ in range(steps):
        predicted = torch.sigmoid(design @ weights)
        gradient = design.T @ (predicted - target) + ridge @ weights
        curvature = (design * (predicted * (1 - predicted))[:, None]).T @ design + ridge
        weights = weights - torch.linalg.solve(curvature, gradient)
    return max(float(weights[1] / spread), 1e-6)
