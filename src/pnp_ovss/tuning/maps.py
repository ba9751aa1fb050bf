"""Class maps of every layer and head from one look at a photo, kept on disk: trials refine them, and look no more.

What Saliency DropOut hides depends on the layer and the head, so one look gives the first pass alone. The search is
therefore over the method without DropOut, as the authors' own search is.
"""

import hashlib
import io
import json
import logging
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Float16, Float32
from torch import Tensor

from pnp_ovss.config import Config
from pnp_ovss.errors import InputError
from pnp_ovss.images import fingerprint
from pnp_ovss.methods.pnp.prompt import make_prompt
from pnp_ovss.methods.pnp.saliency import class_maps
from pnp_ovss.models import VLM
from pnp_ovss.store import write_bytes
from pnp_ovss.types import RGB

__all__ = ["HeadMaps", "MapCache"]

logger = logging.getLogger(__name__)

LAYOUT = 1
"""Of the files: those of another layout count as absent."""


@dataclass(frozen=True)
class HeadMaps:
    """The class maps of one photo, by layer and head."""

    shares: Float16[np.ndarray, "layer head cls gh gw"]
    """Each map over its largest value, in [0, 1]."""
    largest: Float32[np.ndarray, "layer head cls"]
    """What each map was divided by. Gradients may be far smaller than any half-precision number."""

    @classmethod
    def of(cls, maps: Float[Tensor, "layer head cls gh gw"]) -> "HeadMaps":
        """Return the maps in their compact form."""
        largest = maps.amax((-1, -2))
        shares = maps / torch.where(largest > 0, largest, 1)[..., None, None]
        return cls(shares.half().cpu().numpy(), largest.float().cpu().numpy())

    def at(self, layer: int, head: int) -> Float[Tensor, "cls gh gw"]:
        """Return the class maps of one layer and head, float32, within 0.05 % of each map's largest value."""
        scale = torch.from_numpy(self.largest[layer, head].copy())[:, None, None]
        return torch.from_numpy(self.shares[layer, head].astype(np.float32)) * scale


class MapCache:
    """The class maps of photos, each looked at once, whatever the number of trials.

    ``folder`` holds a compressed file per photo and list of classes; files that are damaged count as absent. What the
    disk does not take stays in memory, and is told once. Of ``config`` count what decides the maps before DropOut.
    """

    def __init__(self, vlm: VLM, config: Config, folder: Path) -> None:
        self.vlm, self.config, self.folder = vlm, config, folder
        self.looks = 0
        """How often the model looked at a photo."""
        self._made_with = [LAYOUT, vlm.name, vlm.revision, config.size or vlm.size]
        self._made_with += [config.gradient, config.sum_last_name]
        self._homeless: dict[Path, HeadMaps] = {}

    def __call__(self, photo: RGB, classes: tuple[str, ...]) -> HeadMaps:
        """Return the maps of a photo: from memory or disk, else by a look at it."""
        place = self._place(photo, classes)
        if place in self._homeless:
            return self._homeless[place]
        maps = _read(place)
        if maps is None:
            maps = self._look(photo, classes)
            try:
                write_bytes(place, _packed(maps))
            except InputError as error:
                if not self._homeless:
                    logger.warning("%s; what is not kept there is kept in memory", error)
                self._homeless[place] = maps
        return maps

    def _look(self, photo: RGB, classes: tuple[str, ...]) -> HeadMaps:
        vlm, config = self.vlm, self.config
        self.looks += 1
        pixels = vlm.prepare(photo, config.size or vlm.size)[None]
        attention = vlm.attend(pixels, [make_prompt(classes)])
        return HeadMaps.of(
            torch.stack(
                [
                    torch.stack(
                        [
                            class_maps(attention, layer, head, config.gradient, config.sum_last_name)[0]
                            for head in range(vlm.heads)
                        ]
                    )
                    for layer in attention.layers
                ]
            )
        )

    def _place(self, photo: RGB, classes: tuple[str, ...]) -> Path:
        told = json.dumps([*self._made_with, fingerprint(photo), classes])
        key = hashlib.sha256(told.encode()).hexdigest()
        return self.folder / key[:2] / f"{key}.npz"


def _packed(maps: HeadMaps) -> bytes:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, shares=maps.shares, largest=maps.largest)
    return buffer.getvalue()


def _read(place: Path) -> HeadMaps | None:
    try:
        with np.load(io.BytesIO(place.read_bytes()), allow_pickle=False) as file:
            shares, largest = file["shares"], file["largest"]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None
    fits = shares.dtype == np.float16 and largest.dtype == np.float32 and shares.shape[:-2] == largest.shape
    return HeadMaps(shares, largest) if fits and shares.ndim == 5 else None
