"""Flags that several commands share, as dataclasses: a command takes one as a parameter, ``@expand`` makes the flags.

@expand
def command(photos: Photos, model: ModelFlags) -> int: ...
"""

import inspect
from collections.abc import Callable
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

import typer

from pnp_ovss.methods import DEFAULT_METHOD, METHODS, resolve_config
from pnp_ovss.refine import RefinementSettings
from pnp_ovss.segmenter import Segmenter

NONE = object()
"""The setting's value None: the flag's own None says that it was not given."""
FLAGS = {"refiners": "refine"}
"""Flags that are not called like their setting."""


@dataclass(frozen=True)
class ModelFlags:
    """The method, its model and its settings."""

    method: Annotated[str, typer.Option(help=f"how class maps come about: {', '.join(METHODS)}")] = DEFAULT_METHOD
    model: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help=f"short name, hub id or local folder (default: {METHODS[DEFAULT_METHOD].checkpoint})",
            show_default=False,
        ),
    ] = None
    revision: Annotated[str | None, typer.Option(help="commit, branch or tag of a hub repository")] = None
    preset: Annotated[
        str, typer.Option(help="settings to start from: auto (the model's own), a preset's name, or a .json file")
    ] = "auto"
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, ...")] = "auto"
    dtype: Annotated[str, typer.Option(help="auto, float32, bfloat16 or float16")] = "auto"
    settings: dict[str, Any] = field(default_factory=dict)
    """Single settings that were given, over the preset's own."""

    @property
    def checkpoint(self) -> str:
        """The model that is named, or the method's own."""
        return self.model or METHODS[self.method].checkpoint

    def config(self) -> Any:
        """Return the settings; nothing is fetched. Raises: ConfigError, ModelError."""
        return resolve_config(self.model, self.preset, self.revision, self.method, **self.settings)

    def load(self) -> Segmenter:
        """Return the segmenter. Raises: ConfigError, ModelError."""
        return Segmenter.from_pretrained(
            self.model, self.preset, self.device, self.dtype, self.revision, self.method, **self.settings
        )


MODEL = ModelFlags()


def clip_name(given: str | None, model: str) -> str:
    """Return the dual encoder that was given, or the one that goes with a model."""
    return given or ("mini-clip" if model.startswith("mini-") else "clip-base")


def count(help: str, low: int = 1) -> Any:
    """Return an option that takes a whole number from ``low`` up."""
    return typer.Option(min=low, metavar="N", help=help)


def expand(command: Callable[..., int]) -> Callable[..., int]:
    """Return the command with a flag for each field of its parameters that are dataclasses of flags."""
    hints = get_type_hints(command, include_extras=True)
    parameters: list[inspect.Parameter] = []
    for parameter in inspect.signature(command).parameters.values():
        kind = hints[parameter.name]
        default = None if parameter.default is inspect.Parameter.empty else parameter.default
        parameters += _flags(kind, default) if is_dataclass(kind) else [parameter.replace(annotation=kind)]

    def expanded(**given: Any) -> int:
        gathered = {}
        for name in inspect.signature(command).parameters:
            kind = hints[name]
            gathered[name] = _gather(kind, given) if is_dataclass(kind) else given[name]
        return command(**gathered)

    keyword = inspect.Parameter.KEYWORD_ONLY
    expanded.__signature__ = inspect.Signature([p.replace(kind=keyword) for p in parameters])  # type: ignore[attr-defined]
    expanded.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    expanded.__doc__ = command.__doc__
    return expanded


def _flags(kind: Any, default: Any) -> list[inspect.Parameter]:
    hints = get_type_hints(kind, include_extras=True)
    flags = [
        _parameter(entry.name, hints[entry.name], getattr(default, entry.name) if default else entry.default)
        for entry in fields(kind)
        if entry.name != "settings"
    ]
    return flags + (_setting_flags() if "settings" in hints else [])


def _gather(kind: Any, given: dict[str, Any]) -> Any:
    values = {entry.name: given[entry.name] for entry in fields(kind) if entry.name in given}
    if "settings" in get_type_hints(kind):
        names = [parameter.name for parameter in _setting_flags()]
        chosen = {name: given[name] for name in names if given[name] is not None}
        values["settings"] = {name: None if value is NONE else value for name, value in chosen.items()}
    return kind(**values)


def _setting_flags() -> list[inspect.Parameter]:
    """Return a flag for each setting of any method, its own before those of refinement."""
    flags: dict[str, inspect.Parameter] = {}
    for info in METHODS.values():
        shared = {entry.name for entry in fields(RefinementSettings)}
        for entry in sorted(fields(info.config), key=lambda entry: entry.name in shared):
            name, text = f"--{FLAGS.get(entry.name, entry.name).replace('_', '-')}", entry.metadata["help"]
            if entry.type is bool:
                option: Any = Annotated[bool | None, typer.Option(f"{name}/--no-{name[2:]}", help=text)]
            else:
                kinds = get_args(entry.type) if get_origin(entry.type) not in (Literal, tuple) else ()
                read, metavar = _reader(kinds or (entry.type,))
                option = Annotated[str | None, typer.Option(name, help=text, parser=read, metavar=metavar)]
            flags.setdefault(entry.name, _parameter(entry.name, option, None))
    return list(flags.values())


def _parameter(name: str, annotation: Any, default: Any) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def _reader(kinds: tuple[Any, ...]) -> tuple[Callable[[str], Any], str]:
    """Return what reads a flag's text as one of these types, and what stands for the value in the help."""
    if get_origin(kinds[0]) is tuple:
        return _names, "NAME,..."
    if get_origin(kinds[0]) is Literal:
        return str, "|".join(get_args(kinds[0]))
    expected = "a whole number" if float not in kinds else "a number"

    def read(text: str) -> Any:
        if type(None) in kinds and text == "none":
            return NONE
        for kind in (int, float):
            try:
                if kind in kinds:
                    return kind(text)
            except ValueError:
                continue
        raise typer.BadParameter(f"expected {expected}, got {text!r}")

    return read, "N|SHARE" if set(kinds) >= {int, float} else "N" if int in kinds else "X"


def _names(text: str) -> tuple[str, ...]:
    return () if text == "none" else tuple(name.strip() for name in text.split(","))
