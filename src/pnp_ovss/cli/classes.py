"""The flags that name classes: a list, a file, or a namer's work."""

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import typer

from pnp_ovss.cli.flags import ModelFlags, count
from pnp_ovss.cli.name import check_vocabulary, reply_cache
from pnp_ovss.data.vocabulary import read_lines
from pnp_ovss.errors import InputError
from pnp_ovss.naming import KEEP, NAMERS, Options, load_candidates, load_namer
from pnp_ovss.naming.endpoint import Patience
from pnp_ovss.pictures import check_count
from pnp_ovss.runs.batch import ClassSource
from pnp_ovss.types import Vocabulary

AUTO = "auto"


@dataclass(frozen=True)
class ClassFlags:
    """What to look for in all photos, or that a namer is asked photo by photo."""

    classes: Annotated[
        str | None,
        typer.Option(
            metavar="NAMES", help="what to look for, with commas: 'dog, traffic light'; auto: a namer says it, by photo"
        ),
    ] = None
    classes_file: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="the same from a file, one name a line, # starts a comment; batch: or a .json file with the names of "
            'each photo by its path below PHOTOS without suffix: {"2024/dog": ["dog", "sofa"]}',
        ),
    ] = None

    def vocabulary(self) -> Vocabulary | None:
        """Return the classes for all photos, or None where a namer is to say them.

        Raises: InputError if the file cannot be read or a name cannot be used.
        """
        if (self.classes is None) == (self.classes_file is None):
            raise InputError("expected classes: give either --classes 'dog, cat' or --classes-file FILE")
        if self.classes == AUTO:
            return None
        names = self.classes.split(",") if self.classes is not None else read_lines(Path(str(self.classes_file)))
        vocabulary = Vocabulary.of(names)
        check_count(vocabulary.classes)
        return vocabulary


@dataclass(frozen=True)
class NamerFlags:
    """What names the classes, with --classes auto."""

    namer: Annotated[str, typer.Option(metavar="NAME", help=f"{', '.join(NAMERS)}; docs/naming.md compares them")] = (
        "itm"
    )
    vocabulary: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|FILE",
            help="what to choose from: voc, context, coco-object, coco-stuff, coco-panoptic, ade20k, scenes, or a file "
            "with one name a line; without it anything, where the namer can do that",
        ),
    ] = None
    keep: Annotated[float, typer.Option(min=0, max=1, metavar="X", help="names above this confidence count")] = KEEP
    namer_model: Annotated[
        str | None, typer.Option(metavar="NAME", help="openai: a chat model; clip, caption: a checkpoint")
    ] = None
    names: Annotated[str | None, typer.Option(metavar="NAMES", help="given: the names, with commas")] = None
    names_from: Annotated[
        Path | None, typer.Option(metavar="FILE|DIR", help="cached: names, replies, or a cache's folder")
    ] = None
    base_url: Annotated[
        str | None, typer.Option(metavar="URL", help="openai: another server (default: OpenAI's, or OPENAI_BASE_URL)")
    ] = None
    cache: Annotated[
        Path | None, typer.Option(metavar="DIR", help="openai: where replies are kept (default: in the user's cache)")
    ] = None
    calls: Annotated[int, count("openai: photos asked about at a time")] = 4
    timeout: Annotated[int, count("openai: seconds until a call has failed")] = 60
    tries: Annotated[int, count("openai: tries of a call")] = 6

    def source(self, model: ModelFlags) -> ClassSource:
        """Return what asks the namer.

        Raises: PnpError for what would stop it, as far as that can be found out before a model is loaded.
        """
        candidates = load_candidates(self.vocabulary) if self.vocabulary else None
        options = self.options(model)
        if self.namer not in NAMERS or self.namer in ("given", "cached"):
            load_namer(self.namer, options)
        check_vocabulary(self.namer, model.checkpoint, self.vocabulary)
        calls = self.calls if self.namer == "openai" else 1
        return ClassSource(None, self.namer, options, candidates, self.keep, calls)

    def options(self, model: ModelFlags) -> Options:
        """Return the namer's settings."""
        return Options(
            names=tuple(self.names.split(",")) if self.names else (),
            source=self.names_from,
            model=self.namer_model,
            base_url=self.base_url or os.environ.get("OPENAI_BASE_URL"),
            cache=self.cache or reply_cache(),
            patience=Patience(timeout=float(self.timeout), tries=self.tries),
            device=model.device,
            dtype=model.dtype,
        )


def class_source(classes: ClassFlags, namer: NamerFlags, model: ModelFlags) -> ClassSource:
    """Return where the classes of the photos come from.

    Raises: PnpError for what can be found wrong before a model is loaded.
    """
    file = classes.classes_file
    if classes.classes is None and file is not None and file.suffix == ".json":
        namer = replace(namer, namer="cached", names_from=file)
        return namer.source(model)
    vocabulary = classes.vocabulary()
    return namer.source(model) if vocabulary is None else ClassSource(vocabulary)
