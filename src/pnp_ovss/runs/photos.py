"""Which photos there are, on this machine or behind a URL, and what each is called."""

import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from glob import has_magic
from pathlib import PurePosixPath
from typing import Any

import fsspec

from pnp_ovss.errors import InputError
from pnp_ovss.files import Folder, reachable
from pnp_ovss.images import SUFFIXES
from pnp_ovss.runs.record import BOTH, IMAGES

Places = dict[str, str]
"""Path or URL of each photo, such as ``s3://bucket/2024/05/dog.jpg``, by its key, which names its result: the path
below the folder it was found in, without suffix, such as ``2024/05/dog``."""


def find_photos(patterns: Iterable[str], out: Folder) -> Places:
    """Return the photos that files, folders and globs mean, sorted by key; ``out`` is where results are to go.

    A folder stands for all pictures in it and in the folders below, by suffix, without hidden ones; a glob for the
    pictures among its matches, with keys below its first part without wildcards; a file is taken as it is.

    Raises: InputError if there is none, two photos have one key, or results would lie among the photos.
    """
    found: Places = {}
    for pattern in patterns:
        for key, place in _expand(os.path.expanduser(pattern), out):
            if found.setdefault(key, place) != place:
                raise InputError(BOTH.format(found[key], place, f"as {key}"))
    return dict(sorted(found.items()))


def fetch(place: str) -> bytes:
    """Return what the file of a photo holds.

    Raises: InputError if it cannot be read.
    """
    with reachable(place, "cannot be read", "check the path and the file"):
        files, path = fsspec.url_to_fs(place)
        with suppress(FileNotFoundError):
            return bytes(files.cat_file(path))
    raise InputError(f"there is no photo {place}; check the path")


def _expand(pattern: str, out: Folder) -> Iterator[tuple[str, str]]:
    folder = Folder(pattern)
    files, root = folder.files, folder.root
    with reachable(pattern):
        matches, base = _matches(files, root)
        goes_down = "**" in root or files.isdir(root)
    # The next run would take the results for photos, or they would take the place of photos.
    images = f"{out.root}/{IMAGES}/"
    below = goes_down and images.startswith(f"{base}/")
    if below or any(match.startswith(images) for match in matches):
        raise InputError(f"the results in {out.place} would lie among the photos of {pattern}; give another --out")
    if not matches:
        raise InputError(f"there is no photo in {pattern}; give a file, a folder or a glob such as 'photos/*.jpg'")
    for match in matches:
        place = match if folder.is_local else files.unstrip_protocol(match)
        yield str(PurePosixPath(match[len(base) :].lstrip("/")).with_suffix("")), place


def _matches(files: Any, path: str) -> tuple[list[str], str]:
    """Return the pictures that a path means, and the folder that their keys start below."""
    found, base = [path], os.path.dirname(path)
    if files.isdir(path):
        found, base = files.find(path), path
    elif files.exists(path):
        return found, base
    elif has_magic(path):
        base = next(str(parent) for parent in PurePosixPath(path).parents if not has_magic(str(parent))).rstrip("/")
        entries = files.glob(path, detail=True)
        found = [name for name in entries if entries[name]["type"] != "directory"]
    # A photo that is gone is a fault of its own.
    shown = (name for name in found if not any(part.startswith(".") for part in name[len(base) :].split("/")))
    return [name for name in shown if os.path.splitext(name)[1].lower() in SUFFIXES], base
