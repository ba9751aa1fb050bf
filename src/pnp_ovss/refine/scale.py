"""The common scale of scores: each channel from 0 to 1."""

import torch
from jaxtyping import Float
from torch import Tensor

__all__ = ["stretch"]


def stretch(scores: Float[Tensor, "b ch h w"]) -> Float[Tensor, "b ch h w"]:
    """Return ``(scores - low) / (high - low)`` with each channel's own extremes; a constant channel becomes 0.

    Differs from the released code, where a constant channel becomes NaN and the whole photo background.
    """
    low = scores.amin((2, 3), keepdim=True)
    spread = scores.amax((2, 3), keepdim=True) - low
    return (scores - low) / torch.where(spread > 0, spread, 1)
