"""Flags that several commands share: the model, and every setting of the method."""

import argparse
from collections.abc import Callable
from dataclasses import fields
from typing import Any, Literal, get_args, get_origin, get_type_hints

from pnp_ovss.cli.flags import clip_name
from pnp_ovss.config import DEFAULT_MODEL, PRESETS, Config

__all__ = ["add_model", "add_settings", "clip_name", "settings"]

NAMES = {"refiners": "refine"}
"""Flags that are not called like their setting."""
NOTES = {"refiners": "; none: no step"}


def add_model(parser: argparse.ArgumentParser, default: str = DEFAULT_MODEL) -> None:
    """Add the flags that choose the model and the preset, with ``default`` as the model."""
    group = parser.add_argument_group("model")
    group.add_argument("--model", default=default, help=f"short name, hub id or local folder (default: {default})")
    group.add_argument("--revision", help="commit, branch or tag of a hub repository")
    group.add_argument(
        "--preset",
        default="auto",
        help=f"settings to start from: auto (the model's own), {', '.join(PRESETS)}, or a .json file (default: auto)",
    )
    group.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, ... (default: auto)")
    group.add_argument("--dtype", default="auto", help="auto, float32, bfloat16 or float16 (default: auto)")


def add_settings(parser: argparse.ArgumentParser) -> None:
    """Add a flag for each setting of ``Config``; without it, the preset decides."""
    group = parser.add_argument_group("settings of the method, each over the preset's own")
    types = get_type_hints(Config)
    for setting in fields(Config):
        flag = f"--{NAMES.get(setting.name, setting.name).replace('_', '-')}"
        told = (setting.metadata["help"] + NOTES.get(setting.name, "")).replace("%", "%%")
        if types[setting.name] is bool:
            group.add_argument(
                flag, dest=setting.name, help=told, default=argparse.SUPPRESS, action=argparse.BooleanOptionalAction
            )
        else:
            parse, metavar = _reader(types[setting.name])
            group.add_argument(
                flag, dest=setting.name, help=told, default=argparse.SUPPRESS, type=parse, metavar=metavar
            )


def settings(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the settings that were given."""
    given = vars(arguments)
    return {setting.name: given[setting.name] for setting in fields(Config) if setting.name in given}


def _reader(kind: Any) -> tuple[Callable[[str], Any], str]:
    """Return what reads a flag's text as this type, and what stands for the value in the help."""
    if get_origin(kind) is tuple:
        return _names, "NAME,..."
    if get_origin(kind) is Literal:
        return str, "|".join(get_args(kind))
    if kind == int | None:
        return _whole_or_none, "N"
    if kind == int | float:
        return _whole_or_share, "N|SHARE"
    return (_whole, "N") if kind is int else (_number, "X")


def _names(text: str) -> tuple[str, ...]:
    return () if text == "none" else tuple(name.strip() for name in text.split(","))


def _whole(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number") from None


def _whole_or_none(text: str) -> int | None:
    return None if text == "none" else _whole(text)


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no number") from None


def _whole_or_share(text: str) -> int | float:
    try:
        return int(text)
    except ValueError:
        return _number(text)
