"""A CVAT auto-annotation function: masks for the classes that are named, matched to the task's labels by name.

``cvat-cli task auto-annotate ID --function-module pnp_ovss.apps.cvat -p "classes=str:dog, traffic light"`` runs it
on this machine and uploads the masks.
"""

import logging

import cvat_sdk.auto_annotation as cvataa
import numpy as np
from cvat_sdk.masks import encode_mask
from PIL import Image

from pnp_ovss.data.vocabulary import parse_classes
from pnp_ovss.errors import InputError
from pnp_ovss.export.yolo import outlines
from pnp_ovss.images import read_image
from pnp_ovss.segmenter import Segmenter
from pnp_ovss.types import Classes, Vocabulary


class Function:
    """What CVAT's SDK calls: ``spec`` says which labels there are, ``detect`` where they are in a photo."""

    def __init__(self, segmenter: Segmenter, classes: Classes, instances: bool = False) -> None:
        self.segmenter, self.instances = segmenter, instances
        self.vocabulary = Vocabulary.of(classes)

    @property
    def spec(self) -> cvataa.DetectionFunctionSpec:
        """The labels, numbered from 1."""
        numbered = enumerate(self.vocabulary.classes, start=1)
        labels = [cvataa.label_spec(name, number, type="mask") for number, name in numbered]
        return cvataa.DetectionFunctionSpec(labels=labels)

    def detect(self, context: cvataa.DetectionFunctionContext, image: Image.Image) -> list[cvataa.DetectionAnnotation]:
        """Return a mask for each class that is there, or each object; where polygons are asked for, one for each part.

        The photo is not turned by its EXIF orientation: masks lie as its pixels do. One that cannot be read has none,
        and there is a warning.
        A class is left out if its region's confidence is below the caller's threshold.
        """
        try:
            photo = read_image(image, upright=False)
        except InputError as error:  # the SDK would end, and leave out the photos after it
            logging.getLogger(__name__).warning("%s: %s", context.frame_name, error)
            return []
        result = self.segmenter(photo, self.vocabulary)
        found: list[cvataa.DetectionAnnotation] = []
        for region in result.label_map(instances=self.instances).regions(self.vocabulary.classes):
            if region.confidence is not None and region.confidence < (context.conf_threshold or 0):
                continue
            if context.conv_mask_to_poly:
                polygons = (np.ravel(polygon).tolist() for polygon in outlines(region.mask))
                found += [cvataa.polygon(region.category, sides) for sides in polygons]
            else:
                found.append(cvataa.mask(region.category, encode_mask(region.mask)))
        return found


def create(
    classes: str,
    model: str | None = None,
    preset: str = "auto",
    device: str = "auto",
    present: str = "auto",
    instances: bool = False,
) -> Function:
    """Return the function, as CVAT's command line asks for it; ``classes`` are as the command line takes them.

    ``instances``: a mask for each object, not for each class.

    Raises: PnpError if the model or a class cannot be used.
    """
    vocabulary = parse_classes(classes)
    return Function(Segmenter.from_pretrained(model, preset, device, present=present), vocabulary, instances)
