"""Your own photos and masks: a folder with ``images/``, ``masks/`` and ``classes.txt``."""

from pathlib import Path

from pnp_ovss.data.dataset import IGNORE, Dataset, pairs, table
from pnp_ovss.data.vocabulary import read_lines
from pnp_ovss.errors import InputError
from pnp_ovss.images import shown
from pnp_ovss.types import BACKGROUND

SOURCE = (
    "a folder with images/, masks/ (PNG of the same names, one channel of ids) and classes.txt (one name a line from "
    "id 0 on, or lines 'id: name') is wanted"
)


def folder(root: Path, split: str | None = None) -> Dataset:
    """Return the photos of a folder. 255 is ignored; of a class named "background" there may be one.

    Raises: InputError if the folder is laid out otherwise.
    """
    base = root / split if split else root
    samples = pairs(base, SOURCE)
    if samples is None:
        raise InputError(f"{shown(base)} lacks images/ or masks/; {SOURCE}")
    listed = next((path for path in (base / "classes.txt", root / "classes.txt") if path.is_file()), None)
    if listed is None:
        raise InputError(f"the class list {shown(base / 'classes.txt')} is missing; {SOURCE}")
    names = _names(listed)
    things = [(value, name) for value, name in names.items() if name != BACKGROUND]
    values = {value: label for label, (value, _) in enumerate(things, 1)} | {255: IGNORE}
    values |= {value: 0 for value, name in names.items() if name == BACKGROUND}
    classes = tuple(name for _, name in things)
    if len({name.casefold() for name in classes}) < len(classes):
        raise InputError(f"{shown(listed)} lists a name twice; name each class once")
    background = len(things) < len(names)
    return Dataset(base.name, base.name, classes, background, samples, table(values), "folder", "folder")


def _names(path: Path) -> dict[int, str]:
    """Return the name per id."""
    names: dict[int, str] = {}
    for number, line in enumerate(read_lines(path)):
        before, colon, after = line.partition(":")
        if colon and before.strip().isdecimal():
            names[int(before)] = after.strip()
        else:
            names[number] = line
    if not names or max(names) > 254:
        raise InputError(f"{shown(path)} lists no name, or an id above 254; {SOURCE}")
    return names
