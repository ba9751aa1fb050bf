"""What every command shares: exit codes, lines on stderr, and the progress bar."""

import sys

PROG = "pnp-ovss"
PARTLY, FAILED, STOPPED = 1, 2, 130


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
