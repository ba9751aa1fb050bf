"""CLIPpy: patches that were trained with captions, compared with words.

Source: Ranasinghe et al., "Perceptual grouping in contrastive vision-language models", ICCV 2023, as its first author's
release runs it, but for the windows, which are ours: the release scores the centre of a photo alone.
"""

from typing import Any

from PIL import Image

from pnp_ovss.data.vocabulary import class_names
from pnp_ovss.methods.on_clip import ClipConfig, Encoded, OnClip, Pixels, presets
from pnp_ovss.models.clippy import load_clippy
from pnp_ovss.types import BACKGROUND

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
    resampling = Image.Resampling.BICUBIC

    def encode(self, pixels: Pixels) -> Encoded:
        """Return vectors of length 1 of the patches of each window."""
        return (self.clip.encode_patches(pixels),)
