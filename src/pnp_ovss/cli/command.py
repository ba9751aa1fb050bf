"""What every command shares: its shape, how it complains, and its exit codes."""

import argparse
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import NoReturn

PROG = "pnp-ovss"
PARTLY, FAILED, STOPPED = 1, 2, 130


@dataclass(frozen=True)
class Command:
    """A command. ``run`` returns the exit code; it alone loads torch, so that ``--help`` is quick."""

    usage: str
    summary: str
    description: str
    example: str
    """A line that works as it stands."""
    add_arguments: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], int]


class Parser(argparse.ArgumentParser):
    """Complains in one line."""

    def error(self, message: str) -> NoReturn:
        """Say what was wrong with the arguments, and where help is; exit with 2."""
        self.exit(FAILED, f"{PROG}: error: {' '.join(message.split())}; see {self.prog} --help\n")


def complain(message: str) -> None:
    """Print one line on stderr."""
    print(f"{PROG}: {' '.join(message.splitlines())}", file=sys.stderr)


class Progress:
    """A progress bar on stderr, with lines printed above it."""

    def __init__(self, total: int, unit: str, done: int = 0, hidden: bool = False) -> None:
        from tqdm import tqdm

        self._bar = tqdm(total=total, initial=done, unit=unit, disable=hidden, file=sys.stderr)

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *raised: object) -> None:
        self._bar.close()

    def say(self, line: str) -> None:
        """Print a line on stdout."""
        with self._bar.external_write_mode(file=sys.stdout):
            print(line, flush=True)

    def complain(self, message: str) -> None:
        """Print a line on stderr, as ``complain`` does."""
        with self._bar.external_write_mode(file=sys.stderr):
            complain(message)

    def advance(self) -> None:
        """Count one more as done."""
        self._bar.update()


def positive(text: str) -> int:
    """Return the whole number above 0 that an argument gives."""
    if not (text.isdecimal() and int(text) > 0):
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number above 0")
    return int(text)


def natural(text: str) -> int:
    """Return the whole number from 0 up that an argument gives."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number from 0 up")
    return int(text)
