"""ProxyCLIP: CLIP's values, attended to as DINO's patches are alike.

Source: Lan et al., "ProxyCLIP: proxy attention improves CLIP for open-vocabulary segmentation", ECCV 2024.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import interpolate, normalize

from pnp_ovss.methods.on_clip import ALL_NAMED, BY_NAME, MINI, ClipConfig, Encoded, OnClip, Pixels, presets
from pnp_ovss.models.clip import Clip
from pnp_ovss.models.dino import Dino, load_dino
from pnp_ovss.settings import setting


@dataclass(frozen=True)
class ProxyClipConfig(ClipConfig):
    """Settings of ProxyCLIP."""

    proxy: str = setting("dino-base", "proxyclip: DINO's short name, hub id or local folder")
    beta: float = setting(1.2, "proxyclip: likeness counts above so many times its mean; scclip: above this")
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

    name, settings = "proxyclip", ProxyClipConfig
    presets = presets(
        PUBLISHED,
        voc21={},
        context60=BY_NAME | {"prob_threshold": 0.15},
        object81={"prob_threshold": 0.25},
        voc20=ALL_NAMED,
        context59=ALL_NAMED,
        stuff171=ALL_NAMED,
        cityscapes=ALL_NAMED | {"short_side": 448, "crop": 224},
        ade150=ALL_NAMED | {"short_side": 448},
        mini=MINI,
    )
    fills = True
    multiple = 56

    def __init__(self, clip: Clip, config: ProxyClipConfig, dino: Dino) -> None:
        super().__init__(clip, config)
        self.dino, self.cell = dino, dino.patch
        self.revision = f"{clip.revision}+{dino.revision}"

    @classmethod
    def on(cls, clip: Clip, config: ProxyClipConfig, device: str, dtype: str) -> "ProxyClip":
        """Return the method on a CLIP and on the ``proxy`` of the settings."""
        return cls(clip, config, load_dino(config.proxy, device, dtype))

    @classmethod
    def resolve_config(
        cls, model: str | Path, preset: str | Path, revision: str | None, **settings: Any
    ) -> ProxyClipConfig:
        """Return the settings, as every method on CLIP does; ``proxy`` may be a path."""
        proxy = {"proxy": str(settings["proxy"])} if isinstance(settings.get("proxy"), Path) else {}
        config: ProxyClipConfig = super().resolve_config(model, preset, revision, **settings | proxy)
        return config

    def encode(self, pixels: Pixels) -> Encoded:
        """Return vectors of length 1 on DINO's grid."""
        clip, config, last = self.clip, self.config, self.clip.blocks - 1
        proxies = self.dino.encode_patches(self._renormalised(pixels))
        grid = proxies.shape[1:3]
        tokens = clip.run(clip.embed(pixels), 0, last)
        values = clip.qkv(last, tokens)[2][:, 1:].transpose(1, 2)
        values = values.view(*values.shape[:2], pixels.shape[2] // clip.patch, pixels.shape[3] // clip.patch)
        values = interpolate(values, size=grid, mode="bilinear").flatten(2).transpose(1, 2)
        attention = proxy_attention(proxies.flatten(1, 2), config.beta, config.gamma).to(values)
        features = clip.project(clip.mix(last, attention @ values))
        return (normalize(features, dim=-1).view(len(pixels), *grid, -1),)

    def _renormalised(self, pixels: Pixels) -> Pixels:
        """Return the pixels as DINO reads them."""
        both = [self.clip.mean, self.clip.std, self.dino.mean, self.dino.std]
        mean, std, own_mean, own_std = torch.tensor(both, device=pixels.device)[:, :, None, None]
        renormalised: Tensor = (pixels * std + mean - own_mean) / own_std
        return renormalised
