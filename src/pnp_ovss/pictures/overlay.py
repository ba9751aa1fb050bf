"""Classes as colours over a photo, with a legend on a margin of its own, and the class maps as heat beside it."""

import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int
from PIL import Image, ImageOps

from pnp_ovss.pictures.palette import Colours, class_colours
from pnp_ovss.pictures.sheet import heat
from pnp_ovss.pictures.text import INK, PAPER, below, beside, columns, legend, resized, share, text
from pnp_ovss.types import BACKGROUND, RGB

SMALLEST, THINNEST, LARGEST = 360, 24, 6_000_000
"""Longer side and any side that a picture is enlarged to, and pixels it is reduced to, before it is drawn on."""
STRENGTH = 0.55
"""Weight of a class's colour over the photo."""
TILE, GAP, LETTERS = 220, 12, 15
"""Of the heat beside an overlay, in pixels: the longer side of a tile, between tiles, height of the names."""


def overlay(photo: RGB, labels: Int[np.ndarray, "h w"], classes: Sequence[str]) -> Image.Image:
    """Return the photo with each class in its colour, thin borders between them, and a legend of names and area shares.

    The background shows the photo, dimmed. The legend is to the right of an upright photo, else below; it never hides
    anything. Small photos are enlarged, huge ones reduced.

    Raises: ValueError if photo and labels differ in size.
    """
    if photo.shape[:2] != labels.shape:
        raise ValueError(f"expected labels of the photo's size {photo.shape[:2]}, got {labels.shape}")
    colours = class_colours(classes)
    height, width = labels.shape
    scale = math.ceil(SMALLEST / max(height, width)) * min(1.0, (LARGEST / (height * width)) ** 0.5)
    size = max(THINNEST, round(width * scale)), max(THINNEST, round(height * scale))
    large = np.asarray(Image.fromarray(photo).resize(size, Image.Resampling.BOX))
    large_labels = np.asarray(Image.fromarray(labels.astype(np.int32)).resize(size, Image.Resampling.NEAREST))
    painted = paint(large, large_labels, colours, classes[0] == BACKGROUND)
    areas = np.bincount(labels.ravel(), minlength=len(classes)) / labels.size
    largest_first = sorted(range(len(classes)), key=lambda index: (classes[index] == BACKGROUND, -areas[index]))
    entries = [(classes[index], share(areas[index]), colours[index].tolist()) for index in largest_first]
    margin = min(72, max(13, round((size[0] * size[1]) ** 0.5 / 36)))
    upright = height > width
    parts = [Image.fromarray(painted), legend(entries, margin, 1 if upright else size[0])]
    whole = beside(parts, margin) if upright else below(parts, margin * 3 // 4)
    return ImageOps.expand(whole, margin, PAPER)


def paint(
    photo: RGB, labels: Int[np.ndarray, "h w"], colours: Colours, background: bool, strength: float = STRENGTH
) -> RGB:
    """Return the photo under the classes' colours; label 0 is left without colour if it is the background.

    ``strength``: weight of the colours, 0 to 1; at 1 nothing is left of the photo under them.
    """
    grey = photo.mean(axis=2, keepdims=True, dtype=np.float32)
    colour = photo.astype(np.float32)
    tinted = (1 - strength) * (0.2 * colour + 0.8 * grey) + strength * colours.astype(np.float32)[labels]
    if background:
        tinted = np.where((labels == 0)[..., None], 0.3 * colour + 0.25 * grey, tinted)
    border = np.zeros(labels.shape, dtype=bool)
    thickness = max(1, round(labels.size**0.5 / 500))  # pixels
    border[thickness:] |= labels[thickness:] != labels[:-thickness]
    border[:, thickness:] |= labels[:, thickness:] != labels[:, :-thickness]
    tinted[border] = 0.1 * tinted[border] + 0.9 * 255
    painted: RGB = np.rint(tinted).astype(np.uint8)
    return painted


def panels(
    photo: RGB, labels: Int[np.ndarray, "h w"], classes: Sequence[str], salience: Float[np.ndarray, "cls gh gw"]
) -> Image.Image:
    """Return the overlay with its legend, and to its right the class map of each named class as heat.

    Each tile runs from the class's own least to its largest salience. Tiles fill columns as high as the overlay.
    """
    left, small = overlay(photo, labels, classes), resized(photo, TILE)
    tiles = [
        below([Image.fromarray(heat(small, class_map)), text(name, LETTERS, INK, small.shape[1])], 0)
        for name, class_map in zip(classes[-len(salience) :], salience, strict=True)
    ]
    right = columns(tiles, max(1, (left.height - GAP) // tiles[0].height), GAP)
    return beside([left, ImageOps.expand(right, (0, GAP, GAP, 0), PAPER)], 0)
