"""The report of a run: one page that needs no network, and the same as Markdown and JSON."""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape

from pnp_ovss.data import Dataset
from pnp_ovss.evaluation.report.panels import hex_colour, panels
from pnp_ovss.evaluation.result import Result, report
from pnp_ovss.files import as_json, write_bytes, write_text
from pnp_ovss.pictures import class_colours
from pnp_ovss.types import BACKGROUND

FOLDER = Path(__file__).parent


def write_report(out: Path, result: Result, folders: Sequence[Path], dataset: Dataset | None) -> None:
    """Write report.html, report.md and report.json into ``out``.

    ``folders`` hold the run's label maps. Without a ``dataset`` the page has no photos.

    Raises: InputError if a file cannot be written.
    """
    content = report(result) | {"published": published(result.settings["dataset"])}
    write_bytes(out / "report.json", as_json(content, indent=1))
    photos = panels(result, folders, dataset) if dataset is not None else {}
    environment = Environment(
        loader=FileSystemLoader(FOLDER),
        autoescape=select_autoescape(["html"]),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["percent"] = percent
    values = content | _for_readers(content) | {"panels": photos}
    for name in ("report.md", "report.html"):
        write_text(out / name, environment.get_template(name).render(values))


def published(dataset: str) -> list[dict[str, Any]]:
    """Return the published scores on a data set, the best first: method, mIoU in percent, source and caveat."""
    with open(FOLDER / "published.csv", encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row.get(dataset)]
    columns = ("method", "source", "caveat")
    found = [{"miou": float(row[dataset])} | {column: row[column] for column in columns} for row in rows]
    return sorted(found, key=lambda row: -row["miou"])


def percent(share: float | None, digits: int = 1) -> str:
    """Return a share as percent; a dash where there is none."""
    return "-" if share is None else f"{100 * share:.{digits}f}"


def _for_readers(content: dict[str, Any]) -> dict[str, Any]:
    """Return what the templates need beside the report: orders, colours, and the settings as text."""
    settings, score, names = content["settings"], content["score"], (BACKGROUND, *content["settings"]["classes"])
    ours = [] if score["miou"] is None else [{"method": "this run", "miou": 100 * score["miou"], "source": None}]
    settings = {name: value for name, value in settings.items() if name not in ("config", "classes", "words")}
    words = content["settings"].get("words", {})
    settings |= {"words": [f"{cls}: {', '.join(some)}" for cls, some in words.items()]}
    settings |= content["settings"].get("config", {}) | {"python": content["python"]}
    return {
        "colours": dict(zip(names, map(hex_colour, class_colours(names)), strict=True)),
        "ranked": sorted(content["classes"], key=lambda one: (one["iou"] is None, -(one["iou"] or 0), one["class"])),
        "scale": sorted([*content["published"], *ours], key=lambda one: -one["miou"]),
        "all_settings": {name: _text(value) for name, value in settings.items() if value not in (None, "", [])},
    }


def _text(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
