"""Step 8: a Gaussian blur of every channel, then each channel stretched to [0, 1]."""

import torch
from jaxtyping import Float
from torch import Tensor

__all__ = ["gaussian_blur", "stretch"]

TRUNCATE = 4.0
"""The kernel ends at this many sigmas."""


def gaussian_blur(scores: Float[Tensor, "b ch h w"], *, sigma: float) -> Float[Tensor, "b ch h w"]:
    """Return ``scores`` blurred and stretched to [0, 1] per channel; ``sigma`` is a share of the longer side.

    The blur is ``scipy.ndimage.gaussian_filter`` with its default border (mirrored, the edge pixel repeated),
    written as one banded matrix per axis with the mirror folded in: ``rows @ scores @ columns.T``.
    """
    h, w = scores.shape[2:]
    pixels = sigma * max(h, w)
    rows, columns = (blur_matrix(n, pixels).to(scores) for n in (h, w))
    return stretch(rows @ scores @ columns.T)


def stretch(scores: Float[Tensor, "b ch h w"]) -> Float[Tensor, "b ch h w"]:
    """Return ``scores`` with each channel's extremes moved to 0 and 1; a constant channel becomes 0."""
    low = scores.amin((2, 3), keepdim=True)
    spread = scores.amax((2, 3), keepdim=True) - low
    return (scores - low) / torch.where(spread > 0, spread, 1)


def blur_matrix(n: int, sigma: float) -> Float[Tensor, "n n"]:
    """Return ``B`` with ``B @ signal`` = the Gaussian blur of a mirrored signal of length ``n``; rows sum to 1.

    A tap that falls outside lands on its mirror image: ... 1 0 | 0 1 2 ... n-1 | n-1 n-2 ...
    """
    if sigma <= 0:
        return torch.eye(n)
    reach = int(TRUNCATE * sigma + 0.5)
    offsets = torch.arange(-reach, reach + 1)
    taps = torch.exp(-0.5 * (offsets.double() / sigma) ** 2)
    taps /= taps.sum()
    source = (torch.arange(n)[:, None] + offsets) % (2 * n)
    source = torch.minimum(source, 2 * n - 1 - source)
    return torch.zeros(n, n, dtype=torch.double).scatter_add_(1, source, taps.expand(n, -1)).float()
