"""Settings as frozen values: each field carries its meaning and its bounds, which are checked when one is made."""

import json
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from types import UnionType
from typing import Any, Literal, TypeVar, get_args, get_origin

from pnp_ovss.errors import ConfigError, InputError, one_line
from pnp_ovss.files import parse_json, read_text

Kind = TypeVar("Kind", bound="Settings")  # not Self, which the type checks of the tests cannot read

MANY = 10**6
"""A bound for counts and weights: beyond any use, and far from what floats and memory cannot hold."""


MOST_STEPS = 1000
"""A bound for how often something is repeated: photos are done long before, and more would only take for ever."""


def setting(default: Any, help: str, low: int | float = 0, high: int | float = MANY) -> Any:
    """Return a dataclass field with a meaning, which the command line shows, and bounds for its numbers."""
    return field(default=default, metadata={"help": help, "low": low, "high": high})


@dataclass(frozen=True)
class Settings:
    """Base of all settings. Fields are int, float, bool, str, a Literal, a tuple of texts, or a union of these.

    Raises: ConfigError for a value of the wrong type or out of bounds.
    """

    def __post_init__(self) -> None:
        _check(self, vars(self))

    def override(self: Kind, values: dict[str, Any]) -> Kind:
        """Return the settings with some values changed.

        Raises: ConfigError for a name that is no setting, or a value out of bounds.
        """
        known = [entry.name for entry in fields(self)]
        for name in values:
            if name not in known:
                raise ConfigError(f"there is no setting {name!r}; the settings are {', '.join(known)}")
        values = {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
        _check(self, values)
        return replace(self, **values)

    @classmethod
    def from_json(cls: type[Kind], text: str) -> Kind:
        """Return the settings that ``to_json`` wrote; those left out keep their defaults.

        Raises: ConfigError if it is no such text.
        """
        try:
            return cls().override(parse_json(text.encode(errors="backslashreplace"), "the preset"))
        except InputError as error:
            raise ConfigError(f"{error}; write it with Config.to_json") from error

    @classmethod
    def from_file(cls: type[Kind], path: Path) -> Kind:
        """Return the settings of a JSON file.

        Raises: ConfigError if it cannot be read or is no such file.
        """
        try:
            text = read_text(path)
        except InputError as error:
            raise ConfigError(f"the preset {error}") from error
        return cls.from_json(text)

    def to_json(self) -> str:
        """Return the settings as a JSON object that ``from_json`` reads back equal."""
        return json.dumps(asdict(self), indent=2)


def _check(settings: Settings, values: dict[str, Any]) -> None:
    for entry in fields(settings):
        if entry.name not in values:
            continue
        value, kinds = values[entry.name], _kinds(entry.type)
        if not any(_fits(value, kind, entry.metadata) for kind in kinds):
            expected = " or ".join(_described(kind, entry.metadata) for kind in kinds)
            raise ConfigError(f"expected {entry.name} to be {expected}, got {one_line(repr(value))}")


def _kinds(annotation: Any) -> tuple[Any, ...]:
    return get_args(annotation) if isinstance(annotation, UnionType) else (annotation,)


def _fits(value: Any, kind: Any, metadata: Any) -> bool:
    if kind in (int, float):
        number = isinstance(value, int if kind is int else int | float) and not isinstance(value, bool)
        return number and metadata["low"] <= value <= metadata["high"]
    if get_origin(kind) is Literal:
        return value in get_args(kind)
    if get_origin(kind) is tuple:
        return isinstance(value, tuple) and all(isinstance(item, str) for item in value)
    return isinstance(value, kind)


def _described(kind: Any, metadata: Any) -> str:
    if kind in (int, float):
        return f"{'a whole' if kind is int else 'a'} number from {metadata['low']:g} to {metadata['high']:.10g}"
    if get_origin(kind) is Literal:
        return " or ".join(map(repr, get_args(kind)))
    if get_origin(kind) is tuple:
        return "a tuple of names"
    return {bool: "true or false", str: "a text", type(None): "none"}[kind]
