"""A CVAT auto-annotation function: masks for the classes that are named, matched to the task's labels by name.

``cvat-cli task auto-annotate ID --function-module pnp_ovss.apps.cvat -p "classes=str:dog, traffic light"`` runs it
on this machine and uploads the masks.
"""

from typing import Any

import cvat_sdk.auto_annotation as cvataa
from cvat_sdk.masks import encode_mask
from PIL import Image

from pnp_ovss.apps import check_names
from pnp_ovss.config import DEFAULT_MODEL
from pnp_ovss.export.outlines import outlines
from pnp_ovss.export.results import in_memory
from pnp_ovss.images import read_image
from pnp_ovss.methods.pnp.prompt import make_prompt
from pnp_ovss.segmenter import Segmenter


class Function:
    """What CVAT's SDK calls: ``spec`` says which labels there are, ``detect`` where they are in a photo."""

    def __init__(self, segmenter: Segmenter, classes: tuple[str, ...]) -> None:
        self.segmenter = segmenter
        self.classes = make_prompt(classes).classes

    @property
    def spec(self) -> cvataa.DetectionFunctionSpec:
        """The labels, numbered from 1."""
        labels = [cvataa.label_spec(name, number, type="mask") for number, name in enumerate(self.classes, start=1)]
        return cvataa.DetectionFunctionSpec(labels=labels)

    def detect(self, context: cvataa.DetectionFunctionContext, image: Image.Image) -> list[cvataa.DetectionAnnotation]:
        """Return a mask for each class that is there; where polygons are asked for, one for each part.

        The photo is not turned by its EXIF orientation: masks lie as its pixels do.
        A class is left out if the mean score in its mask is below the caller's threshold.
        """
        result = in_memory(self.segmenter(read_image(image, upright=False), self.classes))
        found: list[Any] = []
        for region in result.regions(self.classes):
            if region.score is not None and region.score < (context.conf_threshold or 0):
                continue
            if context.conv_mask_to_poly:
                found += [
                    cvataa.polygon(region.category, [side for corner in polygon for side in corner])
                    for polygon in outlines(region.mask)
                ]
            else:
                found.append(cvataa.mask(region.category, encode_mask(region.mask)))
        return found


def create(classes: str, model: str = DEFAULT_MODEL, preset: str = "auto", device: str = "auto") -> Function:
    """Return the function, as CVAT's command line asks for it; ``classes`` are names with commas.

    Raises: PnpError if the model or a class cannot be used.
    """
    names = check_names(classes.split(","), model, preset)
    return Function(Segmenter.from_pretrained(model, preset, device), names)
