"""Dense CLIP: what the last block's attention is replaced by. Plain CLIP, MaskCLIP, SCLIP, ClearCLIP, NACLIP.

q, k, v are the queries, keys and values of the last block, ``s = head_width ** -0.5``; ``[CLS]`` takes part and is
dropped at the end.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize, pad

from pnp_ovss.methods.on_clip import (
    ALL_NAMED,
    BY_NAME,
    IMAGENET,
    MINI,
    ClipConfig,
    Encoded,
    OnClip,
    Pixels,
    Queries,
    presets,
)
from pnp_ovss.models.base import fused_attention
from pnp_ovss.models.clip import Clip, Tokens
from pnp_ovss.settings import setting

Grid = tuple[int, int]
Attend = Callable[[Tokens, Tokens, Tokens, int, Grid, Any], Tokens]
"""(q, k, v, heads, grid, settings) -> what the attention of the last block gives, before its output layer."""


@dataclass(frozen=True)
class DenseConfig(ClipConfig):
    """Settings of plain CLIP."""

    residual: bool = setting(True, "last block: keep the residual connection and the feed-forward layers")

    @property
    def bfloat16_on_cpu(self) -> bool:
        """Whether the residual connection is kept: without it patches differ by little, and rounding outweighs that."""
        return self.residual


@dataclass(frozen=True)
class MaskClipConfig(DenseConfig):
    """Settings of MaskCLIP."""

    key_smoothing: float = setting(0.0, "positions below this certainty become a mixture by likeness of keys", 0, 1)
    prompt_denoising: float = setting(0.0, "words that are nowhere more certain than this are ruled out", 0, 1)
    gelu: bool = setting(False, "maskclip: GELU in the image tower, as its authors ran OpenAI's weights, not QuickGELU")


@dataclass(frozen=True)
class NaclipConfig(DenseConfig):
    """Settings of NACLIP."""

    sigma: float = setting(5.0, "neighbourhood: standard deviation in patches", 1e-3)


def vanilla(q: Tokens, k: Tokens, v: Tokens, heads: int, grid: Grid, config: Any) -> Tokens:
    """softmax(q k^T s) v: CLIP as it is."""
    return fused_attention(q, k, v, heads)


def maskclip(q: Tokens, k: Tokens, v: Tokens, heads: int, grid: Grid, config: Any) -> Tokens:
    """v: every token attends to itself alone."""
    return v


def sclip(q: Tokens, k: Tokens, v: Tokens, heads: int, grid: Grid, config: Any) -> Tokens:
    """(softmax(q q^T s) + softmax(k k^T s)) v: rows sum to 2."""
    return fused_attention(q, q, v, heads) + fused_attention(k, k, v, heads)


def clearclip(q: Tokens, k: Tokens, v: Tokens, heads: int, grid: Grid, config: Any) -> Tokens:
    """softmax(q q^T s) v."""
    return fused_attention(q, q, v, heads)


def naclip(q: Tokens, k: Tokens, v: Tokens, heads: int, grid: Grid, config: NaclipConfig) -> Tokens:
    """softmax(k k^T s + neighbourhood) v."""
    return fused_attention(k, k, v, heads, neighbourhood(grid, config.sigma).to(k))


ATTENTION: dict[str, Attend] = {
    "clip": vanilla,
    "maskclip": maskclip,
    "sclip": sclip,
    "clearclip": clearclip,
    "naclip": naclip,
}
"""The attention of the last block by method."""


def neighbourhood(grid: Grid, sigma: float) -> Float[Tensor, "token token"]:
    """Return exp(-d^2 / (2 sigma^2)) for patches at a distance of d, and 0 for ``[CLS]``."""
    gh, gw = grid
    places = torch.cartesian_prod(torch.arange(gh), torch.arange(gw)).float()
    squares = (places[:, None] - places[None]).square().sum(-1)
    return pad(torch.exp(-squares / (2 * sigma**2)), (1, 0, 1, 0))


class DenseClip(OnClip):
    """CLIP with the attention of ``ATTENTION`` in its last block."""

    by_size: ClassVar[bool] = False
    """How position embeddings are interpolated: see ``models.clip.positions``."""

    def encode(self, pixels: Pixels) -> Encoded:
        """Return vectors of length 1 of the patches of each window."""
        return (self._last(pixels)[0],)

    def _last(self, pixels: Pixels) -> tuple[Float[Tensor, "b gh gw vector"], Tokens]:
        """Return what ``encode`` does, and the keys of the last block."""
        clip, config, last = self.clip, self.config, self.clip.blocks - 1
        grid = pixels.shape[2] // clip.patch, pixels.shape[3] // clip.patch
        tokens = clip.run(clip.embed(pixels, self.by_size), 0, last)
        q, k, v = clip.qkv(last, tokens)
        attended = clip.mix(last, ATTENTION[self.name](q, k, v, clip.heads, grid, config))
        if config.residual:
            attended = clip.feed(last, tokens + attended)
        return normalize(clip.project(attended[:, 1:]), dim=-1).view(len(pixels), *grid, -1), k


SCLIP = DenseConfig(logit_scale=65.0, area_threshold=0.1)
SCLIP_PRESETS = presets(
    SCLIP,
    voc21={},
    context60=BY_NAME | {"logit_scale": 50.0, "area_threshold": 0.0},
    object81={"logit_scale": 50.0, "area_threshold": 0.0},
    voc20=ALL_NAMED | {"logit_scale": 40.0},
    context59=ALL_NAMED | {"logit_scale": 40.0},
    stuff171=ALL_NAMED | {"logit_scale": 40.0, "short_side": 448},
    cityscapes=ALL_NAMED | {"logit_scale": 40.0, "short_side": 560},
    ade150=ALL_NAMED | {"logit_scale": 40.0},
    mini=MINI,
)
MASKCLIP_PRESETS = presets(
    MaskClipConfig(templates=("maskclip",), short_side=512, crop=0, logit_scale=100.0, prob_threshold=0.0),
    voc21={},
    voc20=ALL_NAMED,
    context59=ALL_NAMED | {"short_side": 520, "long_side": 520},
    stuff171=ALL_NAMED,
    cityscapes=ALL_NAMED | {"long_side": 1024},
    mini=MINI,
)
CLEARCLIP_PRESETS = presets(
    DenseConfig(residual=False, short_side=448, crop=448, stride=224, logit_scale=50.0, prob_threshold=0.5, **BY_NAME),
    voc21={},
    context60={"prob_threshold": 0.15},
    object81={"prob_threshold": 0.4},
    voc20=ALL_NAMED,
    context59=ALL_NAMED,
    stuff171=ALL_NAMED,
    cityscapes=ALL_NAMED | {"crop": 224},
    ade150=ALL_NAMED,
    mini=MINI,
)
NACLIP_PRESETS = presets(
    NaclipConfig(residual=False, refiners=("pamr",)),
    voc21={"crop": 0},
    context60=BY_NAME,
    object81={},
    voc20=ALL_NAMED | {"crop": 0},
    context59=ALL_NAMED,
    stuff171=ALL_NAMED,
    cityscapes=ALL_NAMED | {"short_side": 560},
    ade150=ALL_NAMED,
    mini=MINI | {"sigma": 1.5},
)


class PlainClip(DenseClip):
    """CLIP as it is: the vectors of its patches, which were trained for none; with SCLIP's settings."""

    name, settings, presets = "clip", DenseConfig, SCLIP_PRESETS


class MaskClip(DenseClip):
    """MaskCLIP. Source: Zhou, Loy, Dai, "Extract free dense labels from CLIP", ECCV 2022."""

    name, settings, presets = "maskclip", MaskClipConfig, MASKCLIP_PRESETS
    by_size, direct = True, False
    normalisation = IMAGENET

    @classmethod
    def on(cls, clip: Clip, config: Any, device: str, dtype: str) -> "MaskClip":
        """Return the method on a CLIP, whose image tower computes as the settings say."""
        if config.gelu:
            clip.take_gelu(THEIR_EPSILON)
        return cls(clip, config)

    def encode(self, pixels: Pixels) -> Encoded:
        """Return vectors of length 1 of the patches of each window, and their keys, normalised over the positions."""
        patch = self.clip.patch
        filled = pad(pixels, (0, -pixels.shape[3] % patch, 0, -pixels.shape[2] % patch))
        features, keys = self._last(filled)
        return features, normalize(self.clip.mix(self.clip.blocks - 1, keys)[:, 1:].float(), dim=1)

    def compare(self, encoded: Encoded, queries: Queries) -> Float[Tensor, "b query gh gw"]:
        """Return the cosine of each patch with each query, denoised and smoothed as the settings say."""
        logits, config = super().compare(encoded, queries), self.config
        logits = denoise_prompts(logits, config.prompt_denoising)
        return smooth_by_keys(logits, encoded[1], config.key_smoothing)


class Sclip(DenseClip):
    """SCLIP. Source: Wang, Mei, Yuille, "SCLIP: rethinking self-attention", ECCV 2024."""

    name, settings, presets = "sclip", DenseConfig, SCLIP_PRESETS


class ClearClip(DenseClip):
    """ClearCLIP. Source: Lan et al., "ClearCLIP: decomposing CLIP representations", ECCV 2024."""

    name, settings, presets = "clearclip", DenseConfig, CLEARCLIP_PRESETS
    fills = True


class Naclip(DenseClip):
    """NACLIP. Source: Hajimiri, Ben Ayed, Dolz, "Pay attention to your neighbours", WACV 2025."""

    name, settings, presets = "naclip", NaclipConfig, NACLIP_PRESETS
    direct = False


THEIR_EPSILON = 1e-6
"""Of the LayerNorms in MaskCLIP's configurations, which have GELU as well."""
CERTAINTY = 100.0
"""MaskCLIP's certainties are the softmax of so many times the cosines."""


def denoise_prompts(logits: Float[Tensor, "b query gh gw"], least: float) -> Float[Tensor, "b query gh gw"]:
    """Return the logits with -100 for queries that are nowhere at least ``least`` certain."""
    if not least:
        return logits
    largest = (CERTAINTY * logits).softmax(1).amax((2, 3), keepdim=True)
    return torch.where(largest < least, -100.0, logits)


def smooth_by_keys(
    logits: Float[Tensor, "b query gh gw"], keys: Float[Tensor, "b position width"], least: float
) -> Float[Tensor, "b query gh gw"]:
    """Return certainties, those of positions below ``least`` mixed from all positions by the likeness of their keys."""
    if not least:
        return logits
    certainty = (CERTAINTY * logits).softmax(1).flatten(2)
    mixed = torch.einsum("bij,bqj->bqi", keys @ keys.transpose(1, 2), certainty)
    smoothed = torch.where(certainty.amax(1, keepdim=True) < least, mixed, certainty)
    return smoothed.view_as(logits)
