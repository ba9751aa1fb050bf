"""CLIPpy: a DINO that was trained on with captions, read by a sentence encoder, so that its patches know words.

Ranasinghe et al.: Perceptual Grouping in Contrastive Vision-Language Models, ICCV 2023; the first author's release.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import conv2d, normalize

from pnp_ovss.models.blocks import Weights, vit_block
from pnp_ovss.models.clip import positions
from pnp_ovss.models.released import Released

ARTICLE = re.compile(r"\ba (?=[aeiou])", re.IGNORECASE)


class Clippy(Released):
    """A CLIPpy checkpoint. Images of any size are read; what is left of the last patch is left out."""

    kind = "clippy"

    def _build(self, weights: Weights, settings: Mapping[str, Any]) -> None:
        from transformers import T5Config, T5EncoderModel

        self._image, texts = weights.at("visual.trunk"), weights.at("text.0.auto_model")
        table, width = self._image["pos_embed"][0], self._image["pos_embed"].shape[2]
        self.patch = self._image["patch_embed.proj.weight"].shape[2]
        self.size = self.patch * int((len(table) - 1) ** 0.5)
        self.heads, self.scale, self.longest = settings.get("heads", width // 64), 1.0, 512
        block, words = texts.at("encoder.block.0.layer"), texts["shared.weight"]
        heads = block["0.SelfAttention.relative_attention_bias.weight"].shape[1]
        config = T5Config(
            vocab_size=len(words),
            d_model=words.shape[1],
            d_kv=block["0.SelfAttention.q.weight"].shape[0] // heads,
            d_ff=block["1.DenseReluDense.wi.weight"].shape[0],
            num_layers=len(texts.each("encoder.block")),
            num_heads=heads,
            relative_attention_num_buckets=block["0.SelfAttention.relative_attention_bias.weight"].shape[0],
        )
        self._words = len(words)
        model: Any = T5EncoderModel(config)
        self._model = model.to(self.device, self.dtype).eval().requires_grad_(False)
        self._model.load_state_dict(texts.below())
        self._dense = weights["text.2.linear.weight"]

    def encode_patches(self, pixels: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b gh gw width"]:
        """Return a vector of length 1 for each patch; ``pixels`` are normalised."""
        gh, gw = pixels.shape[2] // self.patch, pixels.shape[3] // self.patch
        return normalize(self._states(pixels)[:, 1:], dim=-1).view(len(pixels), gh, gw, -1)

    def encode_images(self, pixels: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b width"]:
        """Return a vector for each image: the largest values over its tokens."""
        return normalize(self._states(pixels).amax(1), dim=-1)

    @torch.no_grad()
    def _states(self, pixels: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b token width"]:
        w = self._image
        kernel, bias = w["patch_embed.proj.weight"], w["patch_embed.proj.bias"]
        patches = conv2d(pixels.to(self.device, self.dtype), kernel, bias, stride=self.patch)
        gh, gw = patches.shape[2:]
        tokens = torch.cat([w["cls_token"].expand(len(patches), -1, -1), patches.flatten(2).transpose(1, 2)], 1)
        tokens = tokens + positions(w["pos_embed"][0], gh, gw)
        for block in w.each("blocks"):
            tokens = vit_block(tokens, block, self.heads)
        return w.norm(tokens, "norm", 1e-6).float()

    def encode_texts(self, texts: Sequence[str], unit: bool = True) -> Float[Tensor, "n width"]:
        """Return a vector for each text; "a" is "an" before a vowel, as in the prompts it was trained with."""
        return super().encode_texts([ARTICLE.sub("an ", text) for text in texts], unit)

    @torch.no_grad()
    def embed_tokens(self, ids: Int[Tensor, "n token"], mask: Int[Tensor, "n token"]) -> Float[Tensor, "n width"]:
        """Return a vector for each text: the mean over its tokens, through a linear layer."""
        ids, mask = ids.to(self.device), mask.to(self.device)
        states = self._model(input_ids=ids, attention_mask=mask).last_hidden_state
        mean = (states * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
        vectors: Tensor = mean.to(self.dtype) @ self._dense.T
        return vectors.float()


def load_clippy(name: str | Path, device: str = "auto", dtype: str = "auto", revision: str | None = None) -> Clippy:
    """Return the model of a file or folder, as ``Released`` says. Raises: ModelError if it cannot be read or used."""
    return Clippy(name, device, dtype)
