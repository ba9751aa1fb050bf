"""Reading a checkpoint folder in the Hugging Face layout: weights, tokenizer, normalisation of the pixels."""

import pickle
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging as transformers_logging

from pnp_ovss.errors import InputError, ModelError, one_line
from pnp_ovss.models.hub import Checkpoint, quiet, read_json, weight_files
from pnp_ovss.types import RGB

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
        raise ModelError(
            f"device {name!r} cannot be used here; use auto, cpu, or cuda:0 where there is a GPU"
        ) from error


def resolve_dtype(name: str, device: torch.device) -> torch.dtype:
    """Return the dtype of this name; "auto" is bfloat16 on CUDA, else float32.

    Raises: ModelError if there is none.
    """
    if name == "auto":
        return torch.bfloat16 if device.type == "cuda" else torch.float32
    if name not in DTYPES:
        raise ModelError(f"expected dtype auto, {', '.join(DTYPES)}, got {name!r}")
    return DTYPES[name]


@dataclass(frozen=True)
class Normalisation:
    """Mean and standard deviation per RGB channel, of values in [0, 1], that a checkpoint was trained with."""

    mean: tuple[float, ...] = (0.48145466, 0.4578275, 0.40821073)  # CLIP's, which BLIP took over
    std: tuple[float, ...] = (0.26862954, 0.26130258, 0.27577711)

    def of(self, folder: Path, name: str) -> "Normalisation":
        """Return the numbers of the folder's ``preprocessor_config.json``; where it has none, these.

        Raises: ModelError if they are not three each, or a deviation is not positive.
        """
        path = folder / "preprocessor_config.json"
        stored = read_json(path, name) if path.exists() else {}
        mean, std = stored.get("image_mean") or self.mean, stored.get("image_std") or self.std
        if not len(mean) == len(std) == 3 or min(std) <= 0:
            reason = f"expected three numbers for image_mean and three above 0 for image_std, got {mean} and {std}"
            raise ModelError(f"{name}: {reason} in {path.name}; fetch the checkpoint again")
        return Normalisation(tuple(map(float, mean)), tuple(map(float, std)))

    def __call__(self, image: RGB, size: int) -> Float[Tensor, "3 size size"]:
        """Return the photo squeezed to a square by bicubic interpolation, and normalised; float32."""
        square = np.asarray(Image.fromarray(image).resize((size, size), Image.Resampling.BICUBIC), dtype=np.float32)
        normalised = (square / 255 - np.asarray(self.mean, np.float32)) / np.asarray(self.std, np.float32)
        return torch.from_numpy(normalised).permute(2, 0, 1).contiguous()


class Pretrained:
    """A checkpoint in memory. ``dtype`` and ``device``: as ``resolve_dtype`` and ``resolve_device`` read them."""

    model_class: type[PreTrainedModel]
    """The class of transformers that holds all weights needed."""
    normalisation = Normalisation()
    """That of checkpoints that do not say theirs."""
    for_any_name = "use --model blip-large-flickr"
    """Advice where a name is not ``known``."""

    def __init__(self, checkpoint: Checkpoint, device: str, dtype: str) -> None:
        folder, self.name, self.revision = checkpoint.folder, checkpoint.name, checkpoint.revision
        self.device = resolve_device(device)
        model = load_model(self.model_class, folder, self.name, resolve_dtype(dtype, self.device))
        self._model: Any = model.to(self.device)
        self._tokenizer = load_tokenizer(folder, self.name)
        self._normalise = self.normalisation.of(folder, self.name)
        known = getattr(self._model.config, "known_classes", None)
        self.known: tuple[str, ...] | None = tuple(known) if known else None
        """Names that the model can know, where these are few; None: any name."""

    def check_known(self, names: Sequence[str]) -> None:
        """Raise InputError for the first name that the model cannot know."""
        for name in names:
            if self.known is not None and name.casefold() not in self.known:
                known = f"it knows {', '.join(self.known)}"
                raise InputError(
                    f"{self.name} cannot know {name!r}; {known}. For photos and any other name {self.for_any_name}"
                )


def load_model(model_class: type[PreTrainedModel], folder: Path, name: str, dtype: torch.dtype) -> Any:
    """Return the model of a folder in evaluation mode, its weights without gradients.

    Raises: ModelError if a weight is missing (transformers would fill it with random numbers), has another shape than
    ``config.json`` asks for, or cannot be read.
    """
    weights = read_weights(folder, name)
    settings = read_json(folder / "config.json", name)
    config_class: Any = model_class.config_class
    try:
        with quiet(), _without_bars():
            # The folder itself never reaches transformers, which would take adapters, other files or kernels that
            # config.json or a file beside it names.
            loaded: Any = model_class.from_pretrained(
                None,
                config=config_class.from_dict(settings),
                state_dict=weights,
                dtype=dtype,
                attn_implementation="eager",
                ignore_mismatched_sizes=True,
                output_loading_info=True,
            )
    except Exception as error:  # whatever a config.json with wrong values makes of transformers and torch
        reason = f"config.json does not describe a {model_class.__name__} ({one_line(error)})"
        raise ModelError(f"{name}: {reason}; fetch the checkpoint again") from error
    model, report = loaded
    _check_complete(report, name)
    return model.eval().requires_grad_(False)


def read_weights(folder: Path, name: str) -> dict[str, Tensor]:
    """Return a folder's weights by name. ``.bin`` is unpickled with ``weights_only=True`` and in no other way.

    Raises: ModelError if they cannot be read, or are more than tensors by name.
    """
    weights: dict[str, Tensor] = {}
    for path in weight_files(folder, name):
        try:
            stored = _read_tensors(path)
        except pickle.UnpicklingError as error:
            reason = f"{path.name} holds more than weights and was not unpickled, for that can run code"
            raise ModelError(f"{name}: {reason}; take a checkpoint with model.safetensors") from error
        except Exception as error:  # the readers raise anything over damaged files
            raise ModelError(f"{name}: {path.name} cannot be read ({one_line(error)}); fetch it again") from error
        if not isinstance(stored, dict) or not all(isinstance(tensor, Tensor) for tensor in stored.values()):
            raise ModelError(f"{name}: expected tensors by name in {path.name}; take a checkpoint of transformers'")
        weights |= stored
    return weights


def load_tokenizer(folder: Path, name: str) -> PreTrainedTokenizerBase:
    """Return the folder's fast tokenizer, which knows where each token stands in the text.

    Raises: ModelError if there is none.
    """
    if not any((folder / file).is_file() for file in ("tokenizer.json", "vocab.txt")):
        # transformers would make one that knows no word.
        raise ModelError(f"{name}: expected a tokenizer.json, got no tokenizer; fetch the checkpoint again")
    try:
        with quiet():
            tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # the reader of tokenizer.json raises bare Exceptions
        raise ModelError(f"{name}: the tokenizer cannot be read ({one_line(error)}); fetch it again") from error
    return tokenizer


@quiet()
def _read_tensors(path: Path) -> Any:
    if path.suffix == ".safetensors":
        return load_file(path)
    return torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))


@contextmanager
def _without_bars() -> Iterator[None]:
    enabled = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        if enabled:
            transformers_logging.enable_progress_bar()  # type: ignore[no-untyped-call]


def _check_complete(report: dict[str, Any], name: str) -> None:
    missing = sorted(report["missing_keys"])
    if missing:
        example = "take a whole one with its image-text-matching head, such as blip-large-flickr"
        raise ModelError(f"{name}: the checkpoint lacks {_some(missing)}; {example}")
    other = [f"{key} ({tuple(got)}, not {tuple(asked)})" for key, got, asked in sorted(report["mismatched_keys"])]
    if other:
        reason = f"the weights have other shapes than config.json asks for: {_some(other)}"
        raise ModelError(f"{name}: {reason}; fetch the checkpoint again, all files from one place")


def _some(names: list[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more
