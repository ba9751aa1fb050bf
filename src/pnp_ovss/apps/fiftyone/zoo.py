"""The model as FiftyOne calls it."""

from collections.abc import Sequence
from typing import Any

import fiftyone as fo
import fiftyone.core.models as fom
import numpy as np
from PIL import Image

from pnp_ovss.apps import check_names
from pnp_ovss.export.results import in_memory
from pnp_ovss.images import read_image
from pnp_ovss.segmenter import Segmenter
from pnp_ovss.types import BACKGROUND, RGB


class Model(fom.Model):  # type: ignore[misc]
    """Segments into the same classes throughout: value n of a mask is the n-th class, 0 the background."""

    def __init__(self, classes: Sequence[str], model: str, preset: str, device: str) -> None:
        self.classes = check_names(classes, model, preset)
        self.mask_targets = dict(enumerate((BACKGROUND, *self.classes)))
        self._segmenter = Segmenter.from_pretrained(model, preset, device)
        self._preprocess = False

    @property
    def media_type(self) -> str:
        """Photos."""
        return "image"

    @property
    def ragged_batches(self) -> bool:
        """Photos of different sizes may not be stacked."""
        return True

    @property
    def transforms(self) -> None:
        """The segmenter prepares photos by itself."""
        return None

    @property
    def preprocess(self) -> bool:
        """Whether FiftyOne's transforms are to be applied: there are none."""
        return self._preprocess

    @preprocess.setter
    def preprocess(self, value: bool) -> None:
        self._preprocess = value

    def predict(self, arg: Any) -> fo.Segmentation:
        """Return the label map of a photo: an array as FiftyOne reads it, a PIL image or a path."""
        result = in_memory(self._segmenter(_photo(arg), self.classes))
        kind = np.uint8 if len(self.classes) < 256 else np.uint16
        return fo.Segmentation(mask=result.values(self.classes).astype(kind))


def _photo(arg: Any) -> RGB:
    try:
        return read_image(Image.fromarray(arg) if isinstance(arg, np.ndarray) else arg)
    except TypeError:  # an array of which there is no picture: what is wanted is said there
        return read_image(arg)
