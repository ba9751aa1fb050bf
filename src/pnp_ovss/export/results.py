"""The former place of ``types.LabelMap`` and of reading results."""

from typing import Any

from pnp_ovss.export import all_names
from pnp_ovss.types import LabelMap, Region

__all__ = ["LabelMap", "Region", "all_names", "in_memory"]


def in_memory(result: Any, file_name: str = "photo.jpg") -> LabelMap:
    """Return ``result.label_map(file_name)``."""
    label_map: LabelMap = result.label_map(file_name)
    return label_map
