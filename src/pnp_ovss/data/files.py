"""The files of a data set: masks, lists of images, annotations, and the folders they lie in.

What is missing or damaged is an InputError; ``load_dataset`` adds where to get the data set.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Integer
from PIL import Image

from pnp_ovss.data.dataset import Mask, Sample, Samples
from pnp_ovss.data.vocabulary import read_lines
from pnp_ovss.errors import InputError, one_line
from pnp_ovss.files import read_json
from pnp_ovss.images import FORMATS

PHOTOS = (".jpg", ".jpeg", ".png")


def read_values(path: Path) -> Integer[np.ndarray, "h w"]:
    """Return the values of a mask file with one channel, palette pictures as their indices.

    Raises: InputError if there is no such file, it is damaged, or it has several channels.
    """
    picture = open_mask(path)
    values = np.asarray(picture)
    if values.ndim != 2:
        raise InputError(f"expected one channel of label ids, got {picture.mode} in the mask {path}")
    return values if values.dtype == np.uint8 else values.astype(np.int32)


def open_mask(path: Path) -> Image.Image:
    """Return the picture of a mask file.

    Raises: InputError if there is no such file, or it is damaged.
    """
    try:
        with Image.open(path, formats=FORMATS) as picture:
            picture.load()
            return picture
    except FileNotFoundError as error:
        raise InputError(f"there is no mask {path}; check the data set's folder") from error
    except Exception as error:  # Pillow's decoders raise whatever they stumble over
        raise InputError(f"the mask {path} is cut short or damaged; fetch it again") from error


def collect(photos: Iterable[Path], mask: Callable[[str], Mask], layout: str, where: str) -> Samples:
    """Return a sample per photo, whose key is its name without the ending; ``mask`` returns what reads a key's mask.

    Of photos with one key the first is a sample, and there is a fault, which says ``where`` they are listed.
    """
    samples: dict[str, Sample] = {}
    faults: dict[str, str] = {}
    for photo in photos:
        if photo.stem in samples:
            faults[photo.stem] = f"{photo.stem} is listed twice in {where}; it is scored once"
        else:
            samples[photo.stem] = Sample(photo.stem, photo, mask(photo.stem))
    if not samples:
        raise InputError(f"{where} lists no image")
    return Samples(tuple(samples.values()), layout, tuple(faults.items()))


def pairs(root: Path) -> Samples | None:
    """Return the samples of a folder with ``images/`` and ``masks/``, matched by name; None if it is no such folder.

    A photo without a mask is a sample all the same: reading it tells what is missing.
    """
    images, masks = root / "images", root / "masks"
    if not (images.is_dir() and masks.is_dir()):
        return None
    photos = [path for path in sorted(images.iterdir()) if path.suffix.lower() in PHOTOS]
    return collect(photos, mask_in(masks), "images/ and masks/", str(images))


def from_masks(masks: Path, photos: Path, layout: str, ending: str = ".png") -> Samples:
    """Return a sample for each mask in a folder; ``ending`` is what follows the key in its name."""
    names = sorted(path.name for path in masks.glob(f"*{ending}"))
    if ending == ".png":
        names = [name for name in names if "TrainIds" not in name]
    found = [photos / f"{name.removesuffix(ending)}.jpg" for name in names]
    return collect(found, mask_in(masks, ending), layout, str(masks))


def from_split(path: Path, photos: Path, masks: Path, layout: str) -> Samples:
    """Return a sample for each key in a split file."""
    found = [photos / f"{line.split()[0].removesuffix('.jpg')}.jpg" for line in read_lines(path)]
    return collect(found, mask_in(masks), layout, f"the split file {path}")


def mask_in(folder: Path, ending: str = ".png") -> Callable[[str], Mask]:
    """Return what turns a key into what reads its mask."""
    return lambda key: partial(read_values, folder / f"{key}{ending}")


@contextmanager
def annotations(path: Path) -> Iterator[dict[str, Any]]:
    """Open a JSON file of annotations. What is missing in it is an InputError, as is a file that is not there."""
    content = read_json(path)
    try:
        yield content
    except (KeyError, TypeError) as error:
        raise InputError(f"the annotations {path} are damaged: {one_line(repr(error))}") from error


def whole_number(entry: Any, name: str) -> int:
    """Return the whole number under ``name`` in an object of annotations.

    Raises: InputError if there is none, or it is beyond what three bytes of colour can number.
    """
    value = entry.get(name) if isinstance(entry, dict) else None
    if not isinstance(value, int) or not 0 <= value < 1 << 24:
        raise InputError(f"expected a whole number as {name}, got {value!r:.40}; fetch the annotations again")
    return value


def first_folder(root: Path, *candidates: str) -> Path:
    """Return the first of these folders below ``root`` that exists."""
    tried = [root / name for name in candidates]
    for path in tried:
        if path.is_dir():
            return path
    raise InputError(f"there is no folder {' or '.join(map(str, tried))}")
