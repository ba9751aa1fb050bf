"""CLIPpy: patches that were trained with captions, compared with words.

Source: Ranasinghe et al., "Perceptual grouping in contrastive vision-language models", ICCV 2023, as its first author's
release runs it, but for the windows, which are ours: the release scores the centre of a photo alone.
"""

from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from pnp_ovss.data.vocabulary import class_names
from pnp_ovss.methods.on_clip import ClipConfig, Encoded, OnClip, Pixels, eight_bit, presets
from pnp_ovss.methods.resize import fitted
from pnp_ovss.models.clippy import load_clippy
from pnp_ovss.types import BACKGROUND, RGB

PUBLISHED = ClipConfig(
    templates=("a photo of a {}",),
    short_side=224,
    crop=224,
    background_words=(BACKGROUND, *class_names("context")),
    prob_threshold=0.0,
)


class ClippyMethod(OnClip):
    """CLIPpy. The background is whatever looks most like a class of Pascal Context that is not asked for."""

    clip: Any
    name, settings = "clippy", ClipConfig
    checkpoint, mini, loader = "clippy", None, staticmethod(load_clippy)
    presets = presets(PUBLISHED, voc21={})

    def encode(self, pixels: Pixels) -> Encoded:
        """Return vectors of length 1 of the patches of each window."""
        return (self.clip.encode_patches(pixels),)

    def prepare(self, image: RGB) -> Float[Tensor, "3 _ _"]:
        """Return the photo as the windows are cut from: resized bicubically and normalised."""
        h, w = fitted(image.shape[:2], self.config.short_side, self.config.long_side, self.clip.patch)
        mean, std = np.array(eight_bit(self.clip), np.float32)
        small = np.asarray(Image.fromarray(image).resize((w, h), Image.Resampling.BICUBIC), np.float32)
        return torch.from_numpy((small - mean) / std).to(self.device).permute(2, 0, 1)
