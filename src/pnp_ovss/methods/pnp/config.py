"""Every setting of PnP-OVSS, in one frozen value, and the published ones as presets."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pnp_ovss.errors import ConfigError
from pnp_ovss.refine import RefinementSettings
from pnp_ovss.settings import MOST_STEPS, setting

FEW = 3


@dataclass(frozen=True)
class Config(RefinementSettings):  # type: ignore[misc]  # its base is made from the table of refiners
    """Settings of the method, in the order in which it uses them, and of the refiners.

    Defaults: the authors' released code with BLIP.
    """

    size: int | None = setting(None, "side of the square the model sees, in pixels; none: the model's own", 1, 4096)
    layer: int = setting(7, "cross-attention layer, 0-based")
    head: int = setting(9, "attention head of that layer, 0-based")
    gradient: bool = setting(True, "weigh the attention by the positive gradient of the match logit (GradCAM)")
    sum_last_name: bool = setting(True, "sum the last name's tokens instead of averaging, as the released code does")
    passes: int = setting(4, "passes of Saliency DropOut, the first one over the whole photo", 1, MOST_STEPS)
    drop: int | float = setting(10, "patches hidden after each pass: 10 is a count, 0.5 a share of the visible ones")
    drop_tokens: bool = setting(False, "leave hidden patches out of the image tower: faster, other class maps")
    count_first_twice: bool = setting(True, "add the first pass's map twice, as the released code does")
    threshold: float = setting(0.15, "a class map counts where its min-max over the grid reaches this, in [0, 1]", 0, 1)
    background: Literal["always", "never", "few"] = setting("always", "few: only where fewer than 3 classes are named")

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.drop, float) and not 0 < self.drop < 1:
            expected = "a count of patches (10) or a share between 0 and 1 (0.5)"
            raise ConfigError(f"expected drop to be {expected}, got {self.drop:g}")

    @classmethod
    def from_preset(cls, preset: str | Path, **overrides: Any) -> "Config":
        """Return the settings of a preset, or of a JSON file that ``to_json`` wrote, with ``overrides`` on top.

        Raises: ConfigError if there is no such preset or setting.
        """
        if str(preset) in PRESETS:
            start = PRESETS[str(preset)]
        elif Path(preset).suffix == ".json":
            start = cls.from_file(Path(preset))
        else:
            known = ", ".join(PRESETS)
            raise ConfigError(f"there is no preset {str(preset)!r}; the presets are {known}, or give a .json file")
        changed: Config = start.override(overrides)
        return changed

    def has_background(self, classes: int) -> bool:
        """Return whether a photo with so many named classes gets a background channel."""
        return self.background == "always" or (self.background == "few" and classes < FEW)


RELEASED = Config(size=336)
MINI = Config(layer=1, sum_last_name=False, count_first_twice=False, crf_bilateral_sxy=80.0, crf_bilateral_weight=7.0)

PRESETS: dict[str, Config] = {
    "released": RELEASED,  # the authors' code of June 2024, which made Table 3 of the poster
    "paper": RELEASED.override({"sum_last_name": False, "drop": 0.5, "count_first_twice": False}),  # arXiv v4
    "bridgetower": RELEASED.override({"layer": 1, "head": 7}),  # the authors' code with BridgeTower
    # No paper says which layer and head to take here: from the middle, and to be tuned.
    "vilt": Config(layer=6, head=0),
    "blip2": Config(layer=2, head=0),
    # The mini models' own, chosen on tuning scenes by benchmarks/choose_settings.py.
    "mini": MINI.override({"head": 0, "drop": 3, "threshold": 0.02, "blur": 0.04, "crf_bilateral_srgb": 8.0}),
    "mini-bridgetower": MINI.override({"head": 1, "gradient": False, "drop": 6, "threshold": 0.05}),
}
