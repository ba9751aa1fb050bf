"""Files that are whole or not there: each is written beside its place and then renamed. Places are paths or URLs.

The name of a file that is not whole yet says which process writes it, so that those of dead ones can be swept away.
"""

import io
import json
import os
import re
import secrets
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import datetime
from hashlib import sha256
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import fsspec
from fsspec.core import strip_protocol
from fsspec.implementations.local import LocalFileSystem
from PIL import Image

from pnp_ovss.errors import InputError, one_line
from pnp_ovss.processes import PATTERN, Process, this_process
from pnp_ovss.redaction import bare, keep_url

ACCESS = "check the path and its access"
PART = re.compile(rf"\.?pnp-ovss-({PATTERN})-[0-9a-z_]{{8}}\.part")
"""The name of a file or folder that is not whole yet."""
OLD = 3600
"""Seconds until it counts as left behind where it cannot be seen whether its process still runs."""


def part_of(path: Path) -> Path:
    """Return where to write, beside its place, what becomes ``path`` by a change of name."""
    return path.with_name(f".pnp-ovss-{this_process()}-{secrets.token_hex(4)}.part")


def sweep(folder: Path, *below: str, own: bool = False) -> None:
    """Remove what dead processes left half written in a folder, and in those of its folders at any depth.

    What a living process writes stays, this one's too unless ``own``, and so does every other file.
    """
    for place, deep in ((folder, False), *((folder / name, True) for name in below)):
        for entry, process in _parts(place, deep):
            with suppress(OSError):  # another one sweeps, too, or nothing may be removed here
                gone = True if own and process == this_process() else process.is_gone()
                if gone is None:
                    gone = entry.stat(follow_symlinks=False).st_mtime < time.time() - OLD
                if gone and entry.is_dir(follow_symlinks=False):
                    shutil.rmtree(entry.path)
                elif gone:
                    os.unlink(entry.path)


def _parts(folder: str | Path, deep: bool) -> Iterator[tuple[os.DirEntry[str], Process]]:
    """Yield what is not whole, and the process that writes it."""
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if match := PART.fullmatch(entry.name):
                yield entry, Process.parse(match[1])
            elif deep and entry.is_dir(follow_symlinks=False):
                yield from _parts(entry.path, deep)


MOST_BYTES = 10**8
"""Of a file of names, settings or records. Read as JSON it may take twenty times as much memory."""
DEEPEST = 50
"""Levels of JSON; whatever goes through it ends far from Python's limit."""

MODIFIED = ("ETag", "etag", "mtime", "LastModified", "last_modified", "updated", "created")
"""What object stores call that which changes with a file."""


for _scheme in ("http", "https"):  # fsspec's own needs another package and bounds nothing
    fsspec.register_implementation(_scheme, "pnp_ovss.web.Web", clobber=True)


def write_bytes(path: Path, content: bytes) -> None:
    """Put ``content`` into the file, with the folders above it; a failed or interrupted write leaves nothing behind.

    Raises: InputError if the place cannot be written.
    """
    beside = part_of(path)
    with reachable(path, "cannot be written", "choose another place or make room"):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with open(beside, "xb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())  # or a power cut could leave the name without the content
            os.replace(beside, path)
        finally:
            beside.unlink(missing_ok=True)


def write_text(path: Path, content: str) -> None:
    """Put ``content`` into the file as UTF-8, as ``write_bytes`` does; what UTF-8 cannot hold is escaped."""
    write_bytes(path, content.encode("utf-8", errors="backslashreplace"))


def as_png(image: Image.Image) -> bytes:
    """Return the picture as PNG."""
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return buffer.getvalue()


def as_text(lines: Iterable[str]) -> bytes:
    """Return a text file of these lines in UTF-8."""
    return "".join(f"{line}\n" for line in lines).encode()


def save_png(path: Path, image: Image.Image) -> None:
    """Put the picture into the file as PNG, as ``write_bytes`` does."""
    write_bytes(path, as_png(image))


def as_json(content: Any, indent: int | None = None) -> bytes:
    """Return the content as JSON in UTF-8, with a line break at the end; what UTF-8 cannot hold is escaped."""
    text = json.dumps(content, indent=indent, ensure_ascii=False, allow_nan=False) + "\n"
    return text.encode("utf-8", errors="backslashreplace")


def expanded(path: str | Path) -> str:
    """Return the path with a user's folder in place of ``~``; as it is where there is no such user."""
    with suppress(ValueError):
        return os.path.expanduser(path)
    return os.fspath(path)


def cache_folder(kind: str) -> Path:
    """Return where files of this kind are kept for the user from one process to the next."""
    return Path(expanded(os.environ.get("XDG_CACHE_HOME") or "~/.cache")) / "pnp-ovss" / kind


def read_bytes(path: Path, most: int = MOST_BYTES) -> bytes:
    """Return what a file holds.

    Raises: InputError if it cannot be read or holds more than ``most`` bytes, of which no more are read.
    """
    with reachable(path, "cannot be read", "check the path"), open(path, "rb") as file:
        content = file.read(most + 1)
    if len(content) > most:
        raise InputError(f"expected at most {most // 10**6} MB in {path}, got more; check the path")
    return content


def read_text(path: Path) -> str:
    """Return the text that a file holds in UTF-8, without the mark that Windows may begin it with.

    Raises: InputError if it cannot be read or holds something else.
    """
    content = read_bytes(path)
    with reachable(path, "is no text in UTF-8", "save it as UTF-8"):
        return content.decode("utf-8-sig")


def read_json(path: Path, most: int = MOST_BYTES) -> dict[str, Any]:
    """Return the object that a JSON file holds.

    Raises: InputError if the file cannot be read, holds more than ``most`` bytes, or something else.
    """
    return parse_json(read_bytes(path, most), str(path))


def parse_json(content: bytes, name: str) -> dict[str, Any]:
    """Return the object that the content of a JSON file holds; error messages call the file ``name``.

    Raises: InputError if it holds something else, or values more than ``DEEPEST`` levels within others.
    """
    with reachable(name, "is no JSON", "check the file"):
        found = json.loads(content.decode("utf-8-sig"), parse_constant=_no_number)
    if not isinstance(found, dict):
        raise InputError(f"expected a JSON object in {name}, got {type(found).__name__}; check the file")
    level: list[Any] = [found]
    for _ in range(DEEPEST):
        within = (one.values() if isinstance(one, dict) else one for one in level)
        level = [one for values in within for one in values if isinstance(one, dict | list)]
    if level:
        raise InputError(f"expected at most {DEEPEST} levels in the JSON of {name}, got more; check the file")
    return found


def _no_number(name: str) -> None:
    raise ValueError(f"{name} is no number of JSON")


def remove(path: Path) -> None:
    """Remove the file if it is there.

    Raises: InputError if it cannot be removed.
    """
    with reachable(path, "cannot be replaced", "choose another place"):
        path.unlink(missing_ok=True)


def check_folder(folder: Path, flag: str) -> None:
    """Raise InputError if no file could be written into ``folder``, which need not exist and is not made.

    ``flag`` is the one that gives it.
    """
    nearest = next(filter(os.path.lexists, (folder, *folder.absolute().parents)), folder)
    with reachable(f"the folder {folder}", "cannot be written", f"give another one with {flag}"):
        tempfile.TemporaryFile(dir=nearest).close()


class Folder:
    """A folder on this machine, or behind a URL that fsspec knows, such as ``s3://bucket/run``.

    Its files are whole or not there: here by ``write_bytes``, and an object store shows an object once all of it has
    arrived. ``files`` is the fsspec file system, ``root`` the folder's path in it. Raises: InputError.
    """

    def __init__(self, place: str | Path) -> None:
        self.place = str(place)
        keep_url(self.place)
        with reachable(self.place):
            self.files, root = fsspec.url_to_fs(self.place)
        self.is_local = isinstance(self.files, LocalFileSystem)
        self.root = os.path.normpath(root) if self.is_local else root.rstrip("/")

    def write(self, name: str, content: bytes) -> None:
        """Put ``content`` into the file of this path below the folder."""
        if self.is_local:
            write_bytes(Path(self.root, name), content)
        else:
            with reachable(f"{self.place}/{name}"):
                self.files.pipe_file(f"{self.root}/{name}", content)

    def read(self, name: str) -> bytes | None:
        """Return what the file holds, or None where there is no such file."""
        with reachable(f"{self.place}/{name}"), suppress(FileNotFoundError, NotADirectoryError):
            return bytes(self.files.cat_file(f"{self.root}/{name}"))
        return None

    def remove(self, name: str) -> None:
        """Remove the file if it is there."""
        with reachable(f"{self.place}/{name}"), suppress(FileNotFoundError):
            self.files.rm_file(f"{self.root}/{name}")

    def names(self, below: str) -> list[str]:
        """Return the paths of all files in a folder below this one and its folders, as paths below that one."""
        return list(self.sizes(below))

    def sizes(self, below: str) -> dict[str, int]:
        """Return all files in a folder below this one and its folders: bytes by path below that folder."""
        with reachable(self.place):
            self.files.invalidate_cache()
            start = f"{self.root}/{below}"
            found = self.files.find(start, detail=True)
            return {path[len(start) + 1 :]: info["size"] for path, info in found.items()}


@dataclass(frozen=True, slots=True)
class Source:
    """The file that a photo was read from, as it was at that moment: what a result is kept by."""

    place: str
    """Path or URL."""
    size: int | None = None
    """Bytes; None where it is not known."""
    modified: str = ""
    """Time of the last change, or what an object store has for it; empty where it is not known."""
    sha256: str = ""
    """Of all its bytes; empty as long as it has not been read."""

    def about(self) -> dict[str, Any]:
        """Return what a record says of the photo's file."""
        known = {"size": self.size, "modified": self.modified, "sha256": self.sha256}
        return {"photo": self.stored().place} | ({"file": known} if self.sha256 else {})

    def stored(self) -> "Source":
        """Return it without what is secret in its place, as it is written down."""
        return replace(self, place=bare(self.place))

    def is_unchanged(self, now: "Source") -> bool:
        """Return whether the file, as it is found ``now``, holds the bytes that were read.

        It is read only where place, size and time leave that open; what cannot be read has changed.
        """
        if now.modified and replace(now.stored(), sha256=self.sha256) == self.stored():
            return True
        if None not in (now.size, self.size) and now.size != self.size:
            return False
        with suppress(InputError):
            return fetch_source(now.place)[1].sha256 == self.sha256
        return False


def look(place: str | Path) -> Source:
    """Return the file of a photo as it is now, without reading it; of one that is not there only the place.

    Raises: InputError if a store cannot be reached.
    """
    with reachable(place):
        return listed(*_locate(place), str(place))


def listed(files: Any, path: str, place: str, info: dict[str, Any] | None = None) -> Source:
    """Return what ``look`` does, from the ``info`` of a listing if there is one; a local file, often a link, is asked.

    ``path`` is that in the file system ``files``.
    """
    with suppress(OSError, ValueError):  # nor is there a file of a name that none can have
        if isinstance(files, LocalFileSystem):
            status = os.stat(path)
            return Source(place, status.st_size, str(status.st_mtime_ns))
        info = info or files.info(path)
        modified = next((info[name] for name in MODIFIED if info.get(name)), "")
        if isinstance(modified, datetime):  # where a listing has the seconds alone
            modified = modified.timestamp()
        return Source(place, info.get("size"), str(modified))
    return Source(place)


def fetch(place: str | Path) -> bytes:
    """Return what the file of a photo at a path or URL holds.

    Raises: InputError if it cannot be read.
    """
    return fetch_source(place)[0]


def fetch_source(place: str | Path) -> tuple[bytes, Source]:
    """Return what the file of a photo at a path or URL holds, and what it was when it was read.

    Raises: InputError if it cannot be read.
    """
    keep_url(str(place))
    with reachable(place, "cannot be read", "check the path and the file"):
        files, path = _locate(place)
        before = listed(files, path, str(place))  # first: a change while it is read shows later
        if not isinstance(files, LocalFileSystem) or os.path.isfile(path):  # a pipe would be waited for
            with suppress(FileNotFoundError):
                content = bytes(files.cat_file(path))
                return content, replace(before, sha256=sha256(content).hexdigest())
    raise InputError(f"there is no photo {place}; check the path")


def fetch_from(folders: Sequence[str]) -> Callable[[str], bytes]:
    """Return what ``fetch`` does, for photos that lie in one of these folders or URLs, links followed, and no others.

    A place may lack the user and password that the URL of its folder has, for records do.
    """
    known = [Folder(folder) for folder in folders]

    def fetch_one(place: str) -> bytes:
        with reachable(place, "cannot be read", "check the path and the file"):
            names = ((folder, _below(folder, place)) for folder in known)
            folder, name = next(((folder, name) for folder, name in names if name), (None, ""))
        if folder is None:
            raise InputError(f"{place} lies in none of the folders given, {', '.join(folders)}; give its own, too")
        content = folder.read(name)
        if content is None:
            raise InputError(f"there is no photo {place}; check the path")
        return content

    return fetch_one


def _below(folder: Folder, place: str) -> str | None:
    """Return the path of a place below the folder, or None if it lies elsewhere."""
    if folder.is_local:
        path, root = os.path.realpath(place), os.path.realpath(folder.root)
        return os.path.relpath(path, root) if Path(path).is_relative_to(root) else None
    if place.partition("://")[0] != folder.place.partition("://")[0]:
        return None
    path, root = (strip_protocol(bare(url)).rstrip("/") for url in (place, folder.place))
    within = path.startswith(f"{root}/") and ".." not in unquote(path).split("/")
    return path[len(root) + 1 :] if within else None


def _locate(place: str | Path) -> tuple[Any, str]:
    """Return the file system and the path in it; a ``Path`` is one of this machine, whatever it looks like."""
    if isinstance(place, Path):
        return LocalFileSystem(), os.path.abspath(place)
    files, path = fsspec.url_to_fs(place)
    return files, str(path)


@contextmanager
def reachable(place: object, fault: str = "cannot be reached", advice: str = ACCESS) -> Iterator[None]:
    """Turn whatever a disk or a store raises into one line: object stores have errors of their own.

    Raises: InputError.
    """
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        raise InputError(f"{place} {fault} ({one_line(error)}); {advice}") from error
