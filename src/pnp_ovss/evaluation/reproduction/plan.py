"""The cells of a published table: what was published, and how each is run."""

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from pnp_ovss.data.benchmarks import DATASETS, THEIRS
from pnp_ovss.errors import ConfigError
from pnp_ovss.evaluation.report import published_scores
from pnp_ovss.methods import METHODS

FOLDER = Path(__file__).parent
TABLES: dict[str, str] = {
    "table3": "Table 3 of the PnP-OVSS poster, CVPR 2024",
    "field": "Methods without training beside PnP-OVSS",
    "ablation": "What each step of PnP-OVSS adds",
}
"""Title of each table."""


@dataclass(frozen=True)
class Row:
    """A line of a table."""

    table: str
    name: str
    published: str = ""
    """The method of its line of the published scores; empty where none are known."""
    title: str = ""
    method: str = ""
    model: str | None = None
    preset: str = "auto"
    settings: Mapping[str, Any] = field(default_factory=dict)
    names: str = "given"
    protocol: str = "standard"
    words: str = "plain"
    note: str = ""
    lacks: str = ""


@dataclass(frozen=True)
class Cell:
    """A row on a data set."""

    row: Row
    column: str
    dataset: str
    published: float | None
    """mIoU in percent."""
    source: str
    caveat: str
    lacks: str
    """Why it cannot be run; empty where it can."""
    replies: str
    """Usual name of the file with the names per image."""
    sha256: str
    """Of that file, where it is known."""
    named: float | None
    """Classes per image that the authors' own names keep."""

    @property
    def name(self) -> str:
        """Row and column."""
        return f"{self.row.name}/{self.column}"

    @property
    def title(self) -> str:
        """The row as the table names it."""
        return self.row.title or self.row.published

    @property
    def truth(self) -> str:
        """What its data set is called with the truth it is scored against: "object81", or "object81 (authors)"."""
        theirs = self.row.protocol == "authors" and DATASETS[self.dataset][0] in THEIRS
        return f"{self.dataset} (authors)" if theirs else self.dataset

    @property
    def vocabulary(self) -> str | None:
        """Name of the vocabulary; None: the data set's usual one."""
        chosen = _tables()["words"][self.row.words]
        vocabulary: str | None = chosen.get(self.dataset, chosen.get(""))
        return vocabulary

    @property
    def classes(self) -> dict[str, float]:
        """Published IoU of single classes in percent, and their source."""
        return {row["class"]: float(row["iou"]) for row in self._class_rows()}

    @property
    def classes_source(self) -> str:
        """Where the scores of single classes were published."""
        return next((row["source"] for row in self._class_rows()), "")

    def _class_rows(self) -> list[dict[str, str]]:
        own = {"published": self.row.published, "data": self.dataset}
        return [row for row in _class_scores() if own.items() <= row.items()]


def plan(table: str) -> list[Cell]:
    """Return the cells of a table, row by row: those with a published score, and all of rows that have none.

    Raises: ConfigError if there is no such table.
    """
    if table not in TABLES:
        raise ConfigError(f"there is no table {table!r}; the tables are {', '.join(TABLES)}")
    every = [column for column in _tables()["columns"] if table in column["tables"]]
    rows = [row for row in _tables()["rows"] if row["table"] == table]
    return [cell for row in rows for column in every if (cell := _cell(row, column))]


def chosen(cells: Sequence[Cell], rows: Sequence[str], columns: Sequence[str]) -> list[Cell]:
    """Return those cells whose row and column are asked for; none asked for: every one.

    Raises: ConfigError for a row or column that the table does not have.
    """
    for what, asked, known in (
        ("row", rows, dict.fromkeys(cell.row.name for cell in cells)),
        ("column", columns, dict.fromkeys(cell.column for cell in cells)),
    ):
        if strange := next((name for name in asked if name not in known), None):
            raise ConfigError(f"the table has no {what} {strange!r}; its {what}s are {', '.join(known)}")
    return [
        cell for cell in cells if cell.row.name in (rows or [cell.row.name]) and cell.column in (columns or cell.column)
    ]


def columns_of(table: str) -> dict[str, str]:
    """Return title by name of the columns of a table."""
    return {column["name"]: column["title"] for column in _tables()["columns"] if table in column["tables"]}


def _cell(entry: dict[str, Any], column: dict[str, Any]) -> Cell | None:
    row = Row(**{name: value for name, value in entry.items() if name != "except"})
    line = published_scores()[row.published] if row.published else {}
    dataset = next((name for name in column["data"] if line.get(name)), None if row.published else column["data"][0])
    if dataset is None:
        return None
    published = float(line[dataset]) if line else None
    lacks = row.lacks or entry.get("except", {}).get(dataset, "") or _lacks(row, dataset)
    about = line.get("source", "no published number is known here"), line.get("caveat", "")
    replies = column.get("replies", ""), column.get("sha256", "")
    return Cell(row, column["name"], dataset, published, *about, lacks, *replies, column.get("named"))


def _lacks(row: Row, dataset: str) -> str:
    if row.method not in METHODS:
        return f"the method {row.method} is not part of this version"
    if row.preset == "auto" and f"{row.method}/{dataset}" not in METHODS[row.method].presets:
        return "its settings on this data set were not published"
    return ""


@cache
def _tables() -> dict[str, Any]:
    tables: dict[str, Any] = json.loads((FOLDER / "tables.json").read_text(encoding="utf-8"))
    return tables


@cache
def _class_scores() -> list[dict[str, str]]:
    with open(FOLDER / "classes.csv", encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))
