"""What a method is: photos and words become class maps, and class maps become scores per pixel."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from pnp_ovss.settings import Settings
from pnp_ovss.types import ClassMaps, OnStep, Photos, Vocabulary, ignore


@runtime_checkable
class Method(Protocol):
    """A way to find classes in photos. Everything before and after it is shared.

    A method with a ``backbone``, a ``Pretrained`` that compares names with photos, is asked as well how likely a photo
    shows a class, and which photos the model knows.
    """

    name: str
    """Its key in ``METHODS``."""
    model: str
    """The checkpoint: short name, hub id or folder."""
    revision: str
    """What the checkpoint's files were: a commit, or a digest of a local folder."""
    config: Any
    """Its settings, with those of the refiners: a child of ``RefinementSettings``."""
    device: torch.device
    """Where it computes."""

    def class_maps(
        self, images: Photos, vocabularies: Sequence[Vocabulary], on_step: OnStep = ignore
    ) -> list[ClassMaps]:
        """Return a map per word of each photo's vocabulary, on the method's own grid.

        Raises: InputError if a class name cannot be used.
        """

    def scores(self, maps: ClassMaps, size: tuple[int, int]) -> Float[Tensor, "ch h w"]:
        """Return scores at ``size`` = (h, w): the background, where the settings have one, then a channel per word."""


@dataclass(frozen=True)
class MethodInfo:
    """A line of ``METHODS``."""

    about: str
    checkpoint: str
    """The model it takes where none is named."""
    source: str
    """Paper or code."""
    config: type[Settings]
    """The class of its settings; each field is a flag of the command line."""
    load: Callable[..., Method]
    """(model, device, dtype, revision, preset, **settings) -> the method."""
    resolve_config: Callable[..., Any]
    """(model, preset, revision, **settings) -> its settings; nothing is fetched."""
    presets: Mapping[str, Settings] = field(default_factory=dict)
    """Settings by name."""
    mini: str | None = None
    """The shipped model that it takes for drawn scenes where none is named."""
