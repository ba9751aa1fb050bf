"""Open-vocabulary semantic segmentation from any off-the-shelf vision-language model, without training.

The first method is PnP-OVSS: Luo, Khandelwal, Sigal, Li, CVPR 2024, arXiv 2311.17095; ``METHODS`` lists all.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from pnp_ovss._version import VERSION as __version__
from pnp_ovss.errors import ConfigError, InputError, ModelError, PnpError

if TYPE_CHECKING:
    from pnp_ovss.methods import METHODS, load_method
    from pnp_ovss.methods.pnp import PRESETS, Config, make_prompt, salience
    from pnp_ovss.models import load_vlm
    from pnp_ovss.refine import refine
    from pnp_ovss.segmentation import Segmentation
    from pnp_ovss.segmenter import Segmenter
    from pnp_ovss.types import Attention, Prompt, Vocabulary

__all__ = [
    "METHODS",
    "PRESETS",
    "Attention",
    "Config",
    "ConfigError",
    "InputError",
    "ModelError",
    "PnpError",
    "Prompt",
    "Segmentation",
    "Segmenter",
    "Vocabulary",
    "__version__",
    "load_method",
    "load_vlm",
    "make_prompt",
    "refine",
    "salience",
]

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


def __getattr__(name: str) -> Any:
    if name not in _ON_USE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value = getattr(import_module(f"{__name__}.{_ON_USE[name]}"), name)
    return value


def __dir__() -> list[str]:
    return __all__
