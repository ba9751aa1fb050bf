"""GroupViT: tokens that group the patches of an image, in two stages, learned from captions alone.

Xu et al.: GroupViT: Semantic Segmentation Emerges from Text Supervision, CVPR 2022. transformers' ``GroupViTModel`` is
the same network; its ``segmentation_logits`` are not the authors' inference, which is in ``methods.groups``.
"""

from collections.abc import Sequence
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize

from pnp_ovss.models.clip import DualEncoder
from pnp_ovss.models.hub import Checkpoint, find, of_kind
from pnp_ovss.models.releases import not_for_commerce

Groups = tuple[Float[Tensor, "b group vector"], Float[Tensor, "b vector"], Float[Tensor, "b group gh gw"]]
"""Vectors of length 1 of the groups of each image and of the whole image, and each patch's share of a group."""


class GroupVit(DualEncoder):
    """A GroupViT checkpoint. Images of any size are read; what is left of the last patch is left out."""

    model_class = "GroupViTModel"
    mean = (0.485, 0.456, 0.406)
    std = (0.229, 0.224, 0.225)

    def __init__(self, checkpoint: Checkpoint, device: str, dtype: str) -> None:
        super().__init__(checkpoint, device, dtype)
        # preprocessor_config.json on the hub has CLIP's, which the authors' code does not use.
        self.mean, self.std = type(self).mean, type(self).std

    @torch.no_grad()
    def encode_groups(self, pixels: Float[Tensor, "b 3 h w"]) -> Groups:
        """Return the groups of each image; ``pixels`` are normalised. The shares of a patch sum to 1 at each stage."""
        model, vision = self._model, self._model.vision_model
        embedded = vision.embeddings(pixels.to(self.device, model.dtype), interpolate_pos_encoding=True)
        found = vision.encoder(embedded, output_attentions=True)
        states = vision.layernorm(found.last_hidden_state)
        vectors = model.visual_projection(states.flatten(0, 1)).view(*states.shape[:2], -1).float()
        image = model.visual_projection(states.mean(1)).float()
        shares, grid = together(found.attentions), [side // self.patch for side in pixels.shape[2:]]
        return normalize(vectors, dim=-1), normalize(image, dim=-1), shares.view(*shares.shape[:2], *grid)


def together(stages: Sequence[Float[Tensor, "b _ _"]]) -> Float[Tensor, "b group patch"]:
    """Return each patch's share of the last stage's groups, from the assignments of the stages."""
    shares = stages[0].float()
    for stage in stages[1:]:
        shares = stage.float() @ shares
    return shares


def load_groupvit(name: str | Path, device: str = "auto", dtype: str = "auto", revision: str | None = None) -> GroupVit:
    """Return the model with this short name, hub id or local folder. ``device``, ``dtype``: as in ``load_vlm``.

    Raises: ModelError if it cannot be found, fetched, read or used.
    """
    checkpoint = of_kind(find(name, revision), ("groupvit",), "a GroupViT checkpoint such as groupvit-yfcc")
    not_for_commerce("groupvit", "NVIDIA Source Code License")
    return GroupVit(checkpoint, device, dtype)
