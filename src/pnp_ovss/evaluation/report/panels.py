"""The photos of a report: photo, truth, label map and salience side by side, as data for a page."""

import io
from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from pnp_ovss.data import IGNORE, Dataset, Sample
from pnp_ovss.data.dataset import read_values
from pnp_ovss.errors import InputError
from pnp_ovss.evaluation.guess import Predictions
from pnp_ovss.evaluation.record import Record
from pnp_ovss.evaluation.result import Result, chosen
from pnp_ovss.pictures import class_colours
from pnp_ovss.pictures.overlay import paint
from pnp_ovss.pictures.sheet import heat
from pnp_ovss.types import BACKGROUND, RGB

SIDE = 300
"""Longer side of a picture on the page, in pixels."""
VOID = (235, 235, 235)
"""Colour of the pixels that the truth leaves open."""


Small = UInt8[np.ndarray, "_ _ 3"]
"""A picture of the page."""


@dataclass(frozen=True)
class Panel:
    """An image of the report. The pictures are data URLs by their caption."""

    key: str
    score: float
    pictures: dict[str, str]
    legend: tuple[tuple[str, str], ...]
    """Class and colour of what is in truth or label map, the largest first."""


def panels(result: Result, folders: Sequence[Path], dataset: Dataset) -> dict[str, list[Panel]]:
    """Return the best, middling and worst images; one whose files have gone meanwhile is left out."""
    samples = {sample.key: sample for sample in dataset.samples}
    groups: dict[str, list[Panel]] = {}
    for name, records in chosen(result).items():
        made = [_panel(result, record, samples, folders, dataset) for record in records]
        if any(made):
            groups[name] = [panel for panel in made if panel is not None]
    return groups


def _panel(
    result: Result, record: Record, samples: dict[str, Sample], folders: Sequence[Path], dataset: Dataset
) -> Panel | None:
    try:
        sample = samples[record.key]
        photo, truth = sample.photo(), dataset.truth(sample)
        labels = _labels(result, record.key, folders, dataset)
    except (InputError, KeyError):
        return None
    if not photo.shape[:2] == truth.shape == labels.shape:
        return None
    colours = np.full((256, 3), VOID, dtype=np.uint8)
    known = class_colours((BACKGROUND, *dataset.classes))
    colours[: len(known)] = known
    pictures = {
        "photo": jpeg(photo),
        "truth": jpeg(painted(photo, truth, colours)),
        "ours" if "model" in result.settings else "label map": jpeg(painted(photo, labels, colours)),
    }
    if record.salience is not None:
        pictures["salience"] = jpeg(heat(small(photo), record.salience.astype(np.float32)))
    return Panel(record.key, result.of(record), pictures, _legend(truth, labels, dataset, colours))


def _labels(result: Result, key: str, folders: Sequence[Path], dataset: Dataset) -> UInt8[np.ndarray, "h w"]:
    if "predictions" in result.settings:
        return Predictions(Path(result.settings["predictions"]), dataset, result.settings["values"]).labels(key)
    places = [folder / "images" / f"{key}.png" for folder in folders]
    return read_values(next((path for path in places if path.is_file()), places[0])).astype(np.uint8)


def painted(photo: RGB, labels: UInt8[np.ndarray, "h w"], colours: UInt8[np.ndarray, "value 3"]) -> Small:
    """Return the photo, small, under the classes' colours; label 0 is the background."""
    picture = small(photo)
    height, width = picture.shape[:2]
    nearest = np.asarray(Image.fromarray(labels).resize((width, height), Image.Resampling.NEAREST))
    return paint(picture, nearest.astype(np.int32), colours, background=True)


def small(photo: RGB) -> Small:
    """Return the photo as large as the page shows it."""
    height, width = photo.shape[:2]
    scale = SIDE / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return np.asarray(Image.fromarray(photo).resize(size, Image.Resampling.LANCZOS))


def jpeg(photo: RGB) -> str:
    """Return the photo, small, as a data URL."""
    buffer = io.BytesIO()
    Image.fromarray(small(photo)).save(buffer, format="JPEG", quality=84, optimize=True)
    return "data:image/jpeg;base64," + b64encode(buffer.getvalue()).decode("ascii")


def _legend(
    truth: UInt8[np.ndarray, "h w"],
    labels: UInt8[np.ndarray, "h w"],
    dataset: Dataset,
    colours: UInt8[np.ndarray, "value 3"],
) -> tuple[tuple[str, str], ...]:
    area = np.bincount(truth.ravel(), minlength=256) + np.bincount(labels.ravel(), minlength=256)
    area[[0, IGNORE]] = 0
    order = sorted(np.flatnonzero(area).tolist(), key=lambda label: -area[label])[:6]
    return tuple((dataset.labels[label], "#" + bytes(colours[label].tolist()).hex()) for label in order)
