"""SegCLIP: CLIP whose patches are gathered around a few learned centres.

Luo et al.: SegCLIP: Patch Aggregation with Learnable Centers for Open-Vocabulary Semantic Segmentation, ICML 2023.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import conv1d, conv2d, linear, normalize, one_hot

from pnp_ovss.models.base import fused_attention
from pnp_ovss.models.blocks import Hidden, Weights, by_heads, clip_block, clip_feed, clip_text, quick_gelu
from pnp_ovss.models.clip import positions
from pnp_ovss.models.groupvit import Groups
from pnp_ovss.models.released import Released

Centres = Float[Tensor, "b centre width"]


class SegClip(Released):
    """A SegCLIP checkpoint. Trained at ``size``, and tried by its authors at double that; others are interpolated."""

    kind = "segclip"

    def _build(self, weights: Weights, settings: Mapping[str, Any]) -> None:
        self._image, self._text = weights.at("clip.visual"), weights.at("clip")
        table = self._image["positional_embedding"]
        self.patch = self._image["conv1.weight"].shape[2]
        self.size = self.patch * int((len(table) - 1) ** 0.5)
        self.heads = settings.get("heads", table.shape[1] // 64)
        self.longest, self._words = len(self._text["positional_embedding"]), len(self._text["token_embedding.weight"])
        self.scale = float(self._text["logit_scale"].float().exp())

    @torch.no_grad()
    def encode_groups(self, pixels: Float[Tensor, "b 3 h w"]) -> Groups:
        """Return the centres of each image; ``pixels`` are normalised. The shares of a patch sum to 1."""
        w, blocks = self._image, self._image.at("transformer")
        patches = conv2d(pixels.to(self.device, self.dtype), w["conv1.weight"], stride=self.patch)
        gh, gw = patches.shape[2:]
        places = positions(w["positional_embedding"], gh, gw, by_size=True)[1:]
        tokens = w.norm(patches.flatten(2).transpose(1, 2) + places, "ln_pre")
        for block in blocks.each("layers0"):
            tokens = clip_block(tokens, block, by_heads(self.heads))
        centres, shares = self._gather(tokens, blocks.at("semantic_layer2"))
        for block in blocks.each("layers2"):
            centres = clip_block(centres, block, by_heads(self.heads))
        vectors, image = (
            normalize((w.norm(part, "ln_post") @ w["proj"]).float(), dim=-1) for part in (centres, centres.amax(1))
        )
        return vectors, image, shares.view(*shares.shape[:2], gh, gw)

    def encode_images(self, pixels: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b width"]:
        """Return a vector for each image."""
        return self.encode_groups(pixels)[1]

    def _gather(self, tokens: Hidden, w: Weights) -> tuple[Centres, Float[Tensor, "b centre token"]]:
        """Return the centres after they have taken up their patches, and each patch's share of a centre."""
        centres = w["semantic_center"].expand(len(tokens), -1, -1)
        for block in w.each("cross_att"):
            context = block.norm(torch.cat([centres, tokens], 1), "ln_k")
            weights, biases = (block[f"attn.in_proj_{part}"].chunk(3) for part in ("weight", "bias"))
            read = block.norm(centres, "ln_x"), context, context
            q, k, v = (linear(x, *both) for x, *both in zip(read, weights, biases, strict=True))
            centres = clip_feed(centres + block.linear(fused_attention(q, k, v, self.heads), "attn.out_proj"), block)
        centres, unit = w.norm(centres, "cross_ln"), w.norm(tokens, "norm").transpose(1, 2)
        parts = unit.shape[1] // w["k_conv.weight"].shape[1]
        keys, values = (conv1d(unit, w[f"{x}_conv.weight"], groups=parts).transpose(1, 2) for x in "kv")
        logits = (centres @ w.norm(keys, "k_ln").transpose(1, 2)).float()
        own = one_hot(logits.argmax(1), centres.shape[1]).transpose(1, 2).to(values)
        mean = own @ values / own.sum(2, keepdim=True).clamp(min=1)
        out = w.at("proj_o")
        return quick_gelu(out.mlp(out.norm(centres + mean, "ln"), "mlp")), logits.softmax(1)

    @torch.no_grad()
    def embed_tokens(self, ids: Int[Tensor, "n token"], mask: Int[Tensor, "n token"]) -> Float[Tensor, "n width"]:
        """Return a vector for each text."""
        return clip_text(ids.to(self.device), self._text).float()


def load_segclip(name: str | Path, device: str = "auto", dtype: str = "auto", revision: str | None = None) -> SegClip:
    """Return the model of a file or folder, as ``Released`` says. Raises: ModelError if it cannot be read or used."""
    return SegClip(name, device, dtype)
