"""Vision-language models by name. A new family is a file and a line in ``FAMILIES``, a checkpoint one in ``MODELS``."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from pnp_ovss.errors import ModelError, one_line
from pnp_ovss.mini import CHECKPOINTS
from pnp_ovss.models.adapter import Adapter
from pnp_ovss.models.base import VLM
from pnp_ovss.models.blip import Blip
from pnp_ovss.models.blip2 import Blip2
from pnp_ovss.models.bridgetower import BridgeTower
from pnp_ovss.models.hub import Checkpoint, config_at_hand, resolve
from pnp_ovss.models.loading import read_json
from pnp_ovss.models.vilt import Vilt

__all__ = ["FAMILIES", "MODELS", "VLM", "Model", "load_vlm", "preset_of"]

FAMILIES: dict[str, type[Adapter]] = {
    "BlipForImageTextRetrieval": Blip,
    "BridgeTowerForImageAndTextRetrieval": BridgeTower,
    "ViltForImageAndTextRetrieval": Vilt,
    "Blip2ForImageTextRetrieval": Blip2,
}
"""Adapter per architecture, as ``config.json`` names it."""

MODEL_TYPES = {"bridgetower": "BridgeTowerForImageAndTextRetrieval", "vilt": "ViltForImageAndTextRetrieval"}
"""Architecture to try where ``config.json`` names another of the kind, or none, as the hub's BridgeTower does.

A checkpoint without a matching head is refused when its weights are read.
"""


@dataclass(frozen=True)
class Model:
    """A checkpoint with a short name. ``source`` is a hub id or a folder; ``pixels`` the side of its input."""

    source: str | Path
    family: str
    preset: str
    millions: float
    """Parameters, in millions."""
    pixels: int
    licence: str
    checked: str
    """What was seen to work with it."""


UNSEEN = "arithmetic"
"""Loading, and every layer and head against a plain computation, on random weights: the weights were not at hand."""

MODELS: dict[str, Model] = {
    "mini-blip": Model(
        CHECKPOINTS / "mini-blip", "BlipForImageTextRetrieval", "mini", 2.0, 112, "Apache-2.0", "drawn scenes"
    ),
    "mini-bridgetower": Model(
        CHECKPOINTS / "mini-bridgetower",
        "BridgeTowerForImageAndTextRetrieval",
        "mini-bridgetower",
        3.2,
        112,
        "Apache-2.0",
        "drawn scenes",
    ),
    **{
        f"blip-{size}-{data}": Model(
            f"Salesforce/blip-itm-{size}-{data}",
            "BlipForImageTextRetrieval",
            Blip.preset,
            millions,
            384,
            "BSD-3-Clause",
            UNSEEN,
        )
        for size, millions in (("base", 223.7), ("large", 446.1))
        for data in ("coco", "flickr")
    },
    **{
        f"bridgetower-{short}": Model(
            f"BridgeTower/bridgetower-{full}",
            "BridgeTowerForImageAndTextRetrieval",
            BridgeTower.preset,
            millions,
            pixels,
            "MIT",
            UNSEEN,
        )
        for short, full, millions, pixels in (
            ("base", "base-itm-mlm", 326.4, 288),
            ("large", "large-itm-mlm", 864.5, 294),
            ("large-itc", "large-itm-mlm-itc", 864.5, 294),
        )
    },
    **{
        f"vilt-{short}": Model(
            f"dandelin/vilt-b32-finetuned-{full}",
            "ViltForImageAndTextRetrieval",
            Vilt.preset,
            111.6,
            384,
            "Apache-2.0",
            UNSEEN,
        )
        for short, full in (("coco", "coco"), ("flickr", "flickr30k"))
    },
    "blip2": Model(
        "Salesforce/blip2-itm-vit-g", "Blip2ForImageTextRetrieval", Blip2.preset, 1172.0, 224, "MIT", UNSEEN
    ),
    "blip2-coco": Model(
        "Salesforce/blip2-itm-vit-g-coco", "Blip2ForImageTextRetrieval", Blip2.preset, 1172.6, 364, "MIT", UNSEEN
    ),
}


def load_vlm(name: str | Path, device: str = "auto", dtype: str = "auto", revision: str | None = None) -> VLM:
    """Return the model with this short name, hub id or local folder.

    ``device``: "auto" takes CUDA where there is one, else the CPU. ``dtype``: "auto" is bfloat16 on CUDA, else float32.
    Only a short name or hub id that is not in the cache is downloaded.

    Raises: ModelError if it cannot be found, fetched, read or used.
    """
    checkpoint = find(name, revision)
    family = _family(read_json(checkpoint.folder / "config.json", str(name)), str(name))
    target = _device(device)
    return family(checkpoint.folder, checkpoint.name, checkpoint.revision, target, _dtype(dtype, target))


def preset_of(name: str | Path, revision: str | None = None) -> str | None:
    """Return the name of a model's own settings, else of its family's; nothing is fetched.

    A copy of a model in the box has that one's. None: no short name, and no ``config.json`` on this machine.

    Raises: ModelError if ``config.json`` cannot be read or names no family.
    """
    entry = next((entry for short, entry in MODELS.items() if str(name) in (short, str(entry.source))), None)
    if entry:
        return entry.preset
    config = config_at_hand(name, revision)
    if config is None:
        return None
    settings = read_json(config, str(name))
    for short, model in MODELS.items():
        if isinstance(model.source, Path) and settings == read_json(model.source / "config.json", short):
            return model.preset
    return _family(settings, str(name)).preset


def _family(settings: dict[str, Any], name: str) -> type[Adapter]:
    listed = settings.get("architectures")
    architectures = [str(item) for item in listed] if isinstance(listed, list) and listed else [str(listed)]
    alike = MODEL_TYPES.get(str(settings.get("model_type")), "")
    family = next((FAMILIES[a] for a in (*architectures, alike) if a in FAMILIES), None)
    if family is None:
        raise ModelError(
            f"{name}: its architecture is {one_line(architectures[0])}; {' or '.join(FAMILIES)} is wanted, as "
            "blip-large-flickr is"
        )
    return family


def find(name: str | Path, revision: str | None = None) -> Checkpoint:
    """Return where the checkpoint lies on this machine, fetching it from the hub if need be."""
    entry = MODELS.get(str(name))
    return resolve(entry.source if entry else name, str(name), revision)


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ModelError(
            f"device {name!r} cannot be used here; use auto, cpu or cuda:0 where there is a GPU"
        ) from error
    return device


DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def _dtype(name: str, device: torch.device) -> torch.dtype:
    if name == "auto":
        return torch.bfloat16 if device.type == "cuda" else torch.float32
    if name not in DTYPES:
        raise ModelError(f"dtype {name!r} is not known; use auto, {', '.join(DTYPES)}")
    return DTYPES[name]
