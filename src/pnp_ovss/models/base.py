"""What the method asks of a vision-language model."""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from pnp_ovss.errors import InputError
from pnp_ovss.types import RGB, Attention, Prompt


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

    def attend(
        self, pixels: Float[Tensor, "b 3 h w"], prompts: Sequence[Prompt], layers: Sequence[int] | None = None
    ) -> Attention:
        """Return the attention of each prompt's tokens to its image, and its gradient, for ``layers`` (None: all).

        ``pixels`` come from ``prepare``; sides are multiples of ``patch``. The model's weights get no gradient.

        Raises: InputError if images and prompts do not agree, a prompt is too long, or the model cannot read or know a
        class name; ConfigError if it lacks a layer.
        """


@runtime_checkable
class Matcher(Protocol):
    """A VLM that says of many texts whether they match an image, without attention maps and gradients."""

    def match(self, pixels: Float[Tensor, "b 3 h w"], prompts: Sequence[Prompt]) -> Float[Tensor, "b prompt"]:
        """Return the log odds that each image and each prompt match, as the matching head sees them; float32.

        Each image is encoded once, however many prompts there are. The softmax of the head's two logits is the
        sigmoid of these odds.

        Raises: InputError if a prompt is too long, or a class name is unknown to the model.
        """


def check_images(vlm: VLM, pixels: Float[Tensor, "b 3 h w"], prompts: Sequence[Prompt]) -> None:
    """Raise InputError if there is no image, not one prompt for each, or the patches do not cover them."""
    if not len(pixels) or len(pixels) != len(prompts):
        raise InputError(f"expected images and a prompt for each, got {len(pixels)} images and {len(prompts)} prompts")
    h, w = pixels.shape[2:]
    if not (h and w) or h % vlm.patch or w % vlm.patch:
        expected = f"expected sides that are multiples of {vlm.name}'s patch of {vlm.patch} pixels"
        raise InputError(f"{expected}, as its prepare(photo, size) gives them, got {h} x {w}")


def membership(
    prompts: Sequence[Prompt],
    offsets: Int[Tensor, "b token 2"],
    unknown: Bool[Tensor, "b token"],
    special: Bool[Tensor, "b token"],
) -> Float[Tensor, "b cls token"]:
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
                raise InputError(f"class {name!r} holds a sign that this model keeps for itself; use another name")
            shares[row, column] = inside / inside.sum()
    return shares
