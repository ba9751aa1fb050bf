"""Vectors that take long to compute, kept in the user's cache for other processes; what cannot be kept is not."""

from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import Any

from jaxtyping import Float
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from pnp_ovss.errors import InputError
from pnp_ovss.files import as_json, cache_folder, read_bytes, write_bytes


def recall(kind: str, about: Any) -> Float[Tensor, "*shape"] | None:
    """Return the vectors of a kind that were kept for the same ``about``, which JSON can hold; None: there are none."""
    with suppress(InputError, SafetensorError, KeyError):
        return load(read_bytes(_place(kind, about)))["vectors"]
    return None


def keep(kind: str, about: Any, vectors: Float[Tensor, "*shape"]) -> None:
    """Keep vectors."""
    with suppress(InputError):
        write_bytes(_place(kind, about), save({"vectors": vectors.cpu().contiguous()}))


def _place(kind: str, about: Any) -> Path:
    return cache_folder(kind) / f"{sha256(as_json(about)).hexdigest()[:32]}.safetensors"
