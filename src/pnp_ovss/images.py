"""A photo in any form people have it becomes an RGB array, or one clear line says why not."""

import glob
import hashlib
import io
import os
import struct
import threading
import warnings
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from pnp_ovss.errors import InputError, one_line
from pnp_ovss.types import RGB

Photo = str | Path | Image.Image | np.ndarray
"""A path, a PIL image, or an RGB uint8 array (height, width, 3)."""

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm", ".jp2", ".avif")
"""What counts as a photo in a folder, in any case of letters."""

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM", "JPEG2000", "AVIF")
"""What Pillow may open, if it can: pictures of pixels. Others, such as EPS, would start a program."""

MAX_PIXELS = 150_000_000
"""Larger pictures are refused by their header, before anything is decoded."""

ORIENTATION_TAG = 0x0112
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What turns a picture upright, by the value of its EXIF orientation."""

# What Pillow's decoders raise on a file that is cut short or damaged.
_DAMAGE = (
    *(OSError, SyntaxError, ValueError, EOFError, IndexError, KeyError, TypeError, AttributeError),
    *(RuntimeError, ArithmeticError, struct.error, zlib.error),
)


class _NoWarnings:
    """Silences Pillow's warnings, which opening, decoding and EXIF give: what matters in them becomes an error of ours.

    The filters are the whole process's: the first thread inside sets them, the last one to leave sets them back.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0

    def __enter__(self) -> None:
        with self._lock:
            if self._inside == 0:
                self._before = warnings.catch_warnings()
                self._before.__enter__()
                warnings.simplefilter("ignore")
            self._inside += 1

    def __exit__(self, *told: object) -> None:
        with self._lock:
            self._inside -= 1
            if self._inside == 0:
                self._before.__exit__(None, None, None)


no_warnings = _NoWarnings()


def read_image(photo: Photo, upright: bool = True) -> RGB:
    """Return the photo in 8-bit RGB, as an array of its own; ``upright``: turned as its EXIF orientation says.

    Transparent pixels show white; 16 bits are scaled to 8; of an animation the first picture is taken. Colour profiles
    are not applied.

    Raises: InputError if there is no such file, it is no picture, it is damaged or larger than ``MAX_PIXELS``, or an
    array is not uint8 of shape (height, width, 3).
    """
    if isinstance(photo, np.ndarray):
        return _from_array(photo)
    if isinstance(photo, Image.Image):
        with no_warnings:
            return _decode(photo, "the PIL image", upright=upright)
    if not isinstance(photo, str | Path):
        raise InputError(
            f"a photo came as {type(photo).__name__}; a path, a PIL image or an RGB uint8 array (height, width, 3) is "
            "wanted"
        )
    return _from_file(_home(photo), upright)


def decode_image(content: bytes, name: str, most_pixels: int = MAX_PIXELS) -> RGB:
    """Return the photo that a file holds, as ``read_image`` does; ``name`` is what a message calls it.

    Raises: InputError if it is no picture, damaged, or larger than ``most_pixels``: that is told by its header, before
    anything is decoded.
    """
    if not content:
        raise InputError(f"{name} is empty; fetch or save it again")
    with _told(name, most_pixels), no_warnings, Image.open(io.BytesIO(content), formats=_formats()) as image:
        return _decode(image, name, most_pixels)


def find_images(patterns: Iterable[str | Path]) -> list[Path]:
    """Return the photos meant by files, folders and globs, in the order given, each once.

    A folder stands for the pictures right in it, by suffix and sorted, without hidden files; a glob (``**`` goes into
    folders) for the pictures among its matches, sorted. A file is taken as it is: whether it can be read shows later.

    Raises: InputError if a folder or a glob holds no picture.
    """
    found: dict[Path, Path] = {}
    for pattern in patterns:
        for path in _expand(_home(pattern)):
            found.setdefault(Path(os.path.abspath(path)), path)
    if not found:
        raise InputError("no photo was given; name files, folders or globs such as 'photos/*.jpg'")
    return list(found.values())


def fingerprint(photo: RGB) -> str:
    """Return the SHA-256 of the photo's pixels and size, whatever file they came from."""
    digest = hashlib.sha256(f"{photo.shape[0]} x {photo.shape[1]}:".encode())
    digest.update(photo.tobytes())
    return digest.hexdigest()


def shown(path: Path | str) -> str:
    """Return the path for a message of one line: as it is, or quoted where it holds what cannot be printed."""
    text = str(path)
    return text if text.isprintable() else ascii(text)


def _home(path: str | Path) -> Path:
    return Path(os.path.expanduser(path))  # unlike Path.expanduser it takes a home it cannot find as a plain name


def _expand(path: Path) -> list[Path]:
    # os.path's questions answer no where Path's would raise: a name too long, a folder that may not be entered.
    if os.path.isdir(path):
        try:
            names = sorted(os.listdir(path))
        except OSError as error:
            raise InputError(f"the folder {shown(path)} may not be read; check its permissions") from error
        inside = [path / name for name in names if not name.startswith(".") and _is_picture(path / name)]
        if not inside:
            raise InputError(f"the folder {shown(path)} holds no picture; folders within it are named one by one")
        return inside
    if os.path.exists(path) or not glob.has_magic(str(path)):
        return [path]
    matches = [entry for match in glob.glob(str(path), recursive=True) if _is_picture(entry := Path(match))]
    if not matches:
        raise InputError(f"no picture matches {shown(path)}; check the pattern and the folder")
    return sorted(matches)


def _is_picture(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES and os.path.isfile(path)


def _from_array(array: np.ndarray) -> RGB:
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] != 3 or array.size == 0:
        raise InputError(
            f"a photo came as {array.dtype} array of shape {array.shape}; uint8 of shape (height, width, 3), RGB "
            "from 0 to 255, is wanted"
        )
    return np.array(array, order="C")


def _from_file(path: Path, upright: bool) -> RGB:
    name = shown(path)
    with _told(name):
        if os.path.isdir(path):
            raise InputError(f"{name} is a folder; a picture file is wanted")
        if not path.exists():
            raise InputError(f"there is no photo {name}; check the path")
        if not path.is_file():
            raise InputError(f"{name} is no regular file; a picture file is wanted")
        if path.stat().st_size == 0:
            raise InputError(f"{name} is empty; fetch or save it again")
        with no_warnings, Image.open(path, formats=_formats()) as image:
            return _decode(image, name, upright=upright)


@contextmanager
def _told(name: str, most_pixels: int = MAX_PIXELS) -> Iterator[None]:
    """Turn what Pillow raises on opening a file into a line of ours."""
    try:
        yield
    except UnidentifiedImageError as error:
        raise InputError(f"{name} is no picture; a JPEG, PNG, WebP, TIFF, BMP or GIF file is wanted") from error
    except Image.DecompressionBombError as error:
        raise InputError(f"{name} has more than {_millions(most_pixels)}; make it smaller first") from error
    except PermissionError as error:
        raise InputError(f"{name} may not be read; check its permissions") from error
    except _DAMAGE as error:  # opening a damaged file, or a path the system does not take
        raise InputError(f"{name} cannot be read ({one_line(error)}); check the path and the file") from error


@cache
def _formats() -> tuple[str, ...]:
    Image.init()  # Pillow's plugins register themselves; which ones it has depends on its version and build
    return tuple(name for name in FORMATS if name in Image.OPEN)


def _decode(image: Image.Image, name: str, most_pixels: int = MAX_PIXELS, upright: bool = True) -> RGB:
    width, height = image.size
    if width * height > most_pixels:
        raise InputError(
            f"{name} has {width} x {height} pixels, more than {_millions(most_pixels)}; make it smaller first"
        )
    if width * height == 0:
        raise InputError(f"{name} has {width} x {height} pixels; at least one is wanted")
    try:
        image.load()
        picture = _to_rgb(image)
        turn = UPRIGHT.get(_orientation(image)) if upright else None
        return np.array(picture if turn is None else picture.transpose(turn))
    except _DAMAGE as error:
        raise InputError(f"{name} is cut short or damaged ({one_line(error)}); fetch or save it again") from error


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I") or image.mode == "F":
        return Image.fromarray(_to_eight_bits(np.asarray(image))).convert("RGB")
    if image.has_transparency_data:
        solid = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(solid, image.convert("RGBA")).convert("RGB")
    return image.convert("RGB")


def _to_eight_bits(values: np.ndarray) -> np.ndarray:
    """Return grey values in 0-255: whole numbers count as 16-bit; of others those in 0-1 are stretched, 0-255 kept."""
    if not np.isfinite(values).all() or values.min() < 0 or values.max() > 65535:
        raise ValueError("grey values outside 0 to 65535")
    if np.issubdtype(values.dtype, np.integer) or values.max() > 255:
        scale = 255 / 65535
    else:
        scale = 255.0 if values.max() <= 1 else 1.0
    return np.rint(values * scale).astype(np.uint8)


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(ORIENTATION_TAG, 1))
    except _DAMAGE:  # damaged EXIF says nothing about the pixels
        return 1


def _millions(pixels: int) -> str:
    return f"{pixels // 1_000_000} million pixels"
