"""Open-vocabulary semantic segmentation from any off-the-shelf vision-language model, without training.

The first method is PnP-OVSS: Luo, Khandelwal, Sigal, Li, CVPR 2024, arXiv 2311.17095; ``METHODS`` lists all.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from pnp_ovss._version import VERSION as __version__
from pnp_ovss.errors import ConfigError, InputError, ModelError, PnpError

if TYPE_CHECKING:  # "as" says to type checkers that these are public
    from pnp_ovss.methods import METHODS as METHODS, load_method as load_method
    from pnp_ovss.methods.pnp import (
        PRESETS as PRESETS,
        Config as Config,
        make_prompt as make_prompt,
        salience as salience,
    )
    from pnp_ovss.models import load_vlm as load_vlm
    from pnp_ovss.refine import refine as refine
    from pnp_ovss.segmentation import Segmentation as Segmentation
    from pnp_ovss.segmenter import Segmenter as Segmenter
    from pnp_ovss.types import Attention as Attention, Prompt as Prompt, Vocabulary as Vocabulary

# Where the names live that need torch or transformers: they take seconds to load, which `pnp-ovss --help` should not.
_ON_USE = {
    "METHODS": "methods",
    "PRESETS": "methods.pnp",
    "Attention": "types",
    "Config": "methods.pnp",
    "Prompt": "types",
    "Segmentation": "segmentation",
    "Segmenter": "segmenter",
    "Vocabulary": "types",
    "load_method": "methods",
    "load_vlm": "models",
    "make_prompt": "methods.pnp",
    "refine": "refine",
    "salience": "methods.pnp",
}

__all__ = ["ConfigError", "InputError", "ModelError", "PnpError", "__version__", *_ON_USE]


def __getattr__(name: str) -> Any:
    if name not in _ON_USE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value = getattr(import_module(f"{__name__}.{_ON_USE[name]}"), name)
    return value


def __dir__() -> list[str]:
    return __all__
