"""Clean regions: what is too small goes to what surrounds it. Works on the finished label map, not on scores."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Integer
from scipy import ndimage

from pnp_ovss.errors import ConfigError
from pnp_ovss.parts import find_parts
from pnp_ovss.refine.base import LabelRefiner
from pnp_ovss.settings import setting

LEAST = 0.0005
"""Share of a photo: 12 x 12 pixels of 480 x 640."""

Labels = Integer[np.ndarray, "h w"]


@dataclass(frozen=True)
class Tidy(LabelRefiner):
    """Parts of at least some area; without holes, or the largest of each class alone, where that is set."""

    min_area: int | float = setting(LEAST, "tidy: smallest part that stays: 50 is pixels, 0.001 a share of the photo")
    fill_holes: bool = setting(False, "tidy: background within a class becomes that class, however large it is")
    largest_part: bool = setting(False, "tidy: of each class the largest part alone stays")

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.min_area, float) and self.min_area > 1:
            expected = "pixels (50) or a share of the photo up to 1 (0.001)"
            raise ConfigError(f"expected min_area to be {expected}, got {self.min_area:g}")

    def clean(self, labels: Labels, background: bool) -> Labels:
        """Return ``tidy(labels, background)`` with these settings."""
        return tidy(labels, background, self.min_area, self.fill_holes, self.largest_part)


def tidy(
    labels: Labels,
    background: bool,
    min_area: int | float = LEAST,
    fill_holes: bool = False,
    largest_part: bool = False,
) -> Labels:
    """Return the labels without parts of fewer pixels than ``min_area``, an int; a float is a share of the photo.

    The pixels of such a part go to the nearest part that stays, the largest of the photo always among these; so small
    holes are filled. ``background``: label 0 is none of the classes, of which ``largest_part`` keeps the largest part
    alone, and background that one class encloses is that class after ``fill_holes``. Parts share sides, not corners.
    """
    parts = find_parts(labels)
    least = min_area * labels.size if isinstance(min_area, float) else min_area
    stays = parts.areas >= least
    if largest_part:
        order = np.lexsort((-parts.areas, parts.labels))  # each label's parts from the largest on
        second = np.diff(parts.labels[order], prepend=-1) == 0
        stays[order[second]] = False
        stays |= background & (parts.labels == 0) & (parts.areas >= least)
    stays[parts.areas.argmax()] = True
    lost = ~stays[parts.index]
    if lost.any():
        nearest = ndimage.distance_transform_edt(lost, return_distances=False, return_indices=True)
        labels = labels[tuple(nearest)]
    return _filled(labels) if fill_holes and background else labels


def _filled(labels: Labels) -> Labels:
    """Return the labels with each part of label 0 that one other label encloses in that label."""
    parts = find_parts(labels)
    index, low, high = parts.index, np.full(len(parts.areas), labels.max()), np.zeros(len(parts.areas), labels.dtype)
    for one, other in ((index[1:], index[:-1]), (index[:, 1:], index[:, :-1])):
        apart = one != other
        for part, neighbour in ((one[apart], other[apart]), (other[apart], one[apart])):
            np.minimum.at(low, part, parts.labels[neighbour])
            np.maximum.at(high, part, parts.labels[neighbour])
    hole = (parts.labels == 0) & (low == high)
    for edge in (index[0], index[-1], index[:, 0], index[:, -1]):
        hole[edge] = False
    return np.asarray(np.where(hole, high, parts.labels).astype(labels.dtype)[index])
