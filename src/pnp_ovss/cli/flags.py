"""How a function becomes a command: its parameters are the flags, and its docstring says what each is for.

def command(photos: Photos, model: ModelFlags, batch_size: Count = 1) -> int:
    \"\"\"Segment photos.

    Args:
        batch_size: photos the model sees at a time
    \"\"\"

A parameter that is a dataclass is a group of flags that several commands share: each of its fields is a flag.
"""

import inspect
import re
from collections.abc import Callable
from copy import copy
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import typer

from pnp_ovss.methods import DEFAULT_METHOD, METHODS, resolve_config
from pnp_ovss.models.clip import Clip, load_clip
from pnp_ovss.refine import RefinementSettings
from pnp_ovss.segmenter import Segmenter

NONE = "none"
"""The setting's value None: the flag's own None says that it was not given."""
RENAMED = {"refiners": "refine"}
"""Flags that are not called like their setting."""


def value(metavar: str, **more: Any) -> Any:
    """Return what stands for a flag's value in the help, and more that ``typer.Option`` takes."""
    return typer.Option(metavar=metavar, **more)


Count = Annotated[int, value("N", min=1)]
Seed = Annotated[int, value("N", min=0)]
Share = Annotated[float, value("X", min=0, max=1)]
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
        device: auto, cpu, cuda, cuda:1, ...
        dtype: auto, float32, bfloat16 or float16
    """

    method: Annotated[str, value("|".join(METHODS))] = DEFAULT_METHOD
    model: Name | None = None
    revision: Name | None = None
    preset: Annotated[str, value("NAME|FILE")] = "auto"
    device: Name = "auto"
    dtype: Name = "auto"
    settings: dict[str, Any] = field(default_factory=dict)
    """Single settings that were given, over the preset's own; there is a flag for each."""

    @property
    def checkpoint(self) -> str:
        """The model that is named, or the method's own."""
        return self.model or METHODS[self.method].checkpoint

    def config(self) -> Any:
        """Return the settings; nothing is fetched. Raises: ConfigError, ModelError."""
        return resolve_config(self.model, self.preset, self.revision, self.method, **self.settings)

    def load(self) -> Segmenter:
        """Return the segmenter. Raises: ConfigError, ModelError."""
        where = self.device, self.dtype, self.revision
        return Segmenter.from_pretrained(self.model, self.preset, *where, self.method, **self.settings)

    def load_clip(self, name: str | None) -> Clip:
        """Return the dual encoder of this name, or the one that goes with the model. Raises: ModelError."""
        own = "mini-clip" if self.checkpoint.startswith("mini-") else "clip-base"
        return load_clip(name or own, self.device, self.dtype)


def expand(command: Callable[..., Any]) -> Callable[..., Any]:
    """Return the command as typer takes it: with a parameter for each flag, its help in the annotation."""
    flags = _flags(command)

    def expanded(**given: Any) -> Any:
        return _call(command, given)

    expanded.__signature__ = inspect.Signature(flags)  # type: ignore[attr-defined]
    expanded.__annotations__ = {flag.name: flag.annotation for flag in flags}
    expanded.__doc__ = (inspect.getdoc(command) or "").partition("\nArgs:\n")[0]
    return expanded


def _flags(target: Any, defaults: Any = None) -> list[inspect.Parameter]:
    """Return the flags of a function or a group, those of groups in it last; ``defaults``: a group with other ones."""
    kinds, annotations = get_type_hints(target), get_type_hints(target, include_extras=True)
    helps = _helps(inspect.getdoc(target) or "")
    own, shared = list[inspect.Parameter](), list[inspect.Parameter]()
    for name, parameter in inspect.signature(target).parameters.items():
        default = getattr(defaults, name, parameter.default)
        if is_dataclass(kinds[name]):
            shared += _flags(kinds[name], default)
        elif name == "settings":
            shared += _setting_flags()
        else:
            option = _option(name, annotations[name])
            option.help = helps.get(name)
            own.append(_flag(name, kinds[name], option, default))
    return own + shared


def _helps(docstring: str) -> dict[str, str]:
    """Return what a docstring says of each parameter."""
    listed = docstring.partition("\nArgs:\n")[2]
    entries = re.findall(r"^ {4}(\w+): (.+(?:\n {8}.+)*)", listed, re.MULTILINE)
    return {name: " ".join(text.split()) for name, text in entries}


def _option(name: str, annotation: Any) -> Any:
    if annotation is bool:  # typer would add its opposite, --no-...
        return typer.Option(f"--{name.replace('_', '-')}")
    parts = [part for part in (annotation, *get_args(annotation)) if get_origin(part) is Annotated]
    return copy(parts[0].__metadata__[0]) if parts else typer.Option()


def _flag(name: str, kind: Any, option: Any, default: Any = None) -> inspect.Parameter:
    keyword = inspect.Parameter.KEYWORD_ONLY
    return inspect.Parameter(name, keyword, default=default, annotation=Annotated[kind, option])


def _call(target: Any, given: dict[str, Any]) -> Any:
    """Call a function, or make a group, with what was given on the command line."""
    kinds = get_type_hints(target)
    values = {}
    for name in inspect.signature(target).parameters:
        if is_dataclass(kinds[name]):
            values[name] = _call(kinds[name], given)
        elif name == "settings":
            chosen = {flag.name: given[flag.name] for flag in _setting_flags()}
            values[name] = {key: None if got == NONE else got for key, got in chosen.items() if got is not None}
        else:
            values[name] = given[name]
    return target(**values)


def _setting_flags() -> list[inspect.Parameter]:
    """Return a flag for each setting of any method, its own before those of refinement."""
    flags: dict[str, inspect.Parameter] = {}
    shared = {entry.name for entry in fields(RefinementSettings)}
    for info in METHODS.values():
        for entry in sorted(fields(info.config), key=lambda entry: entry.name in shared):
            flags.setdefault(entry.name, _setting_flag(entry))
    return list(flags.values())


def _setting_flag(entry: Any) -> inspect.Parameter:
    name, kind, more = RENAMED.get(entry.name, entry.name).replace("_", "-"), entry.type, dict[str, Any]()
    if get_origin(kind) is tuple:
        kind, more = str, {"parser": _names, "metavar": "NAME,..."}
    elif isinstance(kind, UnionType):
        kind, more = str, {"parser": lambda text: text if text == NONE else number(text), "metavar": "N"}
    names = f"--{name}/--no-{name}" if kind is bool else f"--{name}"
    return _flag(entry.name, kind | None, typer.Option(names, help=entry.metadata["help"], **more))


def number(text: str) -> int | float:
    """Return the number that a text is. Raises: ValueError."""
    return int(text) if text.isdecimal() else float(text)


def _names(text: str) -> tuple[str, ...]:
    return () if text == NONE else tuple(name.strip() for name in text.split(","))
