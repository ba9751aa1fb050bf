"""ResCLIP: NACLIP, with attention of earlier blocks, and again with attention inside what it has labelled alike.

Source: Yang et al., "ResCLIP: residual attention for training-free dense vision-language inference", CVPR 2025.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import conv1d, interpolate, normalize, pad

from pnp_ovss.errors import ConfigError
from pnp_ovss.methods.dense_clip import neighbourhood
from pnp_ovss.methods.on_clip import (
    ALL_NAMED,
    BY_NAME,
    MINI,
    PAMR_DILATIONS,
    VALUES_AT_ONCE,
    ClipConfig,
    Encoded,
    OnClip,
    Pixels,
    Queries,
    presets,
)
from pnp_ovss.models.base import fused_attention
from pnp_ovss.models.clip import Clip, Tokens
from pnp_ovss.refine.pamr import diffuse
from pnp_ovss.settings import setting

ITERATIONS = 10
"""Of PAMR, before the first labels."""
SPREAD, REACH = 5.0, 15
"""Standard deviation and radius of the blur of a map, in positions."""


@dataclass(frozen=True)
class ResClipConfig(ClipConfig):
    """Settings of ResCLIP; blocks count from 0."""

    sigma: float = setting(5.0, "neighbourhood: standard deviation in patches", 1e-3)
    rcs_start_idx: int = setting(5, "resclip: first of the blocks whose attention is averaged")
    rcs_end_idx: int = setting(9, "resclip: the one after the last of them")
    rcs_scale: float = setting(2.0, "resclip: the last block's attention is multiplied by this")
    rcs_share: float = setting(0.3, "resclip: share of the earlier blocks' attention in it", 0, 1)
    sfr_scale: float = setting(2.1, "resclip: the scores of the second attention are multiplied by this")
    sfr_share: float = setting(0.7, "resclip: share of the map of equal labels in them", 0, 1)
    feedback_threshold: float = setting(0.5, "resclip: less certain first labels are the first word", 0, 1)


class ResClip(OnClip):
    """ResCLIP. ``features`` are those of the first attention; logits come from the second."""

    name, settings = "resclip", ResClipConfig
    direct = False
    presets = presets(
        ResClipConfig(),
        voc21={"crop": 0, "sfr_scale": 2.2},
        context60=BY_NAME | {"feedback_threshold": 0.3, "sfr_scale": 1.8},
        object81={"feedback_threshold": 0.11, "rcs_share": 0.4, "sfr_scale": 1.8},
        voc20=ALL_NAMED | {"crop": 0, "feedback_threshold": 0.1, "rcs_share": 0.6, "sfr_share": 0.6},
        context59=ALL_NAMED | {"feedback_threshold": 0.25, "rcs_share": 0.4, "sfr_scale": 1.8},
        stuff171=ALL_NAMED | {"feedback_threshold": 0.11, "rcs_share": 0.4, "sfr_scale": 1.8},
        cityscapes=ALL_NAMED | {"short_side": 560, "feedback_threshold": 0.1, "rcs_share": 0.2},
        ade150=ALL_NAMED | {"feedback_threshold": 0.25},
        mini=MINI | {"sigma": 1.5, "rcs_start_idx": 1, "rcs_end_idx": 3, "feedback_threshold": 0.0},
    )

    def __init__(self, clip: Clip, config: ResClipConfig) -> None:
        super().__init__(clip, config)
        if not config.rcs_start_idx < config.rcs_end_idx < clip.blocks:
            expected = (
                f"rcs_start_idx below rcs_end_idx, and that up to {clip.blocks - 1}, the last block of {clip.name}"
            )
            raise ConfigError(
                f"expected {expected}, got {config.rcs_start_idx} and {config.rcs_end_idx}; choose others"
            )

    def encode(self, pixels: Pixels) -> Encoded:
        """Return the vectors by the first attention, the last block's keys and values, what earlier ones make of the
        values, and the pixels.
        """
        clip, config, last = self.clip, self.config, self.clip.blocks - 1
        tokens, earlier = clip.run(clip.embed(pixels), 0, config.rcs_start_idx), []
        for index in range(config.rcs_start_idx, last):
            if index < config.rcs_end_idx:
                earlier.append(clip.qkv(index, tokens)[:2])
            tokens = clip.run(tokens, index, index + 1)
        _, keys, values = clip.qkv(last, tokens)
        attended = torch.stack([fused_attention(q, k, values, clip.heads) for q, k in earlier]).mean(0)
        grid = pixels.shape[2] // clip.patch, pixels.shape[3] // clip.patch
        near = neighbourhood(grid, config.sigma).to(keys)
        first = self._vectors(fused_attention(keys, keys, values, clip.heads, near), attended, grid)
        return first, keys, values, attended, pixels

    def compare(self, encoded: Encoded, queries: Queries) -> Float[Tensor, "b query gh gw"]:
        """Return the cosine of each patch with each query, by the second attention."""
        first, pixels = super().compare(encoded, queries), encoded[-1]
        at_once = max(1, VALUES_AT_ONCE // (len(queries) * pixels[0, 0].numel()))
        parts = zip(*(torch.split(part, at_once) for part in (first, *encoded[1:])), strict=True)
        return super().compare((torch.cat([self._again(*part) for part in parts]),), queries)

    def _again(
        self, logits: Float[Tensor, "b query gh gw"], keys: Tokens, values: Tokens, earlier: Tokens, pixels: Pixels
    ) -> Float[Tensor, "b gh gw vector"]:
        """Return the vectors of windows by the second attention, given their logits by the first."""
        config, grid = self.config, (logits.shape[2], logits.shape[3])
        labels = first_labels(logits, pixels, self.clip.patch, config.logit_scale, config.feedback_threshold)
        bias = pad(config.sfr_scale * config.sfr_share * feedback_map(labels), (1, 0, 1, 0))
        bias = (bias + neighbourhood(grid, config.sigma).to(bias))[:, None].to(keys)
        scaled = config.sfr_scale * (1 - config.sfr_share) * keys
        return self._vectors(fused_attention(scaled, keys, values, self.clip.heads, bias), earlier, grid)

    def _vectors(self, attended: Tokens, earlier: Tokens, grid: tuple[int, int]) -> Float[Tensor, "b gh gw vector"]:
        """Return vectors of length 1 from what the last block's attention gives, and that of the earlier blocks."""
        clip, config = self.clip, self.config
        mixed = config.rcs_scale * torch.lerp(attended, earlier, config.rcs_share)
        vectors = clip.project(clip.mix(clip.blocks - 1, mixed)[:, 1:])
        return normalize(vectors, dim=-1).view(len(attended), *grid, -1)


def first_labels(
    logits: Float[Tensor, "b query gh gw"], pixels: Pixels, patch: int, scale: float, least: float
) -> Int[Tensor, "b gh gw"]:
    """Return the query that most pixels of each patch have after PAMR; less than ``least`` certain ones have 0.

    The grid is enlarged to all of the picture, whose last pixels may be in no patch, as in the authors' code.
    """
    b, queries, gh, gw = logits.shape
    wide = interpolate(logits, size=pixels.shape[2:], mode="bilinear")
    certainty, labels = (scale * diffuse(wide, pixels, ITERATIONS, PAMR_DILATIONS)).softmax(1).max(1)
    labels = (labels * (certainty >= least))[:, : gh * patch, : gw * patch]
    cells = labels.reshape(b, gh, patch, gw, patch).transpose(2, 3).reshape(b, gh * gw, -1)
    counts = torch.zeros(b, gh * gw, queries, device=labels.device)
    most: Tensor = counts.scatter_add_(2, cells, torch.ones_like(cells, dtype=counts.dtype)).argmax(2)
    return most.view(b, gh, gw)


def feedback_map(labels: Int[Tensor, "b gh gw"]) -> Float[Tensor, "b position position"]:
    """Return how much two patches belong together by their labels, up to 1 in each window; 0 where these differ.

    The value is exp(-d / longest) where the line from one to the other meets another label, else 1; d is the larger of
    the differences of row and column, ``longest`` the largest d of the grid. As in the authors' code, the line is
    walked in d steps of 1 / longest of its length, so that only the longest are walked to their end. Then the rows are
    blurred over the positions, in reading order, and brought to a sum of 1.
    """
    b, gh, gw = labels.shape
    places = torch.cartesian_prod(*(torch.arange(side, device=labels.device) for side in (gh, gw)))
    ahead = places[None] - places[:, None]
    steps, longest = ahead.abs().amax(-1), max(gh, gw, 2) - 1
    own = labels.reshape(b, -1, 1)
    same = own == own.transpose(1, 2)
    clear = same.clone()
    for step in range(1, longest + 1):
        rows, columns = (places[:, None] + (2 * step * ahead + longest) // (2 * longest)).unbind(-1)  # nearest patch
        clear &= (labels[:, rows, columns] == own) | (steps < step)
    belongs = torch.where(clear, 1.0, torch.exp(-steps / longest)) * same
    reach = min(REACH, len(places) // 2)
    kernel = torch.exp(-(torch.arange(-reach, reach + 1, device=labels.device) ** 2) / (2 * SPREAD**2))
    blurred = conv1d(belongs.flatten(0, 1)[:, None], kernel[None, None], padding=reach).view_as(belongs)
    shares = blurred / blurred.sum(2, keepdim=True)
    return shares / shares.amax((1, 2), keepdim=True)
