"""The method, from a photo and class names to a label map."""

from collections.abc import Callable, Iterator, Sequence, Sized
from functools import partial
from pathlib import Path
from typing import Any, overload

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from pnp_ovss._version import VERSION
from pnp_ovss.config import Config
from pnp_ovss.errors import ConfigError, InputError
from pnp_ovss.images import Photo, read_image
from pnp_ovss.methods.pnp.dropout import Look, saliency_dropout, total
from pnp_ovss.methods.pnp.prompt import make_prompt
from pnp_ovss.methods.pnp.saliency import class_maps, prominence
from pnp_ovss.models import VLM, load_vlm, preset_of
from pnp_ovss.models.base import check_images
from pnp_ovss.refine import check_refiners, refining
from pnp_ovss.segmentation import Segmentation
from pnp_ovss.steps import Steps, finished
from pnp_ovss.types import BACKGROUND, RGB, Prompt


class Segmenter:
    """Segments photos into the classes somebody names, with one VLM and one ``Config``."""

    def __init__(self, vlm: VLM, config: Config) -> None:
        check(config, vlm)
        self.vlm = vlm
        self.config = config

    @classmethod
    def from_pretrained(
        cls,
        model: str | Path,
        preset: str | Path = "auto",
        device: str = "auto",
        dtype: str = "auto",
        revision: str | None = None,
        **overrides: Any,
    ) -> "Segmenter":
        """Return a segmenter on a model by short name, hub id or local folder.

        ``preset``: a name of ``PRESETS``, a JSON file, or "auto": the model's own, which is its family's but for a mini
        model. ``overrides`` are single settings of ``Config``, such as ``threshold=0.2``.

        Raises: ModelError, ConfigError.
        """
        settle(model, preset, revision, **overrides)  # before the model: a wrong setting should not cost a download
        vlm = load_vlm(model, device, dtype, revision)
        return cls(vlm, settle(model, preset, revision, **overrides))  # its family is known by now

    @overload
    def __call__(self, images: Photo, classes: Sequence[str]) -> Segmentation: ...
    @overload
    def __call__(self, images: list[Photo], classes: Sequence[Sequence[str]]) -> list[Segmentation]: ...
    def __call__(self, images: Any, classes: Any) -> Any:
        """Return the segmentation of a photo (path, PIL image or RGB uint8 array), or a list of them for a list.

        A list of photos takes a list of class lists, one per photo, and goes through the VLM as one batch.

        Raises: InputError if a photo or a class name cannot be used.
        """
        if isinstance(images, list | tuple):
            return self._batch([read_image(image) for image in images], classes)
        return self._batch([read_image(images)], [classes])[0]

    def _batch(
        self, photos: Sequence[UInt8[np.ndarray, "_ _ 3"]], classes: Sequence[Sequence[str]]
    ) -> list[Segmentation]:
        return [finish() for finish in self.see(photos, classes)]

    def see(
        self, photos: Sequence[UInt8[np.ndarray, "_ _ 3"]], classes: Sequence[Sequence[str]]
    ) -> list[Callable[[], Segmentation]]:
        """Return for each photo of a batch, after the model has seen them all, what refines it.

        For those who refine in a thread while the model sees the next batch.

        Raises: InputError if a class name cannot be used.
        """
        if isinstance(classes, str) or not isinstance(classes, Sized):
            raise InputError(f"the classes came as {type(classes).__name__}; a list of names for each photo is wanted")
        if len(photos) != len(classes):
            raise InputError(
                f"{len(photos)} photos came with {len(classes)} class lists; one list for each photo is wanted"
            )
        if not photos:
            return []
        prompts = self._prompts(classes)
        begins = self._finishing(photos, prompts, list(self._look(photos, prompts)))
        return [partial(_take, begin) for begin in begins]

    def watch(self, image: Photo, classes: Sequence[str]) -> Iterator[Look | Segmentation | None]:
        """Yield each pass of Saliency DropOut, then None between the steps of refinement, and the segmentation at last.

        It goes on when it is asked for what comes next, and not before: who stops asking stops the work.

        Raises: InputError if the photo or a class name cannot be used.
        """
        photos, prompts, looks = [read_image(image)], self._prompts([classes]), []
        for one in self._look(photos, prompts):
            looks.append(one)
            yield one
        (begin,) = self._finishing(photos, prompts, looks)
        yield (yield from begin())

    def _prompts(self, classes: Sequence[Sequence[str]]) -> list[Prompt]:
        prompts = [make_prompt(names) for names in classes]
        for prompt in prompts:
            check_background(self.config, prompt)
        return prompts

    def _look(self, photos: Sequence[UInt8[np.ndarray, "_ _ 3"]], prompts: Sequence[Prompt]) -> Iterator[Look]:
        pixels = torch.stack([self.vlm.prepare(photo, self.config.size or self.vlm.size) for photo in photos])
        return look(self.vlm, pixels, prompts, self.config)

    def _finishing(
        self, photos: Sequence[UInt8[np.ndarray, "_ _ 3"]], prompts: Sequence[Prompt], looks: Sequence[Look]
    ) -> list[Callable[[], Steps[Segmentation]]]:
        maps = per_image(looks, prompts, self.config)
        return [
            partial(self._finish, photo, prompt, salience, float(match))
            for photo, prompt, salience, match in zip(photos, prompts, maps, looks[0].match.tolist(), strict=True)
        ]

    def _finish(
        self, photo: RGB, prompt: Prompt, salience: Float[Tensor, "cls gh gw"], match: float
    ) -> Steps[Segmentation]:
        labels, scores = yield from refining(salience, torch.from_numpy(photo).to(salience.device), self.config)
        background = (BACKGROUND,) if self.config.has_background(len(prompt.classes)) else ()
        return Segmentation(
            labels=labels.cpu().numpy(),
            classes=background + prompt.classes,
            scores=scores.cpu().numpy(),
            salience=salience.cpu().numpy(),
            match=match,
            config=self.config,
            model=self.vlm.name,
            revision=self.vlm.revision,
            version=VERSION,
            photo=photo,
        )


def _take(begin: Callable[[], Steps[Segmentation]]) -> Segmentation:
    return finished(begin())


def settle(model: str | Path, preset: str | Path = "auto", revision: str | None = None, **overrides: Any) -> Config:
    """Return the settings that ``Segmenter.from_pretrained`` takes for a model; nothing is fetched.

    Nobody knows the family of a hub id that is not in the cache: until it is, "auto" stands for "released".

    Raises: ConfigError if there is no such preset, setting or refiner; ModelError if the model is here and broken.
    """
    if preset == "auto":
        preset = preset_of(model, revision) or "released"
    config = Config.from_preset(preset, **overrides)
    check_refiners(config.refiners)
    return config


def salience(
    vlm: VLM, pixels: Float[Tensor, "b 3 h w"], prompts: Sequence[Prompt], config: Config
) -> list[Float[Tensor, "_ gh gw"]]:
    """Return the class maps of each image, summed over the passes of Saliency DropOut, on the model's device.

    ``pixels`` are normalised, as ``vlm.prepare`` gives them. Values are >= 0; the classes of an image share one scale.

    Raises: ConfigError, InputError, as ``VLM.attend`` does.
    """
    return per_image(list(look(vlm, pixels, prompts, config)), prompts, config)


def look(vlm: VLM, pixels: Float[Tensor, "b 3 h w"], prompts: Sequence[Prompt], config: Config) -> Iterator[Look]:
    """Yield every pass of Saliency DropOut: what was shown, the class maps, and the match logits.

    Raises: ConfigError, InputError, as ``VLM.attend`` does.
    """
    check(config, vlm)
    check_images(vlm, pixels, prompts)
    pixels = pixels.to(vlm.device)

    def see(visible: Bool[Tensor, "b gh gw"]) -> tuple[Tensor, Tensor, Tensor]:
        shown = visible.repeat_interleave(vlm.patch, 1).repeat_interleave(vlm.patch, 2)
        attention = vlm.attend(pixels * shown[:, None], prompts, layers=(config.layer,))  # 0 is the mean colour
        chosen = (attention, config.layer, config.head, config.gradient)
        return class_maps(*chosen, config.sum_last_name), prominence(*chosen), attention.match

    grid = pixels.shape[2] // vlm.patch, pixels.shape[3] // vlm.patch
    everything = torch.ones(len(pixels), *grid, dtype=torch.bool, device=vlm.device)
    return saliency_dropout(see, everything, config.passes, config.drop)


def per_image(looks: Sequence[Look], prompts: Sequence[Prompt], config: Config) -> list[Float[Tensor, "_ gh gw"]]:
    """Return each image's summed class maps, without the rows that pad it to the batch's largest number of classes."""
    summed = total(looks, config.count_first_twice)
    return [maps[: len(prompt.classes)] for maps, prompt in zip(summed, prompts, strict=True)]


def check_background(config: Config, prompt: Prompt) -> None:
    """Raise InputError if a class is called as the background that the setting has anyway."""
    if config.has_background(len(prompt.classes)) and BACKGROUND in map(str.casefold, prompt.classes):
        raise InputError("class 'background' is there by itself; leave it out, or set the background to 'never'")


def check(config: Config, vlm: VLM) -> None:
    """Raise ConfigError if the model lacks the layer, the head or the input size, or no refiner has that name."""
    check_refiners(config.refiners)
    for name, value, count in (("layer", config.layer, vlm.layers), ("head", config.head, vlm.heads)):
        if value >= count:
            raise ConfigError(
                f"{name} is {value}; {vlm.name} has {name}s 0 to {count - 1}: choose another --{name} or --preset"
            )
    size = config.size or vlm.size
    if size % vlm.patch:
        raise ConfigError(
            f"size is {size}; a multiple of {vlm.name}'s patch of {vlm.patch} pixels is wanted: choose another --size "
            "or --preset"
        )
