"""The photos of a report: photo, truth, label map and salience side by side."""

import io
from base64 import b64encode
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from pnp_ovss.data.dataset import IGNORE, Dataset, Sample
from pnp_ovss.data.files import read_values
from pnp_ovss.errors import InputError
from pnp_ovss.evaluation.record import Record
from pnp_ovss.evaluation.result import Result, best_and_worst
from pnp_ovss.evaluation.run import read_prediction
from pnp_ovss.pictures import class_colours
from pnp_ovss.pictures.figures import heat, paint
from pnp_ovss.types import BACKGROUND, RGB

SIDE = 300
"""Longer side of a picture on the page, in pixels."""
VOID = (235, 235, 235)
"""Colour of the pixels that the truth leaves open."""
LEGEND = 6
"""Classes in a legend."""


Panel = dict[str, Any]
"""Pictures of an image: ``key``, ``score`` (its mIoU), ``pictures`` (data URLs by their caption), and ``legend``: class
and colour of what is in truth or label map, the largest first."""


def panels(result: Result, folders: Sequence[Path], dataset: Dataset) -> dict[str, list[Panel]]:
    """Return the best, middling and worst images; one whose files have gone meanwhile is left out."""
    samples = {sample.key: sample for sample in dataset.samples}
    groups: dict[str, list[Panel]] = {}
    for name, records in best_and_worst(result).items():
        for record in records:
            try:
                panel = _panel(result, record, samples[record.key], folders, dataset)
            except (InputError, KeyError):
                continue
            groups.setdefault(name, []).append(panel)
    return groups


def hex_colour(colour: UInt8[np.ndarray, " 3"]) -> str:
    """Return a colour as CSS has it."""
    return "#" + bytes(colour.tolist()).hex()


def _panel(result: Result, record: Record, sample: Sample, folders: Sequence[Path], dataset: Dataset) -> Panel:
    photo, truth, labels = sample.photo(), dataset.truth(sample), _labels(result, record.key, folders, dataset)
    if not photo.shape[:2] == truth.shape == labels.shape:
        raise InputError(f"photo, truth and label map of {record.key} differ in size; score it anew")
    area = np.bincount(truth.ravel(), minlength=256) + np.bincount(labels.ravel(), minlength=256)
    area[[0, IGNORE]] = 0
    largest = sorted(np.flatnonzero(area).tolist(), key=lambda label: -area[label])[:LEGEND]
    colours = np.full((256, 3), VOID, dtype=np.uint8)
    colours[: len(dataset.classes) + 1] = class_colours((BACKGROUND, *dataset.classes))
    photo = _shrunk(photo, Image.Resampling.LANCZOS)
    pictures = {"photo": photo}
    for name, values in (("truth", truth), ("ours" if "model" in result.settings else "label map", labels)):
        small = _shrunk(values, Image.Resampling.NEAREST)
        pictures[name] = paint(photo, small.astype(np.int32), colours, background=True)
    if record.salience is not None:
        pictures["salience"] = heat(photo, record.salience.astype(np.float32))
    urls = {name: _url(picture) for name, picture in pictures.items()}
    legend = [(dataset.labels[label], hex_colour(colours[label])) for label in largest]
    return {"key": record.key, "score": result.image_miou(record), "pictures": urls, "legend": legend}


def _labels(result: Result, key: str, folders: Sequence[Path], dataset: Dataset) -> UInt8[np.ndarray, "h w"]:
    settings = result.settings
    if "predictions" in settings:
        return read_prediction(Path(settings["predictions"]), key, dataset, settings["values"])
    places = [folder / "images" / f"{key}.png" for folder in folders]
    return read_values(next((path for path in places if path.is_file()), places[0])).astype(np.uint8)


def _shrunk(picture: UInt8[np.ndarray, "h w ..."], how: Image.Resampling) -> UInt8[np.ndarray, "hs ws ..."]:
    height, width = picture.shape[:2]
    scale = SIDE / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return np.asarray(Image.fromarray(picture).resize(size, how))


def _url(picture: RGB) -> str:
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, format="JPEG", quality=84, optimize=True)
    return "data:image/jpeg;base64," + b64encode(buffer.getvalue()).decode("ascii")
