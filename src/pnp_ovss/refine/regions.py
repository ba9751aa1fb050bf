"""Regions vote: every pixel of a region takes the mean scores of the region."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from pnp_ovss.refine.base import Images, Refiner, Scores
from pnp_ovss.regions import RegionMap, RegionSettings, check_source, find_regions
from pnp_ovss.regions.sam import MEMORY
from pnp_ovss.types import OnStep, ignore

FINDING = 250
"""Bytes per pixel that it takes at most to find regions without a model, and to average over them."""


@dataclass(frozen=True)
class Regions(RegionSettings, Refiner):
    """Scores averaged over each region of the photo."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_source(self.regions)

    def __call__(self, scores: Scores, image: Images, on_step: OnStep = ignore) -> Scores:
        """Return the ``vote`` of the regions of each photo; with these settings ``find_regions`` finds them."""
        result = scores.clone()
        for own, photo in zip(result, image, strict=True):
            vote(own, find_regions(photo.cpu().numpy(), self, str(scores.device)))
        return result

    def memory(self, channels: int, pixels: int, image: Callable[[], Images] | None = None) -> int:
        """Return the scores before and after, and what finds the regions."""
        return pixels * (4 * 2 * channels + FINDING) + (MEMORY if self.regions == "sam" else 0)


def vote(scores: Float[Tensor, "ch h w"], regions: RegionMap) -> None:
    """Give every pixel of a region, in place, the mean score of the region in each channel: its largest is its label.

    Scores keep their range; those of pixels that no region covers stay. The sums are made on the CPU in double
    precision, for on a GPU they would be made in no fixed order.
    """
    covered = regions >= 0
    index = regions[covered]
    areas = np.bincount(index)
    places = torch.from_numpy(covered).to(scores.device)
    for channel in scores:
        means = np.bincount(index, channel[places].cpu().numpy()) / areas
        channel[places] = torch.from_numpy(means[index]).to(channel)
