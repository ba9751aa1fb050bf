"""A FiftyOne zoo model source: this folder, with its ``manifest.json``, is what ``register_zoo_model_source`` takes."""

from contextlib import suppress
from typing import Any

import fiftyone as fo
import fiftyone.core.models as fom
import numpy as np
from PIL import Image

from pnp_ovss.segmenter import Segmenter
from pnp_ovss.types import BACKGROUND, Classes, Vocabulary


class Model(fom.Model):  # type: ignore[misc]
    """Segments into the same classes throughout: value n of a mask is the n-th class, 0 the background.

    Raises: PnpError if the model or a class cannot be used.
    """

    media_type = "image"
    ragged_batches = True
    """Photos of different sizes may not be stacked."""
    transforms = None
    """The segmenter prepares photos by itself."""
    preprocess = False

    def __init__(self, classes: Classes, **settings: Any) -> None:
        self._vocabulary = Vocabulary.of(classes)
        self.mask_targets = dict(enumerate((BACKGROUND, *self._vocabulary.classes)))
        self._segmenter = Segmenter.from_pretrained(**{"present": "auto"} | settings)

    def predict(self, arg: Any) -> fo.Segmentation:
        """Return the label map of a photo: an array as FiftyOne reads it, a PIL image or a path.

        Raises: InputError if it is no photo or a class name cannot be used.
        """
        if isinstance(arg, np.ndarray):
            with suppress(TypeError):  # no picture: the segmenter says what it expects
                arg = Image.fromarray(arg)
        values = self._segmenter(arg, self._vocabulary).label_map().values(self._vocabulary.classes)
        return fo.Segmentation(mask=values.astype(np.uint8 if len(self.mask_targets) <= 256 else np.uint16))


def download_model(model_name: str, model_path: str) -> None:
    """Do nothing: the weights come with the package or from the hub when the model is loaded."""


def load_model(model_name: str, model_path: str, classes: Classes = (), **settings: Any) -> Model:
    """Return the model for these classes; ``settings`` are the arguments of ``Segmenter.from_pretrained``.

    Raises: PnpError if the model or a class cannot be used.
    """
    return Model(classes, **settings)
