"""A photo in any form people have it becomes an RGB array, or one clear line says why not."""

import glob
import hashlib
import io
import os
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from pnp_ovss.errors import InputError
from pnp_ovss.files import Source, expanded, fetch, fetch_source, reachable
from pnp_ovss.redaction import bare
from pnp_ovss.types import RGB

Photo = str | Path | Image.Image | np.ndarray
"""A path or web address, a PIL image, or an RGB uint8 array (height, width, 3)."""


class Address(str):
    """Where a photo is in the web, with what is asked of a path."""

    __slots__ = ()

    @property
    def stem(self) -> str:
        """The name without suffix: what results are called by."""
        return PurePosixPath(unquote(urlsplit(self).path)).stem or "photo"

    @staticmethod
    def is_one(place: str | Path) -> bool:
        """Return whether a place is a web address."""
        return isinstance(place, str) and place.casefold().startswith(("http://", "https://"))


Place = Path | Address
"""Of a photo."""

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm", ".jp2", ".avif")
"""What counts as a photo in a folder, in upper or lower case."""

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM", "JPEG2000", "AVIF")
"""What Pillow may open, if it can. Others, such as EPS, would start a program."""

ORIENTATION = 0x0112
"""The entry of EXIF that says how a photo is turned."""

STRIP = 2**20
"""Pixels converted at a time."""

MAX_PIXELS = 150_000_000
"""Larger photos are refused by their header, before anything is decoded."""


def read_image(photo: Photo, upright: bool = True) -> RGB:
    """Return the photo in 8-bit RGB, as an array of its own; ``upright``: turned as its EXIF orientation says.

    Transparent pixels become white; 16 bits are scaled to 8; of an animation the first frame is taken. Colour profiles
    are not applied.

    Raises: InputError if there is no such file, it is no picture, it is damaged or larger than ``MAX_PIXELS``, or an
    array is not uint8 of shape (height, width, 3).
    """
    if isinstance(photo, np.ndarray):
        if photo.dtype != np.uint8 or photo.ndim != 3 or photo.shape[2] != 3 or photo.size == 0:
            expected = "expected a photo as uint8 array of shape (height, width, 3), RGB from 0 to 255"
            raise InputError(f"{expected}, got {photo.dtype} of shape {photo.shape}")
        if photo.size > 3 * MAX_PIXELS:
            most = f"at most {MAX_PIXELS // 1_000_000} million pixels"
            raise InputError(f"expected a photo of {most}, got one of shape {photo.shape}; make it smaller first")
        return np.array(photo, order="C")
    if isinstance(photo, Image.Image):
        with readable("the PIL image"):
            return _decode(photo, "the PIL image", MAX_PIXELS, upright)
    if not isinstance(photo, str | Path):
        form = "a path, a PIL image or an RGB uint8 array (height, width, 3)"
        raise InputError(f"expected a photo as {form}, got {type(photo).__name__}")
    if Address.is_one(photo):
        return decode_image(fetch(str(photo)), bare(str(photo)))
    path = expanded(photo)
    if not os.path.isfile(path):
        raise InputError(f"there is no photo {path}; check the path")
    return _open(path, path, MAX_PIXELS, upright)


def image_size(path: Path) -> tuple[int, int] | None:
    """Return rows and columns of a photo as its header says, not turned upright; None where there is no such header."""
    with suppress(Exception), Image.open(path, formats=_formats()) as image:
        return image.height, image.width
    return None


def read_photo(place: str | Path, name: str = "") -> tuple[RGB, Source]:
    """Return the photo at a path or URL as ``read_image`` does, and the file it was read from.

    Raises: InputError as ``read_image``; it calls the file ``name``, else by its place.
    """
    content, source = fetch_source(place)
    return decode_image(content, name or str(place)), source


def decode_image(content: bytes, name: str, most_pixels: int = MAX_PIXELS) -> RGB:
    """Return the photo that a file holds, as ``read_image`` does; error messages call it ``name``.

    Raises: InputError if it is no picture, damaged, or larger than ``most_pixels``.
    """
    return _open(io.BytesIO(content), name, most_pixels)


def find_images(patterns: Iterable[str | Path]) -> list[Place]:
    """Return the photos meant by files, folders and globs, in the order given, each once.

    A folder stands for the pictures right in it, by suffix and sorted, without hidden files; a glob (``**`` goes into
    folders) for the pictures among its matches, sorted. A file or a web address is taken as it is, whether it can be
    read or not.

    Raises: InputError if a folder or a glob holds no picture.
    """
    found: dict[str, Place] = {}
    for pattern in patterns:
        if Address.is_one(pattern):
            found.setdefault(str(pattern), Address(pattern))
            continue
        for path in _expand(Path(expanded(pattern))):
            found.setdefault(os.path.abspath(path), path)
    if not found:
        raise InputError("expected at least one photo, got none; name files, folders or globs such as 'photos/*.jpg'")
    return list(found.values())


def fingerprint(photo: RGB) -> str:
    """Return the SHA-256 of the photo's pixels and size, whatever file they came from."""
    size = f"{photo.shape[0]} x {photo.shape[1]}:"
    return hashlib.sha256(size.encode() + photo.tobytes()).hexdigest()


def _expand(path: Path) -> list[Path]:
    if os.path.isdir(path):
        with reachable(f"the folder {path}", "cannot be read", "check its permissions"):
            names = sorted(os.listdir(path))
        found = [path / name for name in names if not name.startswith(".")]
        fault = f"the folder {path} holds no picture; folders within it are named one by one"
    elif os.path.exists(path) or not glob.has_magic(str(path)):
        return [path]
    else:
        found = sorted(map(Path, glob.glob(str(path), recursive=True)))
        fault = f"no picture matches {path}; check the pattern and the folder"
    pictures = [path for path in found if path.suffix.lower() in SUFFIXES and os.path.isfile(path)]
    if not pictures:
        raise InputError(fault)
    return pictures


@contextmanager
def readable(name: str, most_pixels: int = MAX_PIXELS) -> Iterator[None]:
    """Turn whatever Pillow raises into a line of ours: its decoders raise anything, MemoryError included."""
    warnings.filterwarnings("ignore", module="PIL")  # what matters in its warnings becomes an error of ours
    with reachable(name, "cannot be read", "check the file, or save it again"):
        try:
            yield
        except UnidentifiedImageError as error:
            raise InputError(f"{name} is no picture; expected a JPEG, PNG, WebP, TIFF, BMP or GIF file") from error
        except Image.DecompressionBombError as error:
            most = most_pixels // 1_000_000
            raise InputError(f"{name} has more than {most} million pixels; make it smaller first") from error


def _open(file: str | io.BytesIO, name: str, most_pixels: int, upright: bool = True) -> RGB:
    with readable(name, most_pixels), Image.open(file, formats=_formats()) as image:
        return _decode(image, name, most_pixels, upright)


@cache
def _formats() -> tuple[str, ...]:
    Image.init()  # Pillow's plugins register themselves; which ones it has depends on its version and build
    return tuple(name for name in FORMATS if name in Image.OPEN)


def _decode(image: Image.Image, name: str, most_pixels: int, upright: bool) -> RGB:
    if image.width * image.height > most_pixels:
        raise Image.DecompressionBombError
    if 0 in image.size:
        raise InputError(f"expected at least one pixel in {name}, got {image.width} x {image.height}")
    image.load()
    if upright:
        with suppress(Exception):  # damaged EXIF says nothing about the pixels; Pillow raises all kinds of errors
            if image.getexif().get(ORIENTATION, 1) != 1:  # Pillow would copy one that is upright as well
                image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I") or image.mode == "F":
        image = Image.fromarray(_to_eight_bits(np.asarray(image)))
    pixels = np.empty((image.height, image.width, 3), dtype=np.uint8)
    rows = max(1, STRIP // image.width)
    for top in range(0, image.height, rows):  # by strips: Pillow makes several copies on the way
        strip = image.crop((0, top, image.width, min(top + rows, image.height)))
        pixels[top : top + rows] = np.asarray(_to_rgb(strip))
    return pixels


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.has_transparency_data:
        solid = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(solid, image.convert("RGBA")).convert("RGB")
    return image.convert("RGB")


def _to_eight_bits(values: np.ndarray) -> np.ndarray:
    """Return grey values in 0-255: integers count as 16-bit; of floats those in 0-1 are stretched, 0-255 kept."""
    most = values.max()
    if not np.isfinite(values).all() or values.min() < 0 or most > 65535:
        raise ValueError("grey values outside 0 to 65535")
    scale = 255.0 if most <= 1 else 1.0
    if np.issubdtype(values.dtype, np.integer) or most > 255:
        scale = 255 / 65535
    return np.rint(values * scale).astype(np.uint8)
