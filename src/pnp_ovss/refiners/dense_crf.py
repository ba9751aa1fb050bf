"""Step 9: a fully connected conditional random field pulls the labels to the edges of the photo."""

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from pnp_ovss.refiners.lattice import Lattice

__all__ = ["dense_crf"]


def dense_crf(
    scores: Float[Tensor, "b ch h w"],
    image: UInt8[Tensor, "b h w 3"],
    *,
    iterations: int = 10,
    gaussian_sxy: float = 3.0,
    gaussian_weight: float = 7.0,
    bilateral_sxy: float = 50.0,
    bilateral_srgb: float = 5.0,
    bilateral_weight: float = 10.0,
    tolerance: float = 0.0,
) -> Float[Tensor, "b ch h w"]:
    """Return the probability of each channel per pixel after mean-field inference; channels sum to 1."""
    b, channels, h, w = scores.shape
    energy = scores.softmax(1).clamp(min=1e-5).log().permute(0, 2, 3, 1).reshape(b * h * w, channels)
    y, x = torch.meshgrid(torch.arange(h), torch.arange(w), indexing="ij")
    position = torch.stack([x, y], -1).to(scores).view(1, h * w, 2).expand(b, -1, -1)
    colour = image.view(b, h * w, 3).to(scores)
    kernels = [
        (gaussian_weight, Lattice.build(position / gaussian_sxy)),
        (bilateral_weight, Lattice.build(torch.cat([position / bilateral_sxy, colour / bilateral_srgb], -1))),
    ]
    norms = [(k.filter(scores.new_ones(b * h * w, 1)) + 1e-20).rsqrt() for _, k in kernels]
    q = energy.softmax(1)
    for _ in range(iterations):
        message = energy.clone()
        for (weight, kernel), norm in zip(kernels, norms, strict=True):
            message += weight * norm * kernel.filter(q * norm)
        q = message.softmax(1)
    return q.view(b, h, w, channels).permute(0, 3, 1, 2).contiguous()
