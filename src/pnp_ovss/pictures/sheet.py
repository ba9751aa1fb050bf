"""The contact sheet: a row per scene with the truth, the labels, and where the model looked for each class."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int, UInt8
from PIL import Image, ImageDraw

from pnp_ovss.pictures.legend import Entry, legend, rounded
from pnp_ovss.pictures.palette import Colours, class_colours
from pnp_ovss.pictures.text import FAINT, INK, PAPER, fitted, font, legible, wrapped
from pnp_ovss.types import BACKGROUND, RGB

TILE, GAP, GROUP, MARGIN = 180, 12, 36, 44  # pixels: a picture, between two, before the salience, around all
CAPTION = 58  # below a picture
TITLE, PLAIN, SMALL = 30, 16, 14  # heights of letters

# Lightness grows evenly from the first to the last, so that the order is seen in grey as well.
RAMP = np.array(
    [(26, 20, 56), (78, 34, 116), (150, 46, 112), (222, 84, 76), (248, 158, 74), (253, 236, 166)], dtype=np.float32
)


@dataclass(frozen=True)
class Row:
    """A scene and what was found in it. ``truth`` and ``labels`` index the sheet's classes."""

    photo: RGB
    truth: Int[np.ndarray, "h w"]
    labels: Int[np.ndarray, "h w"]
    salience: dict[str, Float[np.ndarray, "gh gw"]]
    """Per named class, on any scale: each map is shown from its least to its largest value."""
    caption: str
    note: str


def contact_sheet(rows: Sequence[Row], classes: Sequence[str], title: str, subtitle: str) -> Image.Image:
    """Return a sheet with a row for each scene: the scene, truth, labels, and the salience of each class as heat.

    A class has one colour on the whole sheet; the legend below holds those that occur.
    """
    colours = class_colours(classes)
    columns = max(len(row.salience) for row in rows)
    head, key = _headings(title, subtitle, columns), _key(rows, classes, colours, _width(columns))
    line = TILE + CAPTION
    sheet = Image.new("RGB", (_width(columns), head.height + len(rows) * line + key.height + MARGIN), PAPER)
    sheet.paste(head, (0, 0))
    for index, row in enumerate(rows):
        _draw_row(sheet, head.height + index * line, row, classes, colours)
    sheet.paste(key, (0, sheet.height - key.height - MARGIN // 2))
    return sheet


def heat(photo: RGB, salience: Float[np.ndarray, "gh gw"]) -> RGB:
    """Return the photo in grey under the salience: dark where it is least, bright where it is largest."""
    height, width = photo.shape[:2]
    spread = float(salience.max() - salience.min())
    level = (salience - salience.min()) / spread if spread > 0 else np.zeros_like(salience)
    smooth = Image.fromarray(level.astype(np.float32)).resize((width, height), Image.Resampling.BICUBIC)
    fine = np.asarray(smooth).clip(0, 1)
    grey = photo.mean(axis=2, keepdims=True, dtype=np.float32) / 255
    # The photo shades the heat; where there is none it shows by itself, darker than any heat.
    by_itself = 62 * grey * (1 - fine[..., None]) ** 2
    shaded: RGB = np.rint(_ramp(fine) * (0.6 + 0.4 * grey) + by_itself).astype(np.uint8)
    return shaded


def _ramp(level: Float[np.ndarray, "h w"]) -> Float[np.ndarray, "h w 3"]:
    stops = np.linspace(0, 1, len(RAMP))
    return np.stack([np.interp(level, stops, RAMP[:, channel]) for channel in range(3)], axis=-1)


def _width(columns: int) -> int:
    return 2 * MARGIN + (3 + columns) * (TILE + GAP) - GAP + GROUP


def _left(column: int) -> int:
    """Return where a column starts: scene, truth and labels, then the salience after a wider space."""
    return MARGIN + column * (TILE + GAP) + (GROUP if column > 2 else 0)


def _headings(title: str, subtitle: str, columns: int) -> Image.Image:
    head = Image.new("RGB", (_width(columns), 150), PAPER)
    draw = ImageDraw.Draw(head)
    draw.text((MARGIN - 1, 56), title, INK, font(TITLE), anchor="ls")
    draw.text((MARGIN, 84), fitted(subtitle, font(PLAIN), head.width - 2 * MARGIN), FAINT, font(PLAIN), anchor="ls")
    for column, heading in enumerate(("scene", "truth", "labels", "salience")):
        draw.text((_left(column), 138), heading, INK, font(PLAIN), anchor="ls")
    right = _left(2 + columns) + TILE
    bar = Image.fromarray(np.rint(_ramp(np.linspace(0, 1, 72, dtype=np.float32)[None].repeat(10, 0))).astype(np.uint8))
    word = round(font(SMALL).getlength("high"))
    draw.text((right, 137), "high", FAINT, font(SMALL), anchor="rs")
    head.paste(bar, (right - word - 8 - bar.width, 127), rounded(*bar.size, 3))
    draw.text((right - word - 16 - bar.width, 137), "low", FAINT, font(SMALL), anchor="rs")
    return head


def _draw_row(sheet: Image.Image, top: int, row: Row, classes: Sequence[str], colours: Colours) -> None:
    draw, under = ImageDraw.Draw(sheet), top + TILE + 6
    for column, picture in enumerate((row.photo, colours[row.truth], colours[row.labels])):
        _paste(sheet, picture, _left(column), top)
    for index, text in enumerate(wrapped(row.caption, font(SMALL), 2 * TILE + GAP, 2)):
        draw.text((_left(0), under + index * (SMALL + 3)), text, FAINT, font(SMALL), anchor="la")
    draw.text((_left(2), under), row.note, FAINT, font(SMALL), anchor="la")
    for column, (name, salience) in enumerate(row.salience.items(), start=3):
        _paste(sheet, heat(row.photo, salience), _left(column), top)
        chip = tuple(colours[classes.index(name)].tolist())
        sheet.paste(chip, (_left(column), under), rounded(SMALL, SMALL, 3))
        text = fitted(legible(name, f"label {classes.index(name)}"), font(SMALL), TILE - 20)
        draw.text((_left(column) + 20, under), text, INK, font(SMALL), anchor="la")


def _paste(sheet: Image.Image, picture: UInt8[np.ndarray, "h w 3"], left: int, top: int) -> None:
    """Put the picture into its tile, whole and in the middle, with round corners."""
    height, width = picture.shape[:2]
    scale = TILE / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    small = Image.fromarray(picture).resize(size, Image.Resampling.LANCZOS)
    sheet.paste(small, (left + (TILE - size[0]) // 2, top + (TILE - size[1]) // 2), rounded(*size, min(8, *size)))


def _key(rows: Sequence[Row], classes: Sequence[str], colours: Colours, width: int) -> Image.Image:
    """Return the legend of what occurs anywhere on the sheet, the background last."""
    seen = np.unique(np.concatenate([labels.ravel() for row in rows for labels in (row.truth, row.labels)]))
    order = sorted(seen.tolist(), key=lambda index: classes[index] == BACKGROUND)
    entries = [Entry(legible(classes[index], f"label {index}"), "", tuple(colours[index].tolist())) for index in order]
    lines = legend(entries, PLAIN, width=width - 2 * MARGIN)
    key = Image.new("RGB", (width, lines.height + 40), PAPER)
    ImageDraw.Draw(key).line((MARGIN, 10, width - MARGIN, 10), (226, 224, 218))
    key.paste(lines, (MARGIN, 28))
    return key
