"""From class maps on the VLM's grid to a label map of the photo: steps 7 to 9 of the method, usable without a VLM.

A refiner takes scores and the photo and gives scores of the same shape, at once or, where it takes long, in steps.
A new one is a file and a line of ``REFINERS``.
"""

import sys
from collections.abc import Callable, Generator, Sequence
from dataclasses import replace
from types import ModuleType
from typing import Any, TypeVar

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor
from torch.nn.functional import interpolate

from pnp_ovss.config import Config
from pnp_ovss.errors import ConfigError, InputError
from pnp_ovss.refine.blur import gaussian_blur
from pnp_ovss.refine.dense_crf import dense_crf
from pnp_ovss.refine.guided import guided_filter, guided_upsample
from pnp_ovss.refine.pamr import pamr
from pnp_ovss.refine.scale import stretch
from pnp_ovss.refine.upsample import threshold_and_upsample
from pnp_ovss.steps import Steps, finished

__all__ = ["REFINERS", "Refiner", "check_refiners", "refine", "refine_batch", "refining"]

Scores = Float[Tensor, "b ch h w"]
Refiner = Callable[[Scores, UInt8[Tensor, "b h w 3"], Config], Scores | Steps[Scores]]
Array = TypeVar("Array", np.ndarray, Tensor)

REFINERS: dict[str, Refiner] = {
    "blur": lambda scores, image, config: gaussian_blur(scores, sigma=config.blur),
    "crf": lambda scores, image, config: dense_crf(
        scores,
        image,
        iterations=config.crf_iterations,
        gaussian_sxy=config.crf_gaussian_sxy,
        gaussian_weight=config.crf_gaussian_weight,
        bilateral_sxy=config.crf_bilateral_sxy,
        bilateral_srgb=config.crf_bilateral_srgb,
        bilateral_weight=config.crf_bilateral_weight,
        tolerance=config.crf_tolerance,
    ),
    "pamr": lambda scores, image, config: pamr(scores, image, iterations=config.pamr_iterations),
    "guided": lambda scores, image, config: guided_filter(
        scores, image, radius=config.guided_radius, epsilon=config.guided_epsilon
    ),
}


def refine(class_maps: Array, image: np.ndarray | Tensor, config: Config) -> tuple[Array, Array]:
    """Return the label map (h, w) of a photo and the scores (ch, h, w) it is the argmax of.

    ``class_maps`` (cls, gh, gw): finite, >= 0, any scale; ``image`` (h, w, 3): 8-bit RGB. NumPy in, NumPy out (int32,
    float32); tensors in, tensors out, on the device of ``class_maps``. Where ``config.background`` gives the photo a
    background, channel and label 0 are it and the classes follow; else label 0 is the first class. Ties go to the
    lowest label.

    Raises: InputError if the maps or the photo cannot be used; ConfigError for a refiner that does not exist.
    """
    return finished(refining(class_maps, image, config))


def refining(class_maps: Array, image: np.ndarray | Tensor, config: Config) -> Steps[tuple[Array, Array]]:
    """Do what ``refine`` does, in steps."""
    maps, photo = _tensor(class_maps, "the class maps"), _tensor(image, "the photo")
    if not (maps.is_complex() or maps.dtype == torch.bool):
        maps = maps.float()
    _check(maps, photo)
    labels, scores = yield from _refining(maps[None], photo.to(maps.device)[None], config)
    if isinstance(class_maps, np.ndarray):
        return labels[0].numpy(), scores[0].numpy()
    return labels[0], scores[0]


def refine_batch(
    class_maps: Float[Tensor, "b cls gh gw"], images: UInt8[Tensor, "b h w 3"], config: Config
) -> tuple[Int[Tensor, "b h w"], Float[Tensor, "b ch h w"]]:
    """Return labels and scores of several photos of one size, each as if it came alone.

    Every refiner starts from channels stretched to [0, 1]; the scores of the last one are returned, or, without any
    refiner, the enlarged class maps. Photos of more than ``config.max_pixels`` are refined at about that many, with
    lengths given in pixels shortened alike, and the scores enlarged along the edges of the photo.
    """
    return finished(_refining(class_maps, images, config))


def _refining(
    class_maps: Float[Tensor, "b cls gh gw"], images: UInt8[Tensor, "b h w 3"], config: Config
) -> Steps[tuple[Int[Tensor, "b h w"], Float[Tensor, "b ch h w"]]]:
    check_refiners(config.refiners)
    size = images.shape[1], images.shape[2]
    background = config.has_background(class_maps.shape[1])
    shrink = (config.max_pixels / (size[0] * size[1])) ** 0.5
    work, setting = images, config
    if config.refiners and shrink < 1:
        work = _shrunk(images, shrink)
        setting = replace(
            config,
            crf_gaussian_sxy=config.crf_gaussian_sxy * shrink,
            crf_bilateral_sxy=config.crf_bilateral_sxy * shrink,
        )
    scores = threshold_and_upsample(
        class_maps, (work.shape[1], work.shape[2]), threshold=config.threshold, background=background
    )
    for name in config.refiners:
        yield
        refined = REFINERS[name](stretch(scores), work, setting)
        scores = (yield from refined) if isinstance(refined, Generator) else refined
    if work is not images:
        scores = yield from guided_upsample(scores, work, images)
    return scores.argmax(1).int(), scores


def check_refiners(names: Sequence[str]) -> None:
    """Raise ConfigError if no refiner has one of the names."""
    for name in names:
        if name not in REFINERS:
            raise ConfigError(f"no refiner {name!r}; the refiners are {', '.join(REFINERS)}")


def _shrunk(images: UInt8[Tensor, "b h w 3"], factor: float) -> UInt8[Tensor, "b sh sw 3"]:
    """Return the photos with sides ``factor`` times as long, at least 1: means over the pixels that fall together."""
    h, w = (max(1, round(side * factor)) for side in images.shape[1:3])
    small = [interpolate(image.permute(2, 0, 1)[None].float(), size=(h, w), mode="area") for image in images]
    return torch.cat(small).round_().permute(0, 2, 3, 1).to(torch.uint8)


def _tensor(array: np.ndarray | Tensor, what: str) -> Tensor:
    if isinstance(array, Tensor):
        return array.detach()
    if not isinstance(array, np.ndarray):
        raise InputError(
            f"{what} came as {type(array).__name__}; an array or a tensor is wanted: take np.asarray(maps), "
            "pnp_ovss.images.read_image(photo)"
        )
    try:  # a copy: torch takes no read-only, reversed or byte-swapped memory
        return torch.from_numpy(np.array(array, dtype=array.dtype.newbyteorder("="), order="C"))
    except TypeError as error:
        raise InputError(f"an array of {array.dtype} came; numbers are wanted: float32 maps, a uint8 photo") from error


def _check(maps: Tensor, photo: Tensor) -> None:
    shape = tuple(maps.shape)
    if maps.ndim != 3 or 0 in shape:
        raise InputError(f"class maps have shape {shape}; (classes, rows, columns) is wanted, each at least 1")
    if maps.is_complex() or maps.dtype == torch.bool:
        raise InputError(f"class maps are {maps.dtype}; real numbers are wanted: convert them to float32")
    if photo.ndim != 3 or photo.shape[2] != 3 or 0 in photo.shape:
        raise InputError(f"the photo has shape {tuple(photo.shape)}; (rows, columns, 3) is wanted: convert it to RGB")
    if photo.dtype != torch.uint8:
        raise InputError(f"the photo is {photo.dtype}; 8-bit RGB (uint8, 0 to 255) is wanted: convert it")
    if not bool(maps.isfinite().all()):
        raise InputError("class maps hold NaN or infinite values; finite numbers >= 0 are wanted: check the model")
    if bool((maps < 0).any()):
        raise InputError(f"class maps go down to {float(maps.min()):.3g}; numbers >= 0 are wanted: clip or shift them")


class _CallableModule(ModuleType):
    """``pnp_ovss.refine`` is this package and the function in it: importing the one must not hide the other."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return refine(*args, **kwargs)


sys.modules[__name__].__class__ = _CallableModule
