"""What a candidate earns on photos: their class maps, refined as it says, as CLIP sees them."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int

from pnp_ovss.config import Config
from pnp_ovss.refine import refine
from pnp_ovss.tuning.judge import Judge
from pnp_ovss.tuning.maps import MapCache
from pnp_ovss.tuning.space import Candidate
from pnp_ovss.types import RGB

__all__ = ["Example", "Objective", "masks"]


@dataclass(frozen=True)
class Example:
    """A photo to tune on, read when it is needed, and the classes it is said to show."""

    key: str
    photo: Callable[[], RGB]
    classes: tuple[str, ...]


@dataclass(frozen=True)
class Objective:
    """The reward of candidates on the examples, with ``config`` for all settings that a candidate leaves open."""

    maps: MapCache
    judge: Judge
    examples: Sequence[Example]
    config: Config

    def look(self) -> Iterator[None]:
        """Look at every photo that is not in the cache yet, one at a step."""
        for example in self.examples:
            self.maps(example.photo(), example.classes)
            yield

    def __call__(self, candidate: Candidate) -> Iterator[Float[np.ndarray, " cls"]]:
        """Yield what each class's mask is worth, photo by photo, in the order of the examples."""
        for example in self.examples:
            photo = example.photo()
            yield self.judge(photo, self.masks(photo, example, candidate), example.classes)

    def masks(self, photo: RGB, example: Example, candidate: Candidate) -> Bool[np.ndarray, "cls h w"]:
        """Return the mask of each class, as the candidate's settings find it."""
        found = self.maps(photo, example.classes).at(candidate.layer, candidate.head)
        labels, _ = refine(found, torch.from_numpy(photo), candidate.settings(self.config))
        return masks(labels.numpy(), len(example.classes), self.config.has_background(len(example.classes)))


def masks(labels: Int[np.ndarray, "h w"], classes: int, background: bool) -> Bool[np.ndarray, "cls h w"]:
    """Return the mask of each class of a label map, whose label 0 is the background if there is one."""
    found: Bool[np.ndarray, "cls h w"] = labels[None] == (np.arange(classes) + int(background))[:, None, None]
    return found
