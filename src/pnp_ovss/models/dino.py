"""DINO and DINOv2: a vector for each patch of an image, learned from images alone.

Caron et al.: Emerging Properties in Self-Supervised Vision Transformers, ICCV 2021. Oquab et al.: DINOv2, TMLR 2024.
Any checkpoint of ``ViTModel`` or ``Dinov2Model`` fits.
"""

from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from pnp_ovss.models.clip import positions
from pnp_ovss.models.hub import Checkpoint, find, of_kind, read_settings
from pnp_ovss.models.loading import Pretrained, raise_epsilon

FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "vit": ("ViTModel", {"add_pooling_layer": False}),  # which DINO's checkpoints lack
    "dinov2": ("Dinov2Model", {}),
}
"""Class and options by ``model_type``, as ``config.json`` names it."""


class Dino(Pretrained):
    """A DINO checkpoint. Images of any size are read; what is left of the last patch is left out."""

    mean = (0.485, 0.456, 0.406)
    std = (0.229, 0.224, 0.225)

    def __init__(self, checkpoint: Checkpoint, device: str, dtype: str) -> None:
        settings = read_settings(checkpoint.folder / "config.json", checkpoint.name)
        self.model_class, self.model_options = FAMILIES[settings["model_type"]]
        super().__init__(checkpoint, device, dtype)
        self._model.set_attn_implementation("sdpa")
        self._model.embeddings.interpolate_pos_encoding = self._positions
        raise_epsilon(self._model)

    @torch.no_grad()
    def encode_patches(self, pixels: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b gh gw width"]:
        """Return the patches after the last norm, float32; ``pixels`` are normalised by ``mean`` and ``std``."""
        gh, gw = pixels.shape[2] // self.patch, pixels.shape[3] // self.patch
        inner = pixels[:, :, : gh * self.patch, : gw * self.patch].to(self.device, self._model.dtype)
        how = {} if self.model_class == "Dinov2Model" else {"interpolate_pos_encoding": True}
        tokens: Tensor = self._model(pixel_values=inner, **how).last_hidden_state[:, 1:]
        return tokens.float().view(len(pixels), gh, gw, -1)

    @torch.no_grad()
    def encode_queries_and_keys(self, pixels: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b gh gw width"]:
        """Return the sum of the last block's queries and keys of each patch, the heads side by side, float32."""
        kept = list[Tensor]()
        hooks = [
            [module for name, module in self._model.named_modules() if name.endswith(ends)][-1].register_forward_hook(
                lambda module, given, found: kept.append(found)
            )
            for ends in (("q_proj", "query"), ("k_proj", "key"))
        ]
        try:
            gh, gw = self.encode_patches(pixels).shape[1:3]
        finally:
            for hook in hooks:
                hook.remove()
        return torch.stack(kept).sum(0)[:, 1:].float().view(len(pixels), gh, gw, -1)

    def _positions(self, embeddings: Tensor, height: int, width: int) -> Float[Tensor, "1 token width"]:
        table = self._model.embeddings.position_embeddings[0]
        return positions(table, height // self.patch, width // self.patch)[None]


def load_dino(name: str | Path, device: str = "auto", dtype: str = "auto", revision: str | None = None) -> Dino:
    """Return the model with this short name, hub id or local folder. ``device``, ``dtype``: as in ``load_vlm``.

    Raises: ModelError if it cannot be found, fetched, read or used.
    """
    checkpoint = of_kind(find(name, revision), FAMILIES, "a DINO checkpoint such as dino-base")
    return Dino(checkpoint, device, dtype)
