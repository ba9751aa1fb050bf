"""Reading a checkpoint folder in the Hugging Face layout: weights, tokenizer, pixel normalisation."""

import json
import logging
import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from safetensors import SafetensorError
from torch import Tensor
from transformers import AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging as transformers_logging

from pnp_ovss.errors import ModelError
from pnp_ovss.types import RGB


def load_model(model_class: type[PreTrainedModel], folder: Path, name: str, dtype: torch.dtype) -> Any:
    """Return the model of a folder in evaluation mode, its weights without gradients.

    ``.bin`` files are unpickled with ``weights_only=True`` and in no other way.

    Raises: ModelError if a weight is missing (transformers would fill it with random numbers) or cannot be read.
    """
    try:
        with _quiet():
            loaded: Any = model_class.from_pretrained(
                folder, dtype=dtype, local_files_only=True, weights_only=True, output_loading_info=True
            )
    except (OSError, ValueError, RuntimeError, KeyError, pickle.UnpicklingError, SafetensorError) as error:
        raise ModelError(
            f"{name}: the weights cannot be read ({_first_line(error)}); fetch the checkpoint again"
        ) from error
    model, report = loaded
    missing = sorted(report["missing_keys"]) + sorted(str(key) for key in report["mismatched_keys"])
    if missing:
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        raise ModelError(
            f"{name}: the checkpoint lacks {', '.join(missing[:3])}{more}; a checkpoint with an "
            "image-text-matching head is wanted, such as blip-large-flickr"
        )
    return model.eval().requires_grad_(False)


def load_tokenizer(folder: Path, name: str) -> PreTrainedTokenizerBase:
    """Return the folder's fast tokenizer, which knows where each token stands in the text.

    Raises: ModelError if there is none.
    """
    try:
        with _quiet():
            tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, ImportError) as error:
        raise ModelError(
            f"{name}: the tokenizer cannot be read ({_first_line(error)}); tokenizer.json is wanted"
        ) from error
    if not tokenizer.is_fast:
        raise ModelError(f"{name}: the tokenizer gives no character offsets; a folder with tokenizer.json is wanted")
    return tokenizer


@dataclass(frozen=True)
class Preparation:
    """How a checkpoint wants its pixels: mean and standard deviation per RGB channel, of values in [0, 1]."""

    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    @classmethod
    def from_folder(cls, folder: Path) -> "Preparation":
        """Return the numbers of ``preprocessor_config.json``, or those of CLIP and BLIP where the file is absent."""
        path = folder / "preprocessor_config.json"
        stored = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        mean = stored.get("image_mean", (0.48145466, 0.4578275, 0.40821073))
        std = stored.get("image_std", (0.26862954, 0.26130258, 0.27577711))
        return cls(tuple(mean), tuple(std))

    def __call__(self, image: RGB, size: int) -> Float[Tensor, "3 size size"]:
        """Return the photo squeezed to a square by bicubic interpolation, and normalised; float32."""
        square = np.asarray(Image.fromarray(image).resize((size, size), Image.Resampling.BICUBIC), dtype=np.float32)
        normalised = (square / 255 - np.asarray(self.mean, np.float32)) / np.asarray(self.std, np.float32)
        return torch.from_numpy(normalised).permute(2, 0, 1).contiguous()


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep transformers' own report and progress bar off the screen: what matters in it becomes a ModelError."""
    verbosity, bar = transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity(logging.CRITICAL)
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        if bar:
            transformers_logging.enable_progress_bar()  # type: ignore[no-untyped-call]


def _first_line(error: BaseException) -> str:
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0][:200]
