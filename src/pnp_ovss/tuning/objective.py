"""The reward of settings on photos: class maps, refined with those settings, as CLIP sees the masks.

One pass of the model gives the class maps of every layer and head; they are kept on disk, and trials refine them. What
Saliency DropOut hides depends on the layer and the head, so the search is over the method without DropOut, as the
authors' own search is.
"""

import hashlib
import json
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from jaxtyping import Float, Int
from safetensors import SafetensorError
from torch import Tensor

from pnp_ovss.files import sweep, write_bytes
from pnp_ovss.images import fingerprint
from pnp_ovss.methods.pnp import Config, PnP
from pnp_ovss.methods.pnp.prompt import make_prompt
from pnp_ovss.methods.pnp.saliency import class_maps
from pnp_ovss.models import VLM
from pnp_ovss.refine import refine
from pnp_ovss.tuning.reward import ClipReward
from pnp_ovss.types import RGB

THRESHOLDS = (0.05, 0.15, 0.25, 0.35, 0.45)
"""Source: PnP-OVSS, 0.05 to 0.5 in steps of 0.1."""
BLURS = (0.01, 0.03, 0.05, 0.07, 0.09, 0.11)
"""Source: PnP-OVSS, 0.01 to 0.11 in steps of 0.02."""
LAYOUT = 2
"""Of the files of class maps: those of another layout count as absent."""

Candidate = dict[str, Any]
"""A value for each of the settings layer, head, threshold and blur. Layers and heads count from 0, not from 1 as in the
tables of the poster."""
Space = dict[str, list[Any]]
"""The values to choose from, for each of these settings."""


def search_space(vlm: VLM, **choices: Sequence[Any]) -> Space:
    """Return the space of the poster: every layer, head, ``THRESHOLDS`` and ``BLURS``, but for the ``choices`` given.

    BLIP-large has 12 layers of 12 heads, BridgeTower 6 of 16.

    Raises: ConfigError if the model lacks a layer or head, or a value is out of bounds.
    """
    whole = {"layer": range(vlm.layers), "head": range(vlm.heads), "threshold": THRESHOLDS, "blur": BLURS}
    space = {name: list(dict.fromkeys(choices.get(name, values))) for name, values in whole.items()}
    for name, values in space.items():
        for value in values:
            PnP(vlm, Config(layer=0, head=0).override({name: value}))
    return space


@dataclass(frozen=True)
class HeadMaps:
    """The class maps of one photo, by layer and head, in half precision."""

    shares: Float[Tensor, "layer head cls gh gw"]
    """Each map over its largest value, in [0, 1], float16."""
    largest: Float[Tensor, "layer head cls"]
    """The largest value of each map, float32: gradients may be far smaller than any half-precision number."""

    @classmethod
    def of(cls, maps: Float[Tensor, "layer head cls gh gw"]) -> "HeadMaps":
        """Return the maps in their compact form."""
        largest = maps.amax((-1, -2))
        shares = maps / torch.where(largest > 0, largest, 1)[..., None, None]
        return cls(shares.half().cpu(), largest.float().cpu())

    def at(self, layer: int, head: int) -> Float[Tensor, "cls gh gw"]:
        """Return the class maps of one layer and head, float32, within 0.05 % of each map's largest value."""
        return self.shares[layer, head].float() * self.largest[layer, head][:, None, None]


class MapCache:
    """The class maps of photos: one pass of the model for each, whatever the number of trials.

    ``folder`` holds a compressed file per photo and list of classes; files that are damaged count as absent. Of
    ``config`` only what decides the maps before DropOut counts.
    """

    def __init__(self, vlm: VLM, config: Config, folder: Path) -> None:
        self.vlm, self.config, self.folder = vlm, config, folder
        sweep(folder, ".")
        self.passes = 0
        """How often the model ran on a photo."""

    def __call__(self, photo: RGB, classes: tuple[str, ...]) -> HeadMaps:
        """Return the maps of a photo: from disk, else by a pass of the model.

        Raises: InputError if the maps cannot be written.
        """
        vlm, config = self.vlm, self.config
        parts = [LAYOUT, vlm.name, vlm.revision, config.size or vlm.size, config.gradient, config.sum_last_name]
        key = hashlib.sha256(json.dumps([*parts, fingerprint(photo), classes]).encode()).hexdigest()
        path = self.folder / key[:2] / f"{key}.safetensors.z"
        side = (config.size or vlm.size) // vlm.patch
        shape = (vlm.layers, vlm.heads, len(classes), side, side)
        with suppress(OSError, zlib.error, SafetensorError, TypeError):
            found = HeadMaps(**safetensors.torch.load(zlib.decompress(path.read_bytes())))
            if found.shares.shape == shape and found.largest.shape == shape[:3]:
                return found
        maps = self._compute(photo, classes)
        write_bytes(path, zlib.compress(safetensors.torch.save(vars(maps))))
        return maps

    def _compute(self, photo: RGB, classes: tuple[str, ...]) -> HeadMaps:
        vlm, config = self.vlm, self.config
        self.passes += 1
        attention = vlm.attend(vlm.prepare(photo, config.size or vlm.size)[None], [make_prompt(classes)])
        places, flags = product(attention.layers, range(vlm.heads)), (config.gradient, config.sum_last_name)
        maps = torch.stack([class_maps(attention, layer, head, *flags)[0] for layer, head in places])
        return HeadMaps.of(maps.reshape(-1, vlm.heads, *maps.shape[1:]))


@dataclass(frozen=True)
class Example:
    """A photo to tune on, read when it is needed, and its classes."""

    key: str
    read: Callable[[], RGB]
    classes: tuple[str, ...]


@dataclass(frozen=True)
class Objective:
    """The reward of candidates on the examples; ``config`` has all settings that a candidate leaves open."""

    maps: MapCache
    reward: ClipReward
    examples: Sequence[Example]
    config: Config

    def __call__(self, candidate: Candidate) -> Iterator[Float[np.ndarray, " cls"]]:
        """Yield the reward of each class's mask, photo by photo, in the order of the examples."""
        for example in self.examples:
            photo, classes = example.read(), example.classes
            first = int(self.config.has_background(len(classes)))
            numbers = np.arange(first, first + len(classes))
            masks = self.labels(photo, classes, candidate) == numbers[:, None, None]
            yield self.reward(photo, masks, classes)

    def labels(self, photo: RGB, classes: tuple[str, ...], candidate: Candidate) -> Int[np.ndarray, "h w"]:
        """Return the label map that the candidate's settings give, without Saliency DropOut."""
        found = self.maps(photo, classes).at(candidate["layer"], candidate["head"])
        labels, _ = refine(found, torch.from_numpy(photo), replace(self.config, **candidate))
        return labels.numpy()
