"""Open-vocabulary semantic segmentation from any off-the-shelf vision-language model, without training.

The method is PnP-OVSS: Luo, Khandelwal, Sigal, Li, CVPR 2024, arXiv 2311.17095.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from pnp_ovss._version import VERSION as __version__
from pnp_ovss.config import PRESETS, Config
from pnp_ovss.errors import ConfigError, InputError, ModelError, PnpError

if TYPE_CHECKING:
    from pnp_ovss.methods.pnp.prompt import make_prompt
    from pnp_ovss.models import load_vlm
    from pnp_ovss.refine import refine
    from pnp_ovss.segmentation import Segmentation
    from pnp_ovss.segmenter import Segmenter, salience
    from pnp_ovss.types import Attention, Prompt

__all__ = [
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
    "__version__",
    "load_vlm",
    "make_prompt",
    "refine",
    "salience",
]

# Where the names live that need torch or transformers: they take seconds to load, which `pnp-ovss --help` should not.
_ON_USE = {
    "Attention": "types",
    "Prompt": "types",
    "Segmentation": "segmentation",
    "Segmenter": "segmenter",
    "load_vlm": "models",
    "make_prompt": "methods.pnp.prompt",
    "refine": "refine",
    "salience": "segmenter",
}


def __getattr__(name: str) -> Any:
    if name not in _ON_USE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value = getattr(import_module(f"{__name__}.{_ON_USE[name]}"), name)
    return value


def __dir__() -> list[str]:
    return __all__
