"""Step 8: a Gaussian blur of every channel, then each channel stretched to [0, 1]."""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import pad

from pnp_ovss.refine.scale import stretch

__all__ = ["gaussian_blur"]

TRUNCATE = 4.0
"""The kernel ends at this many sigmas."""

BLOCK = 1024
"""Pixels blurred by one matrix product: bounds the matrix for a very long photo."""


def gaussian_blur(scores: Float[Tensor, "b ch h w"], *, sigma: float) -> Float[Tensor, "b ch h w"]:
    """Return ``scores`` blurred, then stretched to [0, 1] per channel; ``sigma`` is a share of the longer side.

    The same as ``scipy.ndimage.gaussian_filter`` with its default border (mirrored, the edge pixel repeated).
    """
    pixels = sigma * max(scores.shape[2:])
    rows = _blur_rows(scores, pixels)
    return stretch(_blur_rows(rows.transpose(2, 3), pixels).transpose(2, 3).contiguous())


def _blur_rows(scores: Float[Tensor, "b ch h w"], sigma: float) -> Float[Tensor, "b ch h w"]:
    """Return the blur along the last axis: windows of the mirrored rows times one banded matrix."""
    reach = int(TRUNCATE * sigma + 0.5)
    if reach == 0:
        return scores
    offsets = torch.arange(-reach, reach + 1, device=scores.device)
    taps = torch.exp(-0.5 * (offsets.double() / sigma) ** 2)
    taps = taps / taps.sum()

    width = scores.shape[3]
    if reach >= width:
        taps, reach = _one_period(taps, width), width
    taps = taps.to(scores)
    block = min(width, BLOCK)
    blocks = -(-width // block)
    window = block + 2 * reach
    # Row j of `band` is j zeros, the taps, zeros to the end: a sequence one longer than a row, repeated.
    band = torch.cat([taps, taps.new_zeros(block)]).repeat(block)[: block * window].view(block, window)
    source = torch.arange(-reach, blocks * block + reach, device=scores.device) % (2 * width)
    mirrored = scores.index_select(3, torch.minimum(source, 2 * width - 1 - source))
    return (mirrored.unfold(3, window, block) @ band.T).flatten(3)[..., :width]


def _one_period(taps: Float[Tensor, " tap"], width: int) -> Float[Tensor, " tap_of_period"]:
    """Return taps at offsets ``-width`` to ``width`` that do the same: a mirrored row repeats every ``2 * width``."""
    reach, period = len(taps) // 2, 2 * width
    more = -(-(reach + 1 - width) // period) * period
    before = more + width - reach
    whole = pad(taps, (before, 2 * more + period - before - len(taps)))
    return pad(whole.view(-1, period).sum(0), (0, 1))
