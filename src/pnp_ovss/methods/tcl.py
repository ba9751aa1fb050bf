"""TCL: masks by a decoder on CLIP, trained with captions; refined by PAMR in each window.

Source: Cha, Mun, Roh, CVPR 2023, arXiv 2212.00785, and its authors' code.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import interpolate, normalize, pad

from pnp_ovss.methods.groups import TRAINED, Trained
from pnp_ovss.methods.on_clip import ALL_NAMED, IMAGENET, ClipConfig, Encoded, Pixels, Queries, presets, read_templates
from pnp_ovss.models.clip import Clip
from pnp_ovss.models.tcl import Masker
from pnp_ovss.refine.pamr import DILATIONS, diffuse
from pnp_ovss.settings import setting
from pnp_ovss.types import Vocabulary

OWN, OFFSET, STEEPNESS = 0.3, 0.25, 10.0
"""Share of CLIP's own map in a mask, the cosine where that is a half, and how steep it is."""


@dataclass(frozen=True)
class TclConfig(ClipConfig):
    """Settings of TCL. The background has the probability ``prob_threshold`` everywhere."""

    masker: str = setting("tcl.pth", "tcl: its released file, or a folder with it as model.safetensors")
    window_pamr: bool = setting(True, "tcl: PAMR over the masks of each window")


class Tcl(Trained):
    """TCL on a CLIP, with the ``masker`` of the settings."""

    name, settings = "tcl", TclConfig
    checkpoint = "clip-base"
    presets = presets(
        TclConfig(prob_threshold=0.4, **TRAINED | {"templates": ("tcl",)}),
        voc21={},
        context60={},
        object81={},
        voc20=ALL_NAMED,
        context59=ALL_NAMED,
        stuff171=ALL_NAMED,
        cityscapes=ALL_NAMED,
        ade150=ALL_NAMED,
    )
    fills = True
    normalisation = IMAGENET

    def __init__(self, clip: Clip, config: TclConfig, masker: Masker) -> None:
        super().__init__(clip, config)
        self.masker = masker
        self.revision = f"{clip.revision}+{masker.revision}"

    @classmethod
    def on(cls, clip: Clip, config: TclConfig, device: str, dtype: str) -> "Tcl":
        """Return the method on a CLIP and on the ``masker`` of the settings."""
        return cls(clip, config, Masker(config.masker, clip.device, clip.dtype))

    def encode(self, pixels: Pixels) -> Encoded:
        """Return vectors of length 1 at four times the grid and CLIP's own on the grid, and the enlarged picture."""
        clip, last = self.clip, self.clip.blocks - 1
        grid = pixels.shape[2] // clip.patch, pixels.shape[3] // clip.patch
        tokens = clip.run(clip.embed(pixels, by_size=True), 0, last)
        decoded = self.masker.decode(tokens.to(clip.dtype), last, grid)
        alone = clip.feed(last, tokens + clip.mix(last, clip.qkv(last, tokens)[2]))
        own = normalize(clip.project(alone[:, 1:]), dim=-1).view(len(pixels), *grid, -1)
        picture = interpolate(pixels.float(), size=decoded.shape[1:3], mode="bilinear", align_corners=True)
        return decoded, own, picture.to(decoded)

    def compare(self, encoded: Encoded, queries: Queries) -> Float[Tensor, "b query h w"]:
        """Return the mask of each query at four times the grid, in [0, 1]."""
        decoded, own, picture = encoded
        masks = self.masker.mask(super().compare((decoded,), queries))
        if self.config.window_pamr:
            masks = diffuse(masks, picture, 10, DILATIONS)
        small = torch.sigmoid((super().compare((own,), queries) - OFFSET) * STEEPNESS)
        return OWN * interpolate(small, size=masks.shape[2:], mode="bilinear") + (1 - OWN) * masks

    def _channels(self, encoded: Encoded, queries: Queries, vocabulary: Vocabulary) -> Float[Tensor, "b ch h w"]:
        scores = self.compare(encoded, queries)
        if not self._has_background(vocabulary):
            return scores
        return pad(scores, (0, 0, 0, 0, 1, 0), value=self.config.prob_threshold)

    def _queries(self, vocabulary: Vocabulary) -> Queries:
        templates = read_templates(self.config.templates)
        queries: Queries = self.clip.encode_words(vocabulary.flat, templates, unit=False)
        return queries
