"""The report of a run: one page that needs no network, and the same as Markdown and JSON."""

import json
from collections.abc import Sequence
from pathlib import Path

from pnp_ovss.data import Dataset
from pnp_ovss.evaluation.report.markdown import markdown
from pnp_ovss.evaluation.report.page import page
from pnp_ovss.evaluation.report.panels import panels
from pnp_ovss.evaluation.result import Result, report
from pnp_ovss.files import write_text

__all__ = ["write_report"]


def write_report(out: Path, result: Result, folders: Sequence[Path], dataset: Dataset | None) -> None:
    """Write report.html, report.md and report.json into ``out``.

    ``folders`` hold the run's label maps. Without a ``dataset`` the page has no photos.

    Raises: InputError if a file cannot be written.
    """
    told = report(result)
    shown = panels(result, folders, dataset) if dataset is not None else {}
    write_text(out / "report.json", json.dumps(told, indent=1, ensure_ascii=False, allow_nan=False) + "\n")
    write_text(out / "report.md", markdown(told))
    write_text(out / "report.html", page(told, shown))
