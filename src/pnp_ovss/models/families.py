"""The families of vision-language models. A new one is a file and a line in ``FAMILIES``."""

from pathlib import Path
from typing import Any

from pnp_ovss.errors import ModelError
from pnp_ovss.models.base import VLM
from pnp_ovss.models.blip import Blip
from pnp_ovss.models.blip2 import Blip2
from pnp_ovss.models.bridgetower import BridgeTower
from pnp_ovss.models.hub import MODELS, find, find_folder, read_settings
from pnp_ovss.models.vilt import Vilt

FAMILIES: dict[str, type[VLM]] = {"blip": Blip, "bridgetower": BridgeTower, "vilt": Vilt, "blip-2": Blip2}
"""Class by ``model_type``, as ``config.json`` names it.

A checkpoint without a matching head is refused when its weights are read.
"""


def load_vlm(name: str | Path, device: str = "auto", dtype: str = "auto", revision: str | None = None) -> VLM:
    """Return the model with this short name, hub id or local folder.

    ``device``: "auto" takes CUDA where there is one, else the CPU. ``dtype``: "auto" is bfloat16 on CUDA, else float32;
    "int8", for BLIP and BLIP-2 on a CPU: float32, but for the image tower's linear layers.
    Only a short name or hub id that is not in the cache is downloaded.

    Raises: ModelError if it cannot be found, fetched, read or used.
    """
    checkpoint = find(name, revision)
    family = _family(read_settings(checkpoint.folder / "config.json", checkpoint.name), checkpoint.name)
    return family(checkpoint, device, dtype)


def preset_of(name: str | Path, revision: str | None = None) -> str | None:
    """Return the name of a model's own preset, else of its family's; nothing is fetched.

    A copy of a shipped model has that one's. None: no short name, and no ``config.json`` on this machine.

    Raises: ModelError if ``config.json`` cannot be read or names no family.
    """
    for short, model in MODELS.items():
        if str(name) in (short, str(model.source)):
            return model.preset
    folder = find_folder(name, revision)
    if folder is None:
        return None
    settings = read_settings(folder / "config.json", str(name))
    for short, model in MODELS.items():
        if isinstance(model.source, Path) and settings == read_settings(model.source / "config.json", short):
            return model.preset
    return _family(settings, str(name)).preset


def _family(settings: dict[str, Any], name: str) -> type[VLM]:
    kind = str(settings.get("model_type"))
    if kind not in FAMILIES:
        expected = f"a checkpoint of {', '.join(FAMILIES)}, such as blip-large-flickr"
        raise ModelError(f"{name}: expected {expected}, got one of kind {kind!r}")
    return FAMILIES[kind]
