"""The result of a segmentation: a label map and all that led to it, with what people do with it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from PIL.Image import Image

from pnp_ovss.errors import InputError
from pnp_ovss.export.coco import dataset, detections
from pnp_ovss.files import as_png
from pnp_ovss.pictures import mask_picture
from pnp_ovss.pictures.figures import overlay, panels
from pnp_ovss.types import RGB, LabelMap


@dataclass(frozen=True)
class Segmentation:
    """A label map and all that led to it.

    ``labels`` indexes ``classes``, whose first entry is ``"background"`` where the setting has one.
    """

    labels: Int[np.ndarray, "h w"]
    classes: tuple[str, ...]
    scores: Float[np.ndarray, "ch h w"]
    """After refinement: one channel per entry of ``classes``, float32, in [0, 1]. Without any refiner: the enlarged
    class maps, >= 0 and unbounded."""
    salience: Float[np.ndarray, "cls gh gw"]
    """Summed class maps before the threshold, >= 0, all classes on one scale, float32."""
    match: float | None
    """Match logit of the whole photo with the whole prompt, where the method has one."""
    config: Any
    """The settings: ``Config``, or those of another method."""
    model: str
    revision: str
    version: str
    quality: Float[np.ndarray, " cls"] | None = None
    """How well each class's mask shows its class, in [0, 1]; filled in by ``tuning.reward.rate``."""
    photo: RGB | None = None
    """What was segmented; the pictures show it."""
    method: str = "pnp"
    """The method's key in ``METHODS``."""

    def __post_init__(self) -> None:
        if self.scores.shape != (len(self.classes), *self.labels.shape):
            given = f"{self.scores.shape} for {len(self.classes)} classes and labels of shape {self.labels.shape}"
            raise ValueError(f"expected scores of shape (classes, *labels), got {given}")

    @property
    def areas(self) -> dict[str, float]:
        """Share of the photo that each class covers, in [0, 1]; they sum to 1."""
        counts = np.bincount(self.labels.ravel(), minlength=len(self.classes))
        return {name: float(count) / self.labels.size for name, count in zip(self.classes, counts, strict=True)}

    def label_map(self, file_name: str = "photo.jpg") -> LabelMap:
        """Return what the export formats take. The score of a class is the mean of ``scores`` in its mask."""
        own = [scores[self.labels == label] for label, scores in enumerate(self.scores)]
        means = tuple(float(scores.mean()) if scores.size else 0.0 for scores in own)
        height, width = self.labels.shape
        key = Path(file_name).stem
        return LabelMap(key, file_name, height, width, self.classes, lambda: self.labels, means, self.model)

    def overlay(self, photo: RGB | None = None) -> Image:
        """Return the photo with each class in its colour, and a legend of names and area shares.

        Raises: InputError if the result carries no photo and none is given.
        """
        return overlay(self._photo(photo), self.labels, self.classes)

    def plot(self, photo: RGB | None = None) -> Image:
        """Return the overlay beside the salience of each class as heat: where the model looked.

        Raises: InputError if the result carries no photo and none is given.
        """
        return panels(self._photo(photo), self.labels, self.classes, self.salience)

    def to_coco(self, file_name: str = "photo.jpg") -> dict[str, Any]:
        """Return a COCO data set of this photo: a region per class that is there, ids from 1, no background."""
        label_map = self.label_map(file_name)
        return dataset([label_map], label_map.names)

    def to_supervision(self) -> Any:
        """Return ``supervision.Detections``: a mask per class that is there, ``class_id`` from 0, no background.

        Raises: ConfigError if supervision is not installed.
        """
        label_map = self.label_map()
        return detections(label_map, label_map.names)

    def to_hf(self) -> list[dict[str, Any]]:
        """Return what a Hugging Face image segmentation pipeline does: ``[{"score", "label", "mask"}, ...]``.

        A mask is a PIL picture of mode L, 0 or 255; the score is the mean of ``scores`` in the mask: in [0, 1], but
        unbounded above where no refiner ran. There is one per class that is there, the background left out.
        """
        label_map = self.label_map()
        regions = label_map.regions(label_map.names)
        return [{"score": one.score, "label": one.name, "mask": mask_picture(one.mask)} for one in regions]

    def _repr_png_(self) -> bytes | None:
        """Show the overlay in a notebook."""
        return None if self.photo is None else as_png(self.overlay())

    def _photo(self, photo: RGB | None) -> RGB:
        chosen = self.photo if photo is None else photo
        if chosen is None:
            raise InputError("the result carries no photo; give it: result.overlay(photo)")
        return chosen
