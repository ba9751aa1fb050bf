"""Vision-language models: what the method asks of them, and what all families do alike.

A family adds how its text and image meet: see docs/adding-a-model.md.
"""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from tokenizers.models import WordLevel
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from pnp_ovss.errors import ConfigError, InputError
from pnp_ovss.models.gpu import Graphed, moved
from pnp_ovss.models.hub import Checkpoint
from pnp_ovss.models.loading import Pretrained
from pnp_ovss.types import Attention, Prompt

Pixels = Float[Tensor, "b 3 h w"]
Tokens = Int[Tensor, "b token"]
"""Ids of tokens; as a mask, 1 for tokens and 0 for padding, which is at the end."""
Offsets = Int[Tensor, "b token 2"]
Flags = Bool[Tensor, "b token"]
Prompts = Sequence[Prompt]
Indices = Int[Tensor, "b kept"]
"""Patches of each image, counted in reading order."""
States = Sequence[Tensor]
"""What a family computes of images or texts alone."""
Kept = tuple[Tensor, ...]
"""Attention weights of a layer."""
Fused = tuple[Float[Tensor, "b logit"], dict[int, Kept]]
"""The matching head's logits, the last for 'they match', and the attention of each layer that led to them."""


Hidden = Float[Tensor, "b n width"]
Context = Float[Tensor, "b m width"]
Padding = Float[Tensor, "*_ m"] | None
"""What is added to attention scores, (b, head, n, m) once broadcast."""


class VLM(Pretrained):
    """A model whose text tokens attend to image patches, with a head that says whether text and image match.

    Its families are the only code that knows the models' layers and special tokens. A family names its ``model_class``
    and ``preset``, sets the numbers below in ``_configure``, and writes what a method below says it may or must.
    """

    preset: str
    """Name of the settings to start from."""
    tower = "_encode_images"
    layers: int
    heads: int
    max_tokens: int
    _encoded: tuple[Pixels, States] | None = None
    """The images that ``match`` has read last: the next ones are often the same."""
    _read: tuple[list[Prompt], tuple[Tensor, ...]] | None = None
    """The prompts that ``attend`` has read last, and what became of them: every pass of DropOut has the same."""

    def __init__(self, checkpoint: Checkpoint, device: str, dtype: str) -> None:
        super().__init__(checkpoint, device, dtype)
        self.tokenize(["a", "a b"], return_offsets_mapping=True)  # what cannot be used is found before any photo
        unknown = self._tokenizer.unk_token_id
        special = [token for token in self._tokenizer.all_special_ids if token != unknown]
        self._special = torch.tensor(special, dtype=torch.long)
        # A vocabulary of whole words lacks most, whatever their characters: `known` says which its model can know.
        whole_words = isinstance(self._tokenizer.backend_tokenizer.model, WordLevel)
        self._unknown = -1 if unknown is None or whole_words else unknown
        self._configure(self._model.config)

    def attend(
        self, pixels: Pixels, prompts: Prompts, layers: Sequence[int] | None = None, keep: Indices | None = None
    ) -> Attention:
        """Return the attention of each prompt's tokens to its image, and its gradient, for ``layers`` (None: all).

        ``pixels`` come from ``prepare``; sides are multiples of ``patch``. The model's weights get no gradient, and
        none is computed below the lowest of the layers. With ``keep`` the model sees those patches alone, each at its
        own position; attention and gradient of the others are 0.

        Raises: InputError if images and prompts do not agree, a prompt is too long, or the model cannot read or know a
        class name; ConfigError if it lacks a layer.
        """
        check_images(self, pixels, prompts)
        picked = tuple(range(self.layers)) if layers is None else tuple(layers)
        if not picked or not all(0 <= layer < self.layers for layer in picked):
            raise ConfigError(f"expected layers of {self.name} from 0 to {self.layers - 1}, got {picked}")
        ids, mask, shares = self._texts(prompts)
        keep = None if keep is None else moved(keep, self.device)
        match, both = self._attended(picked, ids, mask, *self._images(moved(pixels, self.device), keep))
        grid = [side // self.patch for side in pixels.shape[2:]]
        if keep is not None:
            index = keep[:, None, None, None].expand(both.shape)
            both = both.new_zeros(*both.shape[:-1], grid[0] * grid[1]).scatter(-1, index, both)
        weights, gradient = both.view(*both.shape[:-1], *grid)
        return Attention(weights, gradient, shares, match, picked)

    @torch.enable_grad()
    def _attended(
        self, layers: Sequence[int], ids: Tokens, mask: Tokens, *images: Tensor
    ) -> tuple[Float[Tensor, " b"], Float[Tensor, "2 b layer head token seen"]]:
        """Return the match logits, and of the layers the attention and its gradient; from the images' states."""
        logits, attention = self._fuse(images, self._encode_texts(ids, mask), mask, min(layers))
        kept, match = [attention[layer] for layer in layers], logits[:, -1]
        # The images are independent of each other: the gradient of the sum holds each one's own.
        slopes = iter(torch.autograd.grad(match.sum(), [part for parts in kept for part in parts]))
        maps = []
        for parts in kept:
            values = tuple(part.detach() for part in parts)
            maps.append(torch.stack(self._maps(values, tuple(next(slopes) for _ in parts), mask.shape[1])))
        return match.detach().float(), torch.stack(maps, dim=2).float() * mask[:, None, None, :, None]

    def compile_tower(self) -> None:
        """Send images through ``torch.compile`` from now on, on CUDA images and texts through CUDA graphs."""
        super().compile_tower()
        if self.device.type == "cuda":
            for part in ("_attended", "_log_odds"):
                if hasattr(self, part):
                    setattr(self, part, Graphed(getattr(self, part)))

    def _texts(self, prompts: Prompts) -> tuple[Tensor, ...]:
        """Return ids, mask and each token's shares of the names, on the model's device; read once for all passes."""
        read = self._read
        if read is None or read[0] != [*prompts]:
            ids, mask, offsets = self._tokens(prompts)
            shares = membership(prompts, offsets, ids == self._unknown, torch.isin(ids, self._special))
            read = self._read = [*prompts], tuple(moved(part, self.device) for part in (ids, mask, shares))
        return read[1]

    def _images(self, pixels: Pixels, keep: Indices | None = None) -> States:
        """Return the states of the images; those that ``match`` has computed are not computed again."""
        before, self._encoded = self._encoded, None
        if keep is not None:  # past a compiled tower: in each pass their number is another, and so is what to compile
            return type(self)._encode_images(self, pixels, keep)
        return before[1] if before and torch.equal(before[0], pixels) else self._encode_images(pixels)

    def _configure(self, config: Any) -> None:
        """Set ``layers``, ``heads`` and ``max_tokens``. Every family has one."""

    def _encode_images(self, pixels: Pixels, keep: Indices | None = None) -> list[Tensor]:
        """Return what is computed of the images alone: here, of BLIP and BLIP-2, the tower's output, ``[CLS]`` first.

        Positions are interpolated where the input is not of the checkpoint's own size. Of the patches only those in
        ``keep`` are computed, or all.
        """
        vision = self._model.vision_model
        hidden = gather_tokens(vision.embeddings(pixels, interpolate_pos_encoding=True), keep)
        for layer in vision.encoder.layers:
            attention = layer.self_attn
            query, key, value = attention.qkv(layer.layer_norm1(hidden)).chunk(3, dim=-1)
            hidden = hidden + attention.projection(fused_attention(query, key, value, attention.num_heads))
            hidden = hidden + layer.mlp(layer.layer_norm2(hidden))
        return [vision.post_layernorm(hidden)]

    def _encode_texts(self, ids: Tokens, mask: Tokens) -> list[Tensor]:
        """Return what is computed of the texts alone."""
        return [ids]

    def _fuse(self, images: States, texts: States, mask: Tokens, lowest: int | None) -> Fused:
        """Return logits and attention of each image with its text; their graph starts at layer ``lowest``, if any.

        Every family has one. No weight takes a gradient, so nothing is recorded below ``lowest``.
        """
        raise NotImplementedError

    def _fused(self, block: Any, hidden: Hidden, context: Tensor, padding: Padding = None) -> Hidden:
        """Return the attention of ``hidden`` to ``context`` by a block's linear layers, as ``fused_attention`` does."""
        return fused_attention(block.query(hidden), block.key(context), block.value(context), self.heads, padding)

    def _kept(self, block: Any, hidden: Hidden, context: Tensor, padding: Padding = None) -> tuple[Hidden, Tensor]:
        """Return the attention of ``hidden`` to ``context`` by a block's linear layers, and its weights."""
        return kept_attention(block.query(hidden), block.key(context), block.value(context), self.heads, padding)

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
        tokens = self.tokenize(texts, return_offsets_mapping=True)
        ids, mask = tokens["input_ids"], tokens["attention_mask"]
        if (count := ids.shape[1]) > self.max_tokens:
            advice = f"{self.name} reads {self.max_tokens} at most: name fewer or shorter classes"
            raise InputError(f"the class names make {count} tokens; {advice}")
        return self._ids(ids, mask), mask, tokens["offset_mapping"]


class Matcher(VLM):
    """A model that says of many texts whether they match an image, without attention maps and gradients.

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
        pixels = moved(pixels, self.device)
        images = self._images(pixels)
        self._encoded = pixels, images
        odds = torch.empty(len(pixels), len(prompts), device=self.device)
        # Sorted, so that little is padding.
        order = sorted(range(len(prompts)), key=lambda index: len(prompts[index].text))
        for start in range(0, len(order), self.prompts_at_once):
            some = order[start : start + self.prompts_at_once]
            ids, mask, _ = self._tokens([prompts[index] for index in some])
            odds[:, some] = self._log_odds(moved(ids, self.device), moved(mask, self.device), *images).float()
        return odds

    def _log_odds(self, ids: Tokens, mask: Tokens, *images: Tensor) -> Float[Tensor, "image b"]:
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


def gather_tokens(tokens: Float[Tensor, "b token width"], keep: Indices | None) -> Float[Tensor, "b seen width"]:
    """Return ``[CLS]`` and of the patches those in ``keep``, or all."""
    if keep is None:
        return tokens
    patches = tokens[:, 1:].gather(1, keep[..., None].expand(-1, -1, tokens.shape[-1]))
    return torch.cat([tokens[:, :1], patches], 1)


def additive(mask: Tokens, dtype: torch.dtype) -> Float[Tensor, "b 1 1 token"]:
    """Return a mask to add to attention scores: 0 for tokens, the lowest number for padding."""
    return torch.zeros_like(mask, dtype=dtype).masked_fill(mask == 0, torch.finfo(dtype).min)[:, None, None]


def fused_attention(q: Hidden, k: Context, v: Context, heads: int, padding: Padding = None) -> Hidden:
    """Return attention by torch's fused kernel, each of ``heads`` on its part of the width.

    Where a gradient is taken it is computed plainly, but on a CPU: on CUDA the backward pass of the fused kernels adds
    up in no fixed order, and the same photo would not always get the same labels.
    """
    differentiated = torch.is_grad_enabled() and any(part.requires_grad for part in (q, k, v))
    if differentiated and q.device.type != "cpu":
        return kept_attention(q, k, v, heads, padding)[0]
    q, k, v = (split(part, heads) for part in (q, k, v))
    return joined(scaled_dot_product_attention(q, k, v, attn_mask=padding))


def kept_attention(q: Hidden, k: Context, v: Context, heads: int, padding: Padding = None) -> tuple[Hidden, Tensor]:
    """Return attention as ``fused_attention`` does, and the weights after softmax that it was computed from."""
    q, k, v = (split(part, heads) for part in (q, k, v))
    scores = q @ k.transpose(2, 3) * q.shape[-1] ** -0.5
    weights = (scores if padding is None else scores + padding).softmax(-1)
    return joined(weights @ v), weights


def split(part: Hidden, heads: int) -> Float[Tensor, "b head n _"]:
    """Return each head's part of the width."""
    return part.view(*part.shape[:2], heads, -1).transpose(1, 2)


def joined(parts: Float[Tensor, "b head n _"]) -> Hidden:
    """Return the heads' parts side by side."""
    return parts.transpose(1, 2).flatten(2)
