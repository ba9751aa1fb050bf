"""A run file: a command and its flags in YAML or JSON, for ``--config``. Flags of the command line win."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from pnp_ovss.errors import ConfigError, one_line

FLAG = "--config"


def take_runfile(args: list[str]) -> tuple[list[str], dict[str, Any]]:
    """Return the arguments without ``--config FILE``, and what the file holds; it may name the command.

    Raises: ConfigError if there is no such file, or it holds something else.
    """
    place = next((number for number, arg in enumerate(args) if arg.partition("=")[0] == FLAG), None)
    if place is None:
        return args, {}
    _, equals, path = args[place].partition("=")
    rest = args[:place] + args[place + (1 if equals else 2) :]
    path = path if equals else "".join(args[place + 1 : place + 2])
    content = _read(Path(path))
    asked = str(content.pop("command", ""))
    if asked and rest[:1] != [asked]:
        rest = [asked, *rest]
    if not rest or rest[0].startswith("-"):
        raise ConfigError(f"{path} names no command; write 'command: segment' into it")
    return rest, content


def _read(path: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8-sig"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError, RecursionError) as error:
        raise ConfigError(f"the run file {path} cannot be read ({one_line(error)}); give YAML or JSON") from error
    if not isinstance(content, dict) or not all(isinstance(name, str) for name in content):
        raise ConfigError(f"expected flags by name in {path}, such as 'model: mini-blip', got {type(content).__name__}")
    return content


def defaults_of(command: Any, content: Mapping[str, Any]) -> dict[str, Any]:
    """Return the content by the names of the command's parameters, as texts that these read.

    Raises: ConfigError for a name that is no flag of the command.
    """
    names = {flag.lstrip("-"): option for option in command.params for flag in (*option.opts, option.name)}
    found = {}
    for name, value in content.items():
        option = names.get(name.replace("_", "-")) or names.get(name)
        if option is None:
            raise ConfigError(f"there is no flag {name!r} of {command.name}; see pnp-ovss {command.name} --help")
        found[option.name] = _as_texts(value) if option.nargs == -1 or option.multiple else _as_text(value)
    return found


def _as_texts(value: Any) -> list[str]:
    return list(map(str, value)) if isinstance(value, list) else [str(value)]


def _as_text(value: Any) -> Any:
    """Return a value as it is written on the command line; a mapping, and a list in one, are classes and words."""
    if isinstance(value, dict):
        return ", ".join(f"{name}={'|'.join(map(str, _as_texts(words)))}" for name, words in value.items())
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return value if isinstance(value, bool) or value is None else str(value)


def echo(command: str, given: Mapping[str, Any]) -> str:
    """Return a run file for these flags."""
    values = {name: _plain(value) for name, value in given.items()}
    return str(yaml.safe_dump({"command": command} | values, sort_keys=False, allow_unicode=True))


def _plain(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    return value if isinstance(value, bool | int | float | type(None)) else str(value)
