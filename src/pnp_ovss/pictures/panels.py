"""What was found beside where the model looked: the overlay, and the salience of each class as heat."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int
from PIL import Image, ImageDraw

from pnp_ovss.pictures.overlay import overlay
from pnp_ovss.pictures.sheet import heat
from pnp_ovss.pictures.text import INK, PAPER, fitted, font, legible
from pnp_ovss.types import RGB

TILE, GAP, LETTERS = 220, 12, 15  # pixels: the longer side of a tile, between tiles, height of the names


def panels(
    photo: RGB, labels: Int[np.ndarray, "h w"], classes: Sequence[str], salience: Float[np.ndarray, "cls gh gw"]
) -> Image.Image:
    """Return the overlay with its legend, and to its right a tile per named class: dark where the model looked least.

    Each tile runs from the class's own least to its largest salience. Tiles fill columns as high as the overlay.
    """
    left = overlay(photo, labels, classes)
    named = classes[len(classes) - len(salience) :]
    scale = TILE / max(photo.shape[:2])
    width, height = (max(1, round(side * scale)) for side in (photo.shape[1], photo.shape[0]))
    line = height + LETTERS + GAP
    rows = max(1, (left.height - GAP) // line)
    columns = -(-len(named) // rows)
    size = left.width + columns * (width + GAP), max(left.height, min(rows, len(named)) * line + GAP)
    picture = Image.new("RGB", size, PAPER)
    picture.paste(left, (0, 0))
    draw = ImageDraw.Draw(picture)
    small = np.asarray(Image.fromarray(photo).resize((width, height), Image.Resampling.LANCZOS))
    for index, (name, maps) in enumerate(zip(named, salience, strict=True)):
        x, y = left.width + index // rows * (width + GAP), GAP + index % rows * line
        picture.paste(Image.fromarray(heat(small, maps)), (x, y))
        text = fitted(legible(name, f"label {len(classes) - len(named) + index}"), font(LETTERS), width)
        draw.text((x, y + height + 2), text, INK, font(LETTERS), anchor="la")
    return picture
