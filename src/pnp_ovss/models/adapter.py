"""What every adapter does alike. A family adds how its text and image meet: see docs/adding-a-model.md."""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from tokenizers.models import WordLevel
from torch import Tensor

from pnp_ovss.errors import ConfigError, InputError
from pnp_ovss.models.base import check_images, membership
from pnp_ovss.models.hub import Checkpoint
from pnp_ovss.models.loading import Pretrained
from pnp_ovss.types import RGB, Attention, Prompt

Pixels = Float[Tensor, "b 3 h w"]
Tokens = Int[Tensor, "b token"]
"""Ids of tokens; as a mask, 1 for tokens and 0 for padding, which is at the end."""
Kept = tuple[Tensor, ...]
"""Attention weights of a layer."""
Fused = tuple[Float[Tensor, "b logit"], dict[int, Kept]]
"""The matching head's logits, the last for 'they match', and the attention of each layer that led to them."""


class Adapter(Pretrained):
    """A checkpoint behind the ``VLM`` protocol.

    A family names its ``model_class`` and ``preset``, sets the numbers below in ``_configure``, and writes what a
    method below says it may or must.
    """

    preset: str
    """Name of the settings to start from."""
    size: int
    patch: int
    layers: int
    heads: int
    max_tokens: int

    def __init__(self, checkpoint: Checkpoint, device: str, dtype: str) -> None:
        super().__init__(checkpoint, device, dtype)
        unknown = self._tokenizer.unk_token_id
        special = [token for token in self._tokenizer.all_special_ids if token != unknown]
        self._special = torch.tensor(special, dtype=torch.long)
        # A vocabulary of whole words lacks most, whatever their characters: `known` says which its model can know.
        lacks_characters = unknown is not None and not isinstance(self._tokenizer.backend_tokenizer.model, WordLevel)
        self._unknown = unknown if lacks_characters else -1
        self._configure(self._model.config)

    def prepare(self, image: RGB, size: int) -> Float[Tensor, "3 size size"]:
        """Return the photo squeezed to a square (bicubic, as the authors' code) and normalised."""
        return self._normalise(image, size)

    def attend(self, pixels: Pixels, prompts: Sequence[Prompt], layers: Sequence[int] | None = None) -> Attention:
        """Return attention and its gradient for ``layers``; no gradient is computed below the lowest of them."""
        check_images(self, pixels, prompts)
        picked = tuple(range(self.layers)) if layers is None else tuple(layers)
        if not picked or not all(0 <= layer < self.layers for layer in picked):
            raise ConfigError(f"expected layers of {self.name} from 0 to {self.layers - 1}, got {picked}")
        ids, mask, offsets = self._tokens(prompts)
        shares = membership(prompts, offsets, ids == self._unknown, torch.isin(ids, self._special))
        ids, mask, shares = (part.to(self.device) for part in (ids, mask, shares))
        with torch.enable_grad():
            images, texts = self._encode_images(pixels.to(self.device)), self._encode_texts(ids, mask)
            logits, attention = self._fuse(images, texts, mask, min(picked))
            kept, match = [attention[layer] for layer in picked], logits[:, -1]
            # The images are independent of each other: the gradient of the sum holds each one's own.
            slopes = iter(torch.autograd.grad(match.sum(), [part for parts in kept for part in parts]))
        tokens, grid = mask.shape[1], [side // self.patch for side in pixels.shape[2:]]

        def on_grid(maps: Sequence[Tensor]) -> Float[Tensor, "b layer head token gh gw"]:
            stacked = torch.stack(list(maps), dim=1).float()
            return (stacked * mask[:, None, None, :, None]).view(*stacked.shape[:-1], *grid)

        maps = [
            self._maps(tuple(p.detach() for p in parts), tuple(next(slopes) for _ in parts), tokens) for parts in kept
        ]
        weights, gradient = map(on_grid, zip(*maps, strict=True))
        return Attention(weights, gradient, shares, match.detach().float(), picked)

    def _configure(self, config: Any) -> None:
        """Set ``size``, ``patch``, ``layers``, ``heads`` and ``max_tokens``. Every family has one."""
        raise NotImplementedError

    def _encode_images(self, pixels: Pixels) -> list[Tensor]:
        """Return what is computed of the images alone. Every family has one."""
        raise NotImplementedError

    def _encode_texts(self, ids: Tokens, mask: Tokens) -> list[Tensor]:
        """Return what is computed of the texts alone."""
        return [ids]

    def _fuse(self, images: Sequence[Tensor], texts: Sequence[Tensor], mask: Tokens, lowest: int | None) -> Fused:
        """Return logits and attention of each image with its text; their graph starts at layer ``lowest``, if any.

        Every family has one. No weight takes a gradient, so nothing is recorded below ``lowest``.
        """
        raise NotImplementedError

    def _maps(self, attention: Kept, slopes: Kept, tokens: int) -> tuple[Tensor, Tensor]:
        """Return a layer's attention and gradient, (b, head, token, patch) each, from what was kept of it."""
        return attention[0][..., 1:], slopes[0][..., 1:]  # the image's [CLS] is first

    def _ids(self, ids: Tokens, mask: Tokens) -> Tokens:
        """Return the tokenizer's ids as the model was trained with them."""
        return ids

    def _tokens(self, prompts: Sequence[Prompt]) -> tuple[Tokens, Tokens, Int[Tensor, "b token 2"]]:
        """Return ids, mask and character offsets of all prompts, padded to the longest, on the CPU."""
        self.check_known([name for prompt in prompts for name in prompt.classes])
        texts = [prompt.text for prompt in prompts]
        tokens = self._tokenizer(
            texts, padding=True, padding_side="right", return_offsets_mapping=True, return_tensors="pt"
        )
        ids, mask = tokens["input_ids"], tokens["attention_mask"]
        if ids.shape[1] > self.max_tokens:
            limit = f"{self.name} reads {self.max_tokens} at most"
            raise InputError(f"the class names make {ids.shape[1]} tokens; {limit}: name fewer or shorter classes")
        return self._ids(ids, mask), mask, tokens["offset_mapping"]


class MatchingAdapter(Adapter):
    """An adapter behind the ``Matcher`` protocol too, for heads whose first logit says 'they do not match'."""

    prompts_at_once = 64
    """Prompts that ``match`` reads at a time: enough to keep the processor busy, and a bound on the memory."""

    @torch.no_grad()
    def match(self, pixels: Pixels, prompts: Sequence[Prompt]) -> Float[Tensor, "b prompt"]:
        """Return the log odds of the matching head; each image is encoded once."""
        images = self._encode_images(pixels.to(self.device))
        odds = torch.empty(len(pixels), len(prompts), device=self.device)
        order = sorted(range(len(prompts)), key=lambda index: len(prompts[index].text))  # so that little is padding
        for start in range(0, len(order), self.prompts_at_once):
            some = order[start : start + self.prompts_at_once]
            ids, mask, _ = self._tokens([prompts[index] for index in some])
            odds[:, some] = self._log_odds(images, ids.to(self.device), mask.to(self.device)).float()
        return odds

    def _log_odds(self, images: Sequence[Tensor], ids: Tokens, mask: Tokens) -> Float[Tensor, "image b"]:
        """Return the log odds of every image with every text."""
        n, b = len(images[0]), len(ids)
        paired = [state.repeat_interleave(b, dim=0) for state in images]  # all texts of the first image, then ...
        texts = [state.repeat(n, *[1] * (state.dim() - 1)) for state in self._encode_texts(ids, mask)]
        logits, _ = self._fuse(paired, texts, mask.repeat(n, 1), None)
        return (logits[:, 1] - logits[:, 0]).view(n, b)
