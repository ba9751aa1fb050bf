"""One colour per class, and label maps in them."""

from collections.abc import Sequence
from colorsys import hls_to_rgb

import numpy as np
from jaxtyping import Bool, Int, UInt8
from PIL import Image

from pnp_ovss.errors import InputError
from pnp_ovss.types import BACKGROUND

Colours = UInt8[np.ndarray, "cls 3"]

DARK = (38, 41, 48)
"""The background's colour."""

MOST_CLASSES = 255
"""Values of a palette picture, less the background's."""

# Eight picked by hand, the others one after another for the largest distance from all before them in OKLab, as seen
# with normal vision, without red, without green and without blue cones; none close to the background, white, mid grey.
_CHOSEN = bytes.fromhex(
    "f08a3c3577c8f5d5638e3b8c8fd3f00e7f6bf29ab8b03a2a62e0b0b688fe8686045c37b833b54499c68fe369cccd3976"
    "a8d83229a1c1227008826ea8a16d401dcbbc9fa5e3f66b71804156c5a7677472f41d5e85a954ccf1bafeae648f5f9e61"
)


def class_colours(classes: Sequence[str]) -> Colours:
    """Return a colour per class: dark for a leading "background", else the n-th colour for the n-th name.

    The first 32 names are told apart by people with any colour vision as well as so many can be; further ones repeat
    hues at other lightnesses.
    """
    names = len(classes) - (tuple(classes[:1]) == (BACKGROUND,))
    dark = [DARK] * (len(classes) - names)
    return np.array(dark + [_colour(index) for index in range(names)], dtype=np.uint8).reshape(-1, 3)


def label_png(labels: Int[np.ndarray, "h w"], colours: Colours | None = None) -> Image.Image:
    """Return a palette picture whose pixel values are the labels. Without ``colours``, label 0 counts as background.

    Raises: ValueError if a label is negative or above 255.
    """
    if labels.size and not (labels.min() >= 0 and labels.max() <= 255):
        raise ValueError(f"labels run from {labels.min()} to {labels.max()}; 0 to 255 fit a palette picture")
    if colours is None:
        colours = class_colours((BACKGROUND, *map(str, range(255))))
    picture = Image.fromarray(labels.astype(np.uint8))
    picture.putpalette(colours.tobytes())
    return picture


def check_count(classes: Sequence[str]) -> None:
    """Raise InputError if a palette picture has no place for so many classes and the background."""
    if len(classes) > MOST_CLASSES:
        raise InputError(f"{len(classes)} classes were named; a label map holds {MOST_CLASSES} at most: name fewer")


def mask_picture(mask: Bool[np.ndarray, "h w"]) -> Image.Image:
    """Return a grey picture, 255 in the mask and 0 elsewhere."""
    return Image.fromarray(mask.astype(np.uint8) * 255)


def _colour(index: int) -> tuple[int, int, int]:
    if index < len(_CHOSEN) // 3:
        red, green, blue = _CHOSEN[3 * index : 3 * index + 3]
        return red, green, blue
    # Steps of the golden ratio never come close to a hue just used.
    fractions = hls_to_rgb(index * 0.618034 % 1, (0.4, 0.58, 0.74)[index % 3], (0.5, 0.75)[index % 2])
    red, green, blue = (round(255 * fraction) for fraction in fractions)
    return red, green, blue
