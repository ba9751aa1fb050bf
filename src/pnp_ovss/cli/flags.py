"""How a function becomes a command: its parameters are the flags, and its docstring says what each is for.

def command(photos: Photos, model: ModelFlags, batch_size: Count = 1) -> int:
    \"\"\"Segment photos.

    Args:
        batch_size: photos the model sees at a time
    \"\"\"

A parameter that is a dataclass is a group of flags that several commands share: each of its fields is a flag.
"""

import os
import re
import sys
from collections.abc import Callable
from copy import copy
from dataclasses import dataclass, field, fields, is_dataclass, replace
from functools import cache
from inspect import Parameter, Signature, getdoc, signature
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import torch
import typer

from pnp_ovss.cli import OUTPUT
from pnp_ovss.cli.runfile import echo
from pnp_ovss.cores import usable_cores
from pnp_ovss.data.vocabulary import BENCHMARKS, load_vocabulary, parse_classes, read_classes
from pnp_ovss.errors import InputError
from pnp_ovss.files import Folder, cache_folder
from pnp_ovss.memory import parse_bytes
from pnp_ovss.methods import DEFAULT_METHOD, METHODS, method_info, resolve_config
from pnp_ovss.methods.presence import Present
from pnp_ovss.models.clip import Clip, load_clip
from pnp_ovss.naming import NAMERS, Options, load_namer
from pnp_ovss.pictures import MOST_CLASSES, check_count
from pnp_ovss.pictures.palette import Palette, read_colours
from pnp_ovss.redaction import redacted
from pnp_ovss.refine import RefinementSettings
from pnp_ovss.runs.batch import ClassSource
from pnp_ovss.segmenter import Segmenter
from pnp_ovss.types import Vocabulary

ECHOING = ("segment", "batch", "demo", "tune", "evaluate", "reproduce")
"""Commands that fill a folder: a run file is copied there."""

NONE = "none"
"""The setting's value None: the flag's own None says that it was not given."""


def value(metavar: str, **more: Any) -> Any:
    """Return what stands for a flag's value in the help, and more that ``typer.Option`` takes."""
    return typer.Option(metavar=metavar, **more)


Count = Annotated[int, value("N", min=1)]
Seed = Annotated[int, value("N", min=0)]
Share = Annotated[float, value("X", min=0, max=1)]
Memory = Annotated[int, value("SIZE", parser=parse_bytes)]
Name = Annotated[str, value("NAME")]
File = Annotated[Path, value("FILE")]
Dir = Annotated[Path, value("DIR")]
Photos = Annotated[list[str], typer.Argument(metavar="PHOTO...")]


@dataclass(frozen=True)
class ModelFlags:
    """The method, its model and its settings.

    Args:
        method: how class maps come about
        model: short name, hub id or local folder (default: the method's own; for pnp, blip-large-flickr)
        revision: commit, branch or tag of a hub repository
        preset: settings to start from: auto (the model's own), a preset's name, or a .json file
        device: auto, cpu, cuda, cuda:1, mps, ...
        dtype: auto, float32, bfloat16, float16, or int8 for the image tower on a CPU
        compile: for many photos: on a GPU the model runs as CUDA graphs, on a CPU its image tower through torch.compile
    """

    method: Annotated[str, value("|".join(METHODS))] = DEFAULT_METHOD
    model: Name | None = None
    revision: Name | None = None
    preset: Annotated[str, value("NAME|FILE")] = "auto"
    device: Name = "auto"
    dtype: Name = "auto"
    compile: bool = False
    settings: dict[str, Any] = field(default_factory=dict)
    """Single settings that were given, over the preset's own; there is a flag for each."""

    @property
    def checkpoint(self) -> str:
        """The model that is named, or the method's own."""
        return self.model or method_info(self.method).checkpoint

    def config(self) -> Any:
        """Return the settings; nothing is fetched. Raises: ConfigError, ModelError."""
        return resolve_config(self.model, self.preset, self.revision, self.method, **self.settings)

    def load(self, memory: int | None = None, present: str = "all") -> Segmenter:
        """Return the segmenter; ``memory``: bytes that the process may hold. Raises: ConfigError, ModelError."""
        how = self.device, self.dtype, self.revision, self.method, memory, present, self.compile
        return Segmenter.from_pretrained(self.model, self.preset, *how, **self.settings)

    def load_clip(self, name: str | None) -> Clip:
        """Return the dual encoder of this name, or the one that goes with the model. Raises: ModelError."""
        own = "mini-clip" if self.checkpoint.startswith("mini-") else "clip-base"
        return load_clip(name or own, self.device, self.dtype)


@dataclass(frozen=True)
class NamerFlags:
    """What names the classes, and what it needs.

    Args:
        namer: docs/naming.md compares them
        vocabulary: what to choose from; voc.authors has the words of one vocabulary; a file has one class a line, with
            or without words ('person: man, woman'); without it anything, where the namer can do that
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
        """Return the vocabulary to choose from, if any; a list of one's own has words. Raises: InputError."""
        if self.vocabulary:
            return load_vocabulary(self.vocabulary)
        if self.namer != "given" or not (self.names or self.names_from):
            return None
        return parse_classes(self.names) if self.names else read_classes(Path(str(self.names_from)))

    def options(self, model: ModelFlags, vlm: Callable[[], Any] | None = None) -> Options:
        """Return the settings of the namer; ``vlm`` gives the model of one that matches with it."""
        names = parse_classes(self.names).classes if self.names else ()
        if self.namer == "given" and self.names_from:
            names = read_classes(self.names_from).classes
        server = self.base_url, self.cache or cache_folder("replies"), self.timeout, self.tries - 1
        return Options(names, self.names_from, vlm, self.namer_model, *server, model.device, model.dtype)

    def check(self, model: ModelFlags) -> None:
        """Raise what would stop the namer, as far as that shows before its model is loaded or even fetched."""
        if self.namer not in NAMERS or self.namer in ("given", "cached"):
            load_namer(self.namer, self.options(model))
        name = model.checkpoint
        knows_names = name.startswith("mini-") or os.path.isdir(Path(name))
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
        values: a vocabulary whose numbers are the values in label maps, such as coco-object; a file counts its lines
            (default: 1, 2, ... in the order of the classes or the --vocabulary; 0 is the background)
        colors: a file with a line for each class that is to have another colour, such as 'dog: #ff8000'
        present: auto: of classes that all photos share, a photo gets those that it seems to show, if the model can say
            so; all: each. What a namer or a .json file names in a photo is taken at its word
    """

    classes: Annotated[str, value("NAMES")] | None = None
    classes_file: File | None = None
    values: Annotated[str, value("|".join((*BENCHMARKS, "FILE")))] | None = None
    colors: File | None = None
    present: Present = "auto"
    namer: NamerFlags = NamerFlags()

    def source(self, model: ModelFlags) -> ClassSource:
        """Return where the classes of the photos come from.

        Raises: PnpError for what can be found wrong before a model is loaded.
        """
        check_given(self.classes, self.classes_file)
        namer = self.namer
        if self.classes_file and self.classes_file.suffix == ".json":
            namer = replace(namer, namer="cached", names_from=self.classes_file)
        elif self.classes != "auto":
            vocabulary = read_given(self.classes, self.classes_file)
            return ClassSource(vocabulary, present=self.present, palette=self._palette(vocabulary))
        namer.check(model)
        options, candidates = namer.options(model), namer.candidates()
        palette = self._palette(candidates)
        return ClassSource(None, namer.namer, options, candidates, namer.keep, namer.at_once, palette)

    def _palette(self, classes: Vocabulary | None) -> Palette:
        """Return the values and colours of the classes, as far as they are known beforehand."""
        colours = read_colours(self.colors) if self.colors else {}
        if not self.values:
            names = classes.classes if classes and len(classes.classes) <= MOST_CLASSES else ()
            return Palette(dict(zip(names, range(1, len(names) + 1), strict=True)), colours, grows=not names)
        numbered = load_vocabulary(self.values)
        by_name = {name: number for number, name in numbered.numbered().items()}
        if max(by_name.values()) > MOST_CLASSES:
            raise InputError(f"{self.values} has numbers above {MOST_CLASSES}, which no label map has place for")
        numbers, owners = dict(by_name), dict[int, str]()
        for name in classes.classes if classes else ():
            found = numbered.find(name)
            if found is None:
                raise InputError(f"{self.values} has no number for the class {name!r}; give another --values")
            numbers[name] = by_name[found]
            if owners.setdefault(by_name[found], name) != name:
                both = f"{owners[by_name[found]]!r} and {name!r}"
                raise InputError(f"{both} are one class of {self.values}; write them as words of one class")
        return Palette(numbers, colours)


@dataclass(frozen=True)
class OutputFlags:
    """What every command has.

    Args:
        config: a YAML or JSON file with flags of the command ('model: mini-blip'); those of the command line win, and
            run.yaml beside the results has both
        quiet: print errors alone
        verbose: print details on stderr as well
        json: print a line of JSON for each photo on stdout, and nothing else there
        threads: cores to compute on (default: those that the process may use, by a container's CPU quota too)
    """

    config: File | None = None
    quiet: bool = False
    verbose: bool = False
    json: bool = False
    threads: Count | None = None


def check_given(classes: str | None, classes_file: Path | None) -> None:
    """Raise InputError unless just one of ``--classes`` and ``--classes-file`` is given."""
    if (classes is None) == (classes_file is None):
        raise InputError("expected classes: give either --classes 'dog, cat' or --classes-file FILE")


def read_given(classes: str | None, classes_file: Path | None) -> Vocabulary:
    """Return the classes of a text, or of a file, where that is given. Raises: InputError."""
    vocabulary = read_classes(classes_file) if classes_file else parse_classes(str(classes))
    check_count(vocabulary.classes)
    return vocabulary


@cache
def expand(command: Callable[..., Any]) -> Callable[..., Any]:
    """Return the command as typer takes it: with a parameter for each flag, its help in the annotation."""
    module = sys.modules[command.__module__]
    flags = _flags(command)
    flags += [flag for flag in _flags(OutputFlags) if flag.name != "json" or hasattr(module, "report")]

    def expanded(**given: Any) -> Any:
        OUTPUT.quiet, OUTPUT.verbose, OUTPUT.json = (bool(given.get(name)) for name in ("quiet", "verbose", "json"))
        torch.set_num_threads(given.get("threads") or min(torch.get_num_threads(), usable_cores()))
        chosen = {flag.name: given.get(flag.name) for flag in _setting_flags()}
        settings = {name: None if got == NONE else got for name, got in chosen.items() if got is not None}
        code = _call(command, given | {"settings": settings})
        name = module.__name__.rsplit(".")[-1]
        if OUTPUT.runfile and name in ECHOING and given["out"]:
            asked = {flag.name: given[flag.name] for flag in flags if given[flag.name] != flag.default}
            Folder(str(given["out"])).write("run.yaml", redacted(echo(name, asked)).encode())
        return code

    expanded.__signature__ = Signature(flags)  # type: ignore[attr-defined]
    expanded.__doc__ = (getdoc(command) or "").partition("\nArgs:\n")[0]
    return expanded


def _flags(target: Any, defaults: Any = None) -> list[Parameter]:
    """Return the flags of a function or a group, those of groups in it last; ``defaults``: a group with other ones."""
    kinds, annotations = get_type_hints(target), get_type_hints(target, include_extras=True)
    entries = (getdoc(target) or "").partition("\nArgs:\n")[2]
    helps = dict(re.findall(r"^ {4}(\w+): (.+(?:\n {8}.+)*)", entries, re.MULTILINE))
    own, shared = list[Parameter](), list[Parameter]()
    for name, parameter in signature(target).parameters.items():
        default = getattr(defaults, name, parameter.default)
        if is_dataclass(kinds[name]):
            shared += _flags(kinds[name], default)
        elif name == "settings":
            shared += _setting_flags()
        else:
            option = _option(name, annotations[name])
            option.help = " ".join(helps.get(name, "").split()) or option.help
            own.append(_flag(name, kinds[name], option, default))
    return own + shared


def _option(name: str, annotation: Any) -> Any:
    if annotation is bool:  # typer would add its opposite, --no-...
        return typer.Option(f"--{name.replace('_', '-')}")
    parts = [part for part in (annotation, *get_args(annotation)) if get_origin(part) is Annotated]
    return copy(parts[0].__metadata__[0]) if parts else typer.Option()


def _flag(name: str, kind: Any, option: Any, default: Any = None) -> Parameter:
    return Parameter(name, Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[kind, option])


def _call(target: Any, given: dict[str, Any]) -> Any:
    """Call a function, or make a group, with what was given on the command line."""
    kinds = get_type_hints(target)
    groups = {name: _call(kind, given) for name, kind in kinds.items() if is_dataclass(kind)}
    return target(**{name: (given | groups)[name] for name in signature(target).parameters})


@cache
def _setting_flags() -> tuple[Parameter, ...]:
    """Return a flag for each setting of any method, its own before those of refinement."""
    flags: dict[str, Parameter] = {}
    shared = {entry.name for entry in fields(RefinementSettings)}
    for info in METHODS.values():
        for entry in sorted(fields(info.config), key=lambda entry: entry.name in shared):
            flags.setdefault(entry.name, _setting_flag(entry))
    return tuple(flags.values())


def _setting_flag(entry: Any) -> Parameter:
    name = entry.name.replace("refiners", "refine").replace("_", "-")
    kind, more = entry.type, dict[str, Any]()
    if get_origin(kind) is tuple:
        kind, more = str, {"parser": _names, "metavar": "NAME,..."}
    elif isinstance(kind, UnionType):
        kind, more = str, {"parser": lambda text: text if text == NONE else number(text), "metavar": "N"}
    elif kind is str:
        more = {"metavar": "NAME"}
    names = f"--{name}/--no-{name}" if kind is bool else f"--{name}"
    return _flag(entry.name, kind | None, typer.Option(names, help=entry.metadata["help"], **more))


def number(text: str) -> int | float:
    """Return the number that a text is. Raises: ValueError."""
    return int(text) if text.isdecimal() else float(text)


def _names(text: str) -> tuple[str, ...]:
    return () if text == NONE else tuple(name.strip() for name in text.split(","))
