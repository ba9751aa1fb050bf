"""A FiftyOne zoo model source: this folder, with its ``manifest.json``, is what ``register_zoo_model_source`` takes."""

from collections.abc import Sequence
from typing import Any

from pnp_ovss.config import DEFAULT_MODEL

from .zoo import Model


def download_model(model_name: str, model_path: str) -> None:
    """Do nothing: the weights come with the package or from the hub when the model is loaded."""


def load_model(
    model_name: str,
    model_path: str,
    classes: Sequence[str] = (),
    model: str = DEFAULT_MODEL,
    preset: str = "auto",
    device: str = "auto",
    **_: Any,
) -> Model:
    """Return the model for these classes.

    Raises: PnpError if the model or a class cannot be used.
    """
    return Model(classes, model, preset, device)
