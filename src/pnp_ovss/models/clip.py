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

from pnp_ovss.errors import InputError, ModelError
from pnp_ovss.mini import CHECKPOINTS
from pnp_ovss.models import _device, _dtype
from pnp_ovss.models.hub import resolve
from pnp_ovss.models.loading import Preparation, load_model, load_tokenizer, read_json
from pnp_ovss.types import RGB

CLIPS: dict[str, str | Path] = {
    "mini-clip": CHECKPOINTS / "mini-clip",
    "clip-base": "openai/clip-vit-base-patch16",
    "clip-large": "openai/clip-vit-large-patch14",
}
"""Short names: a folder, or a hub id."""
TEXTS_AT_ONCE = 256


class Clip:
    """A CLIP checkpoint. Vectors are of length 1, float32, on ``device``."""

    def __init__(self, folder: Path, name: str, revision: str, device: torch.device, dtype: torch.dtype) -> None:
        self.name, self.revision, self.device = name, revision, device
        self._model = load_model(CLIPModel, folder, name, dtype).to(device)
        self._tokenizer = load_tokenizer(folder, name)
        self._preparation = Preparation.from_folder(folder)
        config = self._model.config
        self.size: int = config.vision_config.image_size
        self.scale = float(self._model.logit_scale.detach().float().exp())
        """What the model was trained to multiply similarities by before a softmax."""
        known = getattr(config, "known_classes", None)
        self.known: tuple[str, ...] | None = tuple(known) if known else None

    def prepare(self, image: RGB) -> Float[Tensor, "3 size size"]:
        """Return the photo normalised and squeezed to a square: all of it, where CLIP's own code cuts the ends off."""
        return self._preparation(image, self.size)

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
            tokens = self._tokenizer(some, padding=True, truncation=True, max_length=longest, return_tensors="pt")
            ids, mask = tokens["input_ids"].to(self.device), tokens["attention_mask"].to(self.device)
            pooled = self._model.text_model(input_ids=ids, attention_mask=mask).pooler_output
            parts.append(normalize(self._model.text_projection(pooled).float(), dim=-1))
        return torch.cat(parts)

    def check_known(self, names: Sequence[str]) -> None:
        """Raise InputError for the first name that the model cannot know, where these are few."""
        for name in names:
            if self.known is not None and name.casefold() not in self.known:
                raise InputError(
                    f"{self.name} cannot know {name!r}; it knows {', '.join(self.known)}. "
                    "For photos and any other name use clip-base"
                )


def similarity(images: Float[Tensor, "b width"], texts: Float[Tensor, "n width"]) -> Float[Tensor, "b n"]:
    """Return the cosine of every image with every text, in [-1, 1]."""
    return images @ texts.T


def load_clip(name: str | Path, device: str = "auto", dtype: str = "auto", revision: str | None = None) -> Clip:
    """Return the dual encoder with this short name, hub id or local folder. ``device``, ``dtype``: as in ``load_vlm``.

    Raises: ModelError if it cannot be found, fetched, read or used.
    """
    known = f"the dual encoders with a short name are {', '.join(CLIPS)}"
    checkpoint = resolve(CLIPS.get(str(name), name), str(name), revision, known)
    kind = read_json(checkpoint.folder / "config.json", str(name)).get("model_type")
    if kind != "clip":
        raise ModelError(
            f"{name}: its config.json is of kind {str(kind)[:40]!r}; a CLIP checkpoint, as clip-base is, is wanted"
        )
    target = _device(device)
    return Clip(checkpoint.folder, checkpoint.name, checkpoint.revision, target, _dtype(dtype, target))
