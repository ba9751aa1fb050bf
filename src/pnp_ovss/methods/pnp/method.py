"""PnP-OVSS as a method: steps 2 to 7, with one VLM and one ``Config``."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from pnp_ovss.errors import ConfigError, InputError
from pnp_ovss.methods.pnp.config import Config
from pnp_ovss.methods.pnp.dropout import saliency_dropout, total
from pnp_ovss.methods.pnp.prompt import make_prompt
from pnp_ovss.methods.pnp.saliency import class_maps, patch_salience
from pnp_ovss.models import VLM, load_vlm, preset_of
from pnp_ovss.models.base import check_images
from pnp_ovss.models.gpu import moved
from pnp_ovss.refine.upsample import threshold_and_upsample
from pnp_ovss.types import BACKGROUND, ClassMaps, OnStep, Pass, Photos, Prompt, Vocabulary, ignore


class PnP:
    """Cross-attention of a VLM, weighted by its gradient (GradCAM), summed over passes of Saliency DropOut.

    Raises: ConfigError if the model lacks the layer, the head or the input size.
    """

    name = "pnp"

    def __init__(self, vlm: VLM, config: Config) -> None:
        _check(config, vlm)
        self.vlm, self.config = vlm, config
        self.backbone = vlm
        self.model, self.revision, self.device = vlm.name, vlm.revision, vlm.device

    @classmethod
    def from_pretrained(
        cls, model: str | Path, device: str, dtype: str, revision: str | None, preset: str | Path, **settings: Any
    ) -> "PnP":
        """Return the method on a VLM by short name, hub id or local folder.

        Raises: ModelError, ConfigError.
        """
        cls.resolve_config(model, preset, revision, **settings)  # a wrong setting should not cost a download
        vlm = load_vlm(model, device, dtype, revision)
        return cls(vlm, cls.resolve_config(model, preset, revision, **settings))  # its family is known by now

    @classmethod
    def resolve_config(cls, model: str | Path, preset: str | Path, revision: str | None, **settings: Any) -> Config:
        """Return the settings for a model; nothing is fetched.

        "auto" is the preset of the model, else of its family, else, for a hub id that is not in the cache, "released".

        Raises: ConfigError for a preset or setting that does not exist; ModelError if the model is here and broken.
        """
        if preset == "auto":
            preset = preset_of(model, revision) or "released"
        return Config.from_preset(preset, **settings)

    def class_maps(
        self, images: Photos, vocabularies: Sequence[Vocabulary], on_step: OnStep = ignore
    ) -> list[ClassMaps]:
        """Return the class maps of each photo, all photos as one batch, on the model's device; values are >= 0.

        Raises: InputError if a class name cannot be used.
        """
        for vocabulary in vocabularies:
            self._check_background(vocabulary)
        prompts = [make_prompt(vocabulary) for vocabulary in vocabularies]
        size = self.config.size or self.vlm.size
        pixels = self.vlm.prepare_all(images, size)
        passes = dropout_passes(self.vlm, pixels, prompts, self.config, on_step)
        summed = total(passes, self.config.count_first_twice)
        matches = passes[0].match.tolist()
        return [
            ClassMaps(
                summed[row, : len(prompt.classes)],
                vocabulary,
                matches[row],
                tuple(Pass(p.visible[row : row + 1], p.maps[row : row + 1], p.match[row : row + 1]) for p in passes),
            )
            for row, (prompt, vocabulary) in enumerate(zip(prompts, vocabularies, strict=True))
        ]

    def scores(self, maps: ClassMaps, size: tuple[int, int]) -> Float[Tensor, "ch h w"]:
        """Return the background, where the setting has one, and a channel per word: step 7 at ``size`` = (h, w)."""
        background = self._has_background(maps.vocabulary)
        threshold = self.config.threshold
        return threshold_and_upsample(maps.maps[None], size, threshold=threshold, background=background)[0]

    def _has_background(self, vocabulary: Vocabulary) -> bool:
        return self.config.has_background(sum(name != BACKGROUND for name in vocabulary.classes))

    def _check_background(self, vocabulary: Vocabulary) -> None:
        """Raise InputError if a class is only called as the background that the setting has anyway."""
        alone = [name for name, words in vocabulary.words.items() if words == (name,)]
        if self._has_background(vocabulary) and BACKGROUND in map(str.casefold, alone):
            raise InputError("class 'background' is there by itself; leave it out, or set the background to 'never'")


def salience(
    vlm: VLM, pixels: Float[Tensor, "b 3 h w"], prompts: Sequence[Prompt], config: Config
) -> list[Float[Tensor, "_ gh gw"]]:
    """Return the class maps of each image, summed over the passes of Saliency DropOut, on the model's device.

    ``pixels`` are normalised, as ``vlm.prepare`` gives them. Values are >= 0; the classes of an image share one scale.

    Raises: ConfigError, InputError, as ``VLM.attend`` does.
    """
    summed = total(dropout_passes(vlm, pixels, prompts, config), config.count_first_twice)
    return [maps[: len(prompt.classes)] for maps, prompt in zip(summed, prompts, strict=True)]


def dropout_passes(
    vlm: VLM, pixels: Float[Tensor, "b 3 h w"], prompts: Sequence[Prompt], config: Config, on_step: OnStep = ignore
) -> list[Pass]:
    """Return every pass of Saliency DropOut: the visible patches, the class maps and the match logits.

    Raises: ConfigError, InputError, as ``VLM.attend`` does.
    """
    _check(config, vlm)
    check_images(vlm, pixels, prompts)
    pixels = moved(pixels, vlm.device)

    def locate(visible: Bool[Tensor, "b gh gw"]) -> tuple[Tensor, Tensor, Tensor]:
        mask = visible.repeat_interleave(vlm.patch, 1).repeat_interleave(vlm.patch, 2)
        keep = None
        if config.drop_tokens and not visible.all():
            # As many in every image: how many are hidden depends on nothing but how many there were.
            keep = visible.flatten(1).nonzero()[:, 1].view(len(visible), -1)
        attention = vlm.attend(pixels * mask[:, None], prompts, (config.layer,), keep)  # 0 is the mean colour
        chosen = (attention, config.layer, config.head, config.gradient)
        return class_maps(*chosen, config.sum_last_name), patch_salience(*chosen), attention.match

    grid = pixels.shape[2] // vlm.patch, pixels.shape[3] // vlm.patch
    everything = torch.ones(len(pixels), *grid, dtype=torch.bool, device=vlm.device)
    return saliency_dropout(locate, everything, config.passes, config.drop, on_step)


def _check(config: Config, vlm: VLM) -> None:
    for name, value, count in (("layer", config.layer, vlm.layers), ("head", config.head, vlm.heads)):
        if value >= count:
            raise ConfigError(f"expected {name} from 0 to {count - 1} for {vlm.name}, got {value}; choose another")
    size = config.size or vlm.size
    if size % vlm.patch:
        raise ConfigError(f"expected size as a multiple of {vlm.patch}, {vlm.name}'s patch, got {size}; choose another")
