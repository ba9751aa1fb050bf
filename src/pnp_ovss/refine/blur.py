"""Step 8: a Gaussian blur of every channel, then each channel stretched to [0, 1]."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from pnp_ovss.refine.base import Images, Refiner, Scores, group_size, groups, stretch
from pnp_ovss.settings import setting
from pnp_ovss.types import OnStep, ignore

TRUNCATE = 4.0
"""The kernel ends at this many sigmas."""

BLOCK = 1024
"""Pixels blurred by one matrix product: bounds the matrix for a very long photo."""


@dataclass(frozen=True)
class Blur(Refiner):
    """Gaussian blur of every channel, then min-max per channel: step 8 of PnP-OVSS."""

    blur: float = setting(0.05, "blur: sigma as a share of the photo's longer side", 0, 1)

    def __call__(self, scores: Scores, image: Images, on_step: OnStep = ignore) -> Scores:
        """Return ``gaussian_blur(scores)``."""
        return gaussian_blur(scores, sigma=self.blur)

    def memory(self, channels: int, pixels: int, image: Callable[[], Images] | None = None) -> int:
        """Return the scores before and after, and six copies of a group: windows reach over each other."""
        return 4 * pixels * (2 * channels + 6 * group_size(channels, pixels))


def gaussian_blur(scores: Scores, *, sigma: float) -> Scores:
    """Return ``scores`` blurred, then stretched to [0, 1] per channel; ``sigma`` is a share of the longer side.

    The same as ``scipy.ndimage.gaussian_filter`` with its default border (mirrored, the edge pixel repeated).
    """
    pixels = sigma * max(scores.shape[2:])
    result = torch.empty_like(scores, memory_format=torch.contiguous_format)
    for part in groups(scores.shape[1], scores[:, 0].numel()):
        rows = _blur_rows(scores[:, part], pixels)
        result[:, part] = stretch(_blur_rows(rows.transpose(2, 3), pixels).transpose(2, 3))
    return result


def _blur_rows(scores: Float[Tensor, "b ch h w"], sigma: float) -> Float[Tensor, "b ch h w"]:
    """Return the blur along the last axis: windows of the mirrored rows times one banded matrix."""
    reach = int(TRUNCATE * sigma + 0.5)
    if reach == 0:
        return scores
    offsets = torch.arange(-reach, reach + 1, device=scores.device)
    taps = torch.exp(-0.5 * (offsets.double() / sigma) ** 2)
    taps = taps / taps.sum()

    width = scores.shape[3]
    taps = taps.to(scores)
    block = min(width, BLOCK)
    blocks = -(-width // block)
    window = block + 2 * reach
    # Row j of `band` is j zeros, the taps, zeros to the end: a sequence one longer than a row, repeated.
    band = torch.cat([taps, taps.new_zeros(block)]).repeat(block)[: block * window].view(block, window)
    source = torch.arange(-reach, blocks * block + reach, device=scores.device) % (2 * width)
    mirrored = scores.index_select(3, torch.minimum(source, 2 * width - 1 - source))
    if blocks == 1 and scores.is_cuda:
        # As one product. A CPU rounds some of its rows and columns otherwise, and a constant channel would have edges.
        return mirrored @ band.T
    return (mirrored.unfold(3, window, block) @ band.T).flatten(3)[..., :width]
