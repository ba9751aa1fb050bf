"""A benchmark: photos, the truth about them, and what the values in its mask files mean."""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import UnionType
from typing import Any

import numpy as np
from jaxtyping import Int, Integer, UInt8
from PIL import Image

from pnp_ovss.errors import InputError
from pnp_ovss.images import FORMATS, read_image
from pnp_ovss.types import BACKGROUND, RGB

IGNORE = 255
"""Label of pixels that count nowhere: the void of the truth."""
UNKNOWN = -1
"""In a table from values to labels: a value that the data set does not have."""
MOST_CLASSES = 254

Faults = tuple[tuple[str, str], ...]
"""Samples that are not scored although they are listed: key, and why in one line."""
NO_FAULT: Faults = ()

Mask = Callable[[], Integer[np.ndarray, "h w"]]
"""Reads or paints a truth mask, with the values of the data set's own files.

Raises: InputError if that cannot be done."""


@dataclass(frozen=True)
class Sample:
    """A photo by its key, and its mask, read when asked for."""

    key: str
    image: Path | Callable[[], RGB]
    """The photo's file, or what draws it."""
    mask: Mask

    def photo(self) -> RGB:
        """Return the photo.

        Raises: InputError if it cannot be read.
        """
        return read_image(self.image) if isinstance(self.image, Path) else self.image()


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
    to_label: Int[np.ndarray, " value"]
    """Value in a mask file -> label; ``UNKNOWN`` where the data set has no such value."""
    words: str
    """The class list, whose vocabularies are the files ``<words>.<vocabulary>.txt``."""
    layout: str
    """Where the truth came from, in words."""
    faults: Faults = NO_FAULT

    def __post_init__(self) -> None:
        if not 0 < len(self.classes) <= MOST_CLASSES:
            raise InputError(f"{self.name} has {len(self.classes)} classes; 1 to {MOST_CLASSES} can be scored")
        strange = next((s.key for s in self.samples if Path(s.key).name != s.key or s.key.startswith(".")), None)
        if strange is not None:  # results are files named by their key
            raise InputError(f"{self.name} lists the image {strange!r}; a plain file name is wanted")

    @property
    def labels(self) -> tuple[str, ...]:
        """Name of every label from 0 on."""
        return (BACKGROUND if self.background else "no class", *self.classes)

    def truth(self, sample: Sample) -> UInt8[np.ndarray, "h w"]:
        """Return the sample's truth as labels, ``IGNORE`` where nothing is asked.

        Raises: InputError if the mask cannot be read or holds a value that is no label.
        """
        return translate(sample.mask(), self.to_label, f"the truth of {sample.key}")


def translate(
    mask: Integer[np.ndarray, "h w"], table: Int[np.ndarray, " value"], what: str
) -> UInt8[np.ndarray, "h w"]:
    """Return ``table[mask]``.

    Raises: InputError naming the values that the table does not have.
    """
    least, most = (int(mask.min()), int(mask.max())) if mask.size else (0, 0)
    if least >= 0 and most < len(table):
        labels = table[mask]
        if not (labels == UNKNOWN).any():
            return np.asarray(labels, dtype=np.uint8)
    known = np.flatnonzero(table != UNKNOWN)
    strange = [value for value in np.unique(mask).tolist() if value not in known]
    raise InputError(
        f"{what} holds the unknown label id {', '.join(map(str, strange[:5]))}; the ids of its data set, from "
        f"{known[0]} to {known[-1]}, are wanted: check that file and data set fit"
    )


def table(to_label: dict[int, int], size: int = 256) -> Int[np.ndarray, " value"]:
    """Return a table from values to labels, ``UNKNOWN`` for those left out."""
    filled = np.full(size, UNKNOWN, dtype=np.int16)
    filled[list(to_label)] = list(to_label.values())
    return filled


def read_values(path: Path) -> Integer[np.ndarray, "h w"]:
    """Return the values of a mask file with one channel, palette pictures as their indices.

    Raises: InputError if there is no such file, it is damaged, or it has several channels.
    """
    try:
        with Image.open(path, formats=FORMATS) as picture:
            picture.load()
            values = np.asarray(picture)
    except FileNotFoundError as error:
        raise InputError(f"there is no mask {path}; check the data set's folder") from error
    except Exception as error:  # Pillow's decoders raise whatever they stumble over
        raise InputError(f"the mask {path} is cut short or damaged; fetch it again") from error
    if values.ndim != 2:
        raise InputError(f"the mask {path} has mode {picture.mode}; one channel of label ids is wanted")
    return values if values.dtype == np.uint8 else values.astype(np.int32)


def from_file(path: Path) -> Mask:
    """Return what reads this mask file."""
    return partial(read_values, path)


def pairs(root: Path, source: str) -> tuple[tuple[Sample, ...], Faults]:
    """Return the samples of a folder with ``images/`` and ``masks/``, matched by name; none if it is no such folder.

    A photo without a mask is a sample all the same: reading it tells what is missing. Of photos that differ only in the
    ending, the first one is a sample, and there is a fault.
    """
    images, masks = root / "images", root / "masks"
    if not (images.is_dir() and masks.is_dir()):
        return (), NO_FAULT
    found = [path for path in sorted(images.iterdir()) if path.suffix.lower() in (".jpg", ".jpeg", ".png")]
    if not found:
        raise InputError(f"{images} holds no photo; {source}")
    keys, faults = once([path.stem for path in found], str(images))
    photos = {path.stem: path for path in reversed(found)}
    return tuple(Sample(key, photos[key], from_file(masks / f"{key}.png")) for key in keys), faults


def read_split(path: Path, source: str) -> tuple[tuple[str, ...], Faults]:
    """Return the keys listed in a split file, each once, and a fault for each that is listed again.

    Raises: InputError if the file is missing or lists nothing.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"the split file {path} is missing or cannot be read; {source}") from error
    keys = [line.split()[0].removesuffix(".jpg") for line in lines if line.strip()]
    if not keys:
        raise InputError(f"the split file {path} lists no image; {source}")
    return once(keys, str(path))


def once(keys: Sequence[str], where: str) -> tuple[tuple[str, ...], Faults]:
    """Return each key once, in order, and a fault for each that is there several times."""
    counts = Counter(keys)
    faults = [
        (key, f"{key} is listed twice in {where}; it is scored once") for key in counts.elements() if counts[key] > 1
    ]
    return tuple(counts), tuple(dict.fromkeys(faults))


Kinds = Mapping[str, type | UnionType]
"""What each entry of a list has: types by name."""


def read_json(path: Path, wanted: Mapping[str, Kinds], source: str) -> dict[str, Any]:
    """Return the object in a JSON file of annotations.

    ``wanted``: the lists it has, and what each of their entries has.

    Raises: InputError if the file is missing or damaged.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise InputError(f"the annotations {path} are missing; {source}") from error
    except ValueError as error:
        raise InputError(f"the annotations {path} are cut short or damaged; fetch them again") from error
    if not isinstance(content, dict) or not all(isinstance(content.get(name), list) for name in wanted):
        raise InputError(f"the annotations {path} lack {' or '.join(wanted)}; {source}")
    for listed, kinds in wanted.items():
        for name, kind in kinds.items():
            if not all(isinstance(entry, dict) and isinstance(entry.get(name), kind) for entry in content[listed]):
                raise InputError(f"the annotations {path} have {listed} without {name}; fetch them again")
    return content


def whole(entry: Any, name: str) -> int:
    """Return the whole number under ``name`` in an object of annotations.

    Raises: InputError if there is none, or it is beyond what three bytes of colour can number.
    """
    value = entry.get(name) if isinstance(entry, dict) else None
    if not isinstance(value, int) or not 0 <= value < 1 << 24:
        raise InputError(f"{name} is {value!r:.40}; a whole number is wanted: fetch the annotations again")
    return value


def first_folder(root: Path, candidates: Iterable[str], source: str) -> Path:
    """Return the first of these folders below ``root`` that exists.

    Raises: InputError naming them if none does.
    """
    tried = [root / name for name in candidates]
    found = next((path for path in tried if path.is_dir()), None)
    if found is None:
        raise InputError(f"there is no folder {' or '.join(map(str, tried))}; {source}")
    return found
