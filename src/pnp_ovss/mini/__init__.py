"""The mini zoo: drawn scenes small models learn from and are measured on, and those models."""

from pathlib import Path

from pnp_ovss.mini.scenes import CLASSES, SIMILAR, STUFF, THINGS, Scene, draw

__all__ = ["CLASSES", "SIMILAR", "STUFF", "THINGS", "Scene", "draw"]

CHECKPOINTS = Path(__file__).parent / "checkpoints"
"""Folder of the shipped mini checkpoints, one Hugging Face folder each."""

TRAIN_SEED, TUNE_SEED, HELD_OUT_SEED = 0, 1, 2
"""Seeds of the scenes that models learn from, that settings are chosen on, and that scores are reported on."""
