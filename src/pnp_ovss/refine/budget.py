"""How many bytes refinement takes, and the largest working size that a budget has room for."""

from collections.abc import Callable, Sequence
from functools import partial

from pnp_ovss.errors import InputError
from pnp_ovss.refine.base import Images, Refiner
from pnp_ovss.refine.guided import GUIDE

FIXED = 200_000_000
"""Bytes that are taken whatever the size: strips, and what PyTorch keeps."""

FULL = 18
"""Bytes per pixel of the photo: labels, the best scores so far, those of one class, where they are better, files."""

BEFORE = 2.5
"""Copies of all scores when they are made from the class maps."""

LEAST = 100_000
"""Pixels below which no photo is refined for want of memory: labels would be coarse."""


def need(
    steps: Sequence[Refiner], channels: int, pixels: int, photo: int, image: Callable[[], Images] | None = None
) -> int:
    """Return about how many bytes it takes at most to refine so many channels of a photo of ``photo`` pixels at
    ``pixels``, and to label it; the photo itself is not counted. ``image`` gives it at that size; None: any photo."""
    before = int(BEFORE * 4 * channels * pixels)
    refined = max([before, *(step.memory(channels, pixels, image) for step in steps)])
    after = 4 * channels * pixels + FULL * photo + (GUIDE * pixels if pixels < photo else 0)
    return FIXED + max(refined, after)


def fit(
    steps: Sequence[Refiner],
    channels: int,
    photo: int,
    most: int,
    room: int,
    image: Callable[[int], Images] | None = None,
) -> int:
    """Return the pixels to refine a photo at, which take no more than ``room`` bytes: ``most``, or less by quarters.

    By steps, so that a little more or less room rarely changes a label. ``image`` gives the photo at so many pixels: it
    is asked for where not every photo would fit.

    Raises: InputError if ``room`` is too small for that.
    """

    def taken(pixels: int) -> int:
        most = need(steps, channels, pixels, photo)
        if image is None or most <= room:
            return most
        scaled = [step.scaled((pixels / photo) ** 0.5) for step in steps]
        return need(scaled, channels, pixels, photo, partial(image, pixels))

    pixels = min(most, photo)
    while (least := taken(pixels)) > room:
        if (fewer := 3 * pixels // 4) < LEAST:
            have = f"and there is room for {max(0, room) / 1e9:.1f} GB"
            advice = "raise --memory, name fewer classes or make the photo smaller"
            raise InputError(f"the photo needs {least / 1e9:.1f} GB of memory, {have}; {advice}")
        pixels = fewer
    return pixels
