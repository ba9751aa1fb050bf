"""Where people work: the page, a Label Studio backend, a CVAT function, a FiftyOne zoo model."""

from pnp_ovss.types import Vocabulary


def parse_classes(text: str) -> Vocabulary:  # until data.vocabulary has it
    """Return the classes of a text such as "person=person|child, dog"."""
    entries = [part.strip() for line in text.splitlines() for part in line.split(",") if part.strip()]
    pairs = [
        (name.strip(), words.split("|") if words else [name]) for name, _, words in (e.partition("=") for e in entries)
    ]
    Vocabulary.of([name for name, _ in pairs])
    return Vocabulary.of(dict(pairs))
