"""The benchmarks' archives: fetched, checked, and unpacked into the layout that ``benchmarks`` reads.

Addresses, sizes and checksums are in ``archives.json``. Files appear below the data set's folder when an archive is
whole and unpacked; until then all is in ``.pnp-ovss`` below it, where a run that was stopped goes on.
"""

import hashlib
import http.client
import json
import os
import shutil
import tarfile
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from pnp_ovss._version import VERSION
from pnp_ovss.errors import InputError, one_line
from pnp_ovss.files import as_json, reachable, read_json, write_bytes
from pnp_ovss.lock import hold
from pnp_ovss.types import OnStep, ignore

HIDDEN = ".pnp-ovss"
"""Folder of what is not whole yet, and of what says what is."""
ROOM = "make room or give another folder with --to"
PATIENCE, CHUNK = 30.0, 2**20
"""Seconds until an answer has to come; bytes read at a time."""
PAUSES = (1.0, 2.0, 4.0, 8.0)
"""Seconds before each further try of an address, as long as no more bytes come."""


@dataclass(frozen=True)
class Archive:
    """An archive, or a single file that is taken as it is."""

    name: str
    """Its own, or within another one the path there."""
    places: tuple[str, ...] = ()
    """Addresses, the official one first."""
    size: int | None = None
    """Bytes; None where they are not known for sure."""
    digest: str = ""
    """Algorithm and checksum, such as ``md5:...``; empty where none is known for sure."""
    source: str = ""
    """Who published the checksum."""
    about: str = ""
    """What else is known of its size."""
    take: tuple[str, ...] = ()
    """Files and folders in it that are wanted."""
    into: str = ""
    """Folder that they go to, below that of the data set."""
    within: tuple["Archive", ...] = ()
    """Archives among those files."""


@dataclass(frozen=True)
class Source:
    """Where the files of data sets come from."""

    title: str
    page: str
    licence: str
    data_sets: str
    """Those of the evaluation that it is for."""
    archives: tuple[Archive, ...]


def _archive(entry: dict[str, Any]) -> Archive:
    lists: dict[str, Any] = {key: tuple(entry[key]) for key in ("places", "take") if key in entry}
    return Archive(**entry | lists | {"within": tuple(map(_archive, entry.get("within", ())))})


def _sources() -> dict[str, Source]:
    stored = json.loads(Path(__file__).with_name("archives.json").read_text(encoding="utf-8"))
    known = {one["name"]: _archive(one) for about in stored.values() for one in about["archives"] if "name" in one}
    found = {}
    for name, about in stored.items():
        archives = tuple(known[one.get("name") or one["same"]] for one in about["archives"])
        found[name] = Source(about["title"], about["page"], about["licence"], about["data sets"], archives)
    return found


SOURCES = _sources()
"""By the name that ``pnp-ovss data`` knows."""


def is_here(archive: Archive, folder: Path) -> bool:
    """Return whether all files of an archive were unpacked below a folder, and are still as long as they were."""
    with suppress(InputError, OSError, KeyError):
        stored = read_json(_record(archive, folder))
        same = stored["digest"] == archive.digest
        return same and all(os.path.getsize(folder / name) == size for name, size in stored["files"].items())
    return False


def get(archive: Archive, folder: Path, on_step: OnStep = ignore) -> bool:
    """Fetch an archive and unpack what is wanted of it below a folder; return False if all of it was there.

    An archive that lies in the folder under its own name is taken instead of a fetched one, and stays. ``on_step``
    hears of "fetch", in bytes, and of "unpack", in files.

    Raises: InputError if it cannot be fetched, is not the one that is known, or there is no room.
    """
    if not os.access(folder, os.W_OK) and is_here(archive, folder):
        return False  # a shared folder that others fill
    with hold(folder, below=(HIDDEN,), flag="--to"):
        hidden, own = folder / HIDDEN, folder / archive.name
        part, stage = hidden / f"{archive.name}.fetched", hidden / f"{archive.name}.files"
        with reachable(f"the folder {hidden}", "cannot be written", ROOM):
            hidden.mkdir(exist_ok=True)
            shutil.rmtree(stage, ignore_errors=True)  # of a run that was killed
        if is_here(archive, folder):
            _forget(part)
            return False
        if not own.is_file():
            _fetch(archive, part, on_step)
        whole = own if own.is_file() else part
        _check(archive, whole)
        try:
            _unpack(whole, archive, stage, on_step)
            _move(archive, stage, folder)
        except InputError as error:
            if not archive.digest and not isinstance(error.__cause__, OSError | None):
                _forget(part)  # it is no archive
            raise
        finally:
            shutil.rmtree(stage, ignore_errors=True)
        _forget(part)
    return True


def _record(archive: Archive, folder: Path) -> Path:
    return folder / HIDDEN / f"{archive.name}.json"


class _Another(Exception):
    """An address has another file."""


def _fetch(archive: Archive, part: Path, on_step: OnStep) -> None:
    """Bring all bytes into ``part``, from the first of the addresses that gives them. Raises: InputError."""
    faults = []
    for place in archive.places:
        pauses, most = iter(PAUSES), _length(part)
        while True:
            try:
                if _continue(archive, place, part, on_step):
                    return
                fault = "the answer ended early"
            except _Another as error:
                fault = str(error)
                break
            except HTTPError as error:
                error.close()
                fault = f"the server answered {error.code}"
                if error.code < 500 and error.code != 429:
                    break
            except (OSError, http.client.HTTPException) as error:
                fault = one_line(getattr(error, "reason", error))
            if _length(part) > most:  # a line that breaks often brings all of it in the end
                pauses, most = iter(PAUSES), _length(part)
            elif (pause := next(pauses, None)) is None:
                break
            else:
                time.sleep(pause)
        faults.append(f"{place}: {fault}")
    advice = f"try again later, or put {archive.name} into {part.parents[1]} yourself"
    raise InputError(f"{archive.name} cannot be fetched ({'; '.join(faults)}); {advice}")


def _continue(archive: Archive, place: str, part: Path, on_step: OnStep) -> bool:
    """Append what an address still has to give; return whether that is all.

    Bytes that came before count if the address says that its file is the same one, or if a checksum will tell.

    Raises: HTTPError, OSError or HTTPException if it gives nothing; _Another if it has another file; InputError for the
    disk.
    """
    known, validator = part.with_suffix(".place"), ""
    with suppress(OSError, ValueError):
        stored, validator = known.read_text(encoding="utf-8").split("\n")
        validator = validator if stored == place else ""
    headers = {"User-Agent": f"pnp-ovss/{VERSION}", "Accept-Encoding": "identity"}
    have = _length(part) if validator or archive.digest else 0
    if have:
        headers |= {"Range": f"bytes={have}-"} | ({"If-Range": validator} if validator else {})
    try:
        answer = urlopen(Request(place, headers=headers), timeout=PATIENCE)
    except HTTPError as error:
        if error.code != http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            raise
        error.close()  # there is nothing behind what came before
        if error.headers.get("Content-Range", "").rpartition("/")[2] == str(have):
            return True
        _forget(part)
        return False
    with answer:
        have = have if answer.status == http.HTTPStatus.PARTIAL_CONTENT else 0
        total = None if answer.length is None else have + answer.length
        if archive.size is not None and total not in (archive.size, None):
            raise _Another(f"it has another file, of {total} bytes and not {archive.size}")
        _check_room(part.parent, (total or 0) - have)
        with reachable(part, "cannot be written", ROOM):
            write_bytes(known, f"{place}\n{_validator(answer.headers)}".encode())
        with _written(part, "ab" if have else "wb") as file:
            while chunk := answer.read(CHUNK):
                with reachable(part, "cannot be written", ROOM):
                    file.write(chunk)
                have += len(chunk)
                on_step("fetch", have, total or archive.size or 0)
    return total is None or have == total


def _validator(headers: Any) -> str:
    """Return what an address calls this state of its file, so that a changed one is not glued to it."""
    tag: str = headers.get("ETag", "")
    changed: str = headers.get("Last-Modified", "")
    return tag if tag and not tag.startswith("W/") else changed


@contextmanager
def _written(path: Path, mode: str) -> Iterator[IO[bytes]]:
    with reachable(path, "cannot be written", ROOM):
        file: IO[bytes] = open(path, mode)  # noqa: SIM115
    try:
        yield file
    finally:
        with reachable(path, "cannot be written", ROOM):
            file.close()


def _length(path: Path) -> int:
    with suppress(OSError):
        return path.stat().st_size
    return 0


def _forget(part: Path) -> None:
    part.unlink(missing_ok=True)
    part.with_suffix(".place").unlink(missing_ok=True)


def _check(archive: Archive, whole: Path) -> None:
    """Raise InputError unless a file is the archive; of fetched bytes that are not, nothing is kept."""
    algorithm, _, wanted = archive.digest.partition(":")
    fault = ""
    with reachable(whole, "cannot be read", "check the disk"):
        if archive.size not in (None, _length(whole)):
            fault = f"{archive.size} bytes, got {_length(whole)}"
        elif algorithm:
            with open(whole, "rb") as file:
                got = hashlib.file_digest(file, lambda: hashlib.new(algorithm, usedforsecurity=False)).hexdigest()
            fault = "" if got == wanted else f"{algorithm} {wanted}, got {got}"
    if fault:
        if whole.suffix == ".fetched":
            _forget(whole)
        raise InputError(f"expected {archive.name} with {fault}: it was altered, or is damaged; fetch it again")


def _check_room(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise InputError(f"expected {needed / 1e9:.2f} GB free in {folder.parent}, got {free / 1e9:.2f}; {ROOM}")


def _unpack(whole: Path, archive: Archive, stage: Path, on_step: OnStep) -> None:
    """Put what is wanted of an archive below ``stage``, as it will lie below the folder. Raises: InputError."""
    target = stage / archive.into
    with reachable(archive.name, "cannot be unpacked", "remove it and fetch it again, or make room"):
        target.mkdir(parents=True, exist_ok=True)
        if archive.name.endswith(".tar"):
            with tarfile.open(whole) as tar:
                files = {one.name: one for one in tar if one.isreg()}
                for name in _steps(archive, {name: one.size for name, one in files.items()}, stage, on_step):
                    tar.extract(files[name], target, filter="data")
        elif archive.name.endswith(".zip"):
            with zipfile.ZipFile(whole) as bundle:
                sizes = {one.filename: one.file_size for one in bundle.infolist() if not one.is_dir()}
                for name in _steps(archive, sizes, stage, on_step):
                    bundle.extract(name, target)
        else:
            shutil.copyfile(whole, target / archive.name)
        for inner in archive.within:
            _unpack(stage / inner.name, inner, stage, on_step)
            (stage / inner.name).unlink()


def _steps(archive: Archive, sizes: dict[str, int], stage: Path, on_step: OnStep) -> Iterator[str]:
    """Yield the files that are wanted of an archive.

    Raises: InputError if one would lie elsewhere, something wanted is not there, or there is no room for them.
    """
    wanted = {name: PurePosixPath(name) for name in sizes if name.removeprefix("./").startswith(archive.take)}
    for name, path in wanted.items():
        if path.is_absolute() or ".." in path.parts:
            raise InputError(f"{archive.name} holds {name}, which would lie outside the folder; fetch the official one")
    for start in archive.take:
        if not any(name.removeprefix("./").startswith(start) for name in wanted):
            raise InputError(f"expected {start} in {archive.name}, got no such file: it was changed; see its page")
    _check_room(stage.parent, sum(sizes[name] for name in wanted))
    for number, name in enumerate(wanted, 1):
        yield name
        on_step("unpack", number, len(wanted))


def _move(archive: Archive, stage: Path, folder: Path) -> None:
    """Put the files to their places, and then down what they are."""
    files = sorted(path for path in stage.rglob("*") if path.is_file())
    sizes = {path.relative_to(stage).as_posix(): _length(path) for path in files}
    with reachable(f"the folder {folder}", "cannot be written", ROOM):
        for path in files:
            place = folder / path.relative_to(stage)
            place.parent.mkdir(parents=True, exist_ok=True)
            os.replace(path, place)
        if hasattr(os, "sync"):
            os.sync()  # or a power cut could leave the record without the files
    write_bytes(_record(archive, folder), as_json({"digest": archive.digest, "files": sizes}))
