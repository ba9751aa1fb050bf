"""The flags that name classes: a list, a file, or a namer's work."""

import argparse
from pathlib import Path

from pnp_ovss.errors import InputError, one_line

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


def named(arguments: argparse.Namespace) -> tuple[str, ...]:
    """Return the classes that the flags name for all photos, or none where a namer is to say them.

    Raises: InputError if the file cannot be read or a name cannot be used.
    """
    from pnp_ovss.methods.pnp.prompt import make_prompt
    from pnp_ovss.pictures import check_count

    if arguments.classes == AUTO:
        return ()
    names = _lines(arguments.classes_file) if arguments.classes is None else arguments.classes.split(",")
    classes = make_prompt([name.strip() for name in names]).classes
    check_count(classes)
    return classes


def _lines(file: Path) -> list[str]:
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = one_line(error) if isinstance(error, OSError) else "it is no text in UTF-8"
        raise InputError(f"the classes file {file} cannot be read ({reason}); one name a line is wanted") from error
    return [name for line in lines if (name := line.split("#")[0].strip())]
