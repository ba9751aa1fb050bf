"""DeiT's distilled transformer: a vector for each patch of an image.

Touvron et al.: Training data-efficient image transformers & distillation through attention, ICML 2021. ReCo takes the
small one that Naseer et al. trained on stylised photos: Intriguing Properties of Vision Transformers, NeurIPS 2021.
"""

from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import conv2d

from pnp_ovss.models.blocks import vit_block
from pnp_ovss.models.clip import positions
from pnp_ovss.models.released import open_released

FIRST = 2
"""Tokens before those of the patches: of the class, and of the distillation."""


class Deit:
    """A released DeiT. Images of any size are read; what is left of the last patch is left out.

    ``config.json`` beside its file may say ``heads``. Raises: ModelError if it cannot be read.
    """

    def __init__(self, name: str | Path, device: torch.device, dtype: torch.dtype) -> None:
        self._weights, settings, self.revision = open_released("reco-encoder", name, device, dtype, "encoder")
        kernel = self._weights["patch_embed.proj.weight"]
        self.patch, self.heads = kernel.shape[2], settings.get("heads", max(1, kernel.shape[0] // 64))

    @torch.no_grad()
    def encode_patches(self, pixels: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b gh gw width"]:
        """Return the patches after the last norm, float32; ``pixels`` are normalised."""
        w, kernel = self._weights, self._weights["patch_embed.proj.weight"]
        patches = conv2d(pixels.to(kernel), kernel, w["patch_embed.proj.bias"], stride=self.patch)
        gh, gw = patches.shape[2:]
        starts, table = torch.cat([w["cls_token"], w["dist_token"]], 1), w["pos_embed"][0]
        places = positions(table[FIRST - 1 :], gh, gw, by_size=True)[1:]
        tokens = torch.cat([starts.expand(len(patches), -1, -1), patches.flatten(2).transpose(1, 2)], 1)
        tokens = tokens + torch.cat([table[:FIRST], places])
        for block in w.each("blocks"):
            tokens = vit_block(tokens, block, self.heads)
        return w.norm(tokens, "norm", 1e-6)[:, FIRST:].float().view(len(patches), gh, gw, -1)
