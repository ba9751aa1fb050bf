"""What every adapter does alike. A family adds how its text and image meet: see docs/adding-a-model.md."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from tokenizers.models import WordLevel
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from transformers import PreTrainedModel

from pnp_ovss.errors import ConfigError, InputError
from pnp_ovss.models.base import check_images, membership
from pnp_ovss.models.loading import Preparation, load_model, load_tokenizer
from pnp_ovss.types import RGB, Attention, Prompt

Tokens = tuple[Int[Tensor, "b token"], Int[Tensor, "b token"], Int[Tensor, "b token 2"]]
"""Ids, attention mask and character offsets, on the CPU; padded at the end."""


class Adapter:
    """A checkpoint behind the ``VLM`` protocol.

    A family names its ``model_class`` and ``preset``, sets the numbers below and ``_longest``, the most tokens it
    reads, and writes ``_trace``; where attention holds more than one row per token and one column per patch behind
    ``[CLS]``, ``_maps``.
    """

    model_class: type[PreTrainedModel]
    preset: str
    """Name of the settings to start from."""
    preparation = Preparation()
    """Normalisation of checkpoints that do not say theirs."""
    size: int
    patch: int
    layers: int
    heads: int
    _longest: int

    def __init__(self, folder: Path, name: str, revision: str, device: torch.device, dtype: torch.dtype) -> None:
        self.name, self.revision, self.device = name, revision, device
        self._model: Any = load_model(self.model_class, folder, name, dtype).to(device)
        self._tokenizer = load_tokenizer(folder, name)
        unknown = self._tokenizer.unk_token_id
        special = [token for token in self._tokenizer.all_special_ids if token != unknown]
        self._special = torch.tensor(special, dtype=torch.long)
        # A vocabulary of whole words lacks most, whatever their characters: `known` says which its model can know.
        lacks_characters = unknown is not None and not isinstance(self._tokenizer.backend_tokenizer.model, WordLevel)
        self._unknown = unknown if lacks_characters else -1
        self._preparation = Preparation.from_folder(folder, self.preparation)
        known = getattr(self._model.config, "known_classes", None)
        self.known: tuple[str, ...] | None = tuple(map(str, known)) if isinstance(known, list) and known else None

    def prepare(self, image: RGB, size: int) -> Float[Tensor, "3 size size"]:
        """Return the photo squeezed to a square (bicubic, as the authors' code) and normalised."""
        return self._preparation(image, size)

    def attend(
        self, pixels: Float[Tensor, "b 3 h w"], prompts: Sequence[Prompt], layers: Sequence[int] | None = None
    ) -> Attention:
        """Return attention and its gradient for ``layers``; no gradient is computed below the lowest of them."""
        check_images(self, pixels, prompts)
        picked = self._picked(layers)
        ids, mask, offsets = self._tokens(prompts)
        shares = membership(prompts, offsets, ids == self._unknown, torch.isin(ids, self._special))
        ids, mask, shares = (part.to(self.device) for part in (ids, mask, shares))
        grid = pixels.shape[2] // self.patch, pixels.shape[3] // self.patch
        with torch.enable_grad():
            match, traced = self._trace(pixels.to(self.device), ids, mask, picked)
            # The images are independent of each other: the gradient of the sum holds each one's own.
            gradients = torch.autograd.grad(match.sum(), traced)
        weights, gradient = self._maps([map_.detach() for map_ in traced], gradients, ids.shape[1])

        def grids(maps: Sequence[Tensor]) -> Float[Tensor, "b layer head token gh gw"]:
            stacked = torch.stack(list(maps), dim=1).float()
            return (stacked * mask[:, None, None, :, None]).view(*stacked.shape[:-1], *grid)

        return Attention(grids(weights), grids(gradient), shares, match.detach().float(), picked)

    def _trace(
        self,
        pixels: Float[Tensor, "b 3 h w"],
        ids: Int[Tensor, "b token"],
        mask: Int[Tensor, "b token"],
        picked: tuple[int, ...],
    ) -> tuple[Float[Tensor, " b"], list[Tensor]]:
        """Return the match logit and the attention it came from; their graph starts at the lowest of ``picked``."""
        raise NotImplementedError

    def _maps(
        self, traced: Sequence[Tensor], gradients: Sequence[Tensor], tokens: int
    ) -> tuple[Sequence[Tensor], Sequence[Tensor]]:
        """Return, per picked layer, attention and gradient (b, head, token, patch)."""
        return [map_[..., 1:] for map_ in traced], [map_[..., 1:] for map_ in gradients]  # the image's [CLS] is first

    def _picked(self, layers: Sequence[int] | None) -> tuple[int, ...]:
        picked = tuple(range(self.layers)) if layers is None else tuple(layers)
        if not picked:
            raise ConfigError(
                f"no layer is picked; {self.name} has layers 0 to {self.layers - 1}: name one, or leave them out"
            )
        for layer in picked:
            if not 0 <= layer < self.layers:
                raise ConfigError(f"layer is {layer}; {self.name} has layers 0 to {self.layers - 1}")
        return picked

    def _tokens(self, prompts: Sequence[Prompt]) -> Tokens:
        """Return the tokens of all prompts, padded to the longest."""
        if self.known is not None:
            _refuse_unknown(prompts, self.known, self.name)
        texts = [prompt.text for prompt in prompts]
        tokens = self._tokenizer(
            texts, padding=True, padding_side="right", return_offsets_mapping=True, return_tensors="pt"
        )
        ids: Tensor = tokens["input_ids"]
        if ids.shape[1] > self._longest:
            raise InputError(
                f"the class names make {ids.shape[1]} tokens; {self.name} reads {self._longest} at most: name fewer "
                "classes, or use shorter names"
            )
        return ids, tokens["attention_mask"], tokens["offset_mapping"]


class MatchingAdapter(Adapter):
    """An adapter behind the ``Matcher`` protocol too. A family writes ``_looks`` and ``_odds``."""

    prompts_at_once = 64
    """Prompts that ``match`` reads at a time: enough to keep the processor busy, and a bound on the memory."""

    @torch.no_grad()
    def match(self, pixels: Float[Tensor, "b 3 h w"], prompts: Sequence[Prompt]) -> Float[Tensor, "b prompt"]:
        """Return the log odds of the matching head; each image is encoded once."""
        looks = self._looks(pixels.to(self.device))
        odds = torch.empty(len(pixels), len(prompts), device=self.device)
        order = sorted(range(len(prompts)), key=lambda index: len(prompts[index].text))  # so that little is padding
        for start in range(0, len(order), self.prompts_at_once):
            some = order[start : start + self.prompts_at_once]
            ids, mask, _ = self._tokens([prompts[index] for index in some])
            odds[:, some] = self._odds(ids.to(self.device), mask.to(self.device), looks).float()
        return odds

    def _looks(self, pixels: Float[Tensor, "b 3 h w"]) -> Sequence[Any]:
        """Return what ``_odds`` needs of the images, whatever the text."""
        raise NotImplementedError

    def _odds(
        self, ids: Int[Tensor, "n token"], mask: Int[Tensor, "n token"], looks: Sequence[Any]
    ) -> Float[Tensor, "b n"]:
        """Return the log odds of every image with every text."""
        raise NotImplementedError


def additive(mask: Int[Tensor, "b token"], dtype: torch.dtype) -> Float[Tensor, "b 1 1 token"]:
    """Return a mask to add to attention scores: 0 for tokens, the lowest number for padding."""
    return torch.zeros_like(mask, dtype=dtype).masked_fill(mask == 0, torch.finfo(dtype).min)[:, None, None]


def fused_attention(
    query: Float[Tensor, "b n width"],
    key: Float[Tensor, "b m width"],
    value: Float[Tensor, "b m width"],
    heads: int,
    padding: Float[Tensor, "b 1 1 m"] | None = None,
) -> Float[Tensor, "b n width"]:
    """Return attention by torch's fused kernel, each of ``heads`` on its part of the width.

    Where a gradient is taken it is computed plainly, but on a CPU: on CUDA the backward pass of the fused kernels adds
    up in no fixed order, and the same photo would not always get the same labels.
    """
    if torch.is_grad_enabled() and query.device.type != "cpu":
        return kept_attention(query, key, value, heads, padding)[0]
    q, k, v = (_split(part, heads) for part in (query, key, value))
    return _join(scaled_dot_product_attention(q, k, v, attn_mask=padding))


def kept_attention(
    query: Float[Tensor, "b n width"],
    key: Float[Tensor, "b m width"],
    value: Float[Tensor, "b m width"],
    heads: int,
    padding: Float[Tensor, "b 1 1 m"] | None = None,
) -> tuple[Float[Tensor, "b n width"], Float[Tensor, "b head n m"]]:
    """Return attention as ``fused_attention`` does, and the weights after softmax that it was computed from."""
    q, k, v = (_split(part, heads) for part in (query, key, value))
    scores = q @ k.transpose(2, 3) * q.shape[-1] ** -0.5
    weights = (scores if padding is None else scores + padding).softmax(-1)
    return _join(weights @ v), weights


def see(vision: Any, pixels: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b patch width"]:
    """Return the output of BLIP's and BLIP-2's image tower, ``[CLS]`` first, by torch's fused attention.

    Positions are interpolated where the input is not of the checkpoint's own size.
    """
    hidden = vision.embeddings(pixels, interpolate_pos_encoding=True)
    for layer in vision.encoder.layers:
        attention = layer.self_attn
        query, key, value = attention.qkv(layer.layer_norm1(hidden)).chunk(3, dim=-1)
        hidden = hidden + attention.projection(fused_attention(query, key, value, attention.num_heads))
        hidden = hidden + layer.mlp(layer.layer_norm2(hidden))
    patches: Tensor = vision.post_layernorm(hidden)
    return patches


def _split(part: Float[Tensor, "b n width"], heads: int) -> Float[Tensor, "b head n _"]:
    return part.view(*part.shape[:2], heads, -1).transpose(1, 2)


def _join(parts: Float[Tensor, "b head n _"]) -> Float[Tensor, "b n width"]:
    return parts.transpose(1, 2).flatten(2)


def _refuse_unknown(prompts: Sequence[Prompt], known: tuple[str, ...], model: str) -> None:
    for prompt in prompts:
        for name in prompt.classes:
            if name.casefold() not in known:
                raise InputError(
                    f"{model} cannot know {name!r}; it knows {', '.join(known)}. "
                    "For photos and any other name use --model blip-large-flickr"
                )
