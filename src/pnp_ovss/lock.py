"""One process at a time writes into a folder: its lock is a small file there that says whose it is, and beats.

The lock of a process that is gone is taken over: at once where that can be seen, and from another host when its file
stays as it is for ``STALE`` seconds. No clocks are compared.

On disks, and on shared ones where two machines cannot both make the same new file, one process gets the lock. An object
store promises that only if it can write an object on the condition that there is none, and its fsspec package does so
(S3 and Google's do). Elsewhere two runs that start within half a second of each other may both begin, and one of them
stops at its next beat. So does a process that was asleep while its lock was taken over, anywhere; what it wrote until
then are whole files, as always.
"""

import json
import os
import secrets
import socket
import threading
import time
from _thread import interrupt_main
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path

from pnp_ovss.errors import InputError
from pnp_ovss.files import Folder, parse_json, reachable, sweep
from pnp_ovss.processes import Process, this_process

LOCK = ".pnp-ovss.lock"
BEAT, STALE = 3.0, 20.0
"""Seconds from beat to beat, and until a file without one counts as left behind."""
POLL, SETTLE = 0.1, 0.5
"""Seconds between two looks at a lock of another host, and until a store shows who wrote last."""

Seen = tuple[dict[str, str], int] | None
"""What a lock's file says, and when it was touched; None: there is none."""


@contextmanager
def hold(
    place: str | Path, name: str = LOCK, below: Sequence[str] = (), beside: bool = False, flag: str = "--out"
) -> Iterator[None]:
    """Keep other processes that ask in the same way from a folder, a path or URL, while the block runs.

    The folder is made, and removed in the end if it is new and empty. What dead processes left half written in it, and
    in those of its folders at any depth that ``below`` names, is removed. ``name`` is the lock's. ``beside``: the place
    is a file, or a folder that is to appear whole; its lock lies beside it. ``flag`` is the one that gives it.

    Raises: InputError if another process holds it, it cannot be written, or it was removed or taken over meanwhile.
    """
    folder = Folder(Path(place).parent if beside else place)
    if beside:
        name = f".pnp-ovss-{sha256(os.fsencode(Path(place).name)).hexdigest()[:16]}.lock"
    lock = Lock(folder, name, str(place), flag)
    new = [path for path in lock.path.parents if folder.is_local and not os.path.lexists(path)]
    try:
        with reachable(f"the folder {folder.place}", "cannot be written", f"give another one with {flag}"):
            lock.take()
        try:
            if folder.is_local:
                sweep(lock.path.parent, *below)
            yield
        finally:
            lock.release()
    finally:
        if lock.lost and folder.is_local:  # what was under way may have been stopped while it cleaned up
            sweep(lock.path.parent, *below, own=True)
        with suppress(OSError):  # one is not empty
            for path in new:
                path.rmdir()
        if lock.lost:
            raise InputError(lock.lost)


class Lock:
    """The file of a lock; ``lost`` says what happened to one that was held."""

    def __init__(self, folder: Folder, name: str, place: str, flag: str) -> None:
        self.folder, self.name, self.place, self.flag, self.lost = folder, name, place, flag, ""
        self.path = Path(folder.root, name)
        since = f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC"
        self.about = {"number": str(os.getpid()), "host": socket.gethostname(), "since": since}
        self.about |= {"process": str(this_process()), "token": secrets.token_hex(8)}
        self._ended = threading.Event()
        self._beats = threading.Thread(target=self._beat, daemon=True)

    def take(self) -> None:
        """Write the file, in the place of one whose process is gone. Raises: InputError if another one holds it."""
        while not self._write():
            seen = self._look()
            gone = True if seen is None else _is_gone(seen[0])
            if gone or (gone is None and self._stays(seen)):
                with _alone(self.path.parent):
                    if self._look() == seen:
                        self.folder.remove(self.name)
            elif now := self._look():
                number, host, since = (now[0].get(name, "?") for name in ("number", "host", "since"))
                who = f"process {number} on {host}, since {since}"
                advice = f"wait for it or stop it, or give another {self.flag}"
                raise InputError(f"{self.place} is being written by another run ({who}); {advice}")
        self._beats.start()

    def release(self) -> None:
        """Remove the file, or find out that it is lost."""
        self._ended.set()
        self._beats.join()
        with suppress(InputError):  # the store is out of reach: the file will be old
            if self._check():
                self.folder.remove(self.name)

    def _write(self) -> bool:
        """Write the file if there is none; return whether it is ours."""
        if not self.folder.is_local:
            if self._look() is None:
                try:
                    self._store(mode="create")
                except FileExistsError:
                    return False
                except Exception:  # a store that cannot do that, in words of its own
                    self._store()
                time.sleep(SETTLE)
            return self._is_ours(self._look())
        if not os.path.lexists(self.path.parent):
            self.path.parent.mkdir(parents=True, exist_ok=True)
        with _alone(self.path.parent), suppress(FileExistsError), open(self.path, "xb") as file:
            try:
                file.write(json.dumps(self.about).encode())
                file.flush()
            except OSError:  # the disk is full
                self.path.unlink()
                raise
            return True
        return False

    def _store(self, **how: str) -> None:
        content = json.dumps(self.about | {"beat": time.monotonic_ns()}).encode()
        self.folder.files.pipe_file(f"{self.folder.root}/{self.name}", content, **how)

    def _beat(self) -> None:
        while not self._ended.wait(BEAT):
            with suppress(InputError, OSError):  # a store may be out of reach for a while
                if not self._check():
                    interrupt_main()  # as Ctrl-C does; where that is off, the end of the block says it
                    return
                if self.folder.is_local:
                    os.utime(self.path)
                else:
                    self._store()

    def _check(self) -> bool:
        """Return whether the file is still ours; else say what happened to it."""
        seen = self._look()
        if not self._is_ours(seen):
            what = "was taken over by another run" if seen else "was removed"
            self.lost = f"{self.place} {what} while it was written; run the same command again"
        return not self.lost

    def _is_ours(self, seen: Seen) -> bool:
        return seen is not None and seen[0].get("token") == self.about["token"]

    def _look(self) -> Seen:
        content = self.folder.read(self.name)
        try:
            touched = self.path.stat().st_mtime_ns if self.folder.is_local else 0
            return None if content is None else (parse_json(content, self.name), touched)
        except FileNotFoundError:
            return None
        except InputError:  # its process was killed while it wrote the file
            return {}, touched

    def _stays(self, seen: Seen) -> bool:
        """Return whether the file stays as it is for so long that its process must be gone."""
        end = time.monotonic() + STALE
        while self._look() == seen:
            if time.monotonic() > end:
                return True
            time.sleep(POLL)
        return False


def _is_gone(about: dict[str, str]) -> bool | None:
    try:
        return Process.parse(about["process"]).is_gone()
    except (KeyError, ValueError):
        return None


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Let one process of this machine at a time change the locks of a folder, where the system can do that."""
    with ExitStack() as stack:
        with suppress(ImportError, OSError):  # Windows; a store, or a disk that knows no locks
            from fcntl import LOCK_EX, flock

            handle = os.open(folder, os.O_RDONLY)
            stack.callback(os.close, handle)
            flock(handle, LOCK_EX)
        yield
