"""Results in the formats that annotation and training tools read. A new one is a file here and a line in ``FORMATS``.

A format takes results and the names of the classes, background left out, and yields each file's name and content. The
n-th name is the n-th class in every file.
"""

import os
import secrets
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pnp_ovss.errors import InputError
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


@dataclass(frozen=True)
class Format:
    """A format: what makes its files, and where its layout has the photos."""

    files: Callable[[Sequence[Labelled], Sequence[str]], Iterator[tuple[str, bytes]]]
    photos: str
    """Folder for the photos, below that of the files."""


FORMATS: dict[str, Format] = {
    "coco": Format(coco, "images"),
    "yolo": Format(yolo, "images"),
    "voc": Format(voc, "JPEGImages"),
    "ade": Format(ade, "images"),
    "label-studio": Format(label_studio, PHOTOS),
    "cvat": Format(cvat, "images"),
    "supervision": Format(supervision, "."),
}


def export(
    results: Sequence[Labelled], name: str, out: Path, order: Sequence[str] = (), with_photos: bool = False
) -> list[str]:
    """Write the results in a format into the folder ``out``, which must not exist yet; return the names of the files.

    Either all files are there in the end or none. ``order`` are the names of the classes in the wanted order; without
    it they come as they first appear. ``with_photos`` copies the photos to where the format's layout has them.

    Raises: InputError if there is no such format, ``out`` is there already, a label map or photo cannot be read, or the
    files cannot be written.
    """
    if name not in FORMATS:
        raise InputError(f"there is no format {name!r}; the formats are {', '.join(FORMATS)}")
    if os.path.lexists(out):
        raise InputError(f"{shown(out)} is there already; remove it, or give another place with --out")
    names = all_names(results, order)
    chosen = FORMATS[name]
    beside = out.with_name(f".{secrets.token_hex(8)}.part")
    written = []
    try:
        for place, content in chosen.files(results, names):
            write_bytes(beside / place, content)
            written.append(place)
        for result in results if with_photos else ():
            write_bytes(beside / chosen.photos / result.file_name, _photo(result))
        try:
            os.rename(beside, out)
        except OSError as error:
            raise InputError(f"{shown(out)} cannot be written ({error.strerror}); choose another place") from error
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return written


def _photo(result: Labelled) -> bytes:
    try:
        return Path(result.photo).read_bytes()
    except (OSError, ValueError) as error:
        raise InputError(
            f"the photo {shown(Path(result.photo))} of {result.key} cannot be read; export without the photos, or run "
            "this where they are"
        ) from error
