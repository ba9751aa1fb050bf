"""Moved to ``methods.pnp.config``; goes when nobody imports it any more."""

from pnp_ovss.methods import METHODS
from pnp_ovss.methods.pnp.config import PRESETS, Config

DEFAULT_MODEL = METHODS["pnp"].checkpoint
__all__ = ["DEFAULT_MODEL", "PRESETS", "Config"]
