"""Results in the formats that annotation and training tools read. A new one is a file here and a line in ``FORMATS``.

A format takes results and the names of the classes, background left out, and yields each file's name and content. The
n-th name is the n-th class in every file.
"""

import os
import re
import secrets
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pnp_ovss.errors import InputError, one_line
from pnp_ovss.export.ade import ade
from pnp_ovss.export.coco import coco
from pnp_ovss.export.cvat import cvat
from pnp_ovss.export.label_studio import PHOTOS, label_studio
from pnp_ovss.export.results import Labelled, all_names, read_results
from pnp_ovss.export.supervision import supervision
from pnp_ovss.export.voc import voc
from pnp_ovss.export.yolo import yolo
from pnp_ovss.images import shown
from pnp_ovss.store import write_bytes

__all__ = ["FORMATS", "Format", "Labelled", "all_names", "export", "read_results"]

NO_TEXT = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff\ufffe\uffff]")
"""What lines of text, XML and YAML cannot hold: control characters, ends of lines, and what is no Unicode."""


@dataclass(frozen=True)
class Format:
    """A format: what makes its files, and where its layout has the photos."""

    files: Callable[[Sequence[Labelled], Sequence[str]], Iterator[tuple[str, bytes]]]
    photos: str
    """Folder for the photos, below that of the files."""
    escapes: bool = False
    """Whether names may have ``NO_TEXT``: JSON escapes it."""


FORMATS: dict[str, Format] = {
    "coco": Format(coco, "images", escapes=True),
    "yolo": Format(yolo, "images"),
    "voc": Format(voc, "JPEGImages"),
    "ade": Format(ade, "images"),
    "label-studio": Format(label_studio, PHOTOS),
    "cvat": Format(cvat, "images"),
    "supervision": Format(supervision, ".", escapes=True),
}


def export(
    results: Sequence[Labelled], name: str, out: Path, order: Sequence[str] = (), with_photos: bool = False
) -> list[str]:
    """Write the results in a format into the folder ``out``, which must not exist yet; return the names of the files.

    Either all files are there in the end or none. ``order`` are the names of the classes in the wanted order; without
    it they come as they first appear. ``with_photos`` copies the photos to where the format's layout has them.

    Raises: InputError if there is no such format, it cannot hold a name, ``out`` is there already, a label map or photo
    cannot be read, or the files cannot be written.
    """
    if name not in FORMATS:
        raise InputError(f"there is no format {name!r}; the formats are {', '.join(FORMATS)}")
    if os.path.lexists(out):
        raise InputError(f"{shown(out)} is there already; remove it, or give another place with --out")
    names = all_names(results, order)
    chosen = FORMATS[name]
    if not chosen.escapes:
        _check_text(name, "class", names)
        _check_text(name, "photo", (result.file_name for result in results))
    beside = out.with_name(f".{secrets.token_hex(8)}.part")
    written = []
    try:
        for place, content in chosen.files(results, names):
            _write(beside, out, place, content)
            written.append(place)
        for result in results if with_photos else ():
            _write(beside, out, f"{chosen.photos}/{result.file_name}", _photo(result))
        try:
            os.rename(beside, out)
        except (OSError, ValueError) as error:
            raise _unwritable(out, error) from error
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return written


def _check_text(format_name: str, kind: str, texts: Iterable[str]) -> None:
    strange = next((text for text in texts if NO_TEXT.search(text)), None)
    if strange is not None:
        raise InputError(
            f"the {kind} {shown(strange)} has a character that {format_name} cannot hold; rename it and segment again, "
            "or take coco"
        )


def _write(beside: Path, out: Path, place: str, content: bytes) -> None:
    try:
        write_bytes(beside / place, content)
    except InputError as error:
        raise _unwritable(out / place, error.__cause__) from error


def _unwritable(place: Path, error: object) -> InputError:
    """Return the error that tells the place as the user gave it, not the one beside it."""
    return InputError(f"{shown(place)} cannot be written ({one_line(error)}); choose another place or make room")


def _photo(result: Labelled) -> bytes:
    from pnp_ovss.runs.photos import fetch  # which loads the models' code: only where photos are copied

    try:
        return fetch(result.photo)
    except InputError as error:
        raise InputError(f"{shown(result.key)}: {error}, or export without the photos") from error
