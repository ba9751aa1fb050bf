"""From class maps on a method's grid to a label map of the photo: steps 7 to 9 of PnP-OVSS, usable without a model.

A new refiner is a file with a ``Refiner`` and a line of ``REFINERS``.
"""

import sys
from collections.abc import Callable
from dataclasses import dataclass, field, fields, make_dataclass, replace
from itertools import product
from types import ModuleType
from typing import Any, TypeVar

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor
from torch.nn.functional import interpolate

from pnp_ovss.errors import ConfigError, InputError
from pnp_ovss.refine.base import Images, LabelRefiner, Refiner, Scores, stretch
from pnp_ovss.refine.blur import Blur
from pnp_ovss.refine.crf import DenseCRF
from pnp_ovss.refine.guided import GuidedFilter, guided_upsample
from pnp_ovss.refine.pamr import PAMR
from pnp_ovss.refine.prompts import Prompts
from pnp_ovss.refine.regions import Regions
from pnp_ovss.refine.tidy import Tidy
from pnp_ovss.refine.upsample import threshold_and_upsample
from pnp_ovss.settings import Settings, setting
from pnp_ovss.types import OnStep, ignore

REFINERS: dict[str, type[Refiner | LabelRefiner]] = {
    "blur": Blur,
    "crf": DenseCRF,
    "pamr": PAMR,
    "guided": GuidedFilter,
    "regions": Regions,
    "prompts": Prompts,
    "tidy": Tidy,
}

Array = TypeVar("Array", np.ndarray, Tensor)


@dataclass(frozen=True)
class _Steps(Settings):
    refiners: tuple[str, ...] = setting(("blur", "crf"), "refinement steps, in order")
    stretch: bool = setting(True, "stretch the scores of each channel to [0, 1] before a refinement step")
    max_pixels: int = setting(4_200_000, "refine larger photos at this many pixels, then upsample", 1, 10**9)

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in self.refiners:
            if name not in REFINERS:
                raise ConfigError(f"there is no refiner {name!r}; the refiners are {', '.join(REFINERS)}")
        self._all_steps()  # each checks its own settings

    def override(self, values: dict[str, Any]) -> Any:
        """Return the settings with some values changed; a setting of "tidy" that changes adds it to the refiners."""
        changed = super().override(values)
        moved = any(getattr(self, entry.name) != getattr(changed, entry.name) for entry in fields(Tidy))
        return replace(changed, refiners=(*changed.refiners, "tidy")) if moved and not changed.tidies else changed

    @property
    def tidies(self) -> bool:
        """Whether "tidy" is among the refiners."""
        return "tidy" in self.refiners

    @property
    def uses_regions(self) -> bool:
        """Whether the labels follow the regions of the photo."""
        return "regions" in self.refiners

    @property
    def refines(self) -> bool:
        """Whether scores are refined, which is done at ``max_pixels`` at most."""
        return bool(self.steps())

    def steps(self) -> list[Refiner]:
        """Return the refiners of scores in order, each with its own settings."""
        return self.costs()

    def costs(self) -> list[Refiner]:
        """Return those that take memory: what a method does itself, such as PAMR of those on CLIP, among them."""
        return [step for step in self._all_steps() if isinstance(step, Refiner)]

    def clean(self, labels: Int[np.ndarray, "h w"], background: bool) -> Int[np.ndarray, "h w"]:
        """Return the finished label map after the refiners of label maps; ``background``: label 0 is the background."""
        for step in self._all_steps():
            labels = step.clean(labels, background) if isinstance(step, LabelRefiner) else labels
        return labels

    def _all_steps(self) -> list[Refiner | LabelRefiner]:
        chosen = [REFINERS[name] for name in self.refiners]
        return [kind(**{entry.name: getattr(self, entry.name) for entry in fields(kind)}) for kind in chosen]


RefinementSettings = make_dataclass(
    "RefinementSettings",
    [
        (entry.name, entry.type, field(default=entry.default, metadata=entry.metadata))
        for refiner in REFINERS.values()
        for entry in fields(refiner)
    ],
    bases=(_Steps,),
    frozen=True,
)
"""The refiners in order, and the settings of all of them: the base of every method's settings."""


def refine(class_maps: Array, image: np.ndarray | Tensor, config: Any, on_step: OnStep = ignore) -> tuple[Array, Array]:
    """Return the label map (h, w) of a photo and the scores (ch, h, w) it is the argmax of, unless "tidy" changes it.

    ``class_maps`` (cls, gh, gw): finite, >= 0, any scale; ``image`` (h, w, 3): 8-bit RGB; ``config``: a ``Config``.
    NumPy in, NumPy out (int32, float32); tensors in, tensors out, on the device of ``class_maps``. Where
    ``config.background`` gives the photo a background, channel and label 0 are it and the classes follow; else label 0
    is the first class. Ties go to the lowest label.

    Raises: InputError if the maps or the photo cannot be used.
    """
    maps, photo = _tensor(class_maps, "class maps"), _tensor(image, "the photo")
    _check(maps, photo)
    labels, scores = refine_batch(maps.float()[None], photo.to(maps.device)[None], config, on_step)
    if isinstance(class_maps, np.ndarray):
        return labels[0].numpy(), scores[0].numpy()
    return labels[0], scores[0]


def refine_batch(
    class_maps: Float[Tensor, "b cls gh gw"], images: Images, config: Any, on_step: OnStep = ignore
) -> tuple[Int[Tensor, "b h w"], Scores]:
    """Return labels and scores of several photos of one size, each as if it came alone."""
    background = config.has_background(class_maps.shape[1])

    def scores_at(size: tuple[int, int]) -> Scores:
        return threshold_and_upsample(class_maps, size, threshold=config.threshold, background=background)

    scores, small = refine_scores(scores_at, images, config, class_maps.shape[1], on_step)
    if small is not images:
        scores = guided_upsample(scores, small, images, on_step=on_step)
    labels = [config.clean(one.cpu().numpy(), background) for one in scores.max(1).indices.int()]
    return torch.from_numpy(np.stack(labels)).to(scores.device), scores


def refine_scores(
    scores_at: Callable[[tuple[int, int]], Scores],
    images: Images,
    config: Any,
    classes: int,
    on_step: OnStep = ignore,
    most_pixels: int | None = None,
) -> tuple[Float[Tensor, "b ch sh sw"], UInt8[Tensor, "b sh sw 3"]]:
    """Return the scores of photos after all refiners, and the photos at the size of these scores.

    ``scores_at((h, w))`` gives the scores before at a size: of ``classes``, after the background if there is one. With
    ``config.stretch`` every refiner starts from channels stretched to [0, 1]. Photos of more than ``config.max_pixels``
    are refined at about that many, with lengths given in pixels shortened alike; those of more than ``most_pixels`` at
    about that many, even where there is no refiner. Then the photos that are returned are smaller than ``images``, and
    ``guided_upsample`` enlarges the scores along their edges.
    """
    h, w = images.shape[1:3]
    steps = config.steps()
    most = min(config.max_pixels if config.refines else h * w, most_pixels or h * w)
    if most < h * w:
        images, steps = shrunk(images, most), [step.scaled((most / (h * w)) ** 0.5) for step in steps]
    scores = scores_at((images.shape[1], images.shape[2]))
    for number, step in enumerate(steps):
        on_step("refine", number, len(steps))
        scores = stretch(scores) if config.stretch else scores  # not below: those before are not held any longer
        refined = step if scores.shape[1] == classes else step.with_background
        scores = refined(scores, images, on_step)
    return scores, images


def shrunk(images: Images, most: int) -> UInt8[Tensor, "b sh sw 3"]:
    """Return the photos at about ``most`` pixels, where they have more: means over the pixels that fall together."""
    h, w = images.shape[1:3]
    if most >= h * w:
        return images
    shrink = (most / (h * w)) ** 0.5
    size = max(1, round(h * shrink)), max(1, round(w * shrink))
    small = images.new_empty(len(images), *size, 3)
    for number, colour in product(range(len(images)), range(3)):  # one by one: floats take four times the memory
        plane = images[number, :, :, colour].float()[None, None]
        small[number, :, :, colour] = interpolate(plane, size=size, mode="area").round_()[0, 0]
    return small


def _tensor(array: np.ndarray | Tensor, what: str) -> Tensor:
    if isinstance(array, Tensor):
        return array.detach()
    if not isinstance(array, np.ndarray):
        raise InputError(f"expected {what} as an array or a tensor, got {type(array).__name__}; convert it")
    try:  # a copy: torch takes no read-only, reversed or byte-swapped memory
        return torch.from_numpy(np.array(array, dtype=array.dtype.newbyteorder("="), order="C"))
    except TypeError as error:
        raise InputError(f"expected numbers (float32 maps, a uint8 photo), got an array of {array.dtype}") from error


def _check(maps: Tensor, photo: Tensor) -> None:
    shape = tuple(maps.shape)
    if maps.ndim != 3 or 0 in shape or maps.is_complex() or maps.dtype == torch.bool:
        raise InputError(f"expected real class maps (classes, rows, columns), got {maps.dtype} of shape {shape}")
    shape = tuple(photo.shape)
    if photo.ndim != 3 or shape[2] != 3 or 0 in shape or photo.dtype != torch.uint8:
        raise InputError(f"expected a photo of uint8 RGB (rows, columns, 3), got {photo.dtype} of shape {shape}")
    low, high = maps.float().aminmax()
    if not (low >= 0 and high.isfinite()):  # NaN is neither
        raise InputError(f"expected finite class maps >= 0, got values from {low:.3g} to {high:.3g}; check the model")


class _CallableModule(ModuleType):
    """``pnp_ovss.refine`` is this package and the function in it: importing the one must not hide the other."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return refine(*args, **kwargs)


sys.modules[__name__].__class__ = _CallableModule
