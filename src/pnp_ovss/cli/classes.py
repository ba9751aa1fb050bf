"""The flags that name classes: a list, a file, or a namer's work."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pnp_ovss.types import Vocabulary

AUTO = "auto"


def add_classes(parser: argparse.ArgumentParser, also: str = "") -> None:
    """Add the flags, one of which has to be given; ``also`` is what the file may hold besides names."""
    group = parser.add_mutually_exclusive_group(required=True)
    group.add_argument(
        "--classes",
        metavar="NAMES",
        help="what to look for, with commas: 'dog, traffic light'; auto: a namer says it, photo by photo",
    )
    group.add_argument(
        "--classes-file",
        type=Path,
        metavar="FILE",
        help=f"the same from a file, one name a line, # starts a comment{also}",
    )


def named(arguments: argparse.Namespace) -> "Vocabulary | None":
    """Return the classes that the flags name for all photos, or None where a namer is to say them.

    Raises: InputError if the file cannot be read or a name cannot be used.
    """
    from pnp_ovss.data.vocabulary import read_lines
    from pnp_ovss.pictures import check_count
    from pnp_ovss.types import Vocabulary

    if arguments.classes == AUTO:
        return None
    names = read_lines(arguments.classes_file) if arguments.classes is None else arguments.classes.split(",")
    vocabulary = Vocabulary.of(names)
    check_count(vocabulary.classes)
    return vocabulary
