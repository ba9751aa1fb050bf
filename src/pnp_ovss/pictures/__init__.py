"""Pictures for people: one colour per class, and label maps in them."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Int, UInt8
from PIL import Image

from pnp_ovss.errors import InputError
from pnp_ovss.types import BACKGROUND

Colours = UInt8[np.ndarray, "ch 3"]

DARK = (38, 41, 48)
"""The background's colour."""

MOST_CLASSES = 255
"""Values of a palette picture, less the background's."""

_COLOURS = np.loadtxt(Path(__file__).with_name("palette.txt"), dtype=np.uint8)


def class_colours(classes: Sequence[str]) -> Colours:
    """Return a colour per class: dark for a leading "background", else the n-th colour for the n-th name.

    The first 32 names are told apart by people with any colour vision as well as so many can be; further ones repeat
    hues at other lightnesses.
    """
    has_background = tuple(classes[:1]) == (BACKGROUND,)
    colours = np.resize(_COLOURS, (len(classes) - has_background, 3))
    return np.vstack([np.array([DARK], dtype=np.uint8), colours]) if has_background else colours


def label_png(labels: Int[np.ndarray, "h w"], colours: Colours) -> Image.Image:
    """Return a palette picture whose pixel values are the labels.

    Raises: ValueError if a label is negative or above 255.
    """
    if labels.size and not (labels.min() >= 0 and labels.max() <= 255):
        raise ValueError(f"expected labels from 0 to 255, got {labels.min()} to {labels.max()}")
    picture = Image.fromarray(labels.astype(np.uint8))
    picture.putpalette(colours.tobytes())
    return picture


def check_count(classes: Sequence[str]) -> None:
    """Raise InputError if a palette picture has no place for so many classes and the background."""
    if len(classes) > MOST_CLASSES:
        raise InputError(f"expected at most {MOST_CLASSES} classes in a label map, got {len(classes)}; name fewer")


def mask_picture(mask: Bool[np.ndarray, "h w"]) -> Image.Image:
    """Return a grey picture, 255 in the mask and 0 elsewhere."""
    return Image.fromarray(mask.astype(np.uint8) * 255)
