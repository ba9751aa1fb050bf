"""What the search may choose from."""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from itertools import product

from pnp_ovss.config import Config
from pnp_ovss.errors import ConfigError
from pnp_ovss.models import VLM

__all__ = ["BLURS", "THRESHOLDS", "Candidate", "Space"]

THRESHOLDS = (0.05, 0.15, 0.25, 0.35, 0.45)
"""Source: PnP-OVSS, 0.05 to 0.5 in steps of 0.1."""
BLURS = (0.01, 0.03, 0.05, 0.07, 0.09, 0.11)
"""Source: PnP-OVSS, 0.01 to 0.11 in steps of 0.02."""


@dataclass(frozen=True)
class Candidate:
    """One choice of settings. Layer and head are 0-based, as everywhere here; the poster's tables count from 1."""

    layer: int
    head: int
    threshold: float
    blur: float

    def settings(self, config: Config) -> Config:
        """Return the settings with this choice in place of theirs."""
        return replace(config, **vars(self))


@dataclass(frozen=True)
class Space:
    """Values to choose from, each setting by itself: a candidate is one of each."""

    layers: tuple[int, ...]
    heads: tuple[int, ...]
    thresholds: tuple[float, ...] = THRESHOLDS
    blurs: tuple[float, ...] = BLURS

    @classmethod
    def of(
        cls,
        vlm: VLM,
        layers: Sequence[int] | None = None,
        heads: Sequence[int] | None = None,
        thresholds: Sequence[float] = THRESHOLDS,
        blurs: Sequence[float] = BLURS,
    ) -> "Space":
        """Return the poster's space: every layer and head of the model, unless some are named.

        BLIP-large has 12 x 12, BridgeTower 6 x 16.

        Raises: ConfigError if the model lacks a layer or head, or a setting has no value to choose from.
        """
        space = cls(
            tuple(range(vlm.layers) if layers is None else dict.fromkeys(layers)),
            tuple(range(vlm.heads) if heads is None else dict.fromkeys(heads)),
            tuple(dict.fromkeys(thresholds)),
            tuple(dict.fromkeys(blurs)),
        )
        for name, values, count in (("layer", space.layers, vlm.layers), ("head", space.heads, vlm.heads)):
            for value in values:
                if not 0 <= value < count:
                    raise ConfigError(f"{name} is {value}; {vlm.name} has {name}s 0 to {count - 1}")
        for setting in fields(space):
            if not getattr(space, setting.name):
                raise ConfigError(f"{setting.name} has no value; one to choose from is wanted")
        for candidate in space.candidates():
            candidate.settings(Config())
        return space

    def candidates(self) -> list[Candidate]:
        """Return every candidate: blur changes first, then threshold, head and layer."""
        return [Candidate(*chosen) for chosen in product(self.layers, self.heads, self.thresholds, self.blurs)]
