"""What regions are, where they come from, and masks that overlap as one map."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int32, Integer

from pnp_ovss.settings import Settings, setting

Mask = Bool[np.ndarray, "h w"]
RegionMap = Int32[np.ndarray, "h w"]
"""The region of each pixel, from 0; -1: none."""


@dataclass(frozen=True)
class RegionSettings(Settings):
    """Where regions come from. Every method's settings have these fields."""

    regions: str = setting("watershed", "regions: their source, watershed, sam or folder")
    regions_size: float = setting(0.05, "watershed: side of a region as a share of the photo's longer side", 1e-3, 1)
    regions_model: str = setting("sam2-tiny", "sam: SAM or SAM 2 by short name, hub id or local folder")
    regions_points: int = setting(32, "sam: points along each side of the grid that asks for masks", 1, 128)
    regions_folder: str = setting("", "folder: where the regions of each photo are")


def numbered(regions: Integer[np.ndarray, "h w"]) -> RegionMap:
    """Return the regions with the numbers from 0 on, in the order of their own; what is below 0 becomes -1."""
    values, index = np.unique(regions, return_inverse=True)
    return (index.reshape(regions.shape) - np.count_nonzero(values < 0)).clip(-1).astype(np.int32)


def stacked(masks: Iterable[Bool[np.ndarray, "h w"]], size: tuple[int, int]) -> RegionMap:
    """Return masks that may overlap as one map: a pixel belongs to the smallest mask that covers it.

    Of masks of one size the later lies on top; a mask of which nothing is left is none.
    """
    regions = np.full(size, -1, np.int32)
    for number, mask in enumerate(sorted(masks, key=np.count_nonzero, reverse=True)):
        regions[mask] = number
    return numbered(regions)
