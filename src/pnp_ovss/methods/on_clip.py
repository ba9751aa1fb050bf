"""What the methods on CLIP share: their settings, and the way from photos and words over windows to scores.

A method is a child of ``OnClip`` that says how patches become vectors (``encode``).
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate

from pnp_ovss.data.vocabulary import benchmark_vocabulary, class_names, read_lines
from pnp_ovss.errors import ConfigError
from pnp_ovss.methods.base import MethodInfo
from pnp_ovss.methods.resize import fitted, resize
from pnp_ovss.methods.windows import Axis, along, cut, raster
from pnp_ovss.models.clip import Clip, DualEncoder, load_clip
from pnp_ovss.models.gpu import moved
from pnp_ovss.models.hub import SHORT_NAMES, find_folder, read_settings
from pnp_ovss.models.loading import resolve_device
from pnp_ovss.refine import RefinementSettings
from pnp_ovss.refine.base import Refiner
from pnp_ovss.refine.pamr import diffuse
from pnp_ovss.settings import setting
from pnp_ovss.types import BACKGROUND, RGB, ClassMaps, OnStep, Photos, Vocabulary, ignore

FEW = 3
TEMPLATES = Path(__file__).parent / "templates"
TOKENS_AT_ONCE, ON_A_GPU = 1024, 4096
"""Tokens in a batch of windows: as few as a CPU is fastest with, enough to keep a GPU busy; a bound on the memory."""
VALUES_AT_ONCE = 2**23
"""Logits per pixel that are computed at a time."""
PAMR_DILATIONS = (8, 16)
"""Source: NACLIP."""


def surroundings(vocabulary: str, benchmark: str) -> tuple[str, ...]:
    """Return the words for the background in a vocabulary that ships."""
    return benchmark_vocabulary(vocabulary, class_names(benchmark), benchmark).words[BACKGROUND]


SURROUNDINGS = surroundings("synonyms", "voc")
"""What SCLIP, and the papers that compare with it, call the background."""

BY_NAME: dict[str, Any] = {"background_words": (BACKGROUND,)}
"""For benchmarks and methods that ask for the background by its name."""
ALL_NAMED: dict[str, Any] = {"background": "never", "prob_threshold": 0.0, "area_threshold": 0.0}
"""For benchmarks whose classes cover the whole photo."""
MINI: dict[str, Any] = {
    "templates": ("a picture of a {}", "{}"),
    "short_side": 112,
    "crop": 0,
    "logit_scale": 20.0,
    "background_words": ("sky", "grass", "sand", "water", "brick wall", "snow"),
    "prob_threshold": 0.0,
    "area_threshold": 0.0,
}
"""For the mini models, which know drawn scenes and few words."""


Pixels = Float[Tensor, "b _ h w"]
"""Normalised red, green and blue; a method may know further channels."""
Queries = Float[Tensor, "query vector"]
Colours = tuple[Sequence[float], Sequence[float]]
"""Mean and standard deviation of 8-bit RGB."""
IMAGENET: Colours = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
Encoded = tuple[Tensor, ...]
"""What a method computes of windows without their words; all tensors have a row per window. The first one holds the
vectors of the patches, (window, row, column, vector)."""


@dataclass(frozen=True)
class ClipConfig(RefinementSettings):  # type: ignore[misc]  # its base is made from the table of refiners
    """Settings of every method on CLIP, in the order in which they are used, and of the refiners.

    The refiner "pamr" comes before the softmax over the words, where NACLIP has it, and all others after it.
    """

    refiners: tuple[str, ...] = setting((), "refinement steps, in order")
    stretch: bool = setting(False, "stretch the scores of each channel to [0, 1] before a refinement step")
    templates: tuple[str, ...] = setting(("imagenet",), "sets of templates (imagenet, maskclip), or texts with {}")
    short_side: int = setting(336, "shorter side of the photo as the model sees it, in pixels", 1, 8192)
    long_side: int = setting(2048, "longer side of it at most, in pixels", 1, 8192)
    crop: int = setting(224, "side of the sliding window, in pixels; 0: the whole photo at once", 0, 8192)
    stride: int = setting(112, "from window to window, in pixels", 1, 8192)
    logit_scale: float = setting(40.0, "cosines are multiplied by it before the softmax over the words")
    background: Literal["always", "never", "few"] = setting("always", "few: only where fewer than 3 classes are named")
    background_words: tuple[str, ...] = setting(SURROUNDINGS, "the background, where no class of that name says it")
    prob_threshold: float = setting(0.1, "background where no class has this probability", 0, 1)
    area_threshold: float = setting(0.0, "no class with at most this share of what is not background", 0, 1)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.crop and self.stride > self.crop:
            raise ConfigError(
                f"expected stride up to the crop of {self.crop}, got {self.stride}; windows would not meet"
            )
        for name in self.templates:
            if "{}" not in name and name not in template_sets():
                known = ", ".join(template_sets())
                raise ConfigError(f"there are no templates {name!r}; give some of {known}, or texts with {{}}")

    def has_background(self, classes: int) -> bool:
        """Return whether a photo with so many named classes gets a background channel."""
        return self.background == "always" or (self.background == "few" and classes < FEW)

    @property
    def bfloat16_on_cpu(self) -> bool:
        """Whether bfloat16 was seen to leave 99.5 % of the labels equal, so that dtype "auto" may take it on a CPU."""
        return False

    def dtype_for(self, device: str, dtype: str) -> str:
        """Return the dtype that a model is loaded in: "auto" is float32 on a CPU that may not take bfloat16."""
        asked = dtype == "auto" and not self.bfloat16_on_cpu and resolve_device(device).type == "cpu"
        return "float32" if asked else dtype

    @property
    def refines(self) -> bool:
        """Whether scores are refined, PAMR included, which is done at ``max_pixels`` at most."""
        return "pamr" in self.refiners or bool(self.steps())

    def steps(self) -> list[Refiner]:
        """Return the refiners that come after the softmax."""
        rest = tuple(name for name in self.refiners if name != "pamr")
        steps: list[Refiner] = super(ClipConfig, replace(self, refiners=rest)).steps()
        return steps


@dataclass(frozen=True, kw_only=True)
class WindowMaps(ClassMaps):
    """Class maps, and the cosines in each window that they were averaged from."""

    windows: Float[Tensor, "query _ _"]
    """Cosines of the background's own words, then of those of the vocabulary; windows beside and below each other."""
    rows: Axis
    columns: Axis
    photo: RGB


class OnClip:
    """A method that compares vectors of CLIP's patches with those of words.

    Raises: ConfigError if the model and the settings do not go together.
    """

    name: str
    settings: type[ClipConfig]
    presets: Mapping[str, ClipConfig]
    """Settings by the name of the benchmark that they were published for."""
    fills: ClassVar[bool] = False
    """Whether windows are filled up with zeros to whole patches; else what is left of the last patch is dropped."""
    multiple: ClassVar[int | None] = None
    """Pixels, in place of a patch, that windows are filled up to a multiple of."""
    direct: ClassVar[bool] = True
    """Whether the grid of a photo seen whole is enlarged to the photo at once, not first to the size it is seen at."""
    loader: ClassVar[Callable[..., Any]] = staticmethod(load_clip)
    """(name, device, dtype, revision) -> the model."""
    checkpoint: ClassVar[str] = "clip-base"
    mini: ClassVar[str | None] = "mini-clip"
    """The models that it takes where none is named, for photos and for drawn scenes."""
    normalisation: ClassVar[Colours | None] = None
    """Mean and standard deviation of 8-bit RGB; None: the checkpoint's own."""
    resampling: ClassVar[Image.Resampling | None] = None
    """How Pillow resizes photos; None: as MMCV does."""

    clip: Clip
    """The model; of another class where ``loader`` gives one."""

    def __init__(self, clip: Any, config: ClipConfig) -> None:
        if 0 < config.crop < clip.patch:
            expected = f"crop as 0 or from {clip.patch} on, {clip.name}'s patch"
            raise ConfigError(f"expected {expected}, got {config.crop}; choose another")
        self.clip, self.config = clip, config
        self.backbone = clip
        self.model, self.revision, self.device = clip.name, clip.revision, clip.device
        self.cell: int = clip.patch
        """Side of a cell of the grid, in pixels."""

    @classmethod
    def info(cls, about: str, source: str) -> MethodInfo:
        """Return the method's line of ``METHODS``."""
        return MethodInfo(
            about,
            cls.checkpoint,
            source,
            cls.settings,
            cls.from_pretrained,
            cls.resolve_config,
            {f"{cls.name}/{name}": config for name, config in cls.presets.items()},
            cls.mini,
        )

    @classmethod
    def from_pretrained(
        cls, model: str | Path, device: str, dtype: str, revision: str | None, preset: str | Path, **settings: Any
    ) -> "OnClip":
        """Return the method on a CLIP by short name, hub id or local folder.

        Raises: ModelError, ConfigError.
        """
        config = cls.resolve_config(model, preset, revision, **settings)  # a wrong one should not cost a download
        dtype = config.dtype_for(device, dtype)
        clip = cls.loader(model, device, dtype, revision)
        return cls.on(clip, cls.resolve_config(model, preset, revision, **settings), device, dtype)

    @classmethod
    def on(cls, clip: Any, config: Any, device: str, dtype: str) -> "OnClip":
        """Return the method on a CLIP, with what else it needs on the same device. Raises: ModelError, ConfigError."""
        return cls(clip, config)

    @classmethod
    def resolve_config(cls, model: str | Path, preset: str | Path, revision: str | None, **settings: Any) -> ClipConfig:
        """Return the settings for a model; nothing is fetched.

        "auto" is "mini" for a model that knows few names, else the first one. A setting may be a path.

        Raises: ConfigError for a preset or setting that does not exist.
        """
        name = str(preset).removeprefix(f"{cls.name}/")
        if name == "auto":
            name = "mini" if _knows_few(model, revision) else next(iter(cls.presets))
        if name in cls.presets:
            start = cls.presets[name]
        elif Path(preset).suffix == ".json":
            start = cls.settings.from_file(Path(preset))
        else:
            known = ", ".join(f"{cls.name}/{name}" for name in cls.presets)
            raise ConfigError(f"there is no preset {str(preset)!r}; the presets are {known}, or give a .json file")
        config: ClipConfig = start.override(
            {name: str(value) if isinstance(value, Path) else value for name, value in settings.items()}
        )
        return config

    def encode(self, pixels: Pixels) -> Encoded:
        """Return vectors of length 1 of the patches of each window, and what else ``compare`` needs."""
        raise NotImplementedError

    def compare(self, encoded: Encoded, queries: Queries) -> Float[Tensor, "b query gh gw"]:
        """Return the cosine of each patch with each query."""
        return torch.einsum("byxc,qc->bqyx", encoded[0], queries)

    @torch.no_grad()
    def features(self, pixels: Pixels) -> Float[Tensor, "b gh gw vector"]:
        """Return a vector of length 1 for each patch; ``pixels`` are normalised."""
        return self.encode(pixels)[0]

    @torch.no_grad()
    def logits(self, pixels: Pixels, queries: Queries) -> Float[Tensor, "b query gh gw"]:
        """Return cosines on the patch grid; ``pixels`` are normalised, ``queries`` vectors of length 1."""
        return self.compare(self.encode(pixels), queries.to(self.device))

    @torch.no_grad()
    def slide(self, pixels: Pixels, queries: Queries) -> Float[Tensor, "b query h w"]:
        """Return cosines at the size of ``pixels``, averaged over windows; before ``logit_scale``."""
        queries, (h, w) = queries.to(self.device), pixels.shape[2:]
        rows, columns = self._axes(h, w)
        encoded = self._encode([cut(picture, rows, columns) for picture in pixels], ignore)
        return torch.stack([self._over(one, queries, (rows, columns), (h, w)) for one in encoded])

    @torch.no_grad()
    def class_maps(
        self, images: Photos, vocabularies: Sequence[Vocabulary], on_step: OnStep = ignore
    ) -> list[ClassMaps]:
        """Return the cosines of each photo's patches with its words, the windows of all photos in one go.

        Raises: InputError if a class name cannot be used.
        """
        return list(self._class_maps([self.prepare(image) for image in images], images, vocabularies, on_step))

    @torch.no_grad()
    def _class_maps(
        self, pixels: Sequence[Tensor], images: Photos, vocabularies: Sequence[Vocabulary], on_step: OnStep
    ) -> list[WindowMaps]:
        queries = [self._queries(vocabulary) for vocabulary in vocabularies]
        axes = [self._axes(*picture.shape[1:]) for picture in pixels]
        encoded = self._encode([cut(picture, *both) for picture, both in zip(pixels, axes, strict=True)], on_step)
        return [self._maps(*one) for one in zip(encoded, queries, axes, vocabularies, images, strict=True)]

    @torch.no_grad()
    def scores(self, maps: ClassMaps, size: tuple[int, int]) -> Float[Tensor, "ch h w"]:
        """Return the probability of the background, where there is one, and of each word, at ``size`` = (h, w).

        They are the softmax over the words, and 0 for a class below ``area_threshold``. The background's is at least
        ``prob_threshold``.
        """
        assert isinstance(maps, WindowMaps)
        scores = self._probabilities(maps, size)
        if len(scores) > len(maps.vocabulary.flat):
            if self.config.area_threshold:
                drop_small(scores, maps.vocabulary, self.config.area_threshold)
            scores[0].clamp_(min=self._floor)
        return scores

    def prepare(self, image: RGB) -> Float[Tensor, "3 _ _"]:
        """Return the photo as the windows are cut from: resized and normalised, on the model's device."""
        h, w = fitted(image.shape[:2], self.config.short_side, self.config.long_side, self.clip.patch)
        mean, std = self.normalisation or eight_bit(self.clip)
        resized = (
            resize(image, (h, w))
            if self.resampling is None
            else np.array(Image.fromarray(image).resize((w, h), self.resampling))
        )
        small = moved(torch.from_numpy(resized), self.device).permute(2, 0, 1).float()
        mean_and_std = torch.tensor([mean, std], device=self.device)[:, :, None, None]
        return (small - mean_and_std[0]) / mean_and_std[1]

    def _queries(self, vocabulary: Vocabulary) -> Queries:
        """Return the vectors of the background's own words, then of those of the vocabulary."""
        words = (*self._surroundings(vocabulary), *vocabulary.flat)
        return self.clip.encode_words(words, read_templates(self.config.templates))

    def _surroundings(self, vocabulary: Vocabulary) -> tuple[str, ...]:
        """Return the words for the background, but those that stand for a class; none where the vocabulary has them."""
        if not self._has_background(vocabulary) or BACKGROUND in vocabulary.words:
            return ()
        return tuple(word for word in self.config.background_words if vocabulary.find(word) is None)

    def _has_background(self, vocabulary: Vocabulary) -> bool:
        return self.config.has_background(sum(name != BACKGROUND for name in vocabulary.classes))

    @property
    def _floor(self) -> float:
        """The least probability of the background."""
        return self.config.prob_threshold

    def _axes(self, h: int, w: int) -> tuple[Axis, Axis]:
        rows, columns = (along(side, self.config.crop, self.config.stride) for side in (h, w))
        multiple = self.multiple or self.clip.patch
        return (rows.padded(multiple), columns.padded(multiple)) if self.fills else (rows, columns)

    def _encode(self, pictures: Sequence[Tensor], on_step: OnStep) -> list[Encoded]:
        """Return what ``encode`` gives for the windows of each picture; those of one size go through together."""
        shapes = dict.fromkeys(windows.shape[1:] for windows in pictures)
        found: dict[int, Encoded] = {}
        done, total = 0, sum(map(len, pictures))
        for shape in shapes:
            members = [index for index, windows in enumerate(pictures) if windows.shape[1:] == shape]
            together = torch.cat([pictures[index] for index in members])
            parts = []
            tokens = TOKENS_AT_ONCE if together.device.type == "cpu" else ON_A_GPU
            for some in torch.split(together, max(1, tokens * self.cell**2 // (shape[1] * shape[2]))):
                on_step("windows", done, total)
                parts.append(self.encode(some))
                done += len(some)
            whole = [torch.cat(tensors) for tensors in zip(*parts, strict=True)]
            counts = [len(pictures[index]) for index in members]
            found |= dict(
                zip(members, zip(*(torch.split(tensor, counts) for tensor in whole), strict=True), strict=True)
            )
        return [found[index] for index in range(len(pictures))]

    def _over(
        self, encoded: Encoded, queries: Queries, axes: tuple[Axis, Axis], size: tuple[int, ...]
    ) -> Float[Tensor, "query h w"]:
        """Return what ``compare`` gives for windows, spread over their picture."""
        return self._spread(raster(self.compare(encoded, queries), len(axes[1].starts)), *axes, size)

    def _maps(
        self, encoded: Encoded, queries: Queries, axes: tuple[Axis, Axis], vocabulary: Vocabulary, photo: RGB
    ) -> WindowMaps:
        rows, columns = axes
        windows = raster(self._channels(encoded, queries, vocabulary), len(columns.starts))
        own = windows[len(windows) - len(vocabulary.flat) :]
        grid = tuple(max(1, axis.length // self.cell) for axis in axes)
        maps = self._spread(own, rows, columns, grid)
        return WindowMaps(maps, vocabulary, windows=windows, rows=rows, columns=columns, photo=photo)

    def _channels(self, encoded: Encoded, queries: Queries, vocabulary: Vocabulary) -> Float[Tensor, "b ch gh gw"]:
        """Return the channels of the background, then those of the words of the vocabulary."""
        return self.compare(encoded, queries)

    def _spread(
        self, windows: Float[Tensor, "query _ _"], rows: Axis, columns: Axis, size: tuple[int, ...]
    ) -> Float[Tensor, "query h w"]:
        down, right = self._matrices(windows, rows, columns, size)
        return down @ (windows @ right.T)

    def _matrices(
        self, windows: Float[Tensor, "query _ _"], rows: Axis, columns: Axis, size: tuple[int, ...]
    ) -> tuple[Tensor, ...]:
        return tuple(
            axis.spread(cells // len(axis.starts), side, direct=self.direct and not self.config.crop).to(windows)
            for axis, cells, side in zip((rows, columns), windows.shape[1:], size, strict=True)
        )

    def _probabilities(self, maps: WindowMaps, size: tuple[int, int]) -> Float[Tensor, "ch h w"]:
        """Return the softmax over the words; the background, where there is one, has the largest of its own words."""
        vocabulary, windows = maps.vocabulary, maps.windows
        background, own = self._has_background(vocabulary), len(windows) - len(vocabulary.flat)
        scores = windows.new_empty(background + len(vocabulary.flat), *size)
        scores[:background] = 0
        for part, logits in self._strips(maps, size):
            shares = self._shares(logits)
            scores[int(background) :, part] = shares[own:]
            if own:
                scores[0, part] = shares[:own].amax(0)
        return scores

    def _shares(self, logits: Float[Tensor, "query h w"]) -> Float[Tensor, "query h w"]:
        """Return the probability of each query; ``logits`` are written to, so that no further memory is needed."""
        return torch.softmax(logits.mul_(self.config.logit_scale), 0, out=logits)

    def _strips(self, maps: WindowMaps, size: tuple[int, int]) -> Iterable[tuple[slice, Float[Tensor, "query _ w"]]]:
        """Yield strips of rows with their logits, which may be written to."""
        h, w = size
        down, right = self._matrices(maps.windows, maps.rows, maps.columns, size)
        wide = maps.windows @ right.T
        if "pamr" in self.config.refiners:
            colour = interpolate(self.prepare(maps.photo)[None], size=size, mode="bilinear")
            iterations = self.config.pamr_iterations
            yield slice(0, h), diffuse((down @ wide)[None], colour, iterations, PAMR_DILATIONS)[0]
            return
        step = max(1, VALUES_AT_ONCE // (len(wide) * w))
        for first in range(0, h, step):
            part = slice(first, min(first + step, h))
            yield part, down[part] @ wide


def drop_small(scores: Float[Tensor, "ch h w"], vocabulary: Vocabulary, share: float) -> None:
    """Set the scores of a class to 0 that is the best on at most this share of what is not background.

    The first channel is the background, those of the words follow.
    """
    of_channel = torch.tensor(owners(vocabulary, True), device=scores.device)
    areas = torch.bincount(of_channel[scores.max(0).indices].ravel(), minlength=len(vocabulary.classes) + 1)
    small = areas <= share * areas[1:].sum()
    small[0] = False
    scores[small[of_channel]] = 0


def owners(vocabulary: Vocabulary, background: bool) -> list[int]:
    """Return the number of each channel's class, from 1; of the background, where there is one, and its words 0."""
    numbers = {name: number for number, name in enumerate(vocabulary.classes, start=1)}
    if background:
        numbers[BACKGROUND] = 0
    return [*[0] * background, *(numbers[name] for name, words in vocabulary.words.items() for _ in words)]


def eight_bit(clip: DualEncoder) -> tuple[Sequence[float], Sequence[float]]:
    """Return mean and deviation of the checkpoint's pixels, from 0 to 255, with three digits as the methods do."""
    return [round(255 * value, 3) for value in clip.mean], [round(255 * value, 3) for value in clip.std]


@cache
def template_sets() -> tuple[str, ...]:
    """Return the names of the sets of templates that ship."""
    return tuple(sorted(path.stem for path in TEMPLATES.glob("*.txt")))


@cache
def read_templates(names: tuple[str, ...]) -> tuple[str, ...]:
    """Return the templates of these sets; a text with braces is one itself."""
    return tuple(
        template for name in names for template in ([name] if "{}" in name else read_lines(TEMPLATES / f"{name}.txt"))
    )


def presets(start: ClipConfig, **changes: dict[str, Any]) -> dict[str, ClipConfig]:
    """Return settings by name, each a few changes from ``start``."""
    return {name: start.override(values) for name, values in changes.items()}


def _knows_few(model: str | Path, revision: str | None) -> bool:
    known = SHORT_NAMES.get(str(model))
    folder = find_folder(known.source if known else model, revision)
    return folder is not None and bool(read_settings(folder / "config.json", str(model)).get("known_classes"))
