"""The commands that still use argparse; each moves to a typer command of its own file."""

import argparse
import os
import sys
from collections.abc import Sequence

from pnp_ovss._version import VERSION
from pnp_ovss.cli import batch, evaluate, export, segment, serve, tune
from pnp_ovss.cli import name as naming
from pnp_ovss.cli.command import FAILED, PROG, STOPPED, Command, Parser, complain
from pnp_ovss.errors import PnpError

__all__ = ["COMMANDS", "main"]

COMMANDS: dict[str, Command] = {
    "segment": segment.COMMAND,
    "batch": batch.COMMAND,
    "name": naming.COMMAND,
    "evaluate": evaluate.COMMAND,
    "tune": tune.COMMAND,
    "serve": serve.COMMAND,
    "export": export.COMMAND,
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code.

    0: done; 1: done, but for some photos; 2: wrong use or input, told in one line; 130: stopped by Ctrl-C, which
    for ``serve`` is the way to end, 0. A bug keeps its traceback.
    """
    _let_every_name_be_printed()
    try:
        arguments = _parser().parse_args(argv)
        code: int = arguments.run(arguments)
        sys.stdout.flush()
    except SystemExit as stop:  # argparse: after --help, --version, or a line on what was wrong
        return int(stop.code or 0)
    except PnpError as error:
        complain(str(error))
        return FAILED
    except KeyboardInterrupt:
        complain("stopped")
        return STOPPED
    except BrokenPipeError:  # whoever read our output, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    return code


def _parser() -> Parser:
    parser = Parser(
        prog=PROG,
        description="Segment photos into the classes you name, with an off-the-shelf vision-language model.",
        epilog=f"example: {PROG} demo",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"{PROG} {VERSION}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for name, command in COMMANDS.items():
        sub = commands.add_parser(
            name,
            usage=f"{PROG} {name} {command.usage}",
            help=command.summary,
            description=command.description,
            epilog=f"example: {command.example}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        command.add_arguments(sub)
        sub.set_defaults(run=command.run)
    return parser


def _let_every_name_be_printed() -> None:
    """Escape what the terminal's encoding lacks, rather than stop at it."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
