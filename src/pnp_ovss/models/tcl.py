"""TCL's masker: a block beside CLIP's last one, and a decoder to four times the grid.

Cha, Mun, Roh: Learning to Generate Text-grounded Mask for Open-world Semantic Segmentation from Only Image-Text Pairs,
CVPR 2023.
"""

from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import conv2d, gelu, interpolate, normalize

from pnp_ovss.models.blocks import clip_block
from pnp_ovss.models.clip import Tokens
from pnp_ovss.models.released import open_released

ENCODER = "masker.image_encoder"


class Masker:
    """The part of TCL that was trained, beside a CLIP that was not. Raises: ModelError if it cannot be read."""

    def __init__(self, name: str | Path, device: torch.device, dtype: torch.dtype) -> None:
        self._weights, _, self.revision = open_released("tcl", name, device, dtype, "masker", "masker.")

    def decode(self, tokens: Tokens, block: int, grid: tuple[int, int]) -> Float[Tensor, "b h w vector"]:
        """Return vectors of length 1 at four times the grid, from the tokens that enter CLIP's last ``block``."""
        encoder, decoder = self._weights.at(ENCODER), self._weights.at(f"{ENCODER}.decoder")
        own = clip_block(tokens, encoder.at(f"backbone.transformer.resblocks.{block}"), lambda q, k, v: v)
        x = own[:, 1:].transpose(1, 2).reshape(len(own), -1, *grid)
        for stage in decoder.at("decoder").each("net"):
            x = interpolate(x, scale_factor=2.0, mode="nearest")
            for step in (stage.at("conv"), stage.at("conv2")):
                y = gelu(step.norm(x.movedim(1, -1), "norm")).movedim(-1, 1)
                x = x + step["gate.gate"].tanh() * conv2d(y, step["conv.weight"], step["conv.bias"], padding=1)
        projection = decoder.at("image_proj")
        vectors = projection.norm(x.movedim(1, -1), "ln") @ projection["proj"]
        return normalize(vectors.float(), dim=-1)

    def mask(self, cosines: Tensor) -> Tensor:
        """Return the masks of cosines, in [0, 1]."""
        learned = self._weights.at("masker.sim2mask")
        return torch.sigmoid(learned["w"].float() * cosines + learned["b"].float())
