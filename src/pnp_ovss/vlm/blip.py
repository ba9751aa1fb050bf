"""BLIP with an image-text-matching head: text tokens cross-attend to the patches of the image.

Li, Li, Xiong, Hoi: BLIP, ICML 2022. Any ``BlipForImageTextRetrieval`` checkpoint fits.
"""

from collections.abc import Sequence
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from transformers import BlipForImageTextRetrieval
from transformers.models.blip.modeling_blip import BlipAttention

from pnp_ovss.errors import InputError
from pnp_ovss.types import RGB, Attention, Prompt
from pnp_ovss.vlm.base import membership
from pnp_ovss.vlm.loading import Preparation, load_model, load_tokenizer

PROMPTS_AT_ONCE = 64
"""Prompts that ``match`` reads at a time: enough to keep the processor busy, and a bound on the memory."""


class Blip:
    """A BLIP checkpoint behind the ``VLM`` protocol."""

    def __init__(self, folder: Path, name: str, revision: str, device: torch.device, dtype: torch.dtype) -> None:
        self.name, self.revision, self.device = name, revision, device
        self._model = load_model(BlipForImageTextRetrieval, folder, name, dtype).to(device)
        self._tokenizer = load_tokenizer(folder, name)
        self._preparation = Preparation.from_folder(folder)
        config = self._model.config
        self.size: int = config.vision_config.image_size
        self.patch: int = config.vision_config.patch_size
        self.layers: int = config.text_config.num_hidden_layers
        self.heads: int = config.text_config.num_attention_heads
        known = getattr(config, "known_classes", None)
        self.known: tuple[str, ...] | None = tuple(map(str, known)) if isinstance(known, list) and known else None

    def prepare(self, image: RGB, size: int) -> Float[Tensor, "3 size size"]:
        """Return the photo squeezed to a square (bicubic, as the authors' code) and normalised."""
        return self._preparation(image, size)

    def attend(
        self, pixels: Float[Tensor, "b 3 h w"], prompts: Sequence[Prompt], layers: Sequence[int] | None = None
    ) -> Attention:
        """Return cross-attention and its gradient; the gradient stops at the lowest of ``layers``."""
        picked = tuple(range(self.layers)) if layers is None else tuple(layers)
        ids, mask, offsets = self._tokens(prompts)
        grid = pixels.shape[2] // self.patch, pixels.shape[3] // self.patch
        shares = membership(prompts, offsets, self.device)
        with torch.enable_grad():
            match, weights = self._match(ids, mask, self._patches(pixels), picked)
            # The images are independent of each other: the gradient of the sum holds each one's own.
            gradient = torch.autograd.grad(match.sum(), weights)

        def grids(maps: Sequence[Tensor]) -> Float[Tensor, "b layer head token gh gw"]:
            stacked = torch.stack([m.detach()[..., 1:] for m in maps], dim=1).float()  # the image's [CLS] is first
            return (stacked * mask[:, None, None, :, None]).view(*stacked.shape[:-1], *grid)

        return Attention(grids(weights), grids(gradient), shares, match.detach().float(), picked)

    @torch.no_grad()
    def match(self, pixels: Float[Tensor, "b 3 h w"], prompts: Sequence[Prompt]) -> Float[Tensor, "b prompt"]:
        """Return the log odds of the matching head; each image, and its keys and values, are computed once."""
        patches = self._patches(pixels)
        crossings = [layer.crossattention.self for layer in self._model.text_encoder.encoder.layer]
        looks = [(crossing.key(patches), crossing.value(patches)) for crossing in crossings]
        odds = torch.empty(len(pixels), len(prompts), device=self.device)
        order = sorted(range(len(prompts)), key=lambda index: len(prompts[index].text))  # so that little is padding
        for start in range(0, len(order), PROMPTS_AT_ONCE):
            some = order[start : start + PROMPTS_AT_ONCE]
            ids, mask, _ = self._tokens([prompts[index] for index in some])
            odds[:, some] = self._odds(ids, mask, looks)
        return odds

    def _odds(
        self, ids: Int[Tensor, "n token"], mask: Int[Tensor, "n token"], looks: Sequence[tuple[Tensor, Tensor]]
    ) -> Float[Tensor, "b n"]:
        """Return the log odds of every image with every text. ``looks``: per layer, the images' keys and values."""
        text, b = self._model.text_encoder, len(looks[0][0])
        hidden = text.embeddings(input_ids=ids).repeat(b, 1, 1)  # all texts of the first image, then of the second
        padding = torch.zeros_like(mask, dtype=hidden.dtype).masked_fill(mask == 0, torch.finfo(hidden.dtype).min)
        padding = padding.repeat(b, 1)[:, None, None]
        for layer, (key, value) in zip(text.encoder.layer, looks, strict=True):
            attended, _ = layer.attention(hidden, attention_mask=padding)
            query = layer.crossattention.self.query(attended).view(b, -1, key.shape[-1])
            found = _fused_attention(query, key, value, self.heads).view(attended.shape)
            hidden = layer.feed_forward_chunk(layer.crossattention.output(found, attended))
        logits: Tensor = self._model.itm_head(hidden[:, 0]).float()
        return (logits[:, 1] - logits[:, 0]).view(b, -1)

    @torch.no_grad()
    def _patches(self, pixels: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b patch width"]:
        """Return the image tower's output, ``[CLS]`` first; transformers' own forward has no fused attention."""
        vision = self._model.vision_model
        hidden = vision.embeddings(pixels.to(self.device), interpolate_pos_encoding=True)
        for layer in vision.encoder.layers:
            hidden = hidden + _self_attention(layer.self_attn, layer.layer_norm1(hidden))
            hidden = hidden + layer.mlp(layer.layer_norm2(hidden))
        patches: Tensor = vision.post_layernorm(hidden)
        return patches

    def _match(
        self, ids: Int[Tensor, "b token"], mask: Int[Tensor, "b token"], patches: Tensor, picked: tuple[int, ...]
    ) -> tuple[Float[Tensor, " b"], list[Float[Tensor, "b head token patch"]]]:
        """Return the match logit and the cross-attention of the picked layers it was computed from."""
        text = self._model.text_encoder
        with torch.no_grad():
            hidden = text.embeddings(input_ids=ids)
            padding = torch.zeros_like(mask, dtype=hidden.dtype).masked_fill(mask == 0, torch.finfo(hidden.dtype).min)
        weights: dict[int, Tensor] = {}
        for index, layer in enumerate(text.encoder.layer):
            if index == min(picked):
                hidden.requires_grad_()  # the graph starts here, so that nothing below costs a backward pass
            with torch.set_grad_enabled(index >= min(picked)):
                attended, _ = layer.attention(hidden, attention_mask=padding[:, None, None])
                crossed, probabilities = layer.crossattention(attended, encoder_hidden_states=patches)
                hidden = layer.feed_forward_chunk(crossed)
            if index in picked:
                weights[index] = probabilities
        match = self._model.itm_head(hidden[:, 0])[:, 1]  # index 1: 'they match'
        return match, [weights[index] for index in picked]

    def _tokens(
        self, prompts: Sequence[Prompt]
    ) -> tuple[Int[Tensor, "b token"], Int[Tensor, "b token"], Int[Tensor, "b token 2"]]:
        """Return ids, mask and character offsets, padded to the longest prompt."""
        config = self._model.config.text_config
        if self.known is not None:
            _refuse_unknown(prompts, self.known, self.name)
        tokens = self._tokenizer(
            [prompt.text for prompt in prompts], padding=True, return_offsets_mapping=True, return_tensors="pt"
        )
        ids = tokens["input_ids"]
        if ids.shape[1] > config.max_position_embeddings:
            raise InputError(
                f"the class names make {ids.shape[1]} tokens; {self.name} reads {config.max_position_embeddings} "
                "at most: name fewer classes, or use shorter names"
            )
        # The matching head was trained behind [ENC], the last row of the vocabulary, which tokenizers on the hub lack.
        ids[:, 0] = config.vocab_size - 1
        return ids.to(self.device), tokens["attention_mask"].to(self.device), tokens["offset_mapping"]


def _self_attention(attention: BlipAttention, hidden: Float[Tensor, "b patch width"]) -> Float[Tensor, "b patch width"]:
    """Return BLIP's self-attention by torch's fused kernel."""
    b, n, width = hidden.shape
    query, key, value = attention.qkv(hidden).view(b, n, 3, attention.num_heads, -1).permute(2, 0, 3, 1, 4)
    mixed = scaled_dot_product_attention(query, key, value, scale=attention.scale)
    projected: Tensor = attention.projection(mixed.transpose(1, 2).reshape(b, n, width))
    return projected


def _fused_attention(
    query: Float[Tensor, "b n width"], key: Float[Tensor, "b m width"], value: Float[Tensor, "b m width"], heads: int
) -> Float[Tensor, "b n width"]:
    """Return attention by torch's fused kernel, each of ``heads`` on its part of the width."""
    q, k, v = (part.view(*part.shape[:2], heads, -1).transpose(1, 2) for part in (query, key, value))
    found: Tensor = scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(query.shape)
    return found


def _refuse_unknown(prompts: Sequence[Prompt], known: tuple[str, ...], model: str) -> None:
    for prompt in prompts:
        for name in prompt.classes:
            if name.casefold() not in known:
                raise InputError(
                    f"{model} cannot know {name!r}; it knows {', '.join(known)}. "
                    "For photos and any other name use --model blip-large-flickr"
                )
