"""A benchmark: photos, their masks, what the values in its mask files mean, and the folders they all lie in.

What is missing or damaged is an InputError; ``load_dataset`` adds where to get the data set.
"""

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from jaxtyping import Int, Integer, UInt8
from PIL import Image

from pnp_ovss.data.vocabulary import read_lines
from pnp_ovss.errors import InputError
from pnp_ovss.files import Source
from pnp_ovss.images import FORMATS, MAX_PIXELS, image_size, read_photo, readable
from pnp_ovss.types import BACKGROUND, RGB

IGNORE = 255
"""Label of pixels that count nowhere: the void of the truth."""
PHOTOS = (".jpg", ".jpeg", ".png")
LONGEST_KEY = 240
"""Bytes of a key: file systems take names of 255, endings included."""
UNKNOWN = -1
"""In a table from values to labels: a value that the data set does not have."""

Table = Int[np.ndarray, " value"]
"""Label of every value in a mask file."""

Faults = tuple[tuple[str, str], ...]
"""Samples that are not scored although they are listed: key, and why in one line."""

Size = tuple[int, int] | None
"""Rows and columns of a photo by its header, which may lie on its side; None if there is none."""

Mask = Callable[[Size], Integer[np.ndarray, "h w"]]
"""Reads or paints the mask of a photo of this size, with the values of the data set's own files.

Raises: InputError if that cannot be done, or the mask says that it is of another size, before it is made."""


@dataclass(frozen=True)
class Sample:
    """A photo by its key, and its mask; both are read on demand."""

    key: str
    """A plain file name: results are files of that name."""
    image: Path | Callable[[], RGB]
    """The photo's file, or what draws it."""
    mask: Mask

    def photo(self) -> RGB:
        """Return the photo.

        Raises: InputError if it cannot be read.
        """
        return self.read()[0]

    def read(self) -> tuple[RGB, Source | None]:
        """Return the photo, and the file it was read from unless it is drawn.

        Raises: InputError if it cannot be read.
        """
        return read_photo(self.image) if isinstance(self.image, Path) else (self.image(), None)


@dataclass(frozen=True)
class Samples:
    """The samples found below a folder, the layout they came in, and those that are not scored."""

    found: tuple[Sample, ...]
    layout: str
    faults: Faults = ()
    ids: Sequence[int] = ()
    """Values of the classes in the mask files; empty: those of the benchmark."""
    lacks: str = ""
    """Why this is not the truth that papers score, in words; empty where it is."""


@dataclass(frozen=True)
class Dataset:
    """Photos with truth. Labels: 0 is the background, or no class at all; the n-th class is n; 255 is ``IGNORE``."""

    name: str
    title: str
    classes: tuple[str, ...]
    """Official names in official order, without the background."""
    background: bool
    """Whether "background" is a class of its own that is scored."""
    samples: tuple[Sample, ...]
    to_label: Table
    """Value in a mask file -> label; ``UNKNOWN`` where the data set has no such value."""
    words: str
    """The class list, whose vocabularies are the files ``<words>.<vocabulary>.txt``."""
    layout: str
    """Where the truth came from, in words."""
    faults: Faults = ()
    lacks: str = ""
    """As of ``Samples``."""

    @property
    def labels(self) -> tuple[str, ...]:
        """Name of every label from 0 on."""
        return (BACKGROUND if self.background else "no class", *self.classes)

    def truth(self, sample: Sample) -> UInt8[np.ndarray, "h w"]:
        """Return the sample's truth as labels, ``IGNORE`` where nothing is asked.

        Raises: InputError if the mask cannot be read or holds a value that is no label.
        """
        try:
            size = image_size(sample.image) if isinstance(sample.image, Path) else None
            return translate(sample.mask(size), self.to_label, "the truth")
        except InputError as error:
            raise InputError(f"{sample.key}: {error}") from error


def table(ids: Iterable[int], others: Mapping[int, int], size: int = 256) -> Table:
    """Return a table from values to labels: the n-th of ``ids`` has label n, ``others`` theirs, the rest ``UNKNOWN``.

    >>> table([7, 2], {0: 255}, size=8).tolist()
    [255, -1, 2, -1, -1, -1, -1, 1]
    """
    to_label = dict(others) | {value: label for label, value in enumerate(ids, 1)}
    filled = np.full(size, UNKNOWN, dtype=np.int16)
    filled[list(to_label)] = list(to_label.values())
    return filled


def translate(mask: Integer[np.ndarray, "h w"], table: Table, what: str) -> UInt8[np.ndarray, "h w"]:
    """Return ``table[mask]``.

    Raises: InputError naming the values that the table does not have.
    """
    if mask.min(initial=0) >= 0 and mask.max(initial=0) < len(table):
        labels = table[mask]
        if not (labels == UNKNOWN).any():
            return np.asarray(labels, dtype=np.uint8)
    known = np.flatnonzero(table != UNKNOWN)
    strange = ", ".join(map(str, np.setdiff1d(mask, known)[:5].tolist()))
    raise InputError(f"{what} holds the unknown label id {strange}; expected {known[0]} to {known[-1]}")


def check_size(what: str, height: int, width: int, size: Size) -> None:
    """Raise InputError if a mask has more pixels than a photo may have, or another size than its photo."""
    if height * width > MAX_PIXELS:
        raise InputError(f"{what} has more than {MAX_PIXELS // 10**6} million pixels; no photo is so large")
    if size is not None and (height, width) not in (size, size[::-1]):
        sizes = f"{height} x {width} pixels and its photo {size[0]} x {size[1]}"
        raise InputError(f"{what} has {sizes}; expected one size, fetch them again")


def read_values(path: Path, size: Size = None) -> Integer[np.ndarray, "h w"]:
    """Return the values of a mask file with one channel, palette pictures as their indices; ``size`` of the photo.

    Raises: InputError if there is no such file, it is damaged, of another size, or it has several channels.
    """
    picture = open_mask(path, size)
    values = np.asarray(picture)
    if values.ndim != 2:
        raise InputError(f"expected one channel of label ids, got {picture.mode} in the mask {path}")
    return values if values.dtype == np.uint8 else values.astype(np.int32)


def open_mask(path: Path, size: Size = None) -> Image.Image:
    """Return the picture of a mask file; ``size`` of the photo.

    Raises: InputError if there is no such file, it is damaged, or of another size.
    """
    with readable(f"the mask {path}"), Image.open(path, formats=FORMATS) as picture:
        check_size(f"the mask {path}", picture.height, picture.width, size)
        picture.load()
        return picture


def collect(photos: Iterable[Path], mask: Callable[[str], Mask], layout: str, where: str) -> Samples:
    """Return a sample per photo, whose key is its name without the ending; ``mask`` returns what reads a key's mask.

    Of photos with one key the first is a sample, and there is a fault, which says ``where`` they are listed; and for a
    key that no file can have.
    """
    listed: dict[str, list[Path]] = {}
    for photo in photos:
        listed.setdefault(photo.stem, []).append(photo)
    if not listed:
        raise InputError(f"{where} lists no image")
    faults = [(key, f"{key} is listed twice in {where}; it is scored once") for key in listed if len(listed[key]) > 1]
    for key in [key for key in listed if not _can_be_a_file(key)]:
        faults.append((key, f"{key!r:.60} in {where} is no name that a file can have; it is left out"))
        del listed[key]
    samples = (Sample(key, found[0], mask(key)) for key, found in listed.items())
    return Samples(tuple(samples), layout, tuple(faults))


def _can_be_a_file(key: str) -> bool:
    try:
        return "\0" not in key and len(os.fsencode(key)) <= LONGEST_KEY
    except UnicodeEncodeError:
        return False


def pairs(root: Path) -> Samples | None:
    """Return the samples of a folder with ``images/`` and ``masks/``, matched by name; None if it is no such folder.

    A photo without a mask is a sample all the same: reading it tells what is missing.
    """
    images, masks = root / "images", root / "masks"
    if not (os.path.isdir(images) and os.path.isdir(masks)):
        return None
    photos = [path for path in sorted(images.iterdir()) if path.suffix.lower() in PHOTOS]
    return collect(photos, mask_in(masks), "images/ and masks/", str(images))


def from_masks(masks: Path, photos: Path, layout: str, ending: str = ".png") -> Samples:
    """Return a sample for each mask in a folder; ``ending`` is what follows the key in its name."""
    listed = (path.name for path in masks.glob(f"*{ending}"))
    names = sorted(name for name in listed if ("TrainIds" in name) == ("TrainIds" in ending))
    found = [photos / f"{name.removesuffix(ending)}.jpg" for name in names]
    return collect(found, mask_in(masks, ending), layout, str(masks))


def from_split(path: Path, photos: Path, masks: Path, layout: str) -> Samples:
    """Return a sample for each key in a split file."""
    found = [photos / f"{line.split()[0].removesuffix('.jpg')}.jpg" for line in read_lines(path)]
    return collect(found, mask_in(masks), layout, f"the split file {path}")


def mask_in(folder: Path, ending: str = ".png") -> Callable[[str], Mask]:
    """Return what turns a key into what reads its mask."""
    return lambda key: partial(read_values, folder / f"{key}{ending}")


def first_folder(root: Path, *candidates: str) -> Path:
    """Return the first of these folders below ``root`` that exists."""
    found = next((root / name for name in candidates if os.path.isdir(root / name)), None)
    if found is None:
        raise InputError(f"there is no folder {' or '.join(candidates)} in {root}")
    return found
