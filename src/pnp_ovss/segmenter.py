"""Photos + words -> method -> refinement -> ``Segmentation``."""

from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, overload

import numpy as np
import torch

from pnp_ovss._version import VERSION
from pnp_ovss.errors import InputError
from pnp_ovss.images import Photo, read_image
from pnp_ovss.memory import parse_bytes, room
from pnp_ovss.methods import DEFAULT_METHOD, Method, load_method
from pnp_ovss.methods.confidence import EVEN, WEIGHTS, rate_regions
from pnp_ovss.methods.doubts import doubts
from pnp_ovss.methods.presence import Presence, check_present, rate_presence
from pnp_ovss.models.gpu import moved_together
from pnp_ovss.refine import refine_scores, shrunk
from pnp_ovss.refine.base import Scores
from pnp_ovss.refine.budget import fit
from pnp_ovss.refine.scores import ScoreMap, label_together
from pnp_ovss.segmentation import Segmentation
from pnp_ovss.types import BACKGROUND, RGB, Classes, ClassMaps, OnStep, Photos, Vocabulary, ignore

TOGETHER = 2**23
"""Pixels that a GPU refines at a time: two photos as large as they are refined, or 27 of 480 x 640."""


@dataclass(frozen=True)
class Located:
    """A photo and what the method found in it, not refined yet."""

    photo: RGB
    vocabulary: Vocabulary
    maps: ClassMaps | None
    """Of the classes that are present; None: there is none."""
    presence: Presence | None
    """None: the model cannot say which classes are."""


class Segmenter:
    """Segments photos into named classes by one method.

    ``memory``: what the process may hold on a CPU, such as "4GB"; None: most of what the machine, and the container it
    may be in, has left. A photo that needs more is refined at fewer pixels, which ``Segmentation.refined`` says.
    Photos, models and results that are held already count. ``present``: "all" classes get a mask, or "auto": only those
    that the photo seems to show, where the model can say so; others stay in ``classes`` without a pixel, and a photo
    with none is all background.

    Raises: ConfigError if ``memory`` is no amount of memory, or for another ``present``.
    """

    def __init__(self, method: Method, memory: str | int | None = None, present: str = "all") -> None:
        check_present(present)
        self.method, self.present = method, present
        self.memory = None if memory is None else parse_bytes(memory)

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
        memory: str | int | None = None,
        present: str = "all",
        compile: bool = False,
        **overrides: Any,
    ) -> "Segmenter":
        """Return a segmenter on a model.

        Args:
            model: Short name, hub id or local folder; without one, the default of the method.
            preset: Name in ``PRESETS``, a JSON file, or "auto": that of a mini model, else of the model's family.
            device: "auto" (CUDA if there is a GPU, else the CPU), or torch's name of one, such as "cuda:1" or "mps".
            dtype: "float32", "bfloat16", "float16", on a CPU "int8" for the image tower; "auto": bfloat16 where it is
                known to keep the labels, else float32.
            revision: Commit, branch or tag of a repository on the hub.
            method: Name in ``METHODS``.
            memory: As in the class.
            present: As in the class.
            compile: For many photos: on a GPU the model runs as CUDA graphs, which give the same labels; on a CPU its
                image tower goes through ``torch.compile``, which takes a minute at the first batch.
            overrides: Single settings, such as ``threshold=0.2``.

        Raises:
            ModelError: If the model cannot be found, fetched, read or used.
            ConfigError: If a setting does not exist or is out of range.
        """
        memory = None if memory is None else parse_bytes(memory)  # a wrong one should not cost a download
        check_present(present)
        segmenter = cls(load_method(method, model, device, dtype, revision, preset, **overrides), memory, present)
        if compile:
            segmenter._backbone.compile_tower()
        return segmenter

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
        return self.refine_all(located, on_step)

    def locate(self, photos: Photos, vocabularies: Sequence[Vocabulary], on_step: OnStep = ignore) -> list[Located]:
        """Return the class maps of a batch of photos: all that needs the model.

        Raises: InputError if a class name cannot be used.
        """
        if not photos:
            return []
        size = getattr(self.config, "size", None)
        found = rate_presence(self._backbone, photos, vocabularies, self.present, size)
        presences: Sequence[Presence | None] = found or [None] * len(photos)
        asked = [one.present(names) if one else names for one, names in zip(presences, vocabularies, strict=True)]
        some = [index for index, names in enumerate(asked) if names.words]
        batch = [photos[index] for index in some], [asked[index] for index in some]
        found_maps = map(_refinable, self.method.class_maps(*batch, on_step)) if some else ()
        maps = dict(zip(some, found_maps, strict=True))
        rows = zip(photos, vocabularies, map(maps.get, range(len(photos))), presences, strict=True)
        return [Located(*row) for row in rows]

    def refine(self, located: Located, on_step: OnStep = ignore) -> Segmentation:
        """Return the label map of a photo: scores per pixel, refined along its edges, and the best class of each.

        Raises: InputError if there is no memory for it.
        """
        return self.refine_all([located], on_step)[0]

    def refine_all(self, located: Sequence[Located], on_step: OnStep = ignore) -> list[Segmentation]:
        """Return what ``refine`` returns of each photo; a GPU refines together what is alike in size and words.

        Raises: InputError if there is no memory for one.
        """
        found: dict[int, dict[str, Any]] = {}
        for some in _alike(located):
            found.update(zip(some, self._label([located[index] for index in some], on_step), strict=True))
        return [self._finished(one, found.get(index)) for index, one in enumerate(located)]

    def _finished(self, located: Located, parts: dict[str, Any] | None) -> Segmentation:
        maps, photo, model = located.maps, located.photo, self._backbone
        found = Segmentation(
            **(parts or _nothing(photo)),
            match=maps.match if maps else None,
            config=self.config,
            model=self.method.model,
            revision=self.method.revision,
            version=VERSION,
            photo=photo,
            method=self.method.name,
            presence=located.presence,
            doubts=doubts(model, photo, maps.match if maps else None) if model else (),
        )
        names, classes, first = located.vocabulary.classes, found.classes, len(found.classes) - len(found.salience)
        scores_of = located.presence.scores if located.presence else {}
        chances = [scores_of.get(name, EVEN) for name in classes[first:]]
        weights = getattr(model, "calibration", {}).get("confidence", WEIGHTS)
        found = replace(found, confidence=rate_regions(found.labels, found.salience, chances, weights, first))
        return found.among((*classes[:first], *(name for name in names if not (first and name == BACKGROUND))))

    @property
    def _backbone(self) -> Any:
        """The model that compares names with photos, where the method has one."""
        return getattr(self.method, "backbone", None)

    def _label(self, located: Sequence[Located], on_step: OnStep) -> list[dict[str, Any]]:
        """Return the parts of a segmentation that come of class maps, for photos that are alike."""
        all_maps = [one.maps for one in located if one.maps]
        vocabulary, device = all_maps[0].vocabulary, all_maps[0].maps.device
        images = moved_together([torch.from_numpy(one.photo) for one in located], device)
        pixels = images.shape[1] * images.shape[2]
        most = bound = min(self.config.max_pixels, pixels) if self.config.refines else pixels
        if device.type == "cpu":  # a GPU has memory of its own
            at = partial(shrunk, images)
            most = fit(self.config.costs(), len(vocabulary.flat) + 1, pixels, bound, room(self.memory), at)

        def scores_at(size: tuple[int, int]) -> Scores:
            return moved_together([self.method.scores(maps, size) for maps in all_maps], device)

        scores, small = refine_scores(scores_at, images, self.config, len(vocabulary.flat), on_step, most)
        background = scores.shape[1] > len(vocabulary.flat)
        classes, score_maps, channels = [], [], []
        for number, maps in enumerate(all_maps):
            names, owners = _channels(maps.vocabulary, background)
            enlarged = (small[number], images[number]) if small is not images else ()
            score_maps.append(ScoreMap(scores[number], owners, *enlarged))
            classes.append(names)
            channels.append(tuple(tuple(channel - background for channel in some) for some in owners[background:]))
        if len(located) > 1 and small is images and not self.config.tidies:
            labelled = label_together(score_maps)
        else:
            labelled = [one.label(partial(self.config.clean, background=background), on_step) for one in score_maps]
        salience = [ScoreMap(maps.maps, named).array() for maps, named in zip(all_maps, channels, strict=True)]
        return [
            {"labels": labels, "classes": names, "score_map": one, "means": means, "salience": salient}
            | {"reduced": most < bound}
            for (labels, means), names, one, salient in zip(labelled, classes, score_maps, salience, strict=True)
        ]


def _alike(located: Sequence[Located]) -> Iterator[Sequence[int]]:
    """Yield the places of photos that have class maps: one by one, but on a GPU those that can be refined together."""
    kinds = defaultdict[object, list[int]](list)
    for index, one in enumerate(located):
        if one.maps:
            classes, words = one.maps.vocabulary.classes, len(one.maps.vocabulary.flat)
            alike = one.photo.shape, words, len(classes) - (BACKGROUND in classes)
            kinds[alike if one.maps.maps.is_cuda else index].append(index)
    for places in kinds.values():
        h, w, _ = located[places[0]].photo.shape
        count = max(1, TOGETHER // (h * w))
        yield from (places[first : first + count] for first in range(0, len(places), count))


def _nothing(photo: RGB) -> dict[str, Any]:
    """Return the parts of a segmentation of a photo that shows no class: all of it is background."""
    size, score_map = photo.shape[:2], ScoreMap.of(np.ones((1, *photo.shape[:2]), np.float32))
    parts = {"labels": np.zeros(size, np.int32), "classes": (BACKGROUND,), "score_map": score_map, "means": (1.0,)}
    return parts | {"salience": np.zeros((0, 1, 1), np.float32)}


def _refinable(maps: ClassMaps) -> ClassMaps:
    """Return the class maps where they can be refined: Apple's GPU has no float64, and the CPU refines for it."""
    return replace(maps, maps=maps.maps.cpu()) if maps.maps.device.type == "mps" else maps


def _channels(vocabulary: Vocabulary, background: bool) -> tuple[tuple[str, ...], tuple[tuple[int, ...], ...]]:
    """Return the classes of the labels, and for each class its channels (background, then words).

    Words for the class "background" count for the background, where there is one.
    """
    named = [name for name in vocabulary.classes if not (background and name == BACKGROUND)]
    classes = (BACKGROUND, *named) if background else tuple(named)
    owners = [0] * background + [classes.index(name) for name, words in vocabulary.words.items() for _ in words]
    return classes, tuple(
        tuple(channel for channel, owner in enumerate(owners) if owner == number) for number in range(len(classes))
    )
