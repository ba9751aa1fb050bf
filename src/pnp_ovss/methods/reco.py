"""ReCo: what photos of an archive that show the same thing have in common is what the thing looks like.

Source: Shin, Xie, Albanie, "ReCo: retrieve and co-segment for zero-shot transfer", NeurIPS 2022, and its authors' code,
but for the whole photo, where theirs scores the centre of it.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate, normalize

from pnp_ovss.files import Source
from pnp_ovss.methods.archive import Archive, centre
from pnp_ovss.methods.on_clip import (
    ALL_NAMED,
    IMAGENET,
    ClipConfig,
    Encoded,
    OnClip,
    Pixels,
    Queries,
    WindowMaps,
    presets,
    read_templates,
)
from pnp_ovss.methods.windows import Axis, raster
from pnp_ovss.models.clip import Clip
from pnp_ovss.models.clip_resnet import ClipResNet
from pnp_ovss.models.deit import Deit
from pnp_ovss.models.kept import keep, recall
from pnp_ovss.settings import setting
from pnp_ovss.types import RGB, ClassMaps, OnStep, Photos, Vocabulary, ignore

AT_ONCE = 10
"""Photos of an archive that are looked at at a time."""
SAME = {"vegetation": "tree"}
"""Words that look like one of the context, where that has it: the authors' code does not look for them."""
BY_TCL: dict[str, Any] = {"short_side": 448}
"""As TCL's authors ran it; more is not known of their settings."""


@dataclass(frozen=True)
class RecoConfig(ClipConfig):
    """Settings of ReCo. ``logit_scale`` is for the text attention; there is no softmax over the words."""

    archive: str = setting("archive", "reco: folder of unlabelled photos, or a glob, in which it looks for the words")
    dense: str = setting("open_clip_model.safetensors", "reco: file of the CLIP RN50x16 whose patches know words")
    encoder: str = setting("deit_s_sin_dist.pth", "reco: file of the DeiT whose patches are compared")
    retrieved: int = setting(50, "reco: photos of the archive that are looked at for a word", 1, 1000)
    photo_side: int = setting(224, "reco: side of the square in their middle that is looked at, in pixels", 32, 4096)
    context: tuple[str, ...] = setting(
        ("tree", "sky", "building", "road", "person"), "reco: what is often around things, and is not meant by them"
    )


@dataclass(frozen=True, kw_only=True)
class RecoMaps(WindowMaps):
    """Class maps; ``windows`` are how like a patch is to what the words look like."""

    attention: Float[Tensor, "query _ _"]
    """How much CLIP sees the words, on its own grid; windows beside and below each other."""


class Reco(OnClip):
    """ReCo, on a CLIP that finds photos, one whose patches know words (``dense``), and a DeiT (``encoder``).

    Its queries are what a word looks like and the vector of the word by ``dense``, one after the other.
    """

    name, settings = "reco", RecoConfig
    checkpoint, mini = "clip-large-336", None
    normalisation, resampling = IMAGENET, Image.Resampling.BILINEAR
    fills, direct, multiple = True, False, 32
    config: RecoConfig
    presets = presets(
        RecoConfig(
            refiners=("crf",),
            crf_gaussian_sxy=1.0,
            crf_gaussian_weight=3.0,
            crf_bilateral_sxy=67.0,
            crf_bilateral_srgb=3.0,
            crf_bilateral_weight=4.0,
            crf_bgr=True,
            templates=("maskclip",),
            short_side=320,
            crop=0,
            logit_scale=10.0,
            **ALL_NAMED,
        ),
        context59={},
        voc21=BY_TCL,
        context60=BY_TCL,
        object81=BY_TCL,
        stuff171=BY_TCL,
        ade150=BY_TCL,
    )

    def __init__(self, clip: Clip, config: RecoConfig, archive: Archive, dense: ClipResNet, encoder: Deit) -> None:
        super().__init__(clip, config)
        self.archive, self.dense, self.encoder = archive, dense, encoder
        self.cell = encoder.patch
        self.revision = "+".join(part.revision for part in (clip, dense, encoder, archive))
        self._looks: dict[str, Tensor] = {}

    @classmethod
    def from_pretrained(
        cls, model: str | Path, device: str, dtype: str, revision: str | None, preset: str | Path, **settings: Any
    ) -> "Reco":
        """Return the method on a CLIP by short name, hub id or local folder, and on what the settings name.

        Raises: ModelError, ConfigError; InputError if there is no archive.
        """
        config: Any = cls.resolve_config(model, preset, revision, **settings)
        archive = Archive(config.archive)  # what has to be here is found before anything is fetched
        dtype = config.dtype_for(device, dtype)
        dense = ClipResNet(config.dense, device, dtype)
        encoder = Deit(config.encoder, dense.device, dense.dtype)
        return cls(cls.loader(model, device, dtype, revision), config, archive, dense, encoder)

    def class_maps(
        self, images: Photos, vocabularies: Sequence[Vocabulary], on_step: OnStep = ignore
    ) -> list[ClassMaps]:
        """Return how much each photo's patches look like its words, after a look at the archive for new words.

        Raises: InputError if a class name cannot be used, or the archive cannot.
        """
        self.looks([word for one in vocabularies for word in (*self._surroundings(one), *one.flat)], on_step)
        return super().class_maps(images, vocabularies, on_step)

    @torch.no_grad()
    def looks(self, words: Sequence[str], on_step: OnStep = ignore) -> Float[Tensor, "word width"]:
        """Return what words look like, vectors of length 1. What was found out once is kept, also for other processes.

        Raises: InputError if a word or the archive cannot be used.
        """
        asked = dict.fromkeys((*self.config.context, *map(self._like, words)))
        new = [word for word in asked if word not in self._looks]
        self._looks |= {
            word: one.to(self.device) for word in new if (one := recall("looks", self._about(word))) is not None
        }
        self._find_out([word for word in new if word not in self._looks], on_step)
        return torch.stack([self._looks[self._like(word)] for word in words])

    def _find_out(self, new: Sequence[str], on_step: OnStep) -> None:
        if not new:
            return
        texts, own = self.clip.encode_words(new, read_templates(self.config.templates)), self._texts(new)
        found = self.archive.nearest(texts, self.config.retrieved, self.clip, on_step)
        for number, (word, files, text) in enumerate(zip(new, found, own, strict=True)):
            on_step("words", number, len(new))
            photos = torch.stack([self._photo(file) for file in files])
            self._looks[word] = self.look(photos, text, [self._looks[one] for one in self._before(word)])
            keep("looks", self._about(word), self._looks[word])

    @torch.no_grad()
    def look(
        self, photos: Float[Tensor, "photo 3 size size"], text: Float[Tensor, " vector"], context: Sequence[Tensor]
    ) -> Float[Tensor, " width"]:
        """Return what a word looks like, a vector of length 1, from normalised photos that are thought to show it.

        ``text``: the word's vector by ``dense``. ``context``: what is often around it, and not meant.
        """
        features, shares = list[Tensor](), list[Tensor]()
        for some in torch.split(photos.to(self.device), AT_ONCE):
            patches, seen = self.encoder.encode_patches(some), normalize(self.dense.encode_patches(some), dim=-1)
            features.append(patches.flatten(1, 2))
            attention = interpolate(self._attention(seen, text[None]), size=patches.shape[1:3], mode="bilinear")
            shares.append(attention.flatten(1))
        patches, weights = torch.cat(features), torch.cat(shares)
        for other in context:
            weights = weights * (1 - torch.sigmoid(normalize(patches, dim=-1) @ other))
        return common(patches, weights)

    def encode(self, pixels: Pixels) -> Encoded:
        """Return vectors of length 1 of the patches of each window, by ``encoder`` and by ``dense``."""
        return tuple(normalize(model.encode_patches(pixels), dim=-1) for model in (self.encoder, self.dense))

    def compare(self, encoded: Encoded, queries: Queries) -> Float[Tensor, "b query gh gw"]:
        """Return how much each patch looks like each query, times how much CLIP sees the word there; in [0, 1]."""
        likeness, attention = self._both(encoded, queries)
        return likeness * interpolate(attention, size=likeness.shape[2:], mode="bilinear")

    def _both(self, encoded: Encoded, queries: Queries) -> tuple[Tensor, Tensor]:
        """Return how much patches look like each query, and how much CLIP sees the words, each on its own grid."""
        patches, seen = encoded
        looks, texts = queries[:, : patches.shape[-1]], queries[:, patches.shape[-1] :]
        return torch.sigmoid(super().compare((patches,), looks)), self._attention(seen, texts)

    def _attention(
        self, seen: Float[Tensor, "b gh gw vector"], texts: Float[Tensor, "query vector"]
    ) -> Float[Tensor, "b query gh gw"]:
        return torch.sigmoid(self.config.logit_scale * super().compare((seen,), texts))

    def _queries(self, vocabulary: Vocabulary) -> Queries:
        words = (*self._surroundings(vocabulary), *vocabulary.flat)
        return torch.cat([self.looks(words), self._texts(words)], 1)

    def _texts(self, words: Sequence[str]) -> Queries:
        """Return the vectors of words by ``dense``, each by itself: rounding depends on what goes through with it."""
        templates = read_templates(self.config.templates)
        return torch.cat([self.dense.encode_words([word], templates) for word in words])

    def _over(
        self, encoded: Encoded, queries: Queries, axes: tuple[Axis, Axis], size: tuple[int, ...]
    ) -> Float[Tensor, "query h w"]:
        likeness, attention = (raster(one, len(axes[1].starts)) for one in self._both(encoded, queries))
        return self._spread(likeness, *axes, size) * self._spread(attention, *axes, size)

    def _maps(
        self, encoded: Encoded, queries: Queries, axes: tuple[Axis, Axis], vocabulary: Vocabulary, photo: RGB
    ) -> RecoMaps:
        rows, columns = axes
        likeness, attention = (raster(one, len(columns.starts)) for one in self._both(encoded, queries))
        grid = tuple(max(1, axis.length // self.cell) for axis in axes)
        maps = self._over(encoded, queries[len(queries) - len(vocabulary.flat) :], axes, grid)
        about: dict[str, Any] = {"rows": rows, "columns": columns, "photo": photo}
        return RecoMaps(maps, vocabulary, windows=likeness, attention=attention, **about)

    def _strips(self, maps: WindowMaps, size: tuple[int, int]) -> Iterable[tuple[slice, Float[Tensor, "query _ w"]]]:
        assert isinstance(maps, RecoMaps)
        strips = (super(Reco, self)._strips(one, size) for one in (maps, replace(maps, windows=maps.attention)))
        for (part, likeness), (_, attention) in zip(*strips, strict=True):
            yield part, likeness.mul_(attention)

    def _shares(self, logits: Float[Tensor, "query h w"]) -> Float[Tensor, "query h w"]:
        return logits

    def _photo(self, file: Source) -> Float[Tensor, "3 size size"]:
        assert self.resampling
        return centre(self.archive.read(file), self.config.photo_side, IMAGENET, self.resampling)

    def _like(self, word: str) -> str:
        """Return the word that is looked for in place of a word."""
        other = SAME.get(word.casefold(), word)
        return other if other in self.config.context else word

    def _before(self, word: str) -> tuple[str, ...]:
        """Return the words of the context that are ruled out for a word: of those of the context, the earlier ones."""
        words = [one.casefold() for one in self.config.context]
        return self.config.context[: words.index(word.casefold()) if word.casefold() in words else len(words)]

    def _about(self, word: str) -> list[Any]:
        """Return all that what a word looks like depends on."""
        config, where = self.config, [self.device.type, str(self.clip.dtype), torch.__version__]
        how = [config.templates, config.retrieved, config.photo_side, config.logit_scale]
        return [self.revision, *where, *how, self._before(word), word]


def common(
    patches: Float[Tensor, "photo patch width"], weights: Float[Tensor, "photo patch"]
) -> Float[Tensor, " width"]:
    """Return the direction of what photos have in common: of the patch of each that the others have the likes of.

    A patch is as much like a photo as the largest product of cosine and weight with the patches of that photo says. For
    photo i, the authors' code takes the photos i to 2 i in its place; so does this, to find the same patches.
    """
    unit = normalize(patches, dim=-1)
    photos, count = weights.shape
    others = (unit * weights[..., None]).flatten(0, 1).T
    likeness = torch.stack([(own @ others).view(count, photos, count).amax(2) for own in unit])  # photo patch photo
    reached = torch.stack([likeness[..., one : 2 * one + 1].amax(2) for one in range(photos)]).mean(0)
    seeds = patches[torch.arange(photos, device=patches.device), reached.argmax(1)]
    return normalize(seeds.mean(0), dim=0)
