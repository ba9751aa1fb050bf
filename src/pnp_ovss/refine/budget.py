"""How many bytes refinement takes, and the largest working size that a budget has room for."""

from collections.abc import Sequence

from pnp_ovss.errors import InputError
from pnp_ovss.refine.base import Refiner
from pnp_ovss.refine.guided import GUIDE

FIXED = 200_000_000
"""Bytes that are taken whatever the size: strips, and what PyTorch keeps."""

FULL = 16
"""Bytes per pixel of the photo: the labels, the best scores so far, those of one class, and where they are better."""

BEFORE = 2.5
"""Copies of all scores when they are made from the class maps."""

LEAST = 100_000
"""Pixels below which no photo is refined for want of memory: labels would be coarse."""


def need(steps: Sequence[Refiner], channels: int, pixels: int, photo: int) -> int:
    """Return about how many bytes it takes at most to refine so many channels of a photo of ``photo`` pixels at
    ``pixels``, and to label it; the photo itself is not counted."""
    before = int(BEFORE * 4 * channels * pixels)
    refined = max([before, *(step.memory(channels, pixels) for step in steps)])
    after = 4 * channels * pixels + FULL * photo + (GUIDE * pixels if pixels < photo else 0)
    return FIXED + max(refined, after)


def fit(steps: Sequence[Refiner], channels: int, photo: int, most: int, room: int) -> int:
    """Return the pixels to refine a photo at, which take no more than ``room`` bytes: ``most``, or less by quarters.

    By steps, so that a little more or less room rarely changes a label.

    Raises: InputError if ``room`` is too small for that.
    """
    pixels = min(most, photo)
    while need(steps, channels, pixels, photo) > room:
        if (fewer := 3 * pixels // 4) < LEAST:
            least = need(steps, channels, pixels, photo)
            have = f"and there is room for {max(0, room) / 1e9:.1f} GB"
            advice = "raise --memory, name fewer classes or make the photo smaller"
            raise InputError(f"the photo needs {least / 1e9:.1f} GB of memory, {have}; {advice}")
        pixels = fewer
    return pixels
