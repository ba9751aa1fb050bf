"""Regions by edges: the basins of a watershed over the photo's gradient, merged while they differ little.

Basins merge by the criterion of Felzenszwalb and Huttenlocher, "Efficient graph-based image
segmentation", IJCV 2004, section 4, which goes through pixels there.
"""

from typing import Any

import numpy as np
from jaxtyping import Float, Int
from scipy import ndimage

from pnp_ovss.regions.base import RegionMap, numbered
from pnp_ovss.types import RGB

SIGMA = 1.0
"""Of the blur before, in pixels."""
CONTRAST = 3
"""How much stronger than within them, in colours from 0 to 255, an edge between regions of the size asked for is."""
LEAST = 0.25
"""Regions of less than this share of the area asked for join a neighbour."""


def regions(photo: RGB, settings: Any, device: str = "cpu") -> RegionMap:
    """Return the regions of a photo; they cover it."""
    area = (settings.regions_size * max(photo.shape[:2])) ** 2
    colour = ndimage.gaussian_filter(photo.astype(np.float32), (SIGMA, SIGMA, 0))
    basins = watershed(colour)
    return numbered(merged(basins, colour, scale=CONTRAST * area, least=LEAST * area)[basins])


def watershed(colour: Float[np.ndarray, "h w 3"]) -> Int[np.ndarray, "h w"]:
    """Return the basins of the gradient of a picture, from 0: pixels from which steepest descent ends in one minimum.

    Of equal neighbours it goes to the first, row by row.
    """
    h, w = colour.shape[:2]
    slopes = [np.gradient(colour, axis=axis) for axis in (0, 1) if colour.shape[axis] > 1]
    steep = np.linalg.norm(np.concatenate([*slopes, np.zeros((h, w, 1))], axis=2), axis=2)
    wide = np.pad(steep, 1, constant_values=np.inf)
    around = np.stack([wide[row : row + h, column : column + w] for row, column in np.ndindex(3, 3)])
    row, column = np.divmod(around.argmin(0), 3)
    rows, columns = np.indices((h, w))
    lowest = ((rows + row - 1) * w + columns + column - 1).ravel()
    while not np.array_equal(lower := lowest[lowest], lowest):
        lowest = lower
    return np.unique(lowest, return_inverse=True)[1].reshape(h, w)


def merged(
    basins: Int[np.ndarray, "h w"], colour: Float[np.ndarray, "h w 3"], *, scale: float, least: float
) -> Int[np.ndarray, " basin"]:
    """Return the region of each basin.

    Regions a and b merge where ``edge <= min(within(a) + scale / area(a), within(b) + scale / area(b))``, the weakest
    edges first. ``edge`` is the distance between the mean colours of two basins side by side, ``within`` the strongest
    that a region has merged along. Those of less than ``least`` pixels then join the neighbour behind their weakest
    edge.
    """
    area = np.bincount(basins.ravel())
    means = np.stack([np.bincount(basins.ravel(), part.ravel()) / area for part in np.moveaxis(colour, 2, 0)], 1)
    ends = _neighbours(basins)
    weights = np.linalg.norm(means[ends[0]] - means[ends[1]], axis=1)
    order = np.argsort(weights, kind="stable")
    edges = list(zip(*(part[order].tolist() for part in (*ends, weights)), strict=True))
    parents, areas, within = list(range(len(area))), area.tolist(), [0.0] * len(area)

    def root(basin: int) -> int:
        while parents[basin] != basin:
            parents[basin] = basin = parents[parents[basin]]
        return basin

    for small in (False, True):
        for one, other, weight in edges:
            a, b = root(one), root(other)
            strongest = min(within[a] + scale / areas[a], within[b] + scale / areas[b])
            if a != b and (min(areas[a], areas[b]) < least if small else weight <= strongest):
                parents[b], within[a] = a, weight
                areas[a] += areas[b]
    return np.array([root(basin) for basin in range(len(parents))])


def _neighbours(basins: Int[np.ndarray, "h w"]) -> Int[np.ndarray, "2 edge"]:
    """Return the pairs of basins that have pixels side by side, each once."""
    across, down = (basins[:, :-1], basins[:, 1:]), (basins[:-1], basins[1:])
    one, other = np.concatenate([np.stack([part.ravel() for part in pair]) for pair in (across, down)], axis=1)
    count = int(basins.max()) + 1
    low, high = np.minimum(one, other).astype(np.int64), np.maximum(one, other)
    return np.stack(np.divmod(np.unique((low * count + high)[low != high]), count))
