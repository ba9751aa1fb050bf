"""What is recommended: one table on the page and on the terminal; its entries exist, its numbers have a source."""

import csv
import json
import re
from pathlib import Path

from pnp_ovss import METHODS
from pnp_ovss.cli import main, models
from pnp_ovss.models.hub import SHORT_NAMES
from pnp_ovss.refine import REFINERS
from pnp_ovss.regions import SOURCES

ROOT = Path(__file__).parents[2]
ROWS = list(csv.DictReader(Path(models.__file__).with_name("choices.csv").read_text(encoding="utf-8").splitlines()))
PUBLISHED = ROOT / "src/pnp_ovss/evaluation/report/published.csv"
COLUMNS = {"VOC21": "voc21", "Object": "object81", "ADE": "ade150"}


def test_the_page_has_the_table():
    text = (ROOT / "docs/choosing.md").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    assert [[cell.strip() for cell in line.strip("|").split("|")] for line in lines] == [
        [*ROWS[0]],
        *([*row.values()] for row in ROWS),
    ]


def test_the_command_prints_the_table(capsys):
    assert not main(["models", "--recommend"])
    heading, *lines = capsys.readouterr().out.splitlines()
    assert re.split(r"\s{2,}", heading) == [*ROWS[0]]
    assert [line.split("  ")[0] for line in lines[: len(ROWS)]] == [row["need"] for row in ROWS]
    assert not main(["models", "--recommend", "--json"])
    assert [json.loads(line) for line in capsys.readouterr().out.splitlines()] == ROWS


def test_what_is_recommended_exists():
    for row in ROWS:
        assert row["method"] in (*METHODS, "any")
        assert row["model"] in (*SHORT_NAMES, "any")
        assert {*row["refine"].split(",")} <= {*REFINERS, "none"}
        assert row["regions"] in (*SOURCES, "")


def test_published_numbers_are_those_of_the_reports_with_their_source():
    with PUBLISHED.open(encoding="utf-8", newline="") as file:
        published = [*csv.DictReader(file)]
    quoted = [row for row in ROWS if "VOC21" in row["quality"]]
    assert quoted
    for row in quoted:
        numbers = {COLUMNS[name]: number for name, number in re.findall(r"(\w+) ([\d.]+)", row["quality"])}
        assert any(numbers.items() <= one.items() and row["measured by"] == one["source"] for one in published), row


def test_what_nobody_measured_is_called_so():
    for row in ROWS:
        assert (row["quality"] == "not measured") == (not row["measured by"])
        assert row["seconds"]
        assert row["GB"]
        assert ("mini model" in row["quality"]) == row["model"].startswith("mini-")
