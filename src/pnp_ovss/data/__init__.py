"""The benchmarks, and folders of one's own.

A new benchmark is a function in ``benchmarks.py`` that finds its samples, an entry in ``benchmarks.json``, and a class
list in ``classes/``.
"""

from pathlib import Path

from pnp_ovss.data.benchmarks import ABOUT, FIND
from pnp_ovss.data.dataset import IGNORE, Dataset, pairs, table
from pnp_ovss.data.vocabulary import benchmark_vocabulary, class_names, load_vocabulary, read_lines, vocabularies
from pnp_ovss.errors import InputError, one_line
from pnp_ovss.types import BACKGROUND

__all__ = ["DATASETS", "IGNORE", "Dataset", "benchmark_vocabulary", "load_dataset", "load_vocabulary", "vocabularies"]

DATASETS = {name: (words, scored) for words, about in ABOUT.items() for name, scored in about["data sets"].items()}
"""The class list of each data set, and whether all beyond its classes is a background that is scored, or no class."""


def load_dataset(name: str, root: str | Path, split: str | None = None) -> Dataset:
    """Return a data set by its name; ``split``: None for the usual one.

    Raises: InputError if there is none of that name, or a file is missing: it says which, and where to get it.
    """
    if name not in DATASETS:
        raise InputError(f"no data set {name!r}; the data sets are {', '.join(DATASETS)}")
    root = Path(root).expanduser()
    if not root.is_dir():
        raise InputError(f"there is no folder {root}; give the one that holds the data set")
    try:
        return folder(root, split) if name == "folder" else _benchmark(name, root, split)
    except (InputError, KeyError, TypeError) as error:
        damaged = f"annotations in {root} are damaged: {one_line(repr(error))}"  # they lack something
        fault = error if isinstance(error, InputError) else damaged
        raise InputError(f"{fault}; {ABOUT[DATASETS[name][0]]['source']}") from error


def folder(root: Path, split: str | None) -> Dataset:
    """Return the photos of a folder, with a background if a class has that name in any case; 255 is ignored."""
    base = root / (split or "")
    samples = pairs(base)
    if samples is None:
        raise InputError(f"{base} lacks images/ or masks/")
    listed = next((path for path in (base / "classes.txt", root / "classes.txt") if path.is_file()), None)
    if listed is None:
        raise InputError(f"the class list {base / 'classes.txt'} is missing")
    names = _names_by_id(listed)
    things = {value: name for value, name in names.items() if name.casefold() != BACKGROUND}
    if not 0 < len(things) < IGNORE or max(names) >= IGNORE:
        raise InputError(f"{listed} lists no class, or an id above 254")
    if len({name.casefold() for name in things.values()}) < len(things):
        raise InputError(f"{listed} lists a name twice; name each class once")
    to_label = table(things, dict.fromkeys(names, 0) | {255: IGNORE})
    title, background = base.resolve().name, len(things) < len(names)  # the root may be "."
    classes, layout = tuple(things.values()), "folder"
    return Dataset(title, title, classes, background, samples.found, to_label, "folder", layout, samples.faults)


def _benchmark(name: str, root: Path, split: str | None) -> Dataset:
    """Return a data set of the table, from its own files or from ``images/`` and ``masks/`` with the same values."""
    words, background = DATASETS[name]
    about, classes, nothing = ABOUT[words], class_names(words), 0 if background else IGNORE
    samples = pairs(root) or FIND[words](root, split or about["split"])
    ids = samples.ids or about.get("ids", range(1, len(classes) + 1))
    others = dict.fromkeys(about.get("others", ()), nothing) | {0: nothing, 255: IGNORE}
    title = f"{about['title']}, {len(classes)} classes" + (" and background" if background else "")
    values, layout, faults = table(ids, others), samples.layout, samples.faults
    return Dataset(name, title, classes, background, samples.found, values, words, layout, faults)


def _names_by_id(path: Path) -> dict[int, str]:
    names: dict[int, str] = {}
    for number, line in enumerate(read_lines(path)):
        before, colon, after = line.partition(":")
        numbered = colon and before.strip().isdecimal()
        names[int(before) if numbered else number] = after.strip() if numbered else line
    return names
