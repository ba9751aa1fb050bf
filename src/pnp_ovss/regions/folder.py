"""Regions made elsewhere: files that are named by the photo's pixels, for a method sees no more of a photo."""

from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Integer
from PIL import Image

from pnp_ovss.errors import ConfigError, InputError
from pnp_ovss.files import reachable, save_png
from pnp_ovss.images import fingerprint
from pnp_ovss.regions.base import RegionMap, numbered, stacked
from pnp_ovss.types import RGB

MOST = 65_535
"""Regions of a photo in a file."""


def regions(photo: RGB, settings: Any, device: str = "cpu") -> RegionMap:
    """Return the regions of a photo in ``settings.regions_folder``: of ``load``.

    Raises: ConfigError if there is no folder; InputError if it has no regions of the photo.
    """
    if not settings.regions_folder:
        raise ConfigError("the regions of a folder need --regions-folder, where keep_regions has put them")
    found = load(Path(settings.regions_folder), photo)
    if found is None:
        advice = "put them there with keep_regions; a photo of more than max_pixels has them at that size alone"
        raise InputError(f"expected regions {fingerprint(photo)} in {settings.regions_folder}, got none; {advice}")
    return found


def load(folder: Path, photo: RGB) -> RegionMap | None:
    """Return the regions of a photo, or None: of ``<fingerprint>.png`` or ``.npy``, or of the masks in a folder of it.

    ``fingerprint`` is that of ``pnp_ovss.images``. A file holds the region of each pixel, 0 for none; a mask is
    a picture that is not black where the region is, and the smaller of two lies on top.

    Raises: InputError if a file cannot be read or is not of the photo's size.
    """
    place = folder / fingerprint(photo)
    size = photo.shape[:2]
    if place.is_dir():
        return stacked((_read(path, size) != 0 for path in sorted(place.glob("*.png"))), size)
    for path in (place.with_suffix(".png"), place.with_suffix(".npy")):
        if path.is_file():
            return numbered(_read(path, size).astype(np.int32) - 1)
    return None


def keep_regions(folder: str | Path, photo: RGB, regions: Integer[np.ndarray, "h w"]) -> None:
    """Put the regions of a photo, numbered from 0 and -1 for none, where the source "folder" finds them.

    Raises: InputError if they are more than ``MOST``, not of the photo's size, or cannot be written.
    """
    if regions.shape != photo.shape[:2] or regions.max(initial=0) >= MOST:
        expected = f"up to {MOST} regions of shape {photo.shape[:2]}"
        raise InputError(f"expected {expected}, got {regions.max(initial=-1) + 1} of shape {regions.shape}")
    values = (regions.clip(-1) + 1).astype(np.uint16)
    save_png(Path(folder, f"{fingerprint(photo)}.png"), Image.fromarray(values))


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
