"""Checkpoints from release pages: files of torch, for which there is no hub and, in transformers, no class.

``releases.csv`` says where each one lies and under which licence. A file is unpickled with ``weights_only=True``
alone, once: it becomes safetensors beside it.
"""

import builtins
import pickle
from collections.abc import Mapping
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save
from torch import Tensor
from torch.serialization import get_unsafe_globals_in_checkpoint, safe_globals

from pnp_ovss.errors import InputError, ModelError
from pnp_ovss.files import write_bytes
from pnp_ovss.models.blocks import Weights
from pnp_ovss.models.clip import DualEncoder
from pnp_ovss.models.hub import LOCAL, digest, fetch_tokenizer, read_settings, reading
from pnp_ovss.models.loading import load_tokenizer, resolve_device, resolve_dtype
from pnp_ovss.models.releases import RELEASES, not_for_commerce

CONFIGURATIONS = ("omegaconf", "typing", "collections", "yacs", "argparse", "addict")
"""Modules of which training scripts leave settings in a checkpoint."""
SAFE = "model.safetensors"


class Released(DualEncoder):
    """A released checkpoint: its file, or a folder with ``model.safetensors``, a tokenizer and perhaps ``config.json``.

    Sizes are those of its tensors. ``config.json`` may say ``heads`` and ``text_heads``, which no tensor shows.
    """

    kind: str
    """Its name in ``RELEASES``."""
    flag = "model"
    """What names it on the command line."""

    def __init__(self, name: str | Path, device: str, dtype: str) -> None:
        place = Path(name).expanduser()
        self.name, self._folder = str(name), place if place.is_dir() else Path()
        self.device = resolve_device(device)
        self.dtype = resolve_dtype(dtype, self.device)
        self.known, self.calibration, self._vectors = None, {}, {}
        weights, settings, self.revision = open_released(self.kind, name, self.device, self.dtype, self.flag)
        with reading(self.name, f"the file holds no {self.kind}"):
            self._build(weights, settings)

    def _build(self, weights: Weights, settings: Mapping[str, Any]) -> None:
        """Set ``size``, ``patch``, ``scale``, ``longest``, and what encoding needs."""
        raise NotImplementedError

    @property
    def has_tokenizer(self) -> bool:
        """Whether texts can be read: always, as the tokenizer is fetched where the folder has none."""
        return True

    @cached_property
    def _tokenizer(self) -> Any:
        own = self._folder if super().has_tokenizer else fetch_tokenizer(RELEASES[self.kind].tokenizer)
        return load_tokenizer(own, self.name)


def open_released(
    kind: str, name: str | Path, device: torch.device, dtype: torch.dtype, flag: str = "model", start: str = ""
) -> tuple[Weights, dict[str, Any], str]:
    """Return the floats of a release whose names begin with ``start``, its ``config.json`` if any, and its revision.

    Raises: ModelError as ``find_file`` and ``read_released``.
    """
    file, config = find_file(kind, name, flag), Path(name).expanduser() / "config.json"
    tensors = {key: one for key, one in read_released(file, str(name)).items() if key.startswith(start)}
    floats = {key: one.to(device, dtype) for key, one in tensors.items() if one.is_floating_point()}
    return Weights(floats), read_settings(config, str(name)) if config.is_file() else {}, revision(file)


def find_file(kind: str, name: str | Path, flag: str = "model") -> Path:
    """Return the file of a release by its path or its folder's, and say its licence. Raises: ModelError if none."""
    release, place = RELEASES[kind], Path(name).expanduser()
    inside = place / release.file
    file = place if not place.is_dir() else inside if inside.is_file() else place / SAFE
    if not file.is_file():
        what = f"expected {release.file}, or a folder with it or with {SAFE}"
        raise ModelError(f"{name}: {what}, got neither; fetch it from {release.where} and name it with --{flag}")
    if release.commercial != "yes":
        not_for_commerce(kind, release.licence)
    return file


def revision(file: Path) -> str:
    """Return ``"local-"`` and the first digits of the file's SHA-256."""
    return LOCAL + digest((file, file.stat().st_size, file.stat().st_mtime_ns))


def read_released(path: Path, name: str) -> dict[str, Tensor]:
    """Return the tensors of a released file by name, from the safetensors beside it where they are not older.

    Settings of a training script that lie beside the tensors are read as objects that can do nothing, and left out.

    Raises: ModelError if it cannot be read, or holds anything that could run code.
    """
    safe = path.with_suffix(".safetensors")
    with reading(name, f"{path.name} cannot be read"):
        if path == safe or (safe.is_file() and safe.stat().st_mtime >= path.stat().st_mtime):
            return load_file(safe)
        inert: list[Any] = [
            (type("Inert", (), {"__init__": _nothing, "__setstate__": _nothing}), one) for one in _foreign(path)
        ]
        try:
            with safe_globals(inert):
                stored = torch.load(path, map_location="cpu", weights_only=True)
        except pickle.UnpicklingError as error:
            raise ModelError(f"{name}: {path.name} holds more than weights and settings; take the release's") from error
        except RuntimeError as error:
            if "TorchScript" in str(error):
                advice = "it is a program in TorchScript, which is not run; take the weights alone, as safetensors"
                raise ModelError(f"{name}: {path.name} cannot be read: {advice}") from error
            raise
    for key in ("model", "state_dict"):
        stored = stored[key] if isinstance(stored, dict) and isinstance(stored.get(key), dict) else stored
    if not isinstance(stored, dict):
        raise ModelError(f"{name}: expected tensors by name in {path.name}, got something else")
    named = ((str(key).removeprefix("module."), one) for key, one in stored.items())
    tensors = {key: one.clone().contiguous() for key, one in named if isinstance(one, Tensor)}
    with suppress(InputError):  # a folder that cannot be written to is read anew each time
        write_bytes(safe, save(tensors))
    return tensors


def _foreign(path: Path) -> list[str]:
    """Return the names in a file that are no tensors' and belong to settings. Raises: ModelError for any other name."""
    with suppress(ValueError, RuntimeError):  # no zip file: torch unpickles it without any
        names = get_unsafe_globals_in_checkpoint(path)
        for one in names:
            module, _, last = one.rpartition(".")
            plain = module == "builtins" and isinstance(getattr(builtins, last, None), type)
            if not plain and module.split(".")[0] not in CONFIGURATIONS:
                raise ModelError(f"{path.name} holds {one}, which could run code; take the release's own file")
        return names
    return []


def _nothing(self: Any, *values: Any, **named: Any) -> None:
    pass
