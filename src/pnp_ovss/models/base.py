"""What the method asks of a vision-language model, and what every adapter does alike.

A family adds how its text and image meet: see docs/adding-a-model.md.
"""

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from tokenizers.models import WordLevel
from torch import Tensor

from pnp_ovss.errors import ConfigError, InputError
from pnp_ovss.models.hub import Checkpoint
from pnp_ovss.models.loading import Pretrained
from pnp_ovss.types import RGB, Attention, Prompt

Pixels = Float[Tensor, "b 3 h w"]
Tokens = Int[Tensor, "b token"]
"""Ids of tokens; as a mask, 1 for tokens and 0 for padding, which is at the end."""
Offsets = Int[Tensor, "b token 2"]
Flags = Bool[Tensor, "b token"]
Prompts = Sequence[Prompt]
States = Sequence[Tensor]
"""What an adapter's own code computes of images or texts alone."""
Kept = tuple[Tensor, ...]
"""Attention weights of a layer."""
Fused = tuple[Float[Tensor, "b logit"], dict[int, Kept]]
"""The matching head's logits, the last for 'they match', and the attention of each layer that led to them."""


@runtime_checkable
class VLM(Protocol):
    """A model whose text tokens attend to image patches, with a head that says whether text and image match.

    Adapters are the only code that imports ``transformers``, knows special tokens and normalises pixels.
    """

    name: str
    revision: str
    device: torch.device
    size: int
    """Side of the square the checkpoint was made for, in pixels."""
    patch: int
    """Side of one patch, in pixels."""
    layers: int
    heads: int
    known: tuple[str, ...] | None
    """Names the model can know, where these are few; None: any name."""

    def prepare(self, image: RGB, size: int) -> Float[Tensor, "3 size size"]:
        """Return the photo as the model wants it: squeezed to a square, normalised so that 0 is the mean colour."""

    def attend(self, pixels: Pixels, prompts: Prompts, layers: Sequence[int] | None = None) -> Attention:
        """Return the attention of each prompt's tokens to its image, and its gradient, for ``layers`` (None: all).

        ``pixels`` come from ``prepare``; sides are multiples of ``patch``. The model's weights get no gradient.

        Raises: InputError if images and prompts do not agree, a prompt is too long, or the model cannot read or know a
        class name; ConfigError if it lacks a layer.
        """


class Adapter(Pretrained, VLM):
    """A checkpoint behind the ``VLM`` protocol.

    A family names its ``model_class`` and ``preset``, sets the numbers below in ``_configure``, and writes what a
    method below says it may or must.
    """

    preset: str
    """Name of the settings to start from."""
    max_tokens: int

    def __init__(self, checkpoint: Checkpoint, device: str, dtype: str) -> None:
        super().__init__(checkpoint, device, dtype)
        unknown = self._tokenizer.unk_token_id
        special = [token for token in self._tokenizer.all_special_ids if token != unknown]
        self._special = torch.tensor(special, dtype=torch.long)
        # A vocabulary of whole words lacks most, whatever their characters: `known` says which its model can know.
        whole_words = isinstance(self._tokenizer.backend_tokenizer.model, WordLevel)
        self._unknown = -1 if unknown is None or whole_words else unknown
        self._configure(self._model.config)

    def prepare(self, image: RGB, size: int) -> Float[Tensor, "3 size size"]:
        """Return the photo squeezed to a square (bicubic, as the authors' code) and normalised."""
        return self._normalise(image, size)

    def attend(self, pixels: Pixels, prompts: Prompts, layers: Sequence[int] | None = None) -> Attention:
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

        maps = []
        for parts in kept:
            values = tuple(part.detach() for part in parts)
            maps.append(torch.stack(self._maps(values, tuple(next(slopes) for _ in parts), tokens)))
        both = torch.stack(maps, dim=2).float() * mask[:, None, None, :, None]
        weights, gradient = both.view(*both.shape[:-1], *grid)
        return Attention(weights, gradient, shares, match.detach().float(), picked)

    def _configure(self, config: Any) -> None:
        """Set ``size``, ``patch``, ``layers``, ``heads`` and ``max_tokens``. Every family has one."""

    def _encode_images(self, pixels: Pixels) -> list[Tensor]:
        """Return what is computed of the images alone. Every family has one."""
        raise NotImplementedError

    def _encode_texts(self, ids: Tokens, mask: Tokens) -> list[Tensor]:
        """Return what is computed of the texts alone."""
        return [ids]

    def _fuse(self, images: States, texts: States, mask: Tokens, lowest: int | None) -> Fused:
        """Return logits and attention of each image with its text; their graph starts at layer ``lowest``, if any.

        Every family has one. No weight takes a gradient, so nothing is recorded below ``lowest``.
        """
        raise NotImplementedError

    def _maps(self, attention: Kept, slopes: Kept, tokens: int) -> tuple[Tensor, Tensor]:
        """Return a layer's attention and gradient, (b, head, token, patch) each, from what was kept of it."""
        # The image's [CLS] is first.
        return attention[0][..., 1:], slopes[0][..., 1:]

    def _ids(self, ids: Tokens, mask: Tokens) -> Tokens:
        """Return the tokenizer's ids as the model was trained with them."""
        return ids

    def _tokens(self, prompts: Prompts) -> tuple[Tokens, Tokens, Offsets]:
        """Return ids, mask and character offsets of all prompts, padded to the longest, on the CPU."""
        self.check_known([name for prompt in prompts for name in prompt.classes])
        texts = [prompt.text for prompt in prompts]
        how = {"padding": True, "padding_side": "right", "return_offsets_mapping": True, "return_tensors": "pt"}
        tokens = self._tokenizer(texts, **how)
        ids, mask = tokens["input_ids"], tokens["attention_mask"]
        if (count := ids.shape[1]) > self.max_tokens:
            advice = f"{self.name} reads {self.max_tokens} at most: name fewer or shorter classes"
            raise InputError(f"the class names make {count} tokens; {advice}")
        return self._ids(ids, mask), mask, tokens["offset_mapping"]


class Matcher(Adapter):
    """An adapter that says of many texts whether they match an image, without attention maps and gradients.

    It is for matching heads whose first logit says 'they do not match'.
    """

    prompts_at_once = 64
    """Prompts that ``match`` reads at a time: enough to keep the processor busy, and a bound on the memory."""

    @torch.no_grad()
    def match(self, pixels: Pixels, prompts: Prompts) -> Float[Tensor, "b prompt"]:
        """Return the log odds that each image and each prompt match, as the matching head sees them; float32.

        Each image is encoded once, however many prompts there are. The softmax of the head's two logits is the
        sigmoid of these odds.

        Raises: InputError if a prompt is too long, or a class name is unknown to the model.
        """
        images = self._encode_images(pixels.to(self.device))
        odds = torch.empty(len(pixels), len(prompts), device=self.device)
        # Sorted, so that little is padding.
        order = sorted(range(len(prompts)), key=lambda index: len(prompts[index].text))
        for start in range(0, len(order), self.prompts_at_once):
            some = order[start : start + self.prompts_at_once]
            ids, mask, _ = self._tokens([prompts[index] for index in some])
            odds[:, some] = self._log_odds(images, ids.to(self.device), mask.to(self.device)).float()
        return odds

    def _log_odds(self, images: States, ids: Tokens, mask: Tokens) -> Float[Tensor, "image b"]:
        """Return the log odds of every image with every text."""
        n, b = len(images[0]), len(ids)
        # All texts of the first image, then those of the second, ...
        paired = [state.repeat_interleave(b, dim=0) for state in images]
        texts = [state.repeat(n, *[1] * (state.dim() - 1)) for state in self._encode_texts(ids, mask)]
        logits, _ = self._fuse(paired, texts, mask.repeat(n, 1), None)
        return (logits[:, 1] - logits[:, 0]).view(n, b)


def check_images(vlm: VLM, pixels: Pixels, prompts: Prompts) -> None:
    """Raise InputError if there is no image, not one prompt for each, or the patches do not cover them."""
    if not len(pixels) or len(pixels) != len(prompts):
        got = f"{len(pixels)} images and {len(prompts)} prompts"
        raise InputError(f"expected images and a prompt for each, got {got}")
    h, w = pixels.shape[2:]
    if not (h and w) or h % vlm.patch or w % vlm.patch:
        raise InputError(f"expected multiples of {vlm.name}'s patch of {vlm.patch} pixels, got {h} x {w}")


def membership(prompts: Prompts, offsets: Offsets, unknown: Flags, special: Flags) -> Float[Tensor, "b cls token"]:
    """Return each token's share of each class name: 1 / (number of the name's tokens), else 0.

    ``offsets`` are the tokenizer's: first character and the one after the last, equal for what it adds by itself.
    ``unknown`` tokens stand for text that the vocabulary lacks, ``special`` ones for no text.

    Raises: InputError if a name has nothing but unknown tokens, or a special one.
    """
    shares = torch.zeros(len(prompts), max(len(prompt.classes) for prompt in prompts), offsets.shape[1])
    for row, prompt in enumerate(prompts):
        first, last = offsets[row].unbind(-1)
        for column, (name, (start, end)) in enumerate(zip(prompt.classes, prompt.spans, strict=True)):
            inside = (first < end) & (last > start) & (last > first)
            if not (inside & ~unknown[row]).any():
                raise InputError(f"class {name!r} has no character this model can read; use another name")
            if (inside & special[row]).any():
                raise InputError(f"class {name!r} holds a special token; use another name")
            shares[row, column] = inside / inside.sum()
    return shares
