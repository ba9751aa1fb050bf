"""Which photos there are, on this machine or behind a URL, and what each is called."""

import os
from collections.abc import Iterable, Iterator
from glob import has_magic
from pathlib import PurePosixPath

import fsspec

from pnp_ovss.errors import InputError, one_line
from pnp_ovss.files import Folder, reachable
from pnp_ovss.images import SUFFIXES
from pnp_ovss.runs.record import IMAGES

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
                raise InputError(
                    f"{found[key]} and {place} would both be written as {key}; rename one, or give each its own --out"
                )
    return dict(sorted(found.items()))


def fetch(place: str) -> bytes:
    """Return what the file of a photo holds.

    Raises: InputError if it cannot be read.
    """
    try:
        files, path = fsspec.url_to_fs(place)
        return bytes(files.cat_file(path))
    except FileNotFoundError as error:
        raise InputError(f"there is no photo {place}; check the path") from error
    except Exception as error:  # object stores raise their own errors, which share no class
        raise InputError(f"{place} cannot be read ({one_line(error)}); check the path and the file") from error


def _expand(pattern: str, out: Folder) -> Iterator[tuple[str, str]]:
    folder = Folder(pattern)
    with reachable(pattern):
        matches, base = _matches(folder)
        goes_down = "**" in folder.root or folder.files.isdir(folder.root)
    # The next run would take the results for photos, or they would take the place of photos.
    below = goes_down and f"{out.root}/".startswith(f"{base}/")
    if below or any(match.startswith(f"{out.root}/{IMAGES}/") for match in matches):
        raise InputError(f"the results in {out.place} would lie among the photos of {pattern}; give another --out")
    if not matches:
        raise InputError(f"there is no photo in {pattern}; give a file, a folder or a glob such as 'photos/*.jpg'")
    for match in matches:
        place = match if folder.is_local else folder.files.unstrip_protocol(match)
        yield str(PurePosixPath(match[len(base) :].lstrip("/")).with_suffix("")), place


def _matches(folder: Folder) -> tuple[list[str], str]:
    """Return the pictures that a path means, and the folder that their keys start below."""
    files, path = folder.files, folder.root
    if files.isdir(path):
        return [name for name in files.find(path) if _is_picture(name[len(path) :])], path
    if has_magic(path) and not files.exists(path):
        parents = PurePosixPath(path).parents
        base = next(str(parent) for parent in parents if not has_magic(str(parent))).rstrip("/")
        entries = files.glob(path, detail=True).items()
        found = [name for name, entry in entries if entry["type"] != "directory"]
        return [name for name in found if _is_picture(name[len(base) :])], base
    meant = _is_picture(os.path.basename(path)) or files.exists(path)  # a photo that is gone is a fault of its own
    return [path] if meant else [], os.path.dirname(path)


def _is_picture(name: str) -> bool:
    hidden = any(part.startswith(".") for part in name.split("/"))
    return not hidden and PurePosixPath(name).suffix.lower() in SUFFIXES
