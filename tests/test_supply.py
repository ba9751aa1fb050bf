"""What is installed: every package that is imported is declared, and every one that make takes is known by its hash."""

import ast
import re
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
ENTRY = re.compile(r"^([\w.-]+)==([\w.]+)(?: ;[^\\\n]*)?((?: \\\n    --hash=sha256:[0-9a-f]{64})+)\n", re.MULTILINE)


def plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", re.match(r"[\w.-]+", name)[0]).lower()


def declared(*extras: str) -> set[str]:
    named = [*PROJECT["dependencies"], *(one for extra in extras for one in PROJECT["optional-dependencies"][extra])]
    return set(map(plain, named))


def imported() -> set[str]:
    found = set()
    for path in (ROOT / "src").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) and node.module and not node.level else []
            found |= {name.split(".")[0] for name in names}
    return found - {*sys.stdlib_module_names, "pnp_ovss"}


def test_every_package_that_is_imported_is_declared():
    packages, known = packages_distributions(), declared(*PROJECT["optional-dependencies"])
    here = {name: set(map(plain, packages[name])) for name in imported() if name in packages}
    assert {name for name, own in here.items() if not own & known} == set()


def test_every_package_that_make_installs_has_a_version_and_hashes():
    text = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    assert ENTRY.sub("", re.sub(r"^#.*\n", "", text, flags=re.MULTILINE)) == ""
    assert "://" not in text
    names = [plain(name) for name, *_ in ENTRY.findall(text)]
    assert len(names) == len(set(names))
    assert declared("dev") <= set(names)
    assert "--require-hashes" in (ROOT / "Makefile").read_text(encoding="utf-8")


def test_pillow_is_one_whose_jpeg2000_reader_is_mended():
    assert "pillow>=12.3" in PROJECT["dependencies"]
