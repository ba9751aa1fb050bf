"""Checkpoints with a short name. The vision-language models are rows of ``registry.csv``."""

import csv
from dataclasses import dataclass
from pathlib import Path

SHIPPED = Path(__file__).parents[1] / "mini" / "checkpoints"
"""Folder of the checkpoints in the package."""

UNSEEN = "arithmetic"
"""Loading, and every layer and head against a plain computation, on random weights: the weights were not at hand."""


@dataclass(frozen=True)
class Model:
    """A vision-language model with a short name."""

    source: str | Path
    """Hub id, or the folder of a shipped checkpoint."""
    family: str
    """Architecture, as ``config.json`` names it."""
    preset: str
    millions: float
    """Parameters, in millions."""
    pixels: int
    """Side of its own input."""
    licence: str
    checked: str
    """What was seen to work with it."""


def _model(row: dict[str, str]) -> Model:
    source = SHIPPED / row["name"] if row["source"] == "shipped" else row["source"]
    numbers = float(row["millions"]), int(row["pixels"])
    return Model(source, row["family"], row["preset"], *numbers, row["licence"], row["checked"])


def _read(path: Path) -> dict[str, Model]:
    with path.open(encoding="utf-8", newline="") as file:
        return {row["name"]: _model(row) for row in csv.DictReader(file)}


MODELS: dict[str, Model] = _read(Path(__file__).with_name("registry.csv"))
"""Vision-language models by short name."""

CLIPS: dict[str, str | Path] = {
    "mini-clip": SHIPPED / "mini-clip",
    "clip-base": "openai/clip-vit-base-patch16",
    "clip-large": "openai/clip-vit-large-patch14",
}
"""Hub id or folder of the dual encoders by short name."""

CAPTIONERS: dict[str, str | Path] = {
    "blip-caption-base": "Salesforce/blip-image-captioning-base",
    "blip-caption-large": "Salesforce/blip-image-captioning-large",
}
"""Hub id of the captioners by short name."""
