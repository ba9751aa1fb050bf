"""A photo at the size that the methods on CLIP see, as MMCV, and so OpenCV, makes it."""

import numpy as np
from jaxtyping import Int, UInt8

from pnp_ovss.types import RGB

ONE = 2**11
"""Weights are whole numbers; this many are 1."""


def fitted(size: tuple[int, ...], short: int, long: int, least: int = 1) -> tuple[int, int]:
    """Return the size with a shorter side of ``short``, or a longer one of ``long`` if that is smaller.

    Sides are at least ``least``.

    >>> fitted((90, 126), 96, 2048)
    (96, 134)
    """
    factor = min(long / max(size), short / min(size))
    h, w = (max(least, int(side * factor + 0.5)) for side in size)
    return h, w


def resize(image: RGB, size: tuple[int, int]) -> UInt8[np.ndarray, "_ _ 3"]:
    """Return the photo at another size: bilinear between pixel centres, without smoothing.

    The same 8-bit numbers as ``cv2.resize`` with INTER_LINEAR, which rounds its weights to 11 bits and drops bits
    between columns and rows.
    """
    (top, bottom), (above, below) = _weights(image.shape[0], size[0])
    (left, right), (before, after) = _weights(image.shape[1], size[1])
    wide = (image[:, left] * before[:, None] + image[:, right] * after[:, None]) >> 4
    tall = (wide[top] * above[:, None, None] >> 16) + (wide[bottom] * below[:, None, None] >> 16)
    resized: np.ndarray = (tall + 2 >> 2).astype(np.uint8)
    return resized


def _weights(source: int, size: int) -> tuple[Int[np.ndarray, "2 size"], Int[np.ndarray, "2 size"]]:
    """Return the two source pixels that each pixel lies between, and their weights."""
    at = ((np.arange(size) + 0.5) * (source / size) - 0.5).astype(np.float32)
    first = np.floor(at)
    weights = np.rint(np.stack([1 - (at - first), at - first]) * ONE).astype(np.int32)
    return np.stack([first, first + 1]).astype(np.int64).clip(0, source - 1), weights
