"""Names by a score: ``itm``, the model that segments, or ``clip``, a dual encoder, compares names with the photo."""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from pnp_ovss.errors import ConfigError, InputError, ModelError
from pnp_ovss.methods.pnp.prompt import PREFIX, make_prompt
from pnp_ovss.methods.presence import Calibration, fillers, standing_out
from pnp_ovss.models.base import Matcher
from pnp_ovss.models.clip import Clip, load_clip, similarity
from pnp_ovss.naming import NamedClass, Naming, Options
from pnp_ovss.types import RGB, Vocabulary

Scores = Float[Tensor, " name"]


class Scorer:
    """Compares the photo with ``"A picture of NAME"`` for every name; the model is loaded already."""

    kind: str

    def __init__(self, model: Any, calibration: Calibration | None = None) -> None:
        self.source = f"{self.kind} by {model.name}"
        self._model = model
        self._calibration = calibration or Calibration.of(model)

    def __call__(self, image: RGB, candidates: Vocabulary | None, key: str) -> Naming:
        """Return every class of the vocabulary, the surest first. Without one: the names the model can know.

        A class is as sure as the surest of its words.

        Raises: InputError if there is neither.
        """
        candidates = candidates or (Vocabulary.of(self._model.known) if self._model.known else None)
        if not candidates:
            advice = "give one, such as coco-object, or a file"
            raise InputError(f"{self.source} needs a vocabulary to choose from; {advice}")
        by_word = dict(zip(candidates.flat, self.confidences(image, candidates.flat).tolist(), strict=True))
        names = candidates.classes
        confidences = torch.tensor([max(by_word[word] for word in candidates.words[name]) for name in names])
        # Equals stay in order.
        order = torch.argsort(confidences, descending=True, stable=True).tolist()
        return Naming(tuple(NamedClass(names[index], float(confidences[index])) for index in order))

    def confidences(self, image: RGB, names: Sequence[str]) -> Scores:
        """Return how sure the model is of each name, in [0, 1]."""
        return (self._calibration or Calibration())(self.scores(image, names))

    def scores(self, image: RGB, names: Sequence[str]) -> Scores:
        """Return a score for each name, on the CPU; higher is surer."""
        raise NotImplementedError


class Itm(Scorer):
    """Matches by the matching head of the model that segments; the photo is encoded once.

    Without a ``calibration``, that of the model, or else the softmax of the matching head's two logits.
    """

    kind = "itm"

    @classmethod
    def load(cls, options: Options) -> "Itm":
        """Return the namer with the model of the options."""
        if options.vlm is None:
            raise ConfigError("the itm namer needs a model; give one with --model, such as blip-large-flickr")
        return cls(options.vlm())

    def scores(self, image: RGB, names: Sequence[str]) -> Scores:
        """Return the log odds that the photo shows each name, as the matching head sees it."""
        vlm = self._model
        if not isinstance(vlm, Matcher):
            raise ModelError(f"{vlm.name} cannot match many names at once; name with --namer clip, or another model")
        return vlm.match(vlm.prepare(image)[None], [make_prompt([name]) for name in names])[0].cpu()


class ClipNamer(Scorer):
    """Compares by the similarity of a dual encoder.

    Cosines of CLIP lie close together and mean nothing by themselves. With a ``calibration`` they are cut where that
    says; without one, what counts is how far a name stands out, in standard deviations, among the vocabulary and, where
    that is small, common nouns.
    """

    kind = "clip"
    _texts: tuple[tuple[str, ...], Tensor] = ((), torch.empty(0))
    """The names of the last vocabulary and their vectors, as photos mostly share one."""

    @classmethod
    def load(cls, options: Options) -> "ClipNamer":
        """Return the namer with the model of the options."""
        return cls(load_clip(options.model or "clip-base", options.device, options.dtype))

    def confidences(self, image: RGB, names: Sequence[str]) -> Scores:
        """Return how far each name stands out, or its similarity where the model is calibrated, in [0, 1]."""
        if self._calibration is not None:
            return super().confidences(image, names)
        scores = self.scores(image, (*names, *fillers(self._model, names)))
        return standing_out(scores, len(names))

    def scores(self, image: RGB, names: Sequence[str]) -> Scores:
        """Return the similarity of the photo with each name, times the model's own scale."""
        clip: Clip = self._model
        held, vectors = self._texts
        if held != tuple(names):
            clip.check_known(names)
            vectors = clip.encode_texts([PREFIX + name for name in names])
            self._texts = tuple(names), vectors
        photo = clip.encode_images(clip.prepare(image)[None])
        return (clip.scale * similarity(photo, vectors)[0]).cpu()
