"""Classes as colours over a photo, with a legend on a margin of its own."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Int
from PIL import Image, ImageFilter

from pnp_ovss.pictures.legend import Entry, legend
from pnp_ovss.pictures.palette import Colours, class_colours
from pnp_ovss.pictures.text import PAPER, legible, share
from pnp_ovss.types import BACKGROUND, RGB

SMALLEST, THINNEST, LARGEST = 360, 24, 6_000_000
"""Longer side and any side that a picture is enlarged to, and pixels it is reduced to, before it is drawn on."""
STRENGTH = 0.55
"""Weight of a class's colour over the photo."""


def overlay(
    photo: RGB, labels: Int[np.ndarray, "h w"], classes: Sequence[str], colours: Colours | None = None
) -> Image.Image:
    """Return the photo with each class in its colour, thin borders between them, and a legend of names and area shares.

    The background shows the photo, dimmed. The legend is to the right of an upright photo, else below; it never hides
    anything. Names that the font lacks letters for appear as "label n". Small photos are enlarged, huge ones reduced.

    Raises: ValueError if photo and labels differ in size.
    """
    if photo.shape[:2] != labels.shape:
        raise ValueError(f"the photo is {photo.shape[:2]} and the labels are {labels.shape}; one size is wanted")
    colours = class_colours(classes) if colours is None else colours
    counts = np.bincount(labels.ravel(), minlength=len(classes))
    height, width = _drawing_size(*labels.shape)
    shown = np.asarray(Image.fromarray(photo).resize((width, height), Image.Resampling.BOX))
    painted = paint(shown, _nearest(labels, height, width), colours, classes[0] == BACKGROUND)
    return _beside(Image.fromarray(painted), _entries(counts / labels.size, classes, colours))


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
    line = _borders(labels)
    tinted[line] = 0.1 * tinted[line] + 0.9 * 255
    painted: RGB = np.rint(tinted).astype(np.uint8)
    return painted


def _borders(labels: Int[np.ndarray, "h w"]) -> Bool[np.ndarray, "h w"]:
    edge = np.zeros(labels.shape, dtype=bool)
    edge[1:] |= labels[1:] != labels[:-1]
    edge[:, 1:] |= labels[:, 1:] != labels[:, :-1]
    thickness = 2 * round((labels.size**0.5 - 300) / 900) + 1  # pixels, odd
    if thickness <= 1:
        return edge
    return np.asarray(Image.fromarray(edge.astype(np.uint8)).filter(ImageFilter.MaxFilter(thickness))) > 0


def _drawing_size(height: int, width: int) -> tuple[int, int]:
    grown = max(1, -(-SMALLEST // max(height, width)))
    shrunk = min(1.0, (LARGEST / (height * width)) ** 0.5)
    return max(THINNEST, round(height * grown * shrunk)), max(THINNEST, round(width * grown * shrunk))


def _nearest(labels: Int[np.ndarray, "h w"], height: int, width: int) -> Int[np.ndarray, "h2 w2"]:
    rows = np.arange(height) * labels.shape[0] // height
    columns = np.arange(width) * labels.shape[1] // width
    return np.asarray(labels[rows[:, None], columns])


def _entries(areas: np.ndarray, classes: Sequence[str], colours: Colours) -> list[Entry]:
    """Return the legend's lines, the largest class first, the background last."""
    order = sorted(range(len(classes)), key=lambda index: (classes[index] == BACKGROUND, -areas[index]))
    return [
        Entry(legible(classes[index], f"label {index}"), share(areas[index]), tuple(colours[index].tolist()))
        for index in order
    ]


def _beside(picture: Image.Image, entries: Sequence[Entry]) -> Image.Image:
    """Return the picture on paper with the legend to its right if it is upright, else below."""
    width, height = picture.size
    size = min(72, max(13, round((width * height) ** 0.5 / 36)))
    upright = height > width
    lines = legend(entries, size, height=height) if upright else legend(entries, size, width=width)
    x, y = (2 * size + width, size) if upright else (size, 2 * size + height - size // 4)
    paper = Image.new(
        "RGB", (max(width, x - size + lines.width) + 2 * size, max(height, y - size + lines.height) + 2 * size), PAPER
    )
    paper.paste(picture, (size, size))
    paper.paste(lines, (x, y))
    return paper
