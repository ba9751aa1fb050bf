"""The flags that name classes: a list, a file, or a namer's work."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import typer

from pnp_ovss.cli.flags import ModelFlags
from pnp_ovss.cli.name import NamerFlags
from pnp_ovss.data.vocabulary import parse_classes, read_classes
from pnp_ovss.errors import InputError
from pnp_ovss.pictures import check_count
from pnp_ovss.runs.batch import ClassSource

AUTO = "auto"


@dataclass(frozen=True)
class ClassFlags:
    """What to look for in all photos, or that a namer is asked photo by photo."""

    classes: Annotated[
        str | None,
        typer.Option(
            metavar="NAMES",
            help="what to look for, with commas: 'dog, traffic light', or with words for a class, 'person=man|child'; "
            "auto: a namer says it, photo by photo",
        ),
    ] = None
    classes_file: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="the same from a file, one class a line, # starts a comment; or a .json file with the names of each "
            'photo by its key, for batch the path below PHOTOS without suffix: {"2024/dog": ["dog", "sofa"]}',
        ),
    ] = None

    def source(self, namer: NamerFlags, model: ModelFlags) -> ClassSource:
        """Return where the classes of the photos come from.

        Raises: PnpError for what can be found wrong before a model is loaded.
        """
        if (self.classes is None) == (self.classes_file is None):
            raise InputError("expected classes: give either --classes 'dog, cat' or --classes-file FILE")
        if self.classes_file is not None and self.classes_file.suffix == ".json":
            return _named(replace(namer, namer="cached", names_from=self.classes_file), model)
        if self.classes == AUTO:
            return _named(namer, model)
        vocabulary = read_classes(self.classes_file) if self.classes_file else parse_classes(str(self.classes))
        check_count(vocabulary.classes)
        return ClassSource(vocabulary)


CLASSES = ClassFlags()


def _named(namer: NamerFlags, model: ModelFlags) -> ClassSource:
    namer.check(model)
    return ClassSource(None, namer.namer, namer.options(model), namer.candidates(), namer.keep, namer.at_once)
