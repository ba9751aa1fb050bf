"""Sliding windows: a picture is cut into crops that overlap, and what is found in them is averaged over the picture.

Windows lie on a raster, so whatever is linear in them (to enlarge a window's grid, to put it in its place, to average
where windows overlap, to resample the picture) is one matrix for the rows and one for the columns: see ``Axis.spread``.
"""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import interpolate, pad

Grids = Float[Tensor, "window query gh gw"]


@dataclass(frozen=True)
class Axis:
    """Where windows lie along one side of a picture."""

    length: int
    """Of the side, in pixels."""
    window: int
    """Pixels of the picture in a window."""
    starts: tuple[int, ...]
    """First pixel of each window."""
    before: int = 0
    after: int = 0
    """Pixels added to a window at either end."""

    def padded(self, multiple: int) -> "Axis":
        """Return the axis with windows filled up to a multiple of so many pixels, the smaller half before."""
        missing = -self.window % multiple
        return replace(self, before=missing // 2, after=missing - missing // 2)

    def spread(self, cells: int, size: int, direct: bool = False) -> Float[Tensor, "size cells_of_all_windows"]:
        """Return the matrix from the cells of all windows, ``cells`` each, to the picture at ``size`` pixels.

        A window's cells are enlarged to its pixels and averaged with those of the windows that overlap it, and the
        picture is resampled to ``size``; ``direct``: cells of a single window are resampled at once. Every
        interpolation is bilinear, corners not aligned.
        """
        if direct:
            return interpolation(cells, size)
        enlarge = interpolation(cells, self.before + self.window + self.after)
        enlarge = enlarge[self.before : self.before + self.window]
        picture, counts = torch.zeros(self.length, len(self.starts) * cells), torch.zeros(self.length, 1)
        for number, start in enumerate(self.starts):
            pixels = slice(start, start + self.window)
            picture[pixels, number * cells : (number + 1) * cells] = enlarge
            counts[pixels] += 1
        picture /= counts
        return picture if size == self.length else interpolation(self.length, size) @ picture


def along(length: int, crop: int, stride: int) -> Axis:
    """Return windows of ``crop`` pixels every ``stride`` pixels; the last one ends with the side. 0: one window."""
    if not crop:
        return Axis(length, length, (0,))
    count = max(length - crop + stride - 1, 0) // stride + 1
    starts = [max(min(index * stride + crop, length) - crop, 0) for index in range(count)]
    return Axis(length, min(crop, length), tuple(starts))


def cut(pixels: Float[Tensor, "c h w"], rows: Axis, columns: Axis) -> Float[Tensor, "window c _ _"]:
    """Return the windows of a picture, row by row; what is added to them is 0."""
    parts = [
        pixels[:, top : top + rows.window, left : left + columns.window]
        for top in rows.starts
        for left in columns.starts
    ]
    return pad(torch.stack(parts), (columns.before, columns.after, rows.before, rows.after))


def raster(grids: Grids, columns: int) -> Float[Tensor, "query _ _"]:
    """Return the grids of all windows beside and below each other, ``columns`` windows in a row."""
    count, queries, gh, gw = grids.shape
    rows = grids.view(count // columns, columns, queries, gh, gw).permute(2, 0, 3, 1, 4)
    return rows.reshape(queries, count // columns * gh, columns * gw)


def interpolation(source: int, size: int) -> Float[Tensor, "size source"]:
    """Return the matrix that resamples ``source`` values to ``size``: linear, corners not aligned."""
    return interpolate(torch.eye(source)[None], size=size, mode="linear")[0].T
