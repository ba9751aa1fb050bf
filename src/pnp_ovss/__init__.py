"""Open-vocabulary semantic segmentation from any off-the-shelf vision-language model, without training.

The method is PnP-OVSS: Luo, Khandelwal, Sigal, Li, CVPR 2024, arXiv 2311.17095.
"""

from pnp_ovss._version import VERSION as __version__
from pnp_ovss.config import PRESETS, Config
from pnp_ovss.errors import ConfigError, InputError, ModelError, PnpError
from pnp_ovss.prompt import make_prompt
from pnp_ovss.refiners import refine
from pnp_ovss.segmenter import Segmenter, salience
from pnp_ovss.types import Attention, Prompt, Segmentation
from pnp_ovss.vlm import load_vlm

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
