"""The report of a run: one page that needs no network, and the same as Markdown and JSON."""

import csv
import os
from collections.abc import Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape
from PIL import Image

from pnp_ovss.data.dataset import IGNORE, Dataset, Sample, read_values
from pnp_ovss.errors import InputError
from pnp_ovss.evaluation.metrics import Labels
from pnp_ovss.evaluation.record import Record
from pnp_ovss.evaluation.result import Result, best_and_worst, report
from pnp_ovss.evaluation.run import read_prediction
from pnp_ovss.files import as_json, write_bytes, write_text
from pnp_ovss.pictures import class_colours
from pnp_ovss.pictures.figures import data_url, heat, paint, resized
from pnp_ovss.types import BACKGROUND

FOLDER = Path(__file__).parent
SIDE = 300
"""Longer side of a picture on the page, in pixels."""
VOID = (235, 235, 235)
"""Colour of the pixels that the truth leaves open."""
LEGEND = 6
"""Classes in a legend."""


def write_report(out: Path, result: Result, folders: Sequence[Path], dataset: Dataset | None) -> None:
    """Write report.html, report.md and report.json into ``out``.

    ``folders`` hold the run's label maps. Without a ``dataset`` the page has no photos.

    Raises: InputError if a file cannot be written.
    """
    content = report(result) | {"published": published(result.settings["dataset"])}
    write_bytes(out / "report.json", as_json(content, indent=1))
    pages = templates()
    values = content | _for_readers(content) | {"panels": panels(result, folders, dataset) if dataset else {}}
    for name in ("report.md", "report.html"):
        write_text(out / name, pages.get_template(name).render(values))


@cache
def templates(*folders: Path) -> Environment:
    """Return the pages in some folders, with what they are made of here."""
    loader = FileSystemLoader([*folders, FOLDER])
    pages = Environment(loader=loader, autoescape=select_autoescape(), undefined=StrictUndefined, trim_blocks=True)
    pages.filters["percent"] = percent
    return pages


def published(dataset: str) -> list[dict[str, Any]]:
    """Return the published scores on a data set, the best first: method, mIoU in percent, source and caveat."""
    rows = [row for row in published_scores().values() if row.get(dataset)]
    found = [
        {"miou": float(row[dataset])} | {column: row[column] for column in ("method", "source", "caveat")}
        for row in rows
    ]
    return sorted(found, key=lambda row: -row["miou"])


def published_scores() -> dict[str, dict[str, str]]:
    """Return the published scores by method: mIoU in percent by data set, source and caveat."""
    with open(FOLDER / "published.csv", encoding="utf-8", newline="") as file:
        return {row["method"]: row for row in csv.DictReader(file)}


def percent(share: float | None, digits: int = 1) -> str:
    """Return a share as percent; a dash where there is none."""
    return "-" if share is None else f"{100 * share:.{digits}f}"


def panels(result: Result, folders: Sequence[Path], dataset: Dataset) -> dict[str, list[dict[str, Any]]]:
    """Return the best, middling and worst images; one whose files have gone meanwhile is left out.

    Of each: ``key``, ``score`` (its mIoU), ``pictures`` (data URLs by their caption), and ``legend``: class and colour
    of what is in truth or label map, the largest first.
    """
    samples = {sample.key: sample for sample in dataset.samples}
    groups: dict[str, list[dict[str, Any]]] = {}
    for name, records in best_and_worst(result).items():
        for record in records:
            with suppress(InputError, KeyError):
                panel = _panel(result, record, samples[record.key], folders, dataset)
                groups.setdefault(name, []).append(panel)
    return groups


def _panel(result: Result, record: Record, sample: Sample, folders: Sequence[Path], dataset: Dataset) -> dict[str, Any]:
    photo, truth = sample.photo(), dataset.truth(sample)
    labels = _labels(result.settings, record.key, folders, dataset)
    if not photo.shape[:2] == truth.shape == labels.shape:
        raise InputError(f"photo, truth and label map of {record.key} differ in size; score it anew")
    area = np.bincount(truth.ravel(), minlength=256) + np.bincount(labels.ravel(), minlength=256)
    area[[0, IGNORE]] = 0
    largest = sorted(np.flatnonzero(area).tolist(), key=lambda label: -area[label])[:LEGEND]
    colours = np.full((256, 3), VOID, dtype=np.uint8)
    colours[: len(dataset.labels)] = class_colours((BACKGROUND, *dataset.classes))
    small = resized(photo, SIDE)
    pictures = {"photo": small}
    for name, values in {"truth": truth, "label map": labels}.items():
        pictures[name] = paint(small, resized(values, SIDE).astype(np.int32), colours, background=True)
    if record.salience is not None:
        pictures["salience"] = heat(small, record.salience)
    urls = {name: data_url(Image.fromarray(picture)) for name, picture in pictures.items()}
    legend = [(dataset.labels[label], f"#{bytes(colours[label]).hex()}") for label in largest]
    return {"key": record.key, "score": result.image_miou(record), "pictures": urls, "legend": legend}


def _labels(settings: dict[str, Any], key: str, folders: Sequence[Path], dataset: Dataset) -> Labels:
    if "predictions" in settings:
        return read_prediction(Path(settings["predictions"]), key, dataset, settings["values"])
    places = [folder / f"images/{key}.png" for folder in folders]
    there = [path for path in places if os.path.isfile(path)]
    return read_values((there or places)[0]).astype(np.uint8)


def _for_readers(content: dict[str, Any]) -> dict[str, Any]:
    """Return what the templates need beside the report: an order, colours, and the settings in one mapping."""
    settings = content["settings"] | {"python": content["python"]}
    words, config = settings.pop("words", {}), settings.pop("config", {})
    names = (BACKGROUND, *settings.pop("classes"))
    settings["words"] = [f"{cls}: {', '.join(listed)}" for cls, listed in words.items()]
    colours = {name: f"#{bytes(one).hex()}" for name, one in zip(names, class_colours(names), strict=True)}
    ranked = sorted(content["classes"], key=lambda one: 1 if one["iou"] is None else -one["iou"])
    return {"colours": colours, "ranked": ranked, "all_settings": settings | config}
