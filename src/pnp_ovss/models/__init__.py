"""Vision-language models by name. A new family is a file and a line in ``FAMILIES``, in ``families.py``.

What needs torch and transformers is imported on use: listing the models takes none of it.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from pnp_ovss.models.hub import MODELS, find, find_folder

if TYPE_CHECKING:  # "as" says to type checkers that these are public
    from pnp_ovss.models.base import VLM as VLM
    from pnp_ovss.models.families import FAMILIES as FAMILIES, load_vlm as load_vlm, preset_of as preset_of

_ON_USE = {"FAMILIES": "families", "VLM": "base", "load_vlm": "families", "preset_of": "families"}

__all__ = ["MODELS", "find", "find_folder", *_ON_USE]


def __getattr__(name: str) -> Any:
    if name not in _ON_USE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value = getattr(import_module(f"{__name__}.{_ON_USE[name]}"), name)
    return value
