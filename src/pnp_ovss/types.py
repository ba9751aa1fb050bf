"""The values that pass between the stages, and the axis names every signature uses.

b        image of a batch
cls      named class, in the order given (without the background)
ch       channel of a score map: the background first where the setting has one, then the classes
layer    cross-attention layer, 0-based
head     attention head, 0-based
token    position in the tokenizer's output, special tokens included, 0-based
gh gw    rows and columns of the patch grid, from the top left
h w      rows and columns of the photo
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from pnp_ovss.config import Config

BACKGROUND = "background"

RGB = UInt8[np.ndarray, "h w 3"]
"""A photo: 8-bit RGB, rows from the top."""


@dataclass(frozen=True)
class Prompt:
    """The text a VLM reads, and where each class name stands in it."""

    text: str
    classes: tuple[str, ...]
    spans: tuple[tuple[int, int], ...]
    """Per class: first character and the one after the last, in ``text``."""


@dataclass(frozen=True)
class Attention:
    """Attention from text to image, with the gradient of the match logit.

    ``weights`` is the attention after softmax, in [0, 1], without the image's ``[CLS]``; ``gradient`` is
    d match / d weights. Both are float32 on the model's device, and 0 for padding tokens. ``layers`` says which layers
    the layer axis holds.
    """

    weights: Float[Tensor, "b layer head token gh gw"]
    gradient: Float[Tensor, "b layer head token gh gw"]
    membership: Float[Tensor, "b cls token"]
    """Share of each token in a class name: rows sum to 1. A prompt with fewer classes than its batch has rows of 0."""
    match: Float[Tensor, " b"]
    """Image-text-matching logit for 'they match', unbounded."""
    layers: tuple[int, ...]


@dataclass(frozen=True)
class Segmentation:
    """A label map and all that led to it.

    ``labels`` indexes ``classes``, whose first entry is ``"background"`` where the setting has one.
    """

    labels: Int[np.ndarray, "h w"]
    classes: tuple[str, ...]
    scores: Float[np.ndarray, "ch h w"]
    """After refinement: one channel per entry of ``classes``, float32."""
    salience: Float[np.ndarray, "cls gh gw"]
    """Summed class maps before the threshold, >= 0, all classes on one scale, float32."""
    match: float
    """Match logit of the whole photo with the whole prompt."""
    config: Config
    model: str
    revision: str
    version: str
    quality: Float[np.ndarray, " cls"] | None = None
    """How well each class's mask shows its class, in [0, 1], where ``tuning.rate`` was asked."""

    def __post_init__(self) -> None:
        if self.scores.shape != (len(self.classes), *self.labels.shape):
            raise ValueError(
                f"scores have shape {self.scores.shape}; {len(self.classes)} classes and labels of shape "
                f"{self.labels.shape} ask for {(len(self.classes), *self.labels.shape)}"
            )

    @property
    def areas(self) -> dict[str, float]:
        """Share of the photo that each class covers, in [0, 1]; they sum to 1."""
        counts = np.bincount(self.labels.ravel(), minlength=len(self.classes))
        return {name: float(count) / self.labels.size for name, count in zip(self.classes, counts, strict=True)}
