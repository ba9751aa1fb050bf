"""Image-text similarity by a dual encoder: image and text each become a vector, and near ones belong together.

Radford et al.: Learning Transferable Visual Models From Natural Language Supervision, ICML 2021. Any ``CLIPModel``
checkpoint fits.
"""

from collections.abc import Sequence
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize
from transformers import CLIPModel

from pnp_ovss.errors import ModelError
from pnp_ovss.models.hub import Checkpoint, find, read_settings
from pnp_ovss.models.loading import Pretrained

TEXTS_AT_ONCE = 256


class Clip(Pretrained):
    """A CLIP checkpoint. Vectors are of length 1, float32, on ``device``.

    ``prepare`` gives all of a photo, where CLIP's own code cuts the ends off.
    """

    model_class = CLIPModel
    for_any_name = "use clip-base"

    def __init__(self, checkpoint: Checkpoint, device: str, dtype: str) -> None:
        super().__init__(checkpoint, device, dtype)
        self.tokenize(["a", "a b"])  # what cannot be used is found before any photo
        self.scale = float(self._model.logit_scale.detach().float().exp())
        """What the model was trained to multiply similarities by before a softmax."""

    @torch.no_grad()
    def encode_images(self, pixels: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b width"]:
        """Return a vector for each image; ``pixels`` come from ``prepare``."""
        pixels = pixels.to(self.device, self._model.dtype)
        pooled = self._model.vision_model(pixel_values=pixels).pooler_output
        return normalize(self._model.visual_projection(pooled).float(), dim=-1)

    @torch.no_grad()
    def encode_texts(self, texts: Sequence[str]) -> Float[Tensor, "n width"]:
        """Return a vector for each text; what is longer than the model reads is cut off."""
        longest = self._model.config.text_config.max_position_embeddings
        parts = []
        for start in range(0, len(texts), TEXTS_AT_ONCE):
            some = list(texts[start : start + TEXTS_AT_ONCE])
            tokens = self.tokenize(some, truncation=True, max_length=longest)
            ids, mask = tokens["input_ids"].to(self.device), tokens["attention_mask"].to(self.device)
            pooled = self._model.text_model(input_ids=ids, attention_mask=mask).pooler_output
            parts.append(normalize(self._model.text_projection(pooled).float(), dim=-1))
        return torch.cat(parts)


def similarity(images: Float[Tensor, "b width"], texts: Float[Tensor, "n width"]) -> Float[Tensor, "b n"]:
    """Return the cosine of every image with every text, in [-1, 1]."""
    return images @ texts.T


def load_clip(name: str | Path, device: str = "auto", dtype: str = "auto", revision: str | None = None) -> Clip:
    """Return the dual encoder with this short name, hub id or local folder. ``device``, ``dtype``: as in ``load_vlm``.

    Raises: ModelError if it cannot be found, fetched, read or used.
    """
    checkpoint = find(name, revision)
    kind = read_settings(checkpoint.folder / "config.json", checkpoint.name).get("model_type")
    if kind != "clip":
        raise ModelError(f"{name}: expected a CLIP checkpoint such as clip-base, got {kind!r}")
    return Clip(checkpoint, device, dtype)
