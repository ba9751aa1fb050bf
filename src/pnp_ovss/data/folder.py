"""Your own photos and masks: a folder with ``images/``, ``masks/`` and ``classes.txt``."""

from pathlib import Path

from pnp_ovss.data.dataset import IGNORE, Dataset, pairs, table
from pnp_ovss.data.vocabulary import read_lines
from pnp_ovss.errors import InputError
from pnp_ovss.types import BACKGROUND

SOURCE = (
    "a folder with images/, masks/ (PNG of the same names, one channel of ids) and classes.txt (one name a line from "
    "id 0 on, or lines 'id: name') is wanted"
)


def folder(root: Path, split: str | None = None) -> Dataset:
    """Return the photos of a folder, with a background if a class has that name in any case; 255 is ignored.

    Raises: InputError if the folder is laid out otherwise.
    """
    base = root / split if split else root
    samples, faults = pairs(base, SOURCE)
    if not samples:
        raise InputError(f"{base} lacks images/ or masks/; {SOURCE}")
    listed = next((path for path in (base / "classes.txt", root / "classes.txt") if path.is_file()), None)
    if listed is None:
        raise InputError(f"the class list {base / 'classes.txt'} is missing; {SOURCE}")
    names = _names(listed)
    things = [(value, name) for value, name in names.items() if name.casefold() != BACKGROUND]
    values = dict.fromkeys(names, 0) | {value: label for label, (value, _) in enumerate(things, 1)} | {255: IGNORE}
    classes = tuple(name for _, name in things)
    if len({name.casefold() for name in classes}) < len(classes):
        raise InputError(f"{listed} lists a name twice; name each class once")
    background = len(things) < len(names)
    name = base.resolve().name  # the root may be "."
    return Dataset(name, name, classes, background, samples, table(values), "folder", "folder", faults)


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
        raise InputError(f"{path} lists no name, or an id above 254; {SOURCE}")
    return names
