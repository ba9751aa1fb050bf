"""Regions of a photo that belong together, whatever they show: of its colours alone, of SAM, or made elsewhere.

A new source is a file with a function and a line of ``SOURCES``.
"""

from collections.abc import Callable
from typing import Any

from pnp_ovss.errors import ConfigError
from pnp_ovss.regions import folder, sam, watershed
from pnp_ovss.regions.base import Mask, RegionMap, RegionSettings, stacked
from pnp_ovss.types import RGB

__all__ = ["SOURCES", "Mask", "RegionMap", "RegionSettings", "find_masks", "find_regions", "stacked"]

SOURCES: dict[str, Callable[[RGB, Any, str], RegionMap]] = {
    "watershed": watershed.regions,
    "sam": sam.regions,
    "folder": folder.regions,
}
"""By name, what returns the regions of a photo from settings with the fields of ``RegionSettings`` and a device."""

MASKS: dict[str, Callable[[RGB, Any, str], list[Mask]]] = {"sam": sam.masks, "folder": folder.masks}
"""Of the sources whose regions are things, what returns their masks, which may overlap."""


def find_regions(photo: RGB, settings: Any, device: str = "cpu") -> RegionMap:
    """Return the region of each pixel, numbered from 0; -1: no region covers it. Every number up to the largest occurs.

    ``settings``: a ``RegionSettings``, or the ``Config`` of a method, which has its fields; ``device``: where a model
    of the source runs. The same photo and settings give the same regions.

    Raises: ConfigError if there is no such source; as the source does.
    """
    check_source(settings.regions)
    return SOURCES[settings.regions](photo, settings, device)


def find_masks(photo: RGB, settings: Any, device: str = "cpu") -> list[Mask]:
    """Return masks of things, which may overlap; none where the regions of the source are no things.

    Raises: as the source does.
    """
    return MASKS[settings.regions](photo, settings, device) if settings.regions in MASKS else []


def check_source(name: str) -> None:
    """Raise ConfigError if there is no source of that name."""
    if name not in SOURCES:
        raise ConfigError(f"there is no source of regions {name!r}; the sources are {', '.join(SOURCES)}")
