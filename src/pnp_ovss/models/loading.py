"""Reading a checkpoint folder in the Hugging Face layout: weights, tokenizer, pixel normalisation."""

import json
import logging
import pickle
import re
import warnings
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars  # type: ignore[attr-defined]
from jaxtyping import Float
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging as transformers_logging

from pnp_ovss.errors import ModelError, one_line
from pnp_ovss.models.hub import weight_files
from pnp_ovss.types import RGB


def load_model(model_class: type[PreTrainedModel], folder: Path, name: str, dtype: torch.dtype) -> Any:
    """Return the model of a folder in evaluation mode, its weights without gradients.

    Raises: ModelError if a weight is missing (transformers would fill it with random numbers), has another shape than
    ``config.json`` asks for, or cannot be read.
    """
    weights = read_weights(folder, name)
    settings = read_json(folder / "config.json", name)
    config_class: Any = model_class.config_class
    try:
        with _quiet():
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
        raise ModelError(
            f"{name}: config.json does not describe a {model_class.__name__} ({one_line(error)}); fetch the "
            "checkpoint again"
        ) from error
    model, report = loaded
    _refuse_incomplete(report, name)
    return model.eval().requires_grad_(False)


def read_weights(folder: Path, name: str) -> dict[str, Tensor]:
    """Return a folder's weights by name. ``.bin`` is unpickled with ``weights_only=True`` and in no other way.

    Raises: ModelError if they cannot be read, or are more than tensors by name.
    """
    weights: dict[str, Tensor] = {}
    for path in weight_files(folder, name):
        try:
            with _quiet():
                stored = _read_tensors(path)
        except Exception as error:  # the readers raise anything over damaged files
            raise ModelError(f"{name}: {path.name} {_fault(error)}") from error
        if not isinstance(stored, dict) or not all(isinstance(tensor, Tensor) for tensor in stored.values()):
            raise ModelError(f"{name}: {path.name} holds no weights by name; a transformers checkpoint is wanted")
        weights |= stored
    return weights


def _read_tensors(path: Path) -> Any:
    if path.suffix == ".safetensors":
        return load_file(path)
    return torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))


def load_tokenizer(folder: Path, name: str) -> PreTrainedTokenizerBase:
    """Return the folder's fast tokenizer, which knows where each token stands in the text.

    Raises: ModelError if there is none.
    """
    if not any((folder / file).is_file() for file in ("tokenizer.json", "vocab.txt")):
        # transformers would make one that knows no word.
        raise ModelError(f"{name}: the checkpoint holds no tokenizer; tokenizer.json is wanted")
    try:
        with _quiet():
            tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # the reader of tokenizer.json raises bare Exceptions
        raise ModelError(
            f"{name}: the tokenizer cannot be read ({one_line(error)}); fetch the checkpoint again"
        ) from error
    if not tokenizer.is_fast:
        raise ModelError(f"{name}: the tokenizer gives no character offsets; a folder with tokenizer.json is wanted")
    return tokenizer


def read_json(path: Path, name: str) -> dict[str, Any]:
    """Return the settings a file of the folder holds.

    Raises: ModelError if it cannot be read as a JSON object.
    """
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(
            f"{name}: {path.name} cannot be read ({one_line(error)}); fetch the checkpoint again"
        ) from error
    if not isinstance(stored, dict):
        raise ModelError(f"{name}: {path.name} holds no settings by name; fetch the checkpoint again")
    return stored


@dataclass(frozen=True)
class Preparation:
    """How a checkpoint wants its pixels: mean and standard deviation per RGB channel, of values in [0, 1]."""

    mean: tuple[float, float, float] = (0.48145466, 0.4578275, 0.40821073)  # CLIP's, which BLIP took over
    std: tuple[float, float, float] = (0.26862954, 0.26130258, 0.27577711)

    @classmethod
    def from_folder(cls, folder: Path, family: "Preparation | None" = None) -> "Preparation":
        """Return the numbers of ``preprocessor_config.json``, or those of the ``family`` (CLIP's) where it has none.

        Raises: ModelError if they are not three numbers each, or a deviation is not positive.
        """
        path = folder / "preprocessor_config.json"
        stored = read_json(path, str(folder)) if path.exists() else {}
        family = family or cls()
        mean, std = stored.get("image_mean") or family.mean, stored.get("image_std") or family.std
        for key, values, least in (("image_mean", mean, -1e6), ("image_std", std, 1e-6)):
            if not _are_three(values, least, 1e6):
                raise ModelError(
                    f"{folder}: {key} of preprocessor_config.json is {one_line(values)}; three numbers are wanted, one "
                    "per colour channel, and deviations above 0"
                )
        return cls(_floats(mean), _floats(std))

    def __call__(self, image: RGB, size: int) -> Float[Tensor, "3 size size"]:
        """Return the photo squeezed to a square by bicubic interpolation, and normalised; float32."""
        square = np.asarray(Image.fromarray(image).resize((size, size), Image.Resampling.BICUBIC), dtype=np.float32)
        normalised = (square / 255 - np.asarray(self.mean, np.float32)) / np.asarray(self.std, np.float32)
        return torch.from_numpy(normalised).permute(2, 0, 1).contiguous()


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep reports, bars and warnings of the readers off the screen: what matters in them becomes a ModelError."""
    verbosity, bar = transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()
    hub_bars_off = are_progress_bars_disabled()  # transformers switches these with its own
    transformers_logging.set_verbosity(logging.CRITICAL)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
        try:
            yield
        finally:
            transformers_logging.set_verbosity(verbosity)
            if bar:
                transformers_logging.enable_progress_bar()  # type: ignore[no-untyped-call]
            if hub_bars_off:
                disable_progress_bars()


def _refuse_incomplete(report: dict[str, Any], name: str) -> None:
    lacking = sorted(report["missing_keys"])
    if lacking:
        raise ModelError(
            f"{name}: the checkpoint lacks {_some(lacking)}; a whole checkpoint with an image-text-matching head is "
            "wanted, such as blip-large-flickr"
        )
    other = [f"{key} ({tuple(came)}, not {tuple(asked)})" for key, came, asked in sorted(report["mismatched_keys"])]
    if other:
        raise ModelError(
            f"{name}: the weights have other shapes than config.json asks for: {_some(other)}; fetch the checkpoint "
            "again, all files from one place"
        )


def _some(names: list[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more


def _fault(error: Exception) -> str:
    """Return what is wrong with a file of weights, and what to do."""
    if not isinstance(error, pickle.UnpicklingError):
        return f"cannot be read ({one_line(error)}); fetch the checkpoint again"
    asked = re.search(r"GLOBAL (\S+)", str(error))
    what = f" (it asks for {one_line(asked[1])})" if asked else ""
    return (
        f"holds something other than weights{what} and was not unpickled, for that can run code; fetch it again, or "
        "take a checkpoint with model.safetensors"
    )


def _are_three(values: Any, least: float, most: float) -> bool:
    if not isinstance(values, list | tuple) or len(values) != 3:
        return False
    return all(isinstance(value, int | float) and least <= value <= most for value in values)


def _floats(values: Any) -> tuple[float, float, float]:
    red, green, blue = map(float, values)
    return red, green, blue
