"""The naming flags of the commands that still use argparse; ``cli.name`` has them for typer."""

import argparse
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from pnp_ovss.cli.command import positive
from pnp_ovss.errors import InputError

if TYPE_CHECKING:
    from pnp_ovss.models import VLM
    from pnp_ovss.naming import Options
    from pnp_ovss.naming.base import Namer
    from pnp_ovss.types import Vocabulary


def add_namer(parser: argparse.ArgumentParser, namer: str) -> None:
    """Add the flags that choose who names the classes, ``namer`` by default."""
    group = parser.add_argument_group("naming")
    group.add_argument(
        "--namer",
        default=namer,
        metavar="NAME",
        help=f"itm, clip, caption, openai, cached or given; docs/naming.md compares them (default: {namer})",
    )
    group.add_argument(
        "--vocabulary",
        metavar="NAME|FILE",
        help="what to choose from: voc, context, coco-object, coco-stuff, coco-panoptic, ade20k, scenes, or a file "
        "with one name a line; without it anything, where the namer can do that",
    )
    group.add_argument(
        "--keep", type=share, default=0.7, metavar="X", help="names above this confidence count (default: 0.7)"
    )
    group.add_argument("--namer-model", metavar="NAME", help="openai: a chat model; clip, caption: a checkpoint")
    group.add_argument("--names", metavar="NAMES", help="given: the names, with commas")
    group.add_argument(
        "--names-from", type=Path, metavar="FILE|DIR", help="cached: names, replies, or a cache's folder"
    )
    group.add_argument(
        "--base-url", metavar="URL", help="openai: another server (default: OpenAI's, or OPENAI_BASE_URL)"
    )
    group.add_argument(
        "--cache", type=Path, metavar="DIR", help="openai: where replies are kept (default: in the user's cache)"
    )
    group.add_argument(
        "--calls", type=positive, default=4, metavar="N", help="openai: photos asked about at a time (default: 4)"
    )
    group.add_argument(
        "--timeout",
        type=positive,
        default=60,
        metavar="S",
        help="openai: seconds until a call has failed (default: 60)",
    )
    group.add_argument("--tries", type=positive, default=6, metavar="N", help="openai: tries of a call (default: 6)")


def load_namer(arguments: argparse.Namespace, vlm: "Callable[[], VLM]") -> "Namer":
    """Return the namer that the flags ask for; ``vlm`` gives the model of one that matches with it."""
    from pnp_ovss.naming import load_namer as load

    return load(arguments.namer, namer_options(arguments, vlm))


def namer_options(arguments: argparse.Namespace, vlm: "Callable[[], VLM] | None" = None) -> "Options":
    """Return what the flags tell a namer."""
    from pnp_ovss.naming import Options

    return Options(
        names=tuple((arguments.names or "").split(",")) if arguments.names else (),
        source=arguments.names_from,
        vlm=vlm,
        model=arguments.namer_model,
        base_url=arguments.base_url or os.environ.get("OPENAI_BASE_URL"),
        cache=arguments.cache or reply_cache(),
        timeout=float(arguments.timeout),
        retries=arguments.tries - 1,
        device=arguments.device,
        dtype=arguments.dtype,
    )


def check_namer(arguments: argparse.Namespace) -> None:
    """Raise what would stop the namer, as far as that can be told before its model is loaded or even fetched."""
    from pnp_ovss.naming import NAMERS
    from pnp_ovss.naming import load_namer as load

    if arguments.namer not in NAMERS or arguments.namer in ("given", "cached"):
        load(arguments.namer, namer_options(arguments))
    load_vocabulary(arguments)
    check_vocabulary(arguments.namer, arguments.model, arguments.vocabulary)


def check_vocabulary(namer: str, model: str, vocabulary: str | None) -> None:
    """Raise InputError if the model would match names and has none to choose from."""
    if namer == "itm" and vocabulary is None and not (model.startswith("mini-") or Path(model).is_dir()):
        raise InputError(
            f"itm by {model} needs a vocabulary to choose from; give --vocabulary coco-object, another one, or a file"
        )


def load_vocabulary(arguments: argparse.Namespace) -> "Vocabulary | None":
    """Return the vocabulary that the flags name, if any."""
    from pnp_ovss.data.vocabulary import load_vocabulary as load

    return load(arguments.vocabulary) if arguments.vocabulary else None


def reply_cache() -> Path:
    """Return the folder in which replies of chat models are kept."""
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser() / "pnp-ovss" / "replies"


def share(text: str) -> float:
    """Return the confidence from 0 to 1 that an argument gives."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no confidence from 0 to 1, such as 0.7")
    return value
