"""Step 2: class names become the text the VLM reads."""

from collections.abc import Iterable, Sequence

from pnp_ovss.errors import InputError
from pnp_ovss.types import Prompt

PREFIX = "A picture of "


def make_prompt(classes: Sequence[str]) -> Prompt:
    """Return the prompt ``"A picture of c1 c2 ... cK"`` with the character span of each name.

    White space within a name is folded to single spaces. Source: PnP-OVSS, the authors' released code; there a name of
    several words had to be written as one.

    Raises: InputError if there is no name, an empty one, one named twice (upper and lower case count as equal), or what
    came is no list of texts.
    """
    if isinstance(classes, str):
        raise InputError(
            f"the classes came as one text, {classes!r}; a list of names is wanted, such as ['dog', 'cat']"
        )
    if not isinstance(classes, Iterable):
        raise InputError(
            f"the classes came as {type(classes).__name__}; a list of names is wanted, such as ['dog', 'cat']"
        )
    names = tuple(map(_folded, classes))
    if not names:
        raise InputError("no class was named; name at least one, such as 'dog'")
    seen: set[str] = set()
    for name in names:
        if not name:
            raise InputError("a class name is empty; leave it out or write the name")
        if name.casefold() in seen:
            raise InputError(f"class {_short(name)!r} is named twice; name each class once")
        seen.add(name.casefold())
    spans, start = [], len(PREFIX)
    for name in names:
        spans.append((start, start + len(name)))
        start += len(name) + 1
    return Prompt(PREFIX + " ".join(names), names, tuple(spans))


def _folded(name: object) -> str:
    if not isinstance(name, str):
        raise InputError(
            f"a class name came as {type(name).__name__}; a text is wanted, such as ['dog', 'cat'] for one photo, or a "
            "list of such lists for a list of photos"
        )
    return " ".join(name.split())


def _short(name: str) -> str:
    return name if len(name) <= 40 else name[:37] + "..."
