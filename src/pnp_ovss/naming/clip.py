"""Names by a dual encoder: a name counts where its similarity to the photo stands out among all names'."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from pnp_ovss.data.vocabulary import class_names
from pnp_ovss.methods.pnp.prompt import PREFIX
from pnp_ovss.models.clip import Clip, load_clip, similarity
from pnp_ovss.naming.base import CALIBRATIONS, Calibration, Naming, Options, names_to_score, ranked
from pnp_ovss.types import RGB, Vocabulary, fold

STANDING_OUT = Calibration(slope=2.0, cut=2.0)
"""For a model nobody has calibrated: a name counts two standard deviations above the mean of the crowd."""
CROWD = 50
"""Names that a similarity is compared with; a smaller vocabulary is filled up with common nouns."""


class ClipNamer:
    """Compares the photo with ``"A picture of NAME"`` for every name.

    Cosines of CLIP lie close together and mean nothing by themselves. With a ``calibration`` they are cut where that
    says; without one, what counts is how far a name stands out, in standard deviations, among the vocabulary and, where
    that is small, common nouns.
    """

    def __init__(self, clip: Clip, calibration: Calibration | None = None) -> None:
        self.source = f"clip by {clip.name}"
        self._clip = clip
        self._calibration = calibration or CALIBRATIONS.get(clip.name)
        self._texts: tuple[tuple[str, ...], Tensor] = ((), torch.empty(0))

    @classmethod
    def load(cls, options: Options) -> "ClipNamer":
        """Return the namer with the model of the options."""
        return cls(load_clip(options.model or "clip-base", options.device, options.dtype))

    def __call__(self, image: RGB, candidates: Vocabulary | None, key: str) -> Naming:
        """Return every name of the vocabulary, the surest first. Without one: the names the model can know."""
        names = names_to_score(candidates, self._clip.known, self.source)
        if self._calibration is not None:
            return ranked(names, self._calibration(self.scores(image, names)))
        scores = self.scores(image, (*names, *fillers(self._clip, names)))
        apart = (scores - scores.mean()) / scores.std().clamp_min(1e-6)
        return ranked(names, STANDING_OUT(apart[: len(names)]))

    def scores(self, image: RGB, names: Sequence[str]) -> Float[Tensor, " name"]:
        """Return the similarity of the photo with each name, times the model's own scale."""
        vector = self._clip.encode_images(self._clip.prepare(image)[None])
        return (self._clip.scale * similarity(vector, self._encoded(tuple(names)))[0]).cpu()

    def _encoded(self, names: tuple[str, ...]) -> Tensor:
        """Return the names' vectors; those of the last vocabulary are kept, as photos mostly share one."""
        held, vectors = self._texts
        if held != names:
            self._clip.check_known(names)
            vectors = self._clip.encode_texts([PREFIX + name for name in names])
            self._texts = names, vectors
        return vectors


def fillers(clip: Clip, names: Sequence[str]) -> tuple[str, ...]:
    """Return what fills the names up to ``CROWD``: names the model knows, where these are few, else common nouns."""
    taken = {fold(name) for name in names}
    others = clip.known or class_names("context")
    return tuple(name for name in others if fold(name) not in taken)[: max(0, CROWD - len(names))]
