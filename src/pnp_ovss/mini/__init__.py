"""The mini zoo: drawn scenes small models learn from and are measured on."""

from pathlib import Path

from pnp_ovss.mini.scenes import CLASSES, SIMILAR, STUFF, THINGS, Scene, draw

__all__ = ["CHECKPOINTS", "CLASSES", "SIMILAR", "STUFF", "THINGS", "Scene", "draw"]

CHECKPOINTS = Path(__file__).parent / "checkpoints"
"""Folder of the shipped mini checkpoints, one Hugging Face folder each."""
