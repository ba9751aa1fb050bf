"""SC-CLIP: outliers among the patches are healed, and what middle blocks hold alike is brought together.

Source: Bai et al., "Self-calibrated CLIP for training-free open-vocabulary segmentation", arXiv 2411.15869.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import conv2d, normalize

from pnp_ovss.errors import ConfigError
from pnp_ovss.methods.on_clip import ALL_NAMED, BY_NAME, MINI, ClipConfig, Encoded, OnClip, Pixels, presets
from pnp_ovss.models.base import joined, split
from pnp_ovss.models.clip import Clip
from pnp_ovss.settings import setting

Patches = Float[Tensor, "b position width"]
Likeness = Float[Tensor, "b position position"]
SHARPNESS = 3.0
"""Likeness of the middle block, less its mean, is multiplied by it before the softmax."""


@dataclass(frozen=True)
class ScClipConfig(ClipConfig):
    """Settings of SC-CLIP; blocks count from 0."""

    pre_adjust_idx: int = setting(8, "scclip: block whose patches say what is alike before the last block")
    post_adjust_idx: int = setting(3, "scclip: block whose patches say what is alike after it")
    multi_start_idx: int = setting(3, "scclip: first of the blocks that are added up")
    multi_end_idx: int = setting(10, "scclip: the one after the last of them")
    beta: float = setting(0.4, "scclip: likeness below this counts as none")
    res_cls: float = setting(0.3, "scclip: share of [CLS] in every patch")
    n_neighbors: int = setting(30, "scclip: neighbours that an outlier is told by", 1)
    contamination: float = setting(0.05, "scclip: share of the patches that are outliers", 0, 0.5)


class ScClip(OnClip):
    """SC-CLIP."""

    name, settings = "scclip", ScClipConfig
    presets = presets(
        ScClipConfig(prob_threshold=0.15),
        voc21={"logit_scale": 50.0, "area_threshold": 0.1},
        context60=BY_NAME,
        object81={"logit_scale": 55.0, "prob_threshold": 0.35},
        voc20=ALL_NAMED,
        context59=ALL_NAMED,
        stuff171=ALL_NAMED,
        cityscapes=ALL_NAMED | {"short_side": 560},
        ade150=ALL_NAMED,
        mini=MINI | {"pre_adjust_idx": 2, "post_adjust_idx": 1, "multi_start_idx": 1, "multi_end_idx": 3},
    )

    def __init__(self, clip: Clip, config: ScClipConfig) -> None:
        super().__init__(clip, config)
        numbers = config.pre_adjust_idx, config.post_adjust_idx, config.multi_end_idx - 1
        if max(numbers) >= clip.blocks - 1 or config.multi_start_idx >= config.multi_end_idx:
            expected = f"blocks before the last one of {clip.name}, from 0 to {clip.blocks - 2}"
            raise ConfigError(f"expected {expected}, got settings up to {max(numbers)}; choose others")

    def encode(self, pixels: Pixels) -> Encoded:
        """Return vectors of length 1 of the patches of each window."""
        clip, config, last = self.clip, self.config, self.clip.blocks - 1
        grid = pixels.shape[2] // clip.patch, pixels.shape[3] // clip.patch
        states = [clip.embed(pixels)]
        for index in range(last):
            states.append(clip.run(states[-1], index, index + 1))
        tokens, after = states[-1], states[1:]
        outliers = find_outliers(tokens[:, 1:], config.n_neighbors, config.contamination)
        middle = alike(heal(after[config.pre_adjust_idx][:, 1:], outliers, grid))
        late = alike(after[config.post_adjust_idx][:, 1:])
        added = torch.stack(after[config.multi_start_idx : config.multi_end_idx]).sum(0)
        calibrated = together(heal(tokens[:, 1:], outliers, grid), middle, config.beta)
        parts = [
            together(self._attend(patches, middle) + config.res_cls * cls, late, config.beta)
            for patches, cls in ((calibrated, tokens[:, :1]), (added[:, 1:], added[:, :1]))
        ]
        features = clip.project(parts[0] + parts[1])
        return (normalize(features, dim=-1).view(len(pixels), *grid, -1),)

    def _attend(self, patches: Patches, middle: Likeness) -> Patches:
        """Return the last block's attention, half by the likeness of the middle block, half by keys."""
        clip, last = self.clip, self.clip.blocks - 1
        _, keys, values = (split(part, clip.heads) for part in clip.qkv(last, patches))
        centred = SHARPNESS * (middle - middle.mean((1, 2), keepdim=True))
        by_middle = centred.masked_fill(centred < 0, -torch.inf).softmax(-1)[:, None]
        by_keys = (keys @ keys.transpose(2, 3) * keys.shape[-1] ** -0.5).softmax(-1)
        return clip.mix(last, joined(((by_middle + by_keys) / 2).to(values) @ values))


def find_outliers(patches: Patches, neighbours: int, share: float) -> Bool[Tensor, "b position"]:
    """Return the patches with the largest local outlier factors, about ``share`` of each image's."""
    factors = outlier_factors(patches, neighbours)
    return factors > factors.quantile(1 - share, dim=1, keepdim=True)


def outlier_factors(patches: Patches, neighbours: int) -> Float[Tensor, "b position"]:
    """Return by how much each patch is farther from its neighbours than they are from theirs.

    The squared distance to the last of the nearest ``neighbours`` stands for how far a patch is, as in the authors'
    code; a local outlier factor as it is defined would take distances of reach. Computed in double precision.
    """
    distances = torch.cdist(patches.double(), patches.double()).square()
    distances.diagonal(dim1=1, dim2=2).fill_(torch.inf)
    count = max(1, min(neighbours, patches.shape[1] - 1))
    nearest, index = distances.topk(count, largest=False)
    radius = nearest[:, :, -1]
    around = radius.gather(1, index.flatten(1)).view_as(nearest)
    factors: Tensor = (radius[:, :, None] / around).mean(2)
    return factors.nan_to_num(nan=1.0)  # patches that are all the same


def heal(patches: Patches, outliers: Bool[Tensor, "b position"], grid: tuple[int, int]) -> Patches:
    """Return the patches with each outlier as the mean of its sound neighbours, up to 8; itself where it has none."""
    b, positions, width = patches.shape
    sound = (~outliers).view(b, 1, *grid).to(patches)
    ring = torch.ones(1, 1, 3, 3).to(patches)
    ring[:, :, 1, 1] = 0
    maps = patches.transpose(1, 2).reshape(b, width, *grid)
    sums = conv2d(maps * sound, ring.expand(width, -1, -1, -1), padding=1, groups=width)
    counts = conv2d(sound, ring, padding=1)
    means = (sums / counts.clamp(min=1)).flatten(2).transpose(1, 2)
    healed = outliers & (counts.view(b, positions) > 0)
    return torch.where(healed[:, :, None], means, patches)


def alike(patches: Patches) -> Likeness:
    """Return the cosines of all patches of an image with each other."""
    unit = normalize(patches, dim=-1)
    return unit @ unit.transpose(1, 2)


def together(patches: Patches, likeness: Likeness, least: float) -> Patches:
    """Return the mean of the patches weighted by how alike they are; below ``least`` they are not."""
    weights = torch.where(likeness < least, 0, likeness)
    return weights / weights.sum(-1, keepdim=True) @ patches
