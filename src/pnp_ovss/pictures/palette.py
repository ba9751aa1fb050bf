"""Value and colour of each class, the same in all label maps and pictures of a run."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import ImageColor

from pnp_ovss.errors import InputError
from pnp_ovss.files import reachable, read_json
from pnp_ovss.pictures import MOST_CLASSES, Colours, class_colours
from pnp_ovss.types import BACKGROUND, fold

RGBColour = tuple[int, int, int]


@dataclass
class Palette:
    """Which value a class has in label maps, and which colour; 0 is the background. An empty one counts as it comes.

    A class that ``numbers`` lacks takes the next free value: for good if the palette ``grows``, else in that label map
    alone. A class has the colour of its value, unless ``colours`` says otherwise.
    """

    numbers: dict[str, int] = field(default_factory=dict)
    colours: dict[str, RGBColour] = field(default_factory=dict)
    """By name, in any case."""
    grows: bool = False

    def begin_with(self, numbers: dict[str, int]) -> None:
        """Take over values that are in use already; the classes known before get those that are free."""
        names, self.numbers = list(self.numbers), dict(numbers)
        taken = set(numbers.values())
        free = (number for number in range(1, MOST_CLASSES + 1) if number not in taken)
        new = [name for name in names if name not in numbers]
        self.numbers.update(zip(new, free, strict=False))

    def values_of(self, classes: Sequence[str]) -> list[int]:
        """Return the value of each class; the first is 0 where it is the background, and where nothing is numbered."""
        numbers, plain = self.numbers if self.grows else dict(self.numbers), not (self.numbers or self.grows)
        if plain:
            return list(range(len(classes)))
        taken = set(numbers.values()) | {0}
        free = (number for number in range(1, 2 * MOST_CLASSES) if number not in taken)
        own = classes[1:] if classes[:1] == (BACKGROUND,) else classes
        extra = dict[str, int]()
        for name in own:
            if name not in numbers:
                extra[name] = next(free)
        if extra and max(extra.values()) > MOST_CLASSES:  # no place for good: any value that this label map leaves free
            used = {numbers[name] for name in own if name in numbers} | {0}
            spare = (number for number in range(1, MOST_CLASSES + 1) if number not in used)
            extra = {name: next(spare) for name in extra}
        elif self.grows:
            self.numbers.update(extra)
        return [0] * (len(classes) - len(own)) + [(numbers | extra)[name] for name in own]

    def colours_of(self, classes: Sequence[str]) -> Colours:
        """Return the colour of each class."""
        values = self.values_of(classes)
        first = int(0 in values and classes[:1] != (BACKGROUND,))  # nothing is numbered, and there is no background
        table = class_colours((BACKGROUND, *map(str, range(max(values, default=0) + first))))
        found = table[[value + first for value in values]]
        for index, name in enumerate(classes):
            if fold(name) in self.colours:
                found[index] = self.colours[fold(name)]
        return found

    def table_of(self, classes: Sequence[str]) -> Colours:
        """Return the colour of each value that a label map of these classes can have."""
        values, colours = self.values_of(classes), self.colours_of(classes)
        table = np.zeros((max(values, default=0) + 1, 3), dtype=np.uint8)
        table[values] = colours
        return table


def read_colours(path: Path) -> dict[str, RGBColour]:
    """Return the colours of a file with one class a line, such as "dog: #ff8000", "dog: 255,128,0" or "dog: orange".

    A .json file has {"dog": "#ff8000"}; VOC's labelmap.txt is understood. # starts a comment at the start of a line.

    Raises: InputError if it cannot be read, or a line has no colour.
    """
    if path.suffix == ".json":
        entries = [(name, json.dumps(value).strip('"[]')) for name, value in read_json(path).items()]
    else:
        with reachable(path, "cannot be read", "check the path"):
            lines = path.read_text(encoding="utf-8-sig").splitlines()
        kept = (line for line in lines if line.strip() and not line.startswith("#"))
        entries = [(name, rest.split(":")[0]) for name, _, rest in (line.partition(":") for line in kept)]
    return {fold(name): _colour(path, name, text.strip()) for name, text in entries}


def _colour(path: Path, name: str, text: str) -> RGBColour:
    try:
        red, green, blue = ImageColor.getrgb(f"rgb({text})" if text[:1].isdigit() else text)[:3]
    except ValueError as error:
        expected = "a colour such as 'dog: #ff8000', 'dog: 255,128,0' or 'dog: orange'"
        raise InputError(f"expected {expected} in {path}, got {name!r} with {text!r}") from error
    return red, green, blue
