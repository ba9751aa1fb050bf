"""Every setting of the method, in one frozen value, and the published ones as presets."""

import json
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal, get_args

from pnp_ovss.errors import ConfigError, one_line

DEFAULT_MODEL = "blip-large-flickr"
"""Of commands and back ends that are told none."""

Background = Literal["always", "never", "few"]
FEW = 3


def _setting(default: Any, help: str) -> Any:
    """Return a field whose meaning the command line can show."""
    return field(default=default, metadata={"help": help})


@dataclass(frozen=True)
class Config:
    """Settings of the method, in the order in which it uses them. Defaults: the authors' released code with BLIP."""

    size: int | None = _setting(None, "side of the square the model sees, in pixels; none: the checkpoint's own")
    layer: int = _setting(7, "cross-attention layer, 0-based")
    head: int = _setting(9, "attention head of that layer, 0-based")
    gradient: bool = _setting(True, "weigh the attention by the positive gradient of the match logit (GradCAM)")
    sum_last_name: bool = _setting(
        True, "add up the last class name's tokens instead of averaging, as the released code does; blur undoes it"
    )
    passes: int = _setting(4, "looks at the photo, the first one undisturbed")
    drop: int | float = _setting(10, "patches hidden after each pass: 10 is a count, 0.5 a share of the visible ones")
    count_first_twice: bool = _setting(True, "add the first pass's map twice, as the released code does")
    threshold: float = _setting(0.15, "a class map counts where its min-max over the grid reaches this, in [0, 1]")
    background: Background = _setting(
        "always", "'always', 'never', or 'few': only where fewer than 3 classes are named"
    )
    refiners: tuple[str, ...] = _setting(("blur", "crf"), "refinement steps, in order")
    blur: float = _setting(0.05, "blur: sigma as a share of the photo's longer side")
    crf_iterations: int = _setting(10, "crf: mean-field iterations")
    crf_gaussian_sxy: float = _setting(3.0, "crf: smoothness kernel, standard deviation in pixels")
    crf_gaussian_weight: float = _setting(7.0, "crf: smoothness kernel, weight")
    crf_bilateral_sxy: float = _setting(50.0, "crf: appearance kernel, standard deviation in pixels")
    crf_bilateral_srgb: float = _setting(5.0, "crf: appearance kernel, standard deviation in 8-bit colour steps")
    crf_bilateral_weight: float = _setting(10.0, "crf: appearance kernel, weight")
    crf_tolerance: float = _setting(0.0, "crf: stop early when no probability moves more than this; 0: never")
    pamr_iterations: int = _setting(10, "pamr: iterations")
    guided_radius: float = _setting(0.02, "guided: window radius as a share of the photo's longer side")
    guided_epsilon: float = _setting(1e-3, "guided: smaller follows edges more closely; in squared intensity, 0-1")
    max_pixels: int = _setting(4_200_000, "refine larger photos at this many pixels, then upsample along the photo")

    def __post_init__(self) -> None:
        _validate(vars(self))

    @classmethod
    def from_preset(cls, preset: str | Path, **overrides: Any) -> "Config":
        """Return the settings of a preset, or of a JSON file that ``to_json`` wrote, with ``overrides`` on top.

        Raises: ConfigError if there is no such preset or setting.
        """
        if str(preset) in PRESETS:
            return _override(PRESETS[str(preset)], overrides)
        if Path(preset).suffix == ".json":
            try:
                text = Path(preset).read_text(encoding="utf-8")
            except (OSError, ValueError) as error:
                raise ConfigError(
                    f"preset file {preset} cannot be read ({one_line(error)}); give a file that exists"
                ) from error
            return _override(cls.from_json(text), overrides)
        known = ", ".join(PRESETS)
        raise ConfigError(
            f"no preset {str(preset)!r}; the presets are {known}, or give the path of a .json preset file"
        )

    @classmethod
    def from_json(cls, text: str) -> "Config":
        """Return the settings that ``to_json`` wrote; those left out keep their defaults.

        Raises: ConfigError if it is not such a text.
        """
        try:
            values = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise ConfigError(f"the preset is not JSON ({one_line(error)}); write it with Config.to_json") from error
        if not isinstance(values, dict):
            raise ConfigError(f"the preset holds a {type(values).__name__}; an object of settings is wanted")
        return _override(cls(), values)

    def to_json(self) -> str:
        """Return the settings as a JSON object that ``from_json`` reads back equal."""
        return json.dumps(asdict(self), indent=2)

    def has_background(self, classes: int) -> bool:
        """Return whether a photo with so many named classes gets a background channel."""
        return self.background == "always" or (self.background == "few" and classes < FEW)


def _override(config: Config, values: dict[str, Any]) -> Config:
    known = [setting.name for setting in fields(Config)]
    for name in values:
        if name not in known:
            raise ConfigError(f"no setting {name!r}; the settings are {', '.join(known)}")
    if isinstance(values.get("refiners"), list):  # JSON has no tuples
        values = values | {"refiners": tuple(values["refiners"])}
    _validate(vars(config) | values)
    return replace(config, **values)


def _validate(values: dict[str, Any]) -> None:
    """Raise ConfigError for the first value that is of the wrong type or out of range."""

    def check(name: str, holds: bool, wanted: str) -> None:
        if not holds:
            raise ConfigError(f"{name} is {one_line(repr(values[name]))}; {wanted} is wanted")

    size, drop, refiners = values["size"], values["drop"], values["refiners"]
    check("size", size is None or (_is_int(size) and 1 <= size <= 4096), "a whole number from 1 to 4096, or none,")
    for name, (least, most) in WHOLE.items():
        check(name, _is_int(values[name]) and least <= values[name] <= most, f"a whole number from {least} to {most}")
    for name, (low, high) in REAL.items():
        check(name, _is_real(values[name]) and low <= values[name] <= high, f"a number from {low:g} to {high:g}")
    for name in ("gradient", "sum_last_name", "count_first_twice"):
        check(name, isinstance(values[name], bool), "true or false")
    share = isinstance(drop, float) and 0 < drop < 1
    check("drop", share or (_is_int(drop) and drop >= 0), "a count of patches (10) or a share between 0 and 1 (0.5)")
    check("drop", drop <= MANY, f"a count of {MANY} patches at most")
    check("background", values["background"] in get_args(Background), "'always', 'never' or 'few'")
    names = isinstance(refiners, tuple) and all(isinstance(name, str) for name in refiners)
    check("refiners", names, "a tuple of names")


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_real(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


MANY = 10**6
"""Beyond any use, and far from what floats and memory cannot hold."""

WHOLE = {
    "layer": (0, MANY),
    "head": (0, MANY),
    "passes": (1, MANY),
    "crf_iterations": (0, MANY),
    "pamr_iterations": (0, MANY),
    "max_pixels": (1, 10**9),
}
"""Smallest and largest value."""

REAL: dict[str, tuple[float, float]] = {
    "threshold": (0, 1),
    "blur": (0, 1),
    "crf_gaussian_sxy": (1 / MANY, MANY),
    "crf_gaussian_weight": (0, MANY),
    "crf_bilateral_sxy": (1 / MANY, MANY),
    "crf_bilateral_srgb": (1 / MANY, MANY),
    "crf_bilateral_weight": (0, MANY),
    "crf_tolerance": (0, 1),
    "guided_radius": (0, 1),
    "guided_epsilon": (1e-8, MANY),  # below it the fit to a grey photo is lost in rounding
}
"""Smallest and largest value; NaN lies in no range."""

PRESETS: dict[str, Config] = {
    "released": Config(size=336),  # the authors' code of June 2024, which made Table 3 of the poster
    "paper": Config(size=336, sum_last_name=False, drop=0.5, count_first_twice=False),  # the text of arXiv v4
    "bridgetower": Config(size=336, layer=1, head=7),  # the authors' code with BridgeTower
    # No paper says which layer and head to take here: from the middle, and to be tuned.
    "vilt": Config(layer=6, head=0),
    "blip2": Config(layer=2, head=0),
    # The mini models' own, chosen on tuning scenes by benchmarks/choose_settings.py.
    "mini": Config(
        layer=1,
        head=1,
        sum_last_name=False,
        drop=3,
        count_first_twice=False,
        threshold=0.05,
        blur=0.03,
        crf_bilateral_sxy=80.0,
    ),
    "mini-bridgetower": Config(
        layer=1,
        head=2,
        gradient=False,
        sum_last_name=False,
        passes=2,
        drop=20,
        count_first_twice=False,
        threshold=0.05,
        blur=0.03,
        crf_bilateral_sxy=80.0,
    ),
}
