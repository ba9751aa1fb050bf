"""The command line: ``pnp-ovss COMMAND``. A new command is one file here and one line in ``COMMANDS``.

A command's file is imported when the command is asked for. It has ``command``, a function whose parameters are the
flags and whose docstring is the help, and ``EXAMPLE``, a line that works as it stands.
"""

import os
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from pnp_ovss._version import VERSION
from pnp_ovss.cli.command import FAILED, PROG, STOPPED, complain
from pnp_ovss.errors import PnpError

COMMANDS = {
    "demo": "segment drawn scenes with the model in the box",
    "segment": "segment photos into the classes you name",
    "batch": "segment any number of photos; a stopped run goes on",
    "name": "say which classes are in photos",
    "evaluate": "score a model, or label maps from elsewhere, on a benchmark",
    "tune": "choose settings on your own photos, without masks",
    "serve": "a page in the browser: photo and names in, masks out",
    "export": "turn results into the formats of annotation tools",
    "models": "list the models with a short name",
}
"""Summary of each command, in the order of the help."""


class Commands(TyperGroup):
    """Imports the file of the command that is asked for, and no other."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Return the names of the commands."""
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Return a command, or None if there is none of that name."""
        if cmd_name not in COMMANDS:
            return None
        module = import_module(f"pnp_ovss.cli.{cmd_name}")
        app = typer.Typer(add_completion=False, rich_markup_mode=None)
        app.command(cmd_name, epilog=f"example: {PROG} {module.EXAMPLE}")(module.command)
        return typer.main.get_command(app)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write the summaries without importing any command."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


def _print_version(wanted: bool) -> bool:
    if wanted:
        print(f"{PROG} {VERSION}")
        raise typer.Exit
    return wanted


app = typer.Typer(
    cls=Commands, add_completion=False, rich_markup_mode=None, context_settings={"max_content_width": 100}
)


@app.callback(epilog=f"example: {PROG} demo")
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="print the version")
    ] = False,
) -> None:
    """Segment photos into the classes you name, with an off-the-shelf vision-language model."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code.

    0: done; 1: done, but for some photos; 2: wrong use or input, told in one line; 130: stopped by Ctrl-C, which
    for ``serve`` is the way to end, 0. A bug keeps its traceback.
    """
    _let_every_name_be_printed()
    args = list(sys.argv[1:] if argv is None else argv) or ["--help"]
    try:
        code = typer.main.get_command(app).main(args, prog_name=PROG, standalone_mode=False)
        sys.stdout.flush()
    except typer.TyperException as error:  # wrong use; anything else of typer's is a bug
        command = getattr(getattr(error, "ctx", None), "command_path", PROG)
        complain(f"error: {error.format_message().rstrip('.')}; see {command} --help")
        return FAILED
    except PnpError as error:
        complain(str(error))
        return FAILED
    except (typer.Abort, KeyboardInterrupt):
        complain("stopped")
        return STOPPED
    except BrokenPipeError:  # what reads our output, such as `head`, has ended
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    return int(code or 0)


def _let_every_name_be_printed() -> None:
    """Escape what the terminal's encoding lacks, rather than stop at it."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
