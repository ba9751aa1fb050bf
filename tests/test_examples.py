"""The notebook runs from its first cell to its last, and carries what it showed."""

import json
from pathlib import Path

import pytest

NOTEBOOKS = sorted((Path(__file__).parents[1] / "examples").glob("*.ipynb"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_a_notebook_runs(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    notebook = json.loads(path.read_text(encoding="utf-8"))
    assert notebook["nbformat"] == 4
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    space = {"__name__": "__main__"}
    for number, cell in enumerate(cells, start=1):
        assert cell["execution_count"] == number  # it was run from top to bottom
        exec(compile("".join(cell["source"]), f"{path.name}, cell {number}", "exec"), space)
    shown = [data for cell in cells for output in cell["outputs"] for data in output.get("data", {})]
    assert "image/png" in shown


def test_there_is_a_notebook_and_it_is_small():
    assert NOTEBOOKS
    assert all(path.stat().st_size < 600_000 for path in NOTEBOOKS)
