"""Imports point one way: a module imports only what lies on a lower level, imports within functions counted."""

import ast
from collections.abc import Iterator
from pathlib import Path

SOURCE = Path(__file__).resolve().parents[1] / "src" / "pnp_ovss"
LEVELS = (
    ("redaction",),
    ("errors", "_version", "processes", "parts"),
    ("settings", "types", "images", "files", "lock", "concurrent", "web", "memory", "cores"),
    ("models", "data", "pictures", "mini"),
    ("regions",),
    ("refine",),
    ("methods", "export"),
    ("segmentation",),
    ("segmenter", "naming"),
    ("runs",),
    ("evaluation", "tuning"),
    ("apps",),
    ("cli",),
)
"""Folders and modules, the lowest first."""
LEVEL = {name: number for number, names in enumerate(LEVELS) for name in names}
SAME_LEVEL = {("cores", "memory"), ("images", "types"), ("images", "files"), ("lock", "files"), ("settings", "files")}
FACE = ("__init__", "__main__")
"""What stands above all: the public names, and the command's entry."""


def modules() -> list[Path]:
    return sorted(SOURCE.rglob("*.py"))


def imported(path: Path) -> Iterator[str]:
    """Yield each of our modules that a file imports, anywhere in it, as dotted names below the package."""
    package = ("pnp_ovss", *path.relative_to(SOURCE).parent.parts)
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join([*base, *([node.module] if node.module else [])])
            names = [f"{module}.{alias.name}" for alias in node.names] if module == "pnp_ovss" else [module]
        else:
            continue
        yield from (name.removeprefix("pnp_ovss.") for name in names if name.startswith("pnp_ovss."))


def part(path: Path) -> str:
    first = path.relative_to(SOURCE).parts[0]
    return first.removesuffix(".py")


def test_every_part_has_a_level():
    assert {part(path) for path in modules()} - set(FACE) == set(LEVEL)


def test_no_import_runs_up_or_sideways():
    wrong = []
    for path in modules():
        own = part(path)
        for name in imported(path) if own not in FACE else ():
            other = name.split(".")[0]
            lower = other in (own, *LEVELS[0]) or LEVEL[other] < LEVEL[own] or (own, other) in SAME_LEVEL
            if not lower:
                wrong.append(f"{path.relative_to(SOURCE)} imports {name}")
    assert not wrong


def test_transformers_is_imported_in_models_and_methods_alone():
    wrong = []
    for path in modules():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            outside = part(path) not in ("models", "methods")
            if outside and any(name.split(".")[0] == "transformers" for name in names):
                wrong.append(str(path.relative_to(SOURCE)))
    assert not wrong


def test_shapes_are_checked_where_they_are_stated(pytestconfig):
    stated = {f"pnp_ovss.{part(path)}" for path in modules() if "from jaxtyping import" in path.read_text("utf-8")}
    checked = pytestconfig.getoption("jaxtyping_packages").split(",")
    assert sorted(stated) == [name for name in checked if name != "beartype.beartype"]
