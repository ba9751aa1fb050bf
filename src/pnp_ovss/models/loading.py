"""Reading a checkpoint folder in the Hugging Face layout: weights, tokenizer, normalisation of the pixels."""

import os
import pickle
import sys
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cached_property, partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import LayerNorm, Module

from pnp_ovss.cores import usable_cores
from pnp_ovss.errors import ConfigError, InputError, ModelError
from pnp_ovss.models.gpu import Compiled, Graphed, moved_together
from pnp_ovss.models.hub import PAIRS, Checkpoint, read_settings, reading, weight_files
from pnp_ovss.models.int8 import check_int8, to_int8
from pnp_ovss.types import RGB, Photos

TOKENIZERS = (["tokenizer.json"], ["vocab.txt"], PAIRS)
"""Files of which a tokenizer can be made."""

EMBEDDINGS = ("word_embeddings", "token_embedding")
"""End of the name of the module that has a vector per token."""

LEAST_EPSILON = 1e-6
"""Of a LayerNorm in timm's transformers."""
FARTHEST = 1e6
"""No colour is normalised with numbers beyond this, or closer to 0 than its inverse."""

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def resolve_device(name: str) -> torch.device:
    """Return the device of this name; "auto" is CUDA where there is one, else the CPU.

    Raises: ModelError if it cannot be used here.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:
        raise ModelError(f"device {name!r} cannot be used here; give auto or cpu") from error


def resolve_dtype(name: str, device: torch.device, gains: bool = False) -> torch.dtype:
    """Return the dtype of this name.

    "auto" is bfloat16 on CUDA, and for a model that ``gains`` by it on a CPU that computes with it; else float32.

    Raises: ModelError if there is none.
    """
    if name == "auto":
        taken = device.type == "cuda" or (gains and device.type == "cpu" and has_bfloat16())
        return torch.bfloat16 if taken else torch.float32
    if name not in DTYPES:
        raise ModelError(f"expected dtype auto, {', '.join(DTYPES)} or int8, got {name!r}")
    return DTYPES[name]


def has_bfloat16() -> bool:
    """Return whether this CPU computes with bfloat16, not only with what it is converted to."""
    able: Mapping[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()  # torch 2.6 cannot say
    return bool(able.get("avx512_bf16") or able.get("amx_bf16"))


LARGE = 10**8
"""Bytes of weights; smaller models gain nothing by bfloat16 on a CPU."""
MOST, MOST_LAYERS = 1_000_000, 100
"""Numbers in ``config.json``: none is larger, and layers are no more, unless there are as many tensors."""


class Pretrained:
    """A checkpoint in memory. ``dtype`` and ``device``: as ``resolve_dtype`` and ``resolve_device`` read them.

    ``dtype`` may also be "int8": float32, but for the linear layers of ``int8_tower``, on a CPU.
    """

    model_class: str
    """The class of transformers that holds all weights needed, by name: transformers takes seconds to import."""
    model_options: Mapping[str, Any] = {}
    """What it is made with besides its configuration."""
    mean: Sequence[float] = (0.48145466, 0.4578275, 0.40821073)
    std: Sequence[float] = (0.26862954, 0.26130258, 0.27577711)
    """Of each RGB channel in [0, 1], for checkpoints that do not say theirs: CLIP's, which BLIP took over."""
    for_any_name = "use --model blip-large-flickr"
    """Advice where a name is not ``known``."""
    bfloat16_on_cpu: ClassVar[bool] = False
    """Whether bfloat16 is known to leave 99.5 % of the labels equal, so that a CPU may take it by itself."""
    tower: ClassVar[str] = ""
    """Name of the method that is the image tower, which takes most of the time; "": no method is it alone."""
    _prepared: tuple[int, Photos, Tensor] | None = None
    """Size, photos and what became of them, for the call that comes next."""
    int8_tower: ClassVar[str] = ""
    """The part of the model that ``dtype`` "int8" is about: none, but where a family names it."""

    def __init__(self, checkpoint: Checkpoint, device: str, dtype: str) -> None:
        folder, self.name, self.revision = checkpoint.folder, checkpoint.name, checkpoint.revision
        self.device = resolve_device(device)
        gains = self.bfloat16_on_cpu and sum(file.stat().st_size for file in weight_files(folder, self.name)) >= LARGE
        self._int8 = dtype == "int8"
        if self._int8:
            check_int8(self.name, self.int8_tower, self.device)
        dtype_here = resolve_dtype("float32" if self._int8 else dtype, self.device, gains)
        settings = self._mended(read_settings(folder / "config.json", self.name))
        model = load_model(self.model_class, folder, self.name, dtype_here, settings, **self.model_options)
        if self._int8:
            to_int8(model.get_submodule(self.int8_tower))
        self._model: Any = model.to(self.device)
        for module in self._model.modules():
            if hasattr(module, "interpolate_pos_encoding"):
                module.interpolate_pos_encoding = _kept_positions(module.interpolate_pos_encoding)
        self._folder = folder
        modules = self._model.named_modules()
        sizes = (module.num_embeddings for name, module in modules if name.endswith(EMBEDDINGS))
        self._words = next(sizes, 0)
        config = self._model.config
        vision = getattr(config, "vision_config", config)
        self.size: int = vision.image_size
        """Side of the square the checkpoint was made for, in pixels."""
        self.patch: int = vision.patch_size
        """Side of one patch, in pixels."""
        if not all(isinstance(side, int) and side > 0 for side in (self.size, self.patch)):
            got = f"{self.size!r} and {self.patch!r}"
            raise ModelError(f"{self.name}: expected whole numbers of pixels as image_size and patch_size, got {got}")
        known = getattr(config, "known_classes", None) or ()
        if not isinstance(known, list | tuple) or not all(isinstance(name, str) for name in known):
            raise ModelError(f"{self.name}: expected a list of names as known_classes, got {known!r:.40}")
        self.known: tuple[str, ...] | None = tuple(known) or None
        """Names that the model can know, where these are few; None: any name."""
        path = folder / "preprocessor_config.json"
        stored = read_settings(path, self.name) if path.exists() else {}
        self.mean, self.std = stored.get("image_mean") or self.mean, stored.get("image_std") or self.std
        path = folder / "calibration.json"
        self.calibration: dict[str, Any] = read_settings(path, self.name) if path.exists() else {}
        """What its scores mean, where somebody has measured it."""
        if not _are_colours(self.mean, -FARTHEST) or not _are_colours(self.std, 1 / FARTHEST):
            expected = "three numbers for image_mean, and above 0 for image_std"
            raise ModelError(f"{self.name}: expected {expected}, got {self.mean!r:.80} and {self.std!r:.80}")

    def _mended(self, settings: dict[str, Any]) -> dict[str, Any]:
        """Return what ``config.json`` says, put right where it is known to be wrong on the hub."""
        return settings

    def compile_tower(self) -> None:
        """Send images through ``torch.compile`` from now on, on CUDA through CUDA graphs. Raises: ConfigError."""
        if self._int8:
            raise ConfigError(f"{self.name}: int8 cannot be compiled; leave compile out, or give --dtype float32")
        if not self.tower:
            raise ConfigError(f"{self.name} has no image tower that can be compiled; leave compile out")
        run = Graphed if self.device.type == "cuda" else Compiled
        setattr(self, self.tower, run(getattr(self, self.tower)))

    @property
    def has_tokenizer(self) -> bool:
        """Whether texts can be read: a checkpoint of which only images are asked needs no tokenizer."""
        return _has_tokenizer(self._folder)

    @cached_property
    def _tokenizer(self) -> Any:
        """The folder's tokenizer, loaded when a text is read. Raises: ModelError if there is none."""
        return load_tokenizer(self._folder, self.name)

    def check_known(self, names: Sequence[str]) -> None:
        """Raise InputError for the first name that the model cannot know."""
        known = self.known or ()
        for name in names:
            if known and name.casefold() not in known:
                advice = f"For photos and any other name {self.for_any_name}"
                raise InputError(f"{self.name} cannot know {name!r}; it knows {', '.join(known)}. {advice}")

    def tokenize(self, texts: Sequence[str], **how: Any) -> dict[str, Tensor]:
        """Return ``input_ids`` and ``attention_mask`` of texts, padded at the end, and ``offset_mapping`` if asked for.

        Raises: ModelError if the tokenizer cannot do that, or knows tokens that the model does not.
        """
        with reading(self.name, "the tokenizer cannot be used"):
            padded = {"padding": True, "padding_side": "right", "return_tensors": "pt"}
            tokens = self._tokenizer(list(texts), **padded, **how)
            wanted = ["input_ids", "attention_mask", *(["offset_mapping"] if how.get("return_offsets_mapping") else [])]
            found = {name: tokens[name] for name in wanted}
            highest = int(found["input_ids"].max())
            if highest >= self._words:
                raise ValueError(f"it has a token {highest}, and the model {self._words} tokens")
        return found

    def prepare(self, image: RGB, size: int | None = None) -> Float[Tensor, "3 size size"]:
        """Return the photo as the model wants it: squeezed to a square, normalised so that 0 is the mean colour.

        ``size`` is the square's side; None: ``self.size``. Interpolated bicubically, as the authors' code; float32.
        """
        return self._normalised(_squeezed(image, size or self.size)[None])[0]

    def prepare_all(
        self, images: Photos, size: int | None = None, again: bool = False
    ) -> Float[Tensor, "b 3 size size"]:
        """Return what ``prepare`` returns of each photo, on the model's device.

        ``again``: the next call is about the same photos, and gets the same tensor.
        """
        size = size or self.size
        kept, self._prepared = self._prepared, None
        if kept and not again and kept[0] == size and [*map(id, kept[1])] == [*map(id, images)]:
            return kept[2]
        with ThreadPoolExecutor(min(len(images), usable_cores())) as pool:
            squares = list(pool.map(partial(_squeezed, side=size), images))
        pixels = self._normalised(moved_together(squares, self.device))
        self._prepared = (size, [*images], pixels) if again else None
        return pixels

    def _normalised(self, squares: UInt8[Tensor, "b h w 3"]) -> Float[Tensor, "b 3 h w"]:
        mean, std = (squares.new_tensor(values, dtype=torch.float32)[:, None, None] for values in (self.mean, self.std))
        return squares.permute(0, 3, 1, 2).float().div_(255).sub_(mean).div_(std).contiguous()


def raise_epsilon(model: Module) -> None:
    """Give every LayerNorm the epsilon of timm's transformers, if its own is smaller.

    The configurations of DINO and ViLT on the hub have a default of transformers, 1e-12.
    """
    for module in model.modules():
        if isinstance(module, LayerNorm):
            module.eps = max(module.eps, LEAST_EPSILON)


def _squeezed(image: RGB, side: int) -> UInt8[Tensor, "side side 3"]:
    square = Image.fromarray(image).resize((side, side), Image.Resampling.BICUBIC)
    return torch.from_numpy(np.array(square))


def _kept_positions(interpolate: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Return what interpolates position vectors for a size of image, and does so once: on a GPU it takes long."""
    kept = dict[tuple[int, int], Tensor]()

    def positions(embeddings: Tensor, height: int, width: int) -> Tensor:
        if (height, width) not in kept:
            kept[height, width] = interpolate(embeddings, height, width)
        return kept[height, width]

    return positions


def _are_colours(values: Any, least: float) -> bool:
    """Return whether these are a number for each channel, and none below ``least``."""
    numbers = isinstance(values, list | tuple) and all(isinstance(one, int | float) for one in values)
    return numbers and len(values) == 3 and all(least <= one <= FARTHEST for one in values)


def load_model(
    model_class: str,
    folder: Path,
    name: str,
    dtype: torch.dtype,
    settings: dict[str, Any] | None = None,
    **options: Any,
) -> Any:
    """Return the model of a folder in evaluation mode, its weights without gradients.

    ``settings``: None for those of its ``config.json``.

    Raises: ModelError if a weight is missing (transformers would fill it with random numbers), has another shape than
    ``config.json`` asks for, or cannot be read.
    """
    weights = read_weights(folder, name)
    settings = read_settings(folder / "config.json", name) if settings is None else settings
    import transformers

    any_class: Any = getattr(transformers, model_class)
    bars: Any = transformers.utils.logging
    how = {"attn_implementation": "eager", "ignore_mismatched_sizes": True, "output_loading_info": True}
    with reading(name, f"config.json does not describe a {model_class}"):
        # The folder itself never reaches transformers, which would take adapters, other files or kernels that
        # config.json or a file beside it names.
        _check_numbers(settings, len(weights), name)
        config = any_class.config_class.from_dict(settings)
        _check_weights(any_class, config, weights, name)
        enabled = bars.is_progress_bar_enabled()
        bars.disable_progress_bar()
        try:
            model, report = any_class.from_pretrained(
                None, config=config, state_dict=weights, dtype=dtype, **how, **options
            )
        finally:
            if enabled:
                bars.enable_progress_bar()
    lacking = [*report["missing_keys"]]
    lacking += [f"{key} of shape {tuple(asked)}" for key, _, asked in report["mismatched_keys"]]
    if lacking:
        more = f" and {len(lacking) - 3} more" if len(lacking) > 3 else ""
        some = ", ".join(sorted(lacking)[:3]) + more
        raise ModelError(f"{name}: the checkpoint lacks {some}; take a whole one, such as blip-large-flickr")
    return model.eval().requires_grad_(False)


def _check_numbers(settings: Any, tensors: int, name: str, key: str = "") -> None:
    """Raise ModelError for a number of layers that the weights cannot hold, or any number beyond those of models."""
    if isinstance(settings, dict):
        for inner, value in settings.items():
            _check_numbers(value, tensors, name, str(inner))
    elif isinstance(settings, list):
        for value in settings:
            _check_numbers(value, tensors, name, key)
    elif isinstance(settings, int) and abs(settings) > (most := max(MOST_LAYERS, tensors) if "layer" in key else MOST):
        raise ModelError(f"{name}: expected {key} up to {most} in config.json, got {settings:.6g}; fetch it again")


def _check_weights(model_class: Any, config: Any, weights: dict[str, Tensor], name: str) -> None:
    """Raise ModelError if a model has many more parameters than the files hold: transformers would make them up."""
    with torch.device("meta"):
        model = model_class._from_config(config, attn_implementation="eager")
    asked = sum(parameter.numel() for parameter in model.parameters())
    held = sum(tensor.numel() for tensor in weights.values())
    if asked > 2 * held + MOST:
        counts = f"a model of {asked:.3g} parameters, and the files hold {held:.3g}"
        raise ModelError(f"{name}: config.json describes {counts}; fetch the checkpoint again")


def read_weights(folder: Path, name: str) -> dict[str, Tensor]:
    """Return a folder's weights by name. ``.bin`` is unpickled with ``weights_only=True`` and in no other way.

    Raises: ModelError if they cannot be read, or are more than tensors by name.
    """
    weights: dict[str, Tensor] = {}
    for path in weight_files(folder, name):
        with reading(name, f"{path.name} cannot be read"):
            how: dict[str, Any] = {"weights_only": True, "mmap": zipfile.is_zipfile(path)}
            try:
                safe = path.suffix == ".safetensors"
                stored = load_file(path) if safe else torch.load(path, map_location="cpu", **how)
            except pickle.UnpicklingError as error:
                reason = "holds more than weights, and unpickling it can run code"
                raise ModelError(f"{name}: {path.name} {reason}; take one with model.safetensors") from error
        if not isinstance(stored, dict) or not all(isinstance(tensor, Tensor) for tensor in stored.values()):
            raise ModelError(f"{name}: expected tensors by name in {path.name}, got something else")
        weights |= stored
    return weights


def _has_tokenizer(folder: Path) -> bool:
    return any(all((folder / file).is_file() for file in files) for files in TOKENIZERS)


def load_tokenizer(folder: Path, name: str) -> Any:
    """Return the folder's fast tokenizer, which knows where each token stands in the text.

    Raises: ModelError if there is none.
    """
    import transformers

    if not _has_tokenizer(folder):
        # transformers would make one that knows no word.
        raise ModelError(f"{name}: expected a tokenizer.json, got none; fetch it")
    with reading(name, "the tokenizer cannot be read"), _unheard():
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        tokenizer(["a", "a b"])  # where the file is damaged, this may be a panic
        return tokenizer


@contextmanager
def _unheard() -> Iterator[None]:
    """Keep what libraries say by themselves off the screen: a panic in Rust is printed before it is raised."""
    sys.stderr.flush()
    kept, nothing = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nothing)
