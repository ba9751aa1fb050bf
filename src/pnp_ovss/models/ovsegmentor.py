"""OVSegmentor: tokens that group the patches of a DINO-initialised transformer once, and BERT for the words.

Xu et al.: Learning Open-vocabulary Semantic Segmentation Models From Natural Language Supervision, CVPR 2023.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import batch_norm, conv2d, normalize, one_hot, pad, relu

from pnp_ovss.errors import ModelError
from pnp_ovss.models.base import fused_attention
from pnp_ovss.models.blocks import Hidden, Weights, vit_block
from pnp_ovss.models.clip import positions
from pnp_ovss.models.groupvit import Groups
from pnp_ovss.models.released import Released

EPSILON = 1e-5


class OvSegmentor(Released):
    """An OVSegmentor checkpoint. Images of any size are read; what is left of the last patch is left out."""

    kind = "ovsegmentor"
    mean = (0.485, 0.456, 0.406)
    std = (0.229, 0.224, 0.225)

    def _build(self, weights: Weights, settings: Mapping[str, Any]) -> None:
        from transformers import BertConfig, BertModel

        self._weights, texts = weights, weights.at("text_encoder.transformer")
        self.patch = weights["img_encoder.patch_embed.proj.weight"].shape[2]
        self.size = self.patch * int(len(weights["img_encoder.pos_embed"]) ** 0.5)
        self.heads = settings.get("heads", 8)
        self.scale = float(weights["logit_scale"].float().exp())
        words, places = (texts[f"embeddings.{part}_embeddings.weight"] for part in ("word", "position"))
        config = BertConfig(
            vocab_size=len(words),
            hidden_size=words.shape[1],
            num_hidden_layers=len(texts.each("encoder.layer")),
            num_attention_heads=settings.get("text_heads", words.shape[1] // 64),
            intermediate_size=texts["encoder.layer.0.intermediate.dense.weight"].shape[0],
            max_position_embeddings=len(places),
        )
        self._words, self.longest = len(words), len(places)
        model: Any = BertModel(config)
        self._model = model.to(self.device, self.dtype).eval().requires_grad_(False)
        lacking = self._model.load_state_dict(texts.below(), strict=False).missing_keys
        if lacking:  # it may have more, such as the ids of positions
            raise ModelError(f"{self.name}: the checkpoint lacks {lacking[0]} of its BERT; take the released one")

    @torch.no_grad()
    def encode_groups(self, pixels: Float[Tensor, "b 3 h w"]) -> Groups:
        """Return the groups of each image; ``pixels`` are normalised. The shares of a patch sum to 1."""
        w = self._weights.at("img_encoder")
        kernel, bias = w["patch_embed.proj.weight"], w["patch_embed.proj.bias"]
        patches = conv2d(pixels.to(self.device, self.dtype), kernel, bias, stride=self.patch)
        gh, gw = patches.shape[2:]
        table = pad(w["pos_embed"], (0, 0, 1, 0))  # it has no [CLS]
        tokens = patches.flatten(2).transpose(1, 2) + positions(table, gh, gw, by_size=True)[1:]
        first, second = w.each("layers")
        tokens = torch.cat([tokens, first["group_token"].expand(len(tokens), -1, -1)], 1)
        for block in first.each("blocks"):
            tokens = vit_block(tokens, block, self.heads, EPSILON)
        count = patches[0, 0].numel()
        groups, shares = self._assign(tokens[:, :count], tokens[:, count:], first.at("downsample"))
        for block in second.each("blocks"):
            groups = vit_block(groups, block, self.heads, EPSILON)
        groups = w.norm(groups, "norm", EPSILON)
        vectors, image = (normalize(self._project(part, "img"), dim=-1) for part in (groups, groups.mean(1)))
        return vectors, image, shares.view(*shares.shape[:2], gh, gw)

    def encode_images(self, pixels: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b width"]:
        """Return a vector for each image."""
        return self.encode_groups(pixels)[1]

    def _assign(
        self, patches: Hidden, tokens: Float[Tensor, "b n width"], w: Weights
    ) -> tuple[Float[Tensor, "b group width"], Float[Tensor, "b group token"]]:
        """Return the groups after they have taken up their patches, and each patch's share of a group."""
        patches, cross, assign = w.norm(patches, "norm_x"), w.at("pre_assign_attn"), w.at("assign")
        mixed = w.mlp(w.norm(tokens, "norm_tokens").transpose(1, 2), "mlp_inter").transpose(1, 2)
        groups = w.norm(mixed, "norm_post_tokens")
        q, k, v = (
            cross.linear(x, f"attn.{part}_proj") for x, part in zip((groups, patches, patches), "qkv", strict=True)
        )
        groups = groups + cross.linear(fused_attention(q, k, v, self.heads), "attn.proj")
        groups = cross.norm(groups + cross.mlp(cross.norm(groups, "norm2"), "mlp"), "norm_post")
        q, k = assign.linear(groups, "q_proj"), assign.linear(patches, "k_proj")
        logits = (q @ k.transpose(1, 2)).float() * q.shape[-1] ** -0.5
        own = one_hot(logits.argmax(1), groups.shape[1]).transpose(1, 2).to(patches)
        mean = own @ assign.linear(patches, "v_proj") / (own.sum(2, keepdim=True) + 1)
        groups = groups + assign.linear(mean, "proj")
        return groups + w.mlp(w.norm(groups, "norm_new_x"), "mlp_channels"), logits.softmax(1)

    @torch.no_grad()
    def embed_tokens(self, ids: Int[Tensor, "n token"], mask: Int[Tensor, "n token"]) -> Float[Tensor, "n width"]:
        """Return a vector for each text, from its ``[CLS]``."""
        states = self._model(input_ids=ids.to(self.device), attention_mask=mask.to(self.device)).last_hidden_state
        return self._project(states[:, 0], "text")

    def _project(self, x: Float[Tensor, "*n width"], what: str) -> Float[Tensor, "*n out"]:
        """Return ``x`` through two linear layers with a batch norm and a ReLU between them."""
        w = self._weights.at(f"{what}_projector")
        hidden, norm = w.linear(x, "linear_hidden.0"), w.at("linear_hidden.1")
        mean, var, weight, bias = (norm[name] for name in ("running_mean", "running_var", "weight", "bias"))
        hidden = relu(batch_norm(hidden.flatten(0, -2), mean, var, weight, bias)).view(hidden.shape)
        return w.linear(hidden, "linear_out").float()


def load_ovsegmentor(
    name: str | Path, device: str = "auto", dtype: str = "auto", revision: str | None = None
) -> OvSegmentor:
    """Return the model of a file or folder, as ``Released`` says. Raises: ModelError if it cannot be read or used."""
    return OvSegmentor(name, device, dtype)
