"""Measurements anybody can repeat with one command each."""

from typing import Any

from pnp_ovss import Segmenter
from pnp_ovss.methods.pnp import PnP


def vlm_of(segmenter: Segmenter) -> Any:
    """Return the model of a segmenter that runs PnP-OVSS."""
    if not isinstance(segmenter.method, PnP):
        raise TypeError(f"expected PnP-OVSS, got {segmenter.method.name}")
    return segmenter.method.vlm
