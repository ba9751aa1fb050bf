"""Drawn scenes as a data set."""

from functools import partial

import numpy as np
from jaxtyping import Integer

from pnp_ovss.data.dataset import IGNORE, Dataset, Sample, table
from pnp_ovss.mini import THINGS, draw
from pnp_ovss.types import RGB


def scenes(count: int, seed: int, size: int) -> Dataset:
    """Return drawn scenes of a series as a data set: the things before a background."""
    samples = tuple(
        Sample(f"scene-{seed}-{index:05}", partial(_photo, seed, index, size), partial(_mask, seed, index, size))
        for index in range(count)
    )
    title = f"Drawn scenes, {len(THINGS)} things and background"
    to_label = table(range(1, len(THINGS) + 1), {0: 0, IGNORE: IGNORE})
    return Dataset("scenes", title, THINGS, True, samples, to_label, "scenes", f"series {seed}, {size} x {size} pixels")


def _photo(seed: int, index: int, size: int) -> RGB:
    return draw(seed, index, size).image


def _mask(seed: int, index: int, size: int) -> Integer[np.ndarray, "h w"]:
    return draw(seed, index, size).things_mask()
