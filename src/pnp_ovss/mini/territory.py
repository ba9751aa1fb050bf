"""Whether a picture looks like a drawn scene: all that the models trained on these know."""

import json
from pathlib import Path

import numpy as np
from jaxtyping import Float
from PIL import Image

from pnp_ovss.types import RGB

SIDE = 64
"""Longer side of the picture that is looked at, in pixels: size and compression should not matter."""
FLAT, FLOOR = 0.01, 0.02
"""Lightness by which neighbours on a flat area differ at most, and the least spread of a number."""


def looks(picture: RGB) -> Float[np.ndarray, " 4"]:
    """Return mean and spread of the lightness, mean saturation, and share of flat area: four numbers in [0, 1]."""
    image = Image.fromarray(picture)
    size = [max(2, round(side * SIDE / max(image.size))) for side in image.size]
    values = np.asarray(image.resize(size, Image.Resampling.BOX), dtype=np.float64) / 255
    light, saturation = values.mean(2), values.max(2) - values.min(2)
    flat = np.abs(np.diff(light, axis=1)) < FLAT
    return np.array([light.mean(), light.std(), saturation.mean(), flat.mean()])


def distance(picture: RGB) -> float:
    """Return how far a picture lies from drawn scenes: Mahalanobis' distance of ``looks``, unbounded."""
    apart = looks(picture) - _SCENES["mean"]
    return float(np.sqrt(apart @ np.asarray(_SCENES["precision"]) @ apart))


def is_drawn(picture: RGB) -> bool:
    """Return whether the picture may be a drawn scene."""
    return distance(picture) <= float(_SCENES["bound"])


_SCENES = json.loads(Path(__file__).with_name("territory.json").read_text(encoding="ascii"))
"""Of ``looks`` on tuning scenes, and what hardly any of them exceeds: ``python -m benchmarks.territory``."""
