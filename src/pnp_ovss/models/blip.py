"""BLIP with an image-text-matching head, whose text tokens cross-attend to the patches of the image; and its captioner.

Li, Li, Xiong, Hoi: BLIP, ICML 2022. Any ``BlipForImageTextRetrieval`` checkpoint fits, and for captions any
``BlipForConditionalGeneration``.
"""

from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from pnp_ovss.models.base import Fused, Kept, Matcher, States, Tokens, additive, fused_attention
from pnp_ovss.models.hub import find
from pnp_ovss.models.loading import Pretrained
from pnp_ovss.types import RGB

CAPTIONS, TOKENS = 5, 30
"""Captions of a photo, and tokens of a caption at most."""
SHAPE = {"hidden_size": 768, "vocab_size": 30524}
"""Of the words of all models of the authors, and what transformers takes where ``config.json`` does not say."""
MENDED: dict[str, tuple[str, float, float]] = {
    "text_config": ("num_attention_heads", 8, 12),
    "vision_config": ("layer_norm_eps", 1e-5, 1e-6),
}
"""What their configurations say or leave to transformers, whose defaults these are, and what the authors' code has.

Source: salesforce/LAVIS issue 106, huggingface/transformers issue 22625, salesforce/BLIP ``models/vit.py``. No shape of
the weights shows it, and with 8 heads every score is wrong.
"""


def mended(settings: dict[str, Any]) -> dict[str, Any]:
    """Return the settings of a checkpoint, put right where they are those of a model of the authors."""
    parts = {name: settings.get(name) or {} for name in MENDED}
    if not all(isinstance(part, dict) for part in parts.values()):
        return settings
    if any(parts["text_config"].get(key, size) != size for key, size in SHAPE.items()):
        return settings
    for name, (key, wrong, right) in MENDED.items():
        if parts[name].get(key, wrong) == wrong:
            settings = settings | {name: parts[name] | {key: right}}
    return settings


class Blip(Matcher):
    """A BLIP checkpoint."""

    model_class = "BlipForImageTextRetrieval"
    preset = "released"
    int8_tower = "vision_model.encoder"

    def _mended(self, settings: dict[str, Any]) -> dict[str, Any]:
        return mended(settings)

    def _configure(self, config: Any) -> None:
        text = config.text_config
        self.layers, self.heads = text.num_hidden_layers, text.num_attention_heads
        self.max_tokens = text.max_position_embeddings
        # The matching head was trained behind [ENC], the last row of the vocabulary, which tokenizers on the hub lack.
        self.first_token: int = text.vocab_size - 1
        """What stands in the place of the tokenizer's own first token."""

    @property
    def starts(self) -> tuple[int, ...]:
        """The tokens that a matching head may have been trained behind: [ENC], [DEC] and the tokenizer's own."""
        last: int = self._model.config.text_config.vocab_size - 1
        return last, last - 1, self._tokenizer.cls_token_id

    def _encode_texts(self, ids: Tokens, mask: Tokens) -> list[Tensor]:
        return [self._model.text_encoder.embeddings(input_ids=ids)]

    def _fuse(self, images: States, texts: States, mask: Tokens, lowest: int | None) -> Fused:
        [patches], [hidden] = images, texts
        padding = additive(mask, hidden.dtype)
        attention: dict[int, Kept] = {}
        for index, layer in enumerate(self._model.text_encoder.encoder.layer):
            if index == lowest:
                # The graph starts here, so that nothing below costs a backward pass.
                hidden.requires_grad_()
            attended, _ = layer.attention(hidden, attention_mask=padding)
            crossed, weights = layer.crossattention(attended, encoder_hidden_states=patches)
            attention[index] = (weights,)
            hidden = layer.feed_forward_chunk(crossed)
        return self._model.itm_head(hidden[:, 0]), attention

    def _log_odds(self, ids: Tokens, mask: Tokens, *images: Tensor) -> Float[Tensor, "image b"]:
        """Return the log odds of every image with every text; an image's keys and values serve all texts."""
        [patches], n = images, len(images[0])
        # All texts of the first image, then those of the second, ...
        hidden = self._encode_texts(ids, mask)[0].repeat(n, 1, 1)
        padding = additive(mask, hidden.dtype).repeat(n, 1, 1, 1)
        for layer in self._model.text_encoder.encoder.layer:
            attended, _ = layer.attention(hidden, attention_mask=padding)
            cross = layer.crossattention
            query = cross.self.query(attended).view(n, -1, attended.shape[-1])
            found = fused_attention(query, cross.self.key(patches), cross.self.value(patches), self.heads)
            hidden = layer.feed_forward_chunk(cross.output(found.view(attended.shape), attended))
        logits: Tensor = self._model.itm_head(hidden[:, 0])
        return (logits[:, 1] - logits[:, 0]).view(n, -1)

    def _ids(self, ids: Tokens, mask: Tokens) -> Tokens:
        ids[:, 0] = self.first_token
        return ids


class Captioner(Pretrained):
    """The captioner with this short name (``blip-caption-base`` or ``-large``), hub id or local folder."""

    model_class = "BlipForConditionalGeneration"
    int8_tower = "vision_model.encoder"

    def __init__(self, name: str | Path, device: str = "auto", dtype: str = "auto") -> None:
        super().__init__(find(name), device, dtype)

    def _mended(self, settings: dict[str, Any]) -> dict[str, Any]:
        return mended(settings)

    @torch.no_grad()
    def captions(self, image: RGB) -> list[tuple[str, float]]:
        """Return the best captions by beam search with their shares of the probability, which sum to 1."""
        pixels = self.prepare(image)[None].to(self.device, self._model.dtype)
        beams = {"num_beams": CAPTIONS, "num_return_sequences": CAPTIONS, "max_new_tokens": TOKENS, "do_sample": False}
        out = self._model.generate(pixel_values=pixels, **beams, return_dict_in_generate=True, output_scores=True)
        texts = self._tokenizer.batch_decode(out.sequences, skip_special_tokens=True)
        shares = out.sequences_scores.float().softmax(0).tolist()
        return [(" ".join(text.split()), share) for text, share in zip(texts, shares, strict=True)]
