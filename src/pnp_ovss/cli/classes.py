"""The flags that say which classes to look for: a list, a file, or a namer's work."""

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

from pnp_ovss.cli.flags import Count, Dir, File, ModelFlags, Name, Share, value
from pnp_ovss.data.vocabulary import BENCHMARKS, load_vocabulary, parse_classes, read_classes, read_lines
from pnp_ovss.errors import InputError
from pnp_ovss.naming import NAMERS, Options, load_namer
from pnp_ovss.pictures import check_count
from pnp_ovss.runs.batch import ClassSource
from pnp_ovss.types import Vocabulary

AUTO = "auto"


@dataclass(frozen=True)
class NamerFlags:
    """What names the classes, and what it needs.

    Args:
        namer: docs/naming.md compares them
        vocabulary: what to choose from; a file has one class a line; without it anything, where the namer can do that
        keep: names above this confidence count
        namer_model: openai: a chat model; clip, caption: a checkpoint
        names: given: the names, with commas
        names_from: cached: names, replies, or a cache's folder; given: a file with one name a line
        base_url: openai: another server
        cache: openai: where replies are kept (default: in the user's cache)
        calls: openai: photos asked about at a time
        timeout: openai: seconds until a call has failed
        tries: openai: tries of a call
    """

    namer: Annotated[str, value("|".join(NAMERS))] = "itm"
    vocabulary: Annotated[str, value("|".join((*BENCHMARKS, "FILE")))] | None = None
    keep: Share = 0.7
    namer_model: Name | None = None
    names: Annotated[str, value("NAMES")] | None = None
    names_from: Annotated[Path, value("FILE|DIR")] | None = None
    base_url: Annotated[str, value("URL", envvar="OPENAI_BASE_URL")] | None = None
    cache: Dir | None = None
    calls: Count = 4
    timeout: Annotated[float, value("N", min=1)] = 60.0
    tries: Count = 6

    @property
    def at_once(self) -> int:
        """Photos that are named at a time."""
        return self.calls if self.namer == "openai" else 1

    def candidates(self) -> Vocabulary | None:
        """Return the vocabulary to choose from, if any. Raises: InputError."""
        return load_vocabulary(self.vocabulary) if self.vocabulary else None

    def options(self, model: ModelFlags, vlm: Callable[[], Any] | None = None) -> Options:
        """Return the settings of the namer; ``vlm`` gives the model of one that matches with it."""
        names = parse_classes(self.names).classes if self.names else ()
        if self.namer == "given" and self.names_from:
            names = tuple(read_lines(self.names_from))
        user = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
        cache = self.cache or user / "pnp-ovss" / "replies"
        server = self.base_url, cache, self.timeout, self.tries - 1
        return Options(names, self.names_from, vlm, self.namer_model, *server, model.device, model.dtype)

    def check(self, model: ModelFlags) -> None:
        """Raise what would stop the namer, as far as that shows before its model is loaded or even fetched."""
        if self.namer not in NAMERS or self.namer in ("given", "cached"):
            load_namer(self.namer, self.options(model))
        name = model.checkpoint
        knows_names = name.startswith("mini-") or Path(name).is_dir()
        if self.candidates() is None and self.namer == "itm" and not knows_names:
            what = f"itm by {name} needs a vocabulary to choose from"
            raise InputError(f"{what}; give --vocabulary coco-object, another one, or a file")


@dataclass(frozen=True)
class ClassFlags:
    """What to look for in all photos, or that a namer is asked photo by photo.

    Args:
        classes: what to look for, with commas: 'dog, traffic light', or with words for a class, 'person=man|child';
            auto: a namer says it, photo by photo
        classes_file: the same from a file, one class a line, # starts a comment; or a .json file with the names of each
            photo by its key, for batch the path below PHOTOS without suffix: {"2024/dog": ["dog", "sofa"]}
    """

    classes: Annotated[str, value("NAMES")] | None = None
    classes_file: File | None = None
    namer: NamerFlags = NamerFlags()

    def source(self, model: ModelFlags) -> ClassSource:
        """Return where the classes of the photos come from.

        Raises: PnpError for what can be found wrong before a model is loaded.
        """
        if (self.classes is None) == (self.classes_file is None):
            raise InputError("expected classes: give either --classes 'dog, cat' or --classes-file FILE")
        namer = self.namer
        if self.classes_file and self.classes_file.suffix == ".json":
            namer = replace(namer, namer="cached", names_from=self.classes_file)
        elif self.classes != AUTO:
            vocabulary = read_classes(self.classes_file) if self.classes_file else parse_classes(str(self.classes))
            check_count(vocabulary.classes)
            return ClassSource(vocabulary)
        namer.check(model)
        return ClassSource(None, namer.namer, namer.options(model), namer.candidates(), namer.keep, namer.at_once)
