"""Which photos there are, on this machine or behind an address, and what each is called."""

import os
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from pnp_ovss.errors import InputError, one_line
from pnp_ovss.images import SUFFIXES, shown
from pnp_ovss.runs.results import IMAGES
from pnp_ovss.store import Folder, open_place

WILD = "*?["
"""What makes a path a glob."""
MOST_BYTES = 600_000_000
"""Of a photo's file on this machine: more than the largest photo takes without compression."""


@dataclass(frozen=True)
class Source:
    """A photo: its key, which names its result, and where it lies."""

    key: str
    """Path below the folder it was found in, without suffix: ``2024/05/dog``."""
    place: str
    """Path or address, such as ``s3://bucket/2024/05/dog.jpg``."""


def find_photos(patterns: Iterable[str], out: Folder) -> list[Source]:
    """Return the photos meant by files, folders and globs, here or behind fsspec addresses, sorted by key, each once.

    A folder stands for the pictures in it and in the folders below, by suffix and without hidden ones; a glob for the
    pictures among its matches, with keys below its first part without wildcards; a file is taken as it is.

    Raises: InputError if there is none, two photos have one key, or results would lie among the photos.
    """
    found: dict[str, str] = {}
    for pattern in patterns:
        for key, place in _expand(os.path.expanduser(pattern), out):
            if found.setdefault(key, place) != place:
                raise InputError(
                    f"{shown(found[key])} and {shown(place)} would both be written as {shown(key)}; rename one, or "
                    "give each its own --out"
                )
    return [Source(key, found[key]) for key in sorted(found)]


def fetch(place: str) -> bytes:
    """Return what a photo's file holds.

    Raises: InputError if it cannot be read.
    """
    name = shown(place)
    try:
        if "://" in place:
            files, path = open_place(place)
            return bytes(files.cat_file(path))
        told = os.stat(place)
        if not stat.S_ISREG(told.st_mode):
            raise InputError(f"{name} is no regular file; a picture file is wanted")
        if told.st_size > MOST_BYTES:
            raise InputError(f"{name} has more than {MOST_BYTES // 1_000_000} MB; make it smaller first")
        return Path(place).read_bytes()
    except InputError:
        raise
    except FileNotFoundError as error:
        raise InputError(f"there is no photo {name}; check the path") from error
    except PermissionError as error:
        raise InputError(f"{name} may not be read; check its permissions") from error
    except Exception as error:  # object stores raise their own, which share no class
        raise InputError(f"{name} cannot be read ({one_line(error)}); check the path and the file") from error


def _expand(pattern: str, out: Folder) -> Iterator[tuple[str, str]]:
    try:
        files, path = open_place(pattern)
        matches, base = _matches(files, path)
        goes_down = "**" in path or files.isdir(path)
    except Exception as error:  # as in fetch
        raise InputError(f"{shown(pattern)} cannot be listed ({one_line(error)}); check the path") from error
    below = goes_down and (out.root + "/").startswith(base.rstrip("/") + "/")  # the next run would take them for photos
    if below or any(match.startswith(f"{out.root}/{IMAGES}/") for match in matches):  # or they would replace photos
        raise InputError(
            f"the results in {out.place} would lie among the photos of {shown(pattern)}; give another --out"
        )
    if not matches and not files.exists(path) and not any(letter in path for letter in WILD):
        raise InputError(f"there is no photo or folder {shown(pattern)}; check the path")
    if not matches:
        raise InputError(f"{shown(pattern)} holds no picture; give a file, a folder or a glob such as 'photos/*.jpg'")
    remote = "://" in pattern
    for match in matches:
        place = files.unstrip_protocol(match) if remote else match
        yield str(PurePosixPath(match[len(base) :].lstrip("/")).with_suffix("")), place


def _matches(files: Any, path: str) -> tuple[list[str], str]:
    """Return the pictures that a path means, and the folder that their keys start below."""
    if files.isdir(path):
        base = path.rstrip("/")
        return [name for name in files.find(base) if _is_picture(name[len(base) :])], base
    wild = next((index for index, letter in enumerate(path) if letter in WILD), None)
    if wild is None or files.exists(path):
        meant = _is_picture(os.path.basename(path)) or files.exists(path)  # else a folder that is not there
        return [path] if meant else [], os.path.dirname(path)
    base = os.path.dirname(path[:wild])
    return [name for name in files.glob(path) if _is_picture(name[len(base) :]) and files.isfile(name)], base


def _is_picture(name: str) -> bool:
    hidden = any(part.startswith(".") for part in name.split("/"))
    return not hidden and PurePosixPath(name).suffix.lower() in SUFFIXES
