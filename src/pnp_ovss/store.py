"""Files that are whole or not there: each is written beside its place and then renamed."""

import io
import os
import posixpath
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from PIL import Image

from pnp_ovss.errors import InputError, one_line


def write_bytes(path: Path, content: bytes) -> None:
    """Put ``content`` into the file, with the folders above it; a failed or interrupted write leaves nothing behind.

    Raises: InputError if the place cannot be written.
    """
    beside = path.with_name(f".{secrets.token_hex(8)}.part")  # not from the name, which may be as long as names may be
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with open(beside, "xb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())  # or a power cut could leave the name without the content
            os.replace(beside, path)
        finally:
            beside.unlink(missing_ok=True)
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be written ({one_line(error)}); choose another place or make room") from error


def write_text(path: Path, content: str) -> None:
    """Put ``content`` into the file as UTF-8, as ``write_bytes`` does; what it cannot hold is escaped, as in JSON."""
    write_bytes(path, content.encode("utf-8", errors="backslashreplace"))


def save_png(path: Path, image: Image.Image) -> None:
    """Put the picture into the file as PNG, as ``write_bytes`` does."""
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    write_bytes(path, buffer.getvalue())


def remove(path: Path) -> None:
    """Remove the file if it is there.

    Raises: InputError if it cannot be removed.
    """
    try:
        path.unlink(missing_ok=True)
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be replaced ({one_line(error)}); choose another place") from error


class Folder:
    """A folder of this machine, or behind an address that fsspec knows, such as ``s3://bucket/run``.

    Names are paths below it, with ``/``. Its files are whole or not there: here by ``write_bytes``, and an object store
    shows an object once all of it has arrived.
    """

    def __init__(self, place: str | Path) -> None:
        self.place = str(place)
        with _told(self.place):
            self._files, root = open_place(self.place)
            self.root: str = root.rstrip("/")
        self.is_local = "file" in _protocols(self._files)
        """Whether it lies on this machine, or is mounted there."""

    def write(self, name: str, content: bytes) -> None:
        """Put ``content`` into the file, with the folders above it.

        Raises: InputError if it cannot be written.
        """
        if self.is_local:
            write_bytes(Path(self._at(name)), content)
        else:
            with _told(f"{self.place}/{name}"):
                self._files.pipe_file(self._at(name), content)

    def read(self, name: str) -> bytes:
        """Return what the file holds.

        Raises: InputError if it cannot be read.
        """
        with _told(f"{self.place}/{name}"):
            return bytes(self._files.cat_file(self._at(name)))

    @contextmanager
    def open(self, name: str) -> Iterator[Any]:
        """Open the file, for those who read only parts of it.

        Raises: InputError if it cannot be read.
        """
        with _told(f"{self.place}/{name}"), self._files.open(self._at(name), "rb") as file:
            yield file

    def has(self, name: str) -> bool:
        """Return whether there is such a file.

        Raises: InputError if that cannot be told.
        """
        with _told(f"{self.place}/{name}"):
            try:  # not by isfile, which takes every error for a no
                return bool(self._files.info(self._at(name))["type"] == "file")
            except (FileNotFoundError, NotADirectoryError):
                return False

    def names(self, below: str) -> Iterator[str]:
        """Yield the names of all files below a folder in it, as paths below that one."""
        with _told(self.place):
            self._files.invalidate_cache()
            start = len(self._at(below)) + 1
            for path in self._files.find(self._at(below)):
                yield path[start:]

    def remove(self, name: str) -> None:
        """Remove the file if it is there."""
        try:
            with _told(f"{self.place}/{name}"):
                self._files.rm_file(self._at(name))
        except InputError as error:
            if not isinstance(error.__cause__, FileNotFoundError):
                raise

    def _at(self, name: str) -> str:
        return f"{self.root}/{name}"


def open_place(place: str) -> tuple[Any, str]:
    """Return the fsspec file system of a path or address, and the path in it: here a whole one, without ``..``.

    Raises: what fsspec does, among it ImportError where a package for such an address is missing.
    """
    from fsspec.core import url_to_fs  # comes with torch

    files, path = url_to_fs(place)
    return files, posixpath.normpath(path) if "file" in _protocols(files) else str(path)


@contextmanager
def _told(name: str) -> Iterator[None]:
    try:
        yield
    except InputError:
        raise
    except ImportError as error:
        raise InputError(f"{name} cannot be reached ({one_line(error)}); install that package") from error
    except Exception as error:  # object stores raise their own, which share no class
        raise InputError(f"{name} cannot be reached ({one_line(error)}); check the address and its access") from error


def _protocols(files: Any) -> tuple[str, ...]:
    return (files.protocol,) if isinstance(files.protocol, str) else tuple(files.protocol)


def check_folder(folder: Path) -> None:
    """Raise InputError if no file could be written into ``folder``, which need not exist and is not made."""
    nearest = next((place for place in (folder, *folder.absolute().parents) if os.path.lexists(place)), folder)
    probe = nearest / f".{secrets.token_hex(8)}.part"
    try:
        try:
            probe.touch(exist_ok=False)
        finally:
            probe.unlink(missing_ok=True)
    except (OSError, ValueError) as error:
        raise InputError(
            f"the folder {folder} cannot be written ({one_line(error)}); give another one with --out"
        ) from error
