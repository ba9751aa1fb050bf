"""Which process this is, and whether another one still runs: what locks and unfinished files say of their owner."""

import os
import socket
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from pathlib import Path

PATTERN = "[0-9a-f]{8}-[0-9]+-[0-9a-f]{8}"
"""How a process is written, as a regular expression."""


@dataclass(frozen=True)
class Process:
    """A process, told apart from others by its host, its number there, and when it started.

    ``str`` writes it as part of a file's name, ``Process.parse`` reads that.
    """

    host: str
    """Hash of the host's name and, in a container, of the container's own numbers of processes."""
    number: int
    start: str
    """Hash of the moment it started; zeros where the system does not tell."""

    def __str__(self) -> str:
        return f"{self.host}-{self.number}-{self.start}"

    @classmethod
    def parse(cls, text: str) -> "Process":
        """Return what ``str`` wrote. Raises: ValueError."""
        host, number, start = text.split("-")
        return cls(host, int(number), start)

    def is_gone(self) -> bool | None:
        """Return whether it runs no more; None where that cannot be known here, such as on another host."""
        if self.host != this_process().host or os.name != "posix":
            return None
        now = _start(self.number)  # first: one that ends between the two is gone
        try:
            os.kill(self.number, 0)
        except ProcessLookupError:
            return True
        except OSError:  # it is somebody else's
            pass
        return None if UNKNOWN in (now, self.start) else now != self.start


UNKNOWN = "0" * 8


def this_process() -> Process:
    """Return the process that this runs in."""
    return _process(os.getpid())


@cache
def _process(number: int) -> Process:
    try:
        numbers = os.readlink("/proc/self/ns/pid")
    except OSError:
        numbers = ""
    return Process(_hash(f"{socket.gethostname()} {numbers}"), number, _start(number))


def _start(number: int) -> str:
    """Return the start of a running process; of one that has ended and waits for its parent, another value."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii")
        fields = Path(f"/proc/{number}/stat").read_bytes().rpartition(b")")[2].split()
    except OSError:
        return UNKNOWN
    state, moment = fields[0].decode(), fields[19].decode()
    return _hash(f"{boot} {moment} {'ended' if state in 'ZX' else ''}")


def _hash(text: str) -> str:
    return sha256(text.encode(errors="backslashreplace")).hexdigest()[:8]
