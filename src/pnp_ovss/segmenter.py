"""Photos + words -> method -> refinement -> ``Segmentation``."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, overload

import torch
from jaxtyping import Float
from torch import Tensor

from pnp_ovss._version import VERSION
from pnp_ovss.errors import InputError
from pnp_ovss.images import Photo, read_image
from pnp_ovss.methods import DEFAULT_METHOD, Method, load_method
from pnp_ovss.refine import refine_scores
from pnp_ovss.segmentation import Segmentation
from pnp_ovss.types import BACKGROUND, RGB, Classes, ClassMaps, OnStep, Photos, Vocabulary, ignore


@dataclass(frozen=True)
class Located:
    """A photo and what the method found in it, not refined yet."""

    photo: RGB
    maps: ClassMaps


class Segmenter:
    """Segments photos into the classes somebody names, by one method."""

    def __init__(self, method: Method) -> None:
        self.method = method

    @property
    def config(self) -> Any:
        """The settings of the method and of the refiners."""
        return self.method.config

    @classmethod
    def from_pretrained(
        cls,
        model: str | Path | None = None,
        preset: str | Path = "auto",
        device: str = "auto",
        dtype: str = "auto",
        revision: str | None = None,
        method: str = DEFAULT_METHOD,
        **overrides: Any,
    ) -> "Segmenter":
        """Return a segmenter on a model by short name, hub id or local folder; without one, on the method's own.

        ``preset``: a name of ``PRESETS``, a JSON file, or "auto": the model's own, which is its family's but for a mini
        model. ``overrides`` are single settings, such as ``threshold=0.2``.

        Raises: ModelError, ConfigError.
        """
        return cls(load_method(method, model, device, dtype, revision, preset, **overrides))

    @overload
    def __call__(self, images: Photo, classes: Classes, on_step: OnStep = ignore) -> Segmentation: ...
    @overload
    def __call__(
        self, images: list[Photo], classes: Sequence[Classes], on_step: OnStep = ignore
    ) -> list[Segmentation]: ...
    def __call__(self, images: Any, classes: Any, on_step: OnStep = ignore) -> Any:
        """Return the segmentation of a photo (path, PIL image or RGB uint8 array), or a list of them for a list.

        ``classes``: names, or a mapping from class to the words that stand for it. A list of photos takes a list of
        these, one per photo, and goes through the method as one batch. ``on_step(name, done, total)`` is called before
        each step and may raise to cancel.

        Raises: InputError if a photo or a class name cannot be used.
        """
        if not isinstance(images, list | tuple):
            return self([images], [classes], on_step)[0]
        if isinstance(classes, str) or not isinstance(classes, Collection):
            raise InputError(f"expected a list of class names for each photo, got {type(classes).__name__}")
        if len(images) != len(classes):
            raise InputError(f"expected one list of classes for each of {len(images)} photos, got {len(classes)}")
        photos = [read_image(image) for image in images]
        located = self.locate(photos, [Vocabulary.of(one) for one in classes], on_step)
        return [self.refine(one, on_step) for one in located]

    def locate(self, photos: Photos, vocabularies: Sequence[Vocabulary], on_step: OnStep = ignore) -> list[Located]:
        """Return the class maps of a batch of photos: all that needs the model.

        Raises: InputError if a class name cannot be used.
        """
        if not photos:
            return []
        maps = map(_refinable, self.method.class_maps(photos, vocabularies, on_step))
        return [Located(photo, found) for photo, found in zip(photos, maps, strict=True)]

    def refine(self, located: Located, on_step: OnStep = ignore) -> Segmentation:
        """Return the label map of a photo: scores per pixel, refined along its edges, and the best class of each."""
        maps, vocabulary = located.maps, located.maps.vocabulary
        image = torch.from_numpy(located.photo).to(maps.maps.device)[None]
        scores = refine_scores(lambda size: self.method.scores(maps, size)[None], image, self.config, on_step)[0]
        background = len(scores) > len(vocabulary.flat)
        classes, owners = _channels(vocabulary, background)
        scores = _largest(scores, owners, len(classes))
        salience = _largest(maps.maps, [owner - background for owner in owners[background:]], len(classes) - background)
        return Segmentation(
            labels=self.config.clean(scores.argmax(0).int().cpu().numpy(), background),
            classes=classes,
            scores=scores.cpu().numpy(),
            salience=salience.cpu().numpy(),
            match=maps.match,
            config=self.config,
            model=self.method.model,
            revision=self.method.revision,
            version=VERSION,
            photo=located.photo,
            method=self.method.name,
        )


def _refinable(maps: ClassMaps) -> ClassMaps:
    """Return the class maps where they can be refined: Apple's GPU has no float64, and the CPU refines for it."""
    return replace(maps, maps=maps.maps.cpu()) if maps.maps.device.type == "mps" else maps


def _channels(vocabulary: Vocabulary, background: bool) -> tuple[tuple[str, ...], list[int]]:
    """Return the classes of the labels, and for each channel (background, then words) the class it counts for.

    Words for the class "background" count for the background, where there is one.
    """
    named = [name for name in vocabulary.classes if not (background and name == BACKGROUND)]
    classes = (BACKGROUND, *named) if background else tuple(named)
    owners = [classes.index(name) for name, words in vocabulary.words.items() for _ in words]
    return classes, [0] * background + owners


def _largest(values: Float[Tensor, "ch h w"], owners: Sequence[int], classes: int) -> Float[Tensor, "cls h w"]:
    """Return for each class the largest value of its channels; channels of class -1 are left out."""
    if list(owners) == list(range(classes)):
        return values
    index = [[channel for channel, owner in enumerate(owners) if owner == cls] for cls in range(classes)]
    return torch.stack([values[channels].amax(0) for channels in index])
