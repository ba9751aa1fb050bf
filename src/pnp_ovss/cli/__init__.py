"""The command line: ``pnp-ovss COMMAND``. A new command is one file here and one line in ``commands.json``.

A command's file is imported when the command is asked for. It has ``command``, a function whose parameters are the
flags and whose docstring is the help (see ``cli.flags``), and ``EXAMPLE``, a line that works as it stands. What all
commands share is here: exit codes, lines on the terminal, and the progress bar.
"""

import json
import os
import sys
import tempfile
import traceback
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

import typer
from tqdm import tqdm

from pnp_ovss._version import VERSION
from pnp_ovss.cli.runfile import defaults_of, take_runfile
from pnp_ovss.errors import ConfigError, PnpError, one_line
from pnp_ovss.redaction import redacted

PROG = "pnp-ovss"
PARTLY, FAILED, BUG, STOPPED = 1, 2, 70, 130
DEBUG = "--debug"
COMPLETE = "_PNP_OVSS_COMPLETE"
"""Set by a shell that completes a line."""
COMMANDS: dict[str, str] = json.loads(Path(__file__).with_name("commands.json").read_text(encoding="ascii"))
"""Summary of each command, in the order of the help."""


@dataclass
class Output:
    """What of a command's output is wanted."""

    quiet: bool = False
    """Neither lines nor a progress bar, but errors."""
    verbose: bool = False
    """Details as well, on stderr."""
    json: bool = False
    """On stdout nothing but a line of JSON for each photo."""
    runfile: bool = False
    """Whether flags came from a run file."""


OUTPUT = Output()
"""Of the command that runs; ``main`` begins with a fresh one."""


def say(line: str) -> None:
    """Print one line on stdout, above a progress bar, unless the output is to be quiet or JSON."""
    if OUTPUT.quiet or OUTPUT.json:
        return
    _print(line)


def report(line: str, **facts: Any) -> None:
    """Print what was found in a photo on stdout: the line, if it is not empty, or these facts as JSON."""
    if OUTPUT.json:
        _print(json.dumps(facts, ensure_ascii=False))
    elif line:
        say(line)


def align(rows: Sequence[Sequence[str]]) -> list[str]:
    """Return a table as lines, its columns aligned."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def detail(line: str) -> None:
    """Print one line on stderr if details are wanted."""
    if OUTPUT.verbose:
        complain(line)


def _print(line: str) -> None:
    with tqdm.external_write_mode(sys.stdout):
        print(redacted(line), flush=True)


def say_anew(count: int, unit: str, why: str = "changed since") -> None:
    """Say how many photos or images are done again, if any."""
    if count:
        say(f"{count} {unit}{'s' * (count > 1)} {why} and {'are' if count > 1 else 'is'} done anew")


def complain(message: str) -> None:
    """Print one line on stderr, above a progress bar."""
    tqdm.write(f"{PROG}: {' '.join(redacted(message).splitlines())}", file=sys.stderr)


def follow(items: Iterable[Any], total: int, unit: str = "photo", **more: Any) -> Any:
    """Return the items, with a progress bar on stderr while one goes through them, unless there is only one."""
    return tqdm(items, total=total, unit=unit, disable=total == 1 or OUTPUT.quiet, file=sys.stderr, **more)


def go_through(faults: Iterable[str | None], total: int, hint: str, done: int = 0) -> tuple[int, int]:
    """Return how many photos are done, and how many failed, after going through them under a progress bar.

    ``faults`` gives for each why it failed, "" if it is done, None if there was nothing to do. Ctrl-C ends the command;
    ``hint`` is where the results are then, or how to go on.
    """
    failed = 0
    try:
        for fault in follow(faults, total, initial=done):
            done += fault == ""
            if fault:
                failed += 1
                complain(fault)
    except KeyboardInterrupt:
        complain(f"stopped; {done} of {total} photos are done{hint if done else ''}")
        raise typer.Exit(STOPPED) from None
    return done, failed


def reduced(size: tuple[int, int]) -> str:
    """Return the line that says that a photo was refined at this size, for want of memory."""
    return f"refined at {size[0]} x {size[1]} pixels to fit into the memory"


def conclude(failed: int, total: int, what: str) -> int:
    """Say how many photos failed, if any, and return the exit code."""
    if failed and total == 1:
        return FAILED
    if failed:
        complain(f"{failed} of {total} photos {what}")
    return PARTLY if failed else 0


def _program(
    version: Annotated[bool, typer.Option("--version", help="print the version")] = False,
    debug: Annotated[bool, typer.Option(DEBUG, help="for a bug, print the traceback; anywhere in the line")] = False,
) -> None:
    """Segment photos into the classes you name, with an off-the-shelf vision-language model."""


def _parser(asked: str) -> Any:
    """Return the command line; of the commands only the one that is asked for is imported."""
    try:
        _ = urlsplit(os.environ.get("HF_ENDPOINT", "")).port
    except ValueError as error:  # the hub's client would raise it on import
        raise ConfigError(f"HF_ENDPOINT is no web address ({one_line(error)}); unset it, or mend it") from error
    app = typer.Typer(rich_markup_mode=None)
    app.callback(epilog=f"example: {PROG} demo")(_program)
    for name, summary in COMMANDS.items():
        command, example = _program, ""
        if name == asked:
            module = import_module(f"pnp_ovss.cli.{name}")
            # What says all of its flags itself is ready at once: no other flag has to be known.
            light, example = getattr(module, "LIGHT", False), module.EXAMPLE
            command = module.command if light else import_module("pnp_ovss.cli.flags").expand(module.command)
        app.command(name, short_help=summary, epilog=f"example: {PROG} {example}")(command)
    return typer.main.get_command(app)


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code.

    0: done; 1: done, but for some photos; 2: wrong use or input, told in one line; 130: stopped by Ctrl-C, which
    for ``serve`` is the way to end, 0. A bug is raised.
    """
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # what the terminal's encoding lacks is escaped
            stream.reconfigure(errors="backslashreplace")
    args = [arg for arg in (sys.argv[1:] if argv is None else argv) if arg != DEBUG] or ["--help"]
    if args[0] == "--version":
        print(f"{PROG} {VERSION}")
        return 0
    OUTPUT.__init__()  # type: ignore[misc]
    try:
        args, runfile = take_runfile(args)
        typed = os.environ.get("_TYPER_COMPLETE_ARGS") or os.environ.get("COMP_WORDS") or ""
        asked = typed.split()[1:] if COMPLETE in os.environ else args  # the shell may ask what comes next
        parser = _parser(asked[0] if asked else "")
        OUTPUT.runfile = bool(runfile)
        defaults = (
            {args[0]: defaults_of(parser.commands[args[0]], runfile)} if runfile and args[0] in COMMANDS else None
        )
        code = parser.main(args, prog_name=PROG, standalone_mode=False, default_map=defaults)
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


def run() -> int:
    """Run a command as the program does and return its exit code: that of ``main``, or 70 for a bug.

    A bug is one line, and its traceback a file in the temporary folder, which the user alone may read.
    """
    if not {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"} & set(os.environ):
        # Read when torch is loaded. Threads that wait by spinning take the cores from those with work to do: beside
        # other busy processes a photo takes 3 to 20 times as long.
        os.environ["GOMP_SPINCOUNT"] = "0"
    try:
        return main()
    except Exception as error:
        words = redacted(traceback.format_exc())
        if DEBUG in sys.argv:
            tqdm.write(words, file=sys.stderr)
        where = f"again with {DEBUG} to see where"
        with suppress(OSError):
            handle, path = tempfile.mkstemp(prefix=f"{PROG}-bug-", suffix=".txt", text=True)
            with open(handle, "w", encoding="utf-8", errors="backslashreplace") as file:
                file.write(f"{PROG} {VERSION}, Python {sys.version.split()[0]}, {sys.platform}\n{words}")
            where = f"its traceback is in {path}"
        complain(f"a bug in {PROG}, not your mistake: {type(error).__name__}: {one_line(error)}; {where}; report it")
        return BUG
