"""The benchmarks, and folders of one's own. A new one is a function that returns ``Dataset``, and a line here."""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

from pnp_ovss.data.coco import objects, panoptic133, stuff171
from pnp_ovss.data.dataset import IGNORE, Dataset, table
from pnp_ovss.data.files import pairs
from pnp_ovss.data.voc import ade150, context, voc
from pnp_ovss.data.vocabulary import benchmark_vocabulary, load_vocabulary, read_lines, vocabularies
from pnp_ovss.errors import InputError
from pnp_ovss.types import BACKGROUND

__all__ = ["DATASETS", "IGNORE", "Dataset", "benchmark_vocabulary", "load_dataset", "load_vocabulary", "vocabularies"]


def folder(root: Path, split: str | None) -> Dataset:
    """Return the photos of a folder, with a background if a class has that name in any case; 255 is ignored."""
    base = root / split if split else root
    samples = pairs(base)
    if samples is None:
        raise InputError(f"{base} lacks images/ or masks/")
    listed = next((path for path in (base / "classes.txt", root / "classes.txt") if path.is_file()), None)
    if listed is None:
        raise InputError(f"the class list {base / 'classes.txt'} is missing")
    names = _names_by_id(listed)
    things = {value: name for value, name in names.items() if name.casefold() != BACKGROUND}
    if len({name.casefold() for name in things.values()}) < len(things):
        raise InputError(f"{listed} lists a name twice; name each class once")
    to_label = table(things, dict.fromkeys(names, 0) | {255: IGNORE})
    title, background = base.resolve().name, len(things) < len(names)  # the root may be "."
    classes, layout = tuple(things.values()), "folder"
    return Dataset(title, title, classes, background, samples.found, to_label, "folder", layout, samples.faults)


def _names_by_id(path: Path) -> dict[int, str]:
    names: dict[int, str] = {}
    for number, line in enumerate(read_lines(path)):
        before, colon, after = line.partition(":")
        if colon and before.strip().isdecimal():
            names[int(before)] = after.strip()
        else:
            names[number] = line
    if not names or max(names) > 254:
        raise InputError(f"{path} lists no name, or an id above 254")
    return names


DATASETS: dict[str, Callable[[Path, str | None], Dataset]] = {
    "voc20": partial(voc, background=False),
    "voc21": partial(voc, background=True),
    "context59": partial(context, background=False),
    "context60": partial(context, background=True),
    "object80": partial(objects, background=False),
    "object81": partial(objects, background=True),
    "stuff171": stuff171,
    "panoptic133": panoptic133,
    "ade150": ade150,
    "folder": folder,
}
"""Each reads a data set below a root folder; the second argument is the split, None for the usual one."""


def load_dataset(name: str, root: str | Path, split: str | None = None) -> Dataset:
    """Return a data set by its name.

    Raises: InputError if there is none of that name, or a file is missing: it says which, and where to get it.
    """
    if name not in DATASETS:
        raise InputError(f"no data set {name!r}; the data sets are {', '.join(DATASETS)}")
    root = Path(root).expanduser()
    if not root.is_dir():
        raise InputError(f"there is no folder {root}; give the one that holds the data set")
    try:
        return DATASETS[name](root, split)
    except InputError as error:
        sources = json.loads((Path(__file__).parent / "sources.json").read_text(encoding="utf-8"))
        raise InputError(f"{error}; {sources[name]}") from error
