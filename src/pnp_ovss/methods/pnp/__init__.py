"""PnP-OVSS: text-to-image attention, GradCAM and Saliency DropOut. Source: arXiv 2311.17095, CVPR 2024."""

from pnp_ovss.methods.pnp.config import PRESETS, Config
from pnp_ovss.methods.pnp.method import PnP, salience
from pnp_ovss.methods.pnp.prompt import make_prompt

__all__ = ["PRESETS", "Config", "PnP", "make_prompt", "salience"]
