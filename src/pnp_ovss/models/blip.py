"""BLIP with an image-text-matching head: text tokens cross-attend to the patches of the image.

Li, Li, Xiong, Hoi: BLIP, ICML 2022. Any ``BlipForImageTextRetrieval`` checkpoint fits.
"""

from collections.abc import Sequence
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import BlipForImageTextRetrieval

from pnp_ovss.models.adapter import MatchingAdapter, Tokens, additive, fused_attention, see
from pnp_ovss.types import Prompt


class Blip(MatchingAdapter):
    """A BLIP checkpoint behind the ``VLM`` protocol."""

    model_class = BlipForImageTextRetrieval
    preset = "released"

    def __init__(self, folder: Path, name: str, revision: str, device: torch.device, dtype: torch.dtype) -> None:
        super().__init__(folder, name, revision, device, dtype)
        vision, text = self._model.config.vision_config, self._model.config.text_config
        self.size, self.patch = vision.image_size, vision.patch_size
        self.layers, self.heads = text.num_hidden_layers, text.num_attention_heads
        self._longest = text.max_position_embeddings

    def _trace(
        self,
        pixels: Float[Tensor, "b 3 h w"],
        ids: Int[Tensor, "b token"],
        mask: Int[Tensor, "b token"],
        picked: tuple[int, ...],
    ) -> tuple[Float[Tensor, " b"], list[Tensor]]:
        text, patches = self._model.text_encoder, self._patches(pixels)
        with torch.no_grad():
            hidden = text.embeddings(input_ids=ids)
            padding = additive(mask, hidden.dtype)
        weights: dict[int, Tensor] = {}
        for index, layer in enumerate(text.encoder.layer):
            if index == min(picked):
                hidden.requires_grad_()  # the graph starts here, so that nothing below costs a backward pass
            with torch.set_grad_enabled(index >= min(picked)):
                attended, _ = layer.attention(hidden, attention_mask=padding)
                crossed, weights[index] = layer.crossattention(attended, encoder_hidden_states=patches)
                hidden = layer.feed_forward_chunk(crossed)
        match = self._model.itm_head(hidden[:, 0])[:, 1]  # index 1: 'they match'
        return match, [weights[index] for index in picked]

    def _looks(self, pixels: Float[Tensor, "b 3 h w"]) -> list[tuple[Tensor, Tensor]]:
        """Return, per layer, the images' keys and values."""
        patches = self._patches(pixels)
        crossings = [layer.crossattention.self for layer in self._model.text_encoder.encoder.layer]
        return [(crossing.key(patches), crossing.value(patches)) for crossing in crossings]

    def _odds(
        self, ids: Int[Tensor, "n token"], mask: Int[Tensor, "n token"], looks: Sequence[tuple[Tensor, Tensor]]
    ) -> Float[Tensor, "b n"]:
        text, b = self._model.text_encoder, len(looks[0][0])
        hidden = text.embeddings(input_ids=ids).repeat(b, 1, 1)  # all texts of the first image, then of the second
        padding = additive(mask, hidden.dtype).repeat(b, 1, 1, 1)
        for layer, (key, value) in zip(text.encoder.layer, looks, strict=True):
            attended, _ = layer.attention(hidden, attention_mask=padding)
            query = layer.crossattention.self.query(attended).view(b, -1, key.shape[-1])
            found = fused_attention(query, key, value, self.heads).view(attended.shape)
            hidden = layer.feed_forward_chunk(layer.crossattention.output(found, attended))
        logits: Tensor = self._model.itm_head(hidden[:, 0])
        return (logits[:, 1] - logits[:, 0]).view(b, -1)

    @torch.no_grad()
    def _patches(self, pixels: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b patch width"]:
        return see(self._model.vision_model, pixels)

    def _tokens(self, prompts: Sequence[Prompt]) -> Tokens:
        ids, mask, offsets = super()._tokens(prompts)
        # The matching head was trained behind [ENC], the last row of the vocabulary, which tokenizers on the hub lack.
        ids[:, 0] = self._model.config.text_config.vocab_size - 1
        return ids, mask, offsets
