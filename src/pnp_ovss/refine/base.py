"""What a refinement step is, the common scale of scores, and channels in groups."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Integer, UInt8
from torch import Tensor

from pnp_ovss.settings import Settings
from pnp_ovss.types import OnStep, ignore

Scores = Float[Tensor, "b ch h w"]
Images = UInt8[Tensor, "b h w 3"]

GROUP = 2**25
"""Values that a refiner works on at a time: all of a usual photo, a few channels of a large one."""


@dataclass(frozen=True)
class Refiner(Settings):
    """A refinement step. Its fields are its settings; each becomes a field of ``Config`` and a flag of that name."""

    def __call__(self, scores: Scores, image: Images, on_step: OnStep = ignore) -> Scores:
        """Return refined scores of the same shape; ``scores`` are in [0, 1]."""
        raise NotImplementedError

    def with_background(self, scores: Scores, image: Images, on_step: OnStep = ignore) -> Scores:
        """Return refined scores of which channel 0 is the background: to most steps a channel like any other."""
        return self(scores, image, on_step)

    def scaled(self, factor: float) -> "Refiner":
        """Return the step for a photo whose sides are ``factor`` times as long: lengths in pixels change alike."""
        return self

    def memory(self, channels: int, pixels: int, image: Callable[[], Images] | None = None) -> int:
        """Return about how many bytes the step takes at most, its input and its result included.

        ``image`` gives the photo, at so many pixels; None: any photo takes no more.
        """
        return 4 * pixels * 4 * channels


def groups(channels: int, pixels: int) -> Iterator[slice]:
    """Yield the channels in groups of about ``GROUP`` values, at least one channel each."""
    size = group_size(channels, pixels)
    yield from (slice(first, min(first + size, channels)) for first in range(0, channels, size))


def group_size(channels: int, pixels: int) -> int:
    """Return how many channels of so many pixels are worked on at a time."""
    return min(channels, max(1, GROUP // pixels))


@dataclass(frozen=True)
class LabelRefiner(Settings):
    """A step over the finished label map: it comes after those over scores, wherever it is named among them."""

    def clean(self, labels: Integer[np.ndarray, "h w"], background: bool) -> Integer[np.ndarray, "h w"]:
        """Return the label map, cleaned; ``background``: label 0 is the background."""
        raise NotImplementedError


def stretch(scores: Scores) -> Scores:
    """Return ``(scores - low) / (high - low)`` with each channel's own extremes; a constant channel becomes 0.

    Differs from the released code, where a constant channel becomes NaN and the whole photo background.
    """
    low = scores.amin((2, 3), keepdim=True)
    spread = scores.amax((2, 3), keepdim=True) - low
    return (scores - low).div_(torch.where(spread > 0, spread, 1))
