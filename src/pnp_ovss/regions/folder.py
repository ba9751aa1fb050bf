"""Regions made elsewhere: files that are named by the photo's pixels, for a method sees no more of a photo."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Integer
from PIL import Image

from pnp_ovss.data import rle
from pnp_ovss.errors import ConfigError, InputError
from pnp_ovss.files import as_json, reachable, read_json, save_png, write_bytes
from pnp_ovss.images import fingerprint
from pnp_ovss.regions.base import Mask, RegionMap, numbered, stacked
from pnp_ovss.types import RGB

MOST = 65_535
"""Regions of a photo in a file."""


def regions(photo: RGB, settings: Any, device: str = "cpu") -> RegionMap:
    """Return the regions of a photo in ``settings.regions_folder``: of ``load``.

    Raises: ConfigError if there is no folder; InputError if it has no regions of the photo.
    """
    found = load(_folder(settings), photo)
    if found is None:
        advice = "put them there with keep_regions; a photo of more than max_pixels has them at that size alone"
        raise InputError(f"expected regions {fingerprint(photo)} in {settings.regions_folder}, got none; {advice}")
    return found


def masks(photo: RGB, settings: Any, device: str = "cpu") -> list[Mask]:
    """Return the masks of a photo in ``settings.regions_folder``: of ``load_masks``, or the regions one by one.

    Raises: ConfigError, InputError as ``regions`` does.
    """
    found = load_masks(_folder(settings), photo)
    if found is None:
        together = regions(photo, settings, device)
        return [together == number for number in range(together.max() + 1)]
    return found


def load(folder: Path, photo: RGB) -> RegionMap | None:
    """Return the regions of a photo, or None: of ``<fingerprint>.png`` or ``.npy``, or of its masks.

    ``fingerprint`` is that of ``pnp_ovss.images``. A file holds the region of each pixel, 0 for none; of two masks that
    overlap the smaller lies on top.

    Raises: InputError if a file cannot be read or is not of the photo's size.
    """
    found, place, size = load_masks(folder, photo), folder / fingerprint(photo), photo.shape[:2]
    if found is not None:
        return stacked(found, size)
    for path in (place.with_suffix(".png"), place.with_suffix(".npy")):
        if path.is_file():
            return numbered(_read(path, size).astype(np.int32) - 1)
    return None


def load_masks(folder: Path, photo: RGB) -> list[Mask] | None:
    """Return the masks of a photo, or None: of a folder ``<fingerprint>``, or of the file that ``keep_masks`` wrote.

    In a folder each is a picture that is not black where the mask is.

    Raises: InputError as ``load`` does.
    """
    place, size = folder / fingerprint(photo), photo.shape[:2]
    if place.is_dir():
        return [_read(path, size) != 0 for path in sorted(place.glob("*.png"))]
    if place.with_suffix(".json").is_file():
        return [rle.decode(one, *size) > 0 for one in read_json(place.with_suffix(".json")).get("masks", ())]
    return None


def keep_masks(folder: Path, photo: RGB, masks: Iterable[Mask]) -> None:
    """Put masks of a photo, which may overlap, where the source "folder" finds them, as COCO's run lengths.

    Raises: InputError if they cannot be written.
    """
    write_bytes(folder / f"{fingerprint(photo)}.json", as_json({"masks": [rle.encode(mask) for mask in masks]}))


def keep_regions(folder: str | Path, photo: RGB, regions: Integer[np.ndarray, "h w"]) -> None:
    """Put the regions of a photo, numbered from 0 and -1 for none, where the source "folder" finds them.

    Raises: InputError if they are more than ``MOST``, not of the photo's size, or cannot be written.
    """
    if regions.shape != photo.shape[:2] or regions.max(initial=0) >= MOST:
        expected = f"up to {MOST} regions of shape {photo.shape[:2]}"
        raise InputError(f"expected {expected}, got {regions.max(initial=-1) + 1} of shape {regions.shape}")
    values = (regions.clip(-1) + 1).astype(np.uint16)
    save_png(Path(folder, f"{fingerprint(photo)}.png"), Image.fromarray(values))


def _folder(settings: Any) -> Path:
    if not settings.regions_folder:
        raise ConfigError("the regions of a folder need --regions-folder, where keep_regions has put them")
    return Path(settings.regions_folder)


def _read(path: Path, size: tuple[int, ...]) -> np.ndarray:
    with reachable(path, "cannot be read as regions", "write it anew"):
        if path.suffix == ".npy":
            values: np.ndarray = np.load(path, allow_pickle=False)
        else:
            with Image.open(path, formats=("PNG",)) as image:
                values = np.asarray(image)
    if values.shape != size or values.dtype.kind not in "bui" or values.min(initial=0) < 0:
        expected = f"the region of each pixel of {size}, 0 for none"
        raise InputError(f"expected {expected}, in {path}; got {values.dtype} of shape {values.shape}")
    return values
