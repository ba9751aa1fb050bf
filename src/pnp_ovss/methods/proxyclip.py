"""ProxyCLIP: CLIP's values, attended to as DINO's patches are alike.

Source: Lan et al., "ProxyCLIP: proxy attention improves CLIP for open-vocabulary segmentation", ECCV 2024.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import interpolate, normalize

from pnp_ovss.methods.on_clip import (
    ALL_NAMED,
    BY_NAME,
    MINI,
    ClipConfig,
    Encoded,
    OnClip,
    Pixels,
    presets,
    surroundings,
)
from pnp_ovss.models.clip import Clip, Tokens
from pnp_ovss.models.dino import load_dino
from pnp_ovss.settings import setting


def by_benchmark(name: str) -> dict[str, dict[str, Any]]:
    """Return what ProxyCLIP or CorrCLIP changes for each benchmark."""
    return {
        "voc21": {},
        "context60": BY_NAME | {"prob_threshold": 0.15},
        "object81": {"prob_threshold": 0.25, "background_words": surroundings(name, "coco-object")},
        "voc20": ALL_NAMED,
        "context59": ALL_NAMED,
        "stuff171": ALL_NAMED,
        "cityscapes": ALL_NAMED | {"short_side": 448, "crop": 224},
        "ade150": ALL_NAMED | {"short_side": 448},
    }


@dataclass(frozen=True)
class ProxyConfig(ClipConfig):
    """Settings of a method on CLIP and DINO."""

    proxy: str = setting("dino-base", "DINO's short name, hub id or local folder (corrclip: or clip, CLIP itself)")


@dataclass(frozen=True)
class ProxyClipConfig(ProxyConfig):
    """Settings of ProxyCLIP."""

    beta: float = setting(
        1.2, "likeness counts above (proxyclip: its mean times) this; corrclip: weight of region [CLS]s"
    )
    gamma: float = setting(3.0, "proxyclip: what is above is multiplied by this")


PUBLISHED = ProxyClipConfig(crop=336, stride=112, prob_threshold=0.2)


def proxy_attention(
    features: Float[Tensor, "b position width"], beta: float, gamma: float
) -> Float[Tensor, "b position position"]:
    """Return softmax(gamma (S - beta mean(S))) without what is below 0; S is how alike the features are.

    The mean is over the positions of one window, where the authors' code takes the whole batch. A position that is like
    no other, as where all look the same, keeps to itself, where their code has no number.
    """
    unit = normalize(features, dim=-1)
    likeness = unit @ unit.transpose(1, 2)
    likeness = (likeness - beta * likeness.mean((1, 2), keepdim=True)) * gamma
    apart = likeness < 0
    alone = apart.all(-1, keepdim=True) & torch.eye(apart.shape[-1], dtype=torch.bool, device=apart.device)
    return likeness.masked_fill_(apart & ~alone, -torch.inf).softmax(-1)


class ProxyClip(OnClip):
    """ProxyCLIP. The grid is DINO's."""

    name: str = "proxyclip"
    settings: type[ProxyConfig] = ProxyClipConfig
    presets = presets(
        PUBLISHED,
        **by_benchmark("proxyclip"),
        mini=MINI,
    )
    fills = True
    multiple = 56

    def __init__(self, clip: Clip, config: ProxyConfig, proxy: Any) -> None:
        super().__init__(clip, config)
        self.proxy, self.cell = proxy, proxy.patch
        self.revision = f"{clip.revision}+{proxy.revision}"

    @classmethod
    def on(cls, clip: Clip, config: Any, device: str, dtype: str) -> "ProxyClip":
        """Return the method on a CLIP and on the ``proxy`` of the settings."""
        return cls(clip, config, load_dino(config.proxy, device, dtype))

    def encode(self, pixels: Pixels) -> Encoded:
        """Return vectors of length 1 on DINO's grid."""
        clip, config = self.clip, self.config
        proxies = self.proxy.encode_patches(self._renormalised(pixels))
        grid, coarse = proxies.shape[1:3], (pixels.shape[2] // clip.patch, pixels.shape[3] // clip.patch)
        tokens = clip.run(clip.embed(pixels), 0, clip.blocks - 1)
        attention = proxy_attention(proxies.flatten(1, 2), config.beta, config.gamma)
        features = self._attended(tokens, attention, coarse, grid)
        return (normalize(features, dim=-1).view(len(pixels), *grid, -1),)

    def _attended(
        self,
        tokens: Tokens,
        attention: Float[Tensor, "b position position"],
        coarse: Sequence[int],
        grid: Sequence[int],
    ) -> Float[Tensor, "b position vector"]:
        """Return vectors on DINO's grid: the last block's values of CLIP's patches there, attended to and projected."""
        clip, last = self.clip, self.clip.blocks - 1
        values = clip.qkv(last, tokens)[2][:, 1:].transpose(1, 2)
        values = interpolate(values.view(*values.shape[:2], *coarse), size=tuple(grid), mode="bilinear")
        return clip.project(clip.mix(last, attention.to(values) @ values.flatten(2).transpose(1, 2)))

    def _renormalised(self, pixels: Pixels) -> Pixels:
        """Return the pixels as DINO reads them."""
        both = [self.clip.mean, self.clip.std, self.proxy.mean, self.proxy.std]
        mean, std, own_mean, own_std = torch.tensor(both, device=pixels.device)[:, :, None, None]
        renormalised: Tensor = (pixels * std + mean - own_mean) / own_std
        return renormalised
