"""Label maps in the formats of annotation and training tools. A new one is a file here and a line in ``FORMATS``.

A format takes label maps and the names of the classes, background left out, and yields each file's name and content.
The n-th name is the n-th class in every file.
"""

import os
import re
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path

import numpy as np

from pnp_ovss.errors import InputError
from pnp_ovss.export.coco import coco, supervision
from pnp_ovss.export.cvat import cvat
from pnp_ovss.export.label_studio import PHOTOS, label_studio
from pnp_ovss.export.voc import ade, voc
from pnp_ovss.export.yolo import yolo
from pnp_ovss.files import part_of, reachable, write_bytes
from pnp_ovss.lock import hold
from pnp_ovss.parts import find_parts
from pnp_ovss.refine.tidy import Tidy
from pnp_ovss.types import LabelMap

NO_TEXT = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff\ufffe\uffff]")
"""What lines of text, XML and YAML cannot hold: control characters, ends of lines, and what is no Unicode."""


Fetch = Callable[[str], bytes]
"""Returns the content of a photo by its path or URL."""


@dataclass(frozen=True)
class Format:
    """A format: what makes its files, and where its layout has the photos."""

    files: Callable[[Sequence[LabelMap], Sequence[str]], Iterator[tuple[str, bytes]]]
    photos: str
    """Folder for the photos, below that of the files."""
    escapes: bool = False
    """Whether names may have ``NO_TEXT``: JSON escapes it."""
    subsets: bool = False
    """Whether its files say what is for training and what for validation."""
    objects: bool = True
    """Whether people see its regions as objects, and dust among them as work."""


FORMATS: dict[str, Format] = {
    "coco": Format(coco, "images", escapes=True, subsets=True),
    "yolo": Format(yolo, "images", subsets=True),
    "voc": Format(voc, "JPEGImages", objects=False),
    "ade": Format(ade, "images", objects=False),
    "label-studio": Format(label_studio, PHOTOS),
    "cvat": Format(cvat, "images"),
    "supervision": Format(supervision, ".", escapes=True),
}


def export(
    label_maps: Sequence[LabelMap], name: str, out: Path, order: Sequence[str] = (), fetch: Fetch | None = None
) -> list[str]:
    """Write label maps in a format into the folder ``out``, which must not exist yet; return the names of the files.

    Either all files are there in the end or none. ``order`` are the names of the classes in the order that numbers
    them; without it they come as they first appear. With ``fetch`` the photos are copied to where the format's layout
    has them.

    Raises: InputError if there is no such format, it cannot hold a name, ``out`` is there already, a label map or photo
    cannot be read, or the files cannot be written.
    """
    if name not in FORMATS:
        raise InputError(f"there is no format {name!r}; the formats are {', '.join(FORMATS)}")
    with hold(out, beside=True):
        return _export(label_maps, name, out, order, fetch)


def _export(
    label_maps: Sequence[LabelMap], name: str, out: Path, order: Sequence[str], fetch: Fetch | None
) -> list[str]:
    if os.path.lexists(out):
        raise InputError(f"{out} is there already; remove it, or give another place with --out")
    if any(label_map.subset for label_map in label_maps) and not FORMATS[name].subsets:
        known = ", ".join(known for known, form in FORMATS.items() if form.subsets)
        raise InputError(f"{name} has no train and val; take {known}, or leave --val out")
    chosen, names = FORMATS[name], all_names(label_maps, order)
    texts = [*names, *(label_map.file_name for label_map in label_maps)]
    for text in filter(NO_TEXT.search, () if chosen.escapes else texts):
        fault = f"{text!r} has a character that {name} cannot hold"
        raise InputError(f"{fault}; rename the class or photo and segment again, or take coco")
    beside, written = part_of(out), list[str]()
    photos = [f"{chosen.photos}/{label_map.place}" for label_map in label_maps] if fetch else []
    try:
        for place, content in chosen.files(label_maps, names):
            write_bytes(beside / place, content)
            written.append(place)
        if fetch:
            for label_map, place in zip(label_maps, photos, strict=True):
                content = fetch(label_map.photo)
                if label_map.sha256 not in ("", sha256(content).hexdigest()):
                    raise InputError(f"{label_map.photo} is another photo than was segmented; segment it again")
                write_bytes(beside / place, content)
        if not all((beside / place).is_file() for place in (*written, *photos)):
            raise InputError(f"{beside} was removed while it was written; run the same command again")
        with reachable(out, "cannot be written", "choose another place"):
            os.rename(beside, out)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return written


def cleaned(label_map: LabelMap, tidy: Tidy, parts: Counter[str]) -> LabelMap:
    """Return the label map with clean regions; ``parts`` adds up their parts, "before" and "after", when it is read."""

    def clean(labels: np.ndarray, background: bool) -> np.ndarray:
        after = tidy.clean(labels, background)
        for name, some in (("before", labels), ("after", after)):
            parts[name] += int((find_parts(some).labels >= background).sum())
        return after

    return replace(label_map, clean=clean)


def with_subsets(label_maps: Sequence[LabelMap], val: float) -> list[LabelMap]:
    """Return the label maps with this share of them, at least one, in the subset "val", and the others in "train".

    Which ones depends on their keys alone.
    """
    shuffled = sorted(label_maps, key=lambda one: sha256(one.key.encode("utf-8", "surrogateescape")).digest())
    held = {one.key for one in shuffled[: max(1, round(val * len(shuffled)))]}
    return [replace(one, subset="val" if one.key in held else "train") for one in label_maps]


def all_names(label_maps: Sequence[LabelMap], order: Sequence[str] = ()) -> tuple[str, ...]:
    """Return the name of every class but the background: ``order`` if given, else in order of first appearance.

    Raises: InputError if a label map has a class that ``order`` lacks.
    """
    found = dict.fromkeys(name for label_map in label_maps for name in label_map.names)
    strange = [name for name in found if order and name not in order]
    if strange:
        raise InputError(f"the results have the class {strange[0]!r}, which the list of classes lacks; add it there")
    return tuple(order) or tuple(found)
