"""The examples of docs/architecture.md: a refiner and a method added by one file and one line, and nothing else."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
BLOCK = re.compile(r"```python title=\"([^\"]+)\"\n(.*?)```", re.DOTALL)


@pytest.fixture(scope="module")
def extended(tmp_path_factory) -> Path:
    """A copy of the package with the page's blocks in it."""
    source = shutil.copytree(
        ROOT / "src" / "pnp_ovss",
        tmp_path_factory.mktemp("src") / "pnp_ovss",
        ignore=shutil.ignore_patterns("__pycache__", "mini-clip", "mini-bridgetower"),
    )
    blocks = dict(BLOCK.findall((ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")))
    for name in ("refine/dilate.py", "methods/colour.py"):
        (source / name).write_text(blocks.pop(name), encoding="utf-8")
    for title, line in blocks.items():
        table, file = re.fullmatch(r"a line of (\w+) in (\S+)", title).groups()
        text = (source / file).read_text(encoding="utf-8")
        start = re.search(rf"^{table}\b.*= {{$", text, re.MULTILINE).end()
        (source / file).write_text(text[:start] + "\n" + line + text[start:], encoding="utf-8")
    for file, imports in (
        ("refine/__init__.py", "from pnp_ovss.refine.dilate import Dilate\n"),
        ("methods/__init__.py", "from pnp_ovss.methods import colour\n"),
    ):
        text = (source / file).read_text(encoding="utf-8")
        at = text.index("from pnp_ovss.")
        (source / file).write_text(text[:at] + imports + text[at:], encoding="utf-8")
    return source.parent


CODE = """
import numpy as np
import pnp_ovss
from pnp_ovss.cli import main
maps = np.zeros((1, 5, 5), np.float32)
maps[0, 2, 2] = 1
photo = np.zeros((5, 5, 3), np.uint8)
for radius in (0, 1):
    config = pnp_ovss.Config(refiners=("dilate",), dilate_radius=radius, background="never", threshold=0.5)
    print("dilated", int((pnp_ovss.refine(maps, photo, config)[1] == 1).sum()))
main(["segment", "--help"])
arguments = ["cars.png", "--classes", "red car, blue sky", "--method", "colour", "--grid", "20"]
print("exit code", main(["segment", *arguments]))
"""


@pytest.mark.slow
def test_a_refiner_and_a_method_are_a_file_and_a_line_each(extended, tmp_path):
    photo = np.full((40, 60, 3), 255, np.uint8)
    photo[10:30, 10:30] = (255, 0, 0)
    photo[5:35, 40:55] = (0, 0, 255)
    Image.fromarray(photo).save(tmp_path / "cars.png")
    environment = {"PYTHONPATH": str(extended), "HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", CODE], cwd=tmp_path, env=environment, text=True, capture_output=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("dilated 1\ndilated 9\n")
    assert "--dilate-radius" in done.stdout
    assert "how far the window reaches" in " ".join(done.stdout.split())
    assert "cars.png: red car " in done.stdout or "cars.png: blue sky " in done.stdout
    assert done.stdout.rstrip().endswith("exit code 0")
    labels = np.array(Image.open(tmp_path / "results" / "cars.png"))
    expected = np.zeros((40, 60), int)
    expected[10:30, 10:30], expected[5:35, 40:55] = 1, 2
    assert (labels == expected).mean() > 0.85
    assert {0, 1, 2} == set(np.unique(labels))
