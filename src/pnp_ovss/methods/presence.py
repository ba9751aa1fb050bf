"""Whether a photo shows a class at all: the class's name alone, compared with the whole photo.

A matching head or a dual encoder gives a score, a calibration makes a chance of it, and a class whose chance is not
above ``KEEP`` is absent. The calibration of a checkpoint lies beside it, in ``calibration.json``; it is chosen by
``python -m benchmarks.trust``.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import log
from operator import add
from typing import Any, Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from pnp_ovss.data.vocabulary import class_names
from pnp_ovss.errors import ConfigError
from pnp_ovss.methods.pnp.prompt import PREFIX, make_prompt
from pnp_ovss.models.base import Matcher
from pnp_ovss.models.clip import DualEncoder, similarity
from pnp_ovss.types import BACKGROUND, KEEP, Photos, Vocabulary, fold

Present = Literal["auto", "all"]
"""Which of the classes that are asked for get a mask: those that the photo seems to show, or all."""
Scores = Float[Tensor, " name"]
EVEN = log(KEEP / (1 - KEEP))
"""Log odds of ``KEEP``."""


@dataclass(frozen=True)
class Calibration:
    """``chance = sigmoid(slope * (score - cut) + EVEN)``: ``KEEP`` where the score is ``cut``."""

    slope: float = 1.0
    cut: float = EVEN
    """By default, scores are log odds and the chance is their sigmoid."""

    def __call__(self, scores: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """Return the chances, in [0, 1]."""
        return torch.sigmoid(self.slope * (scores - self.cut) + EVEN)

    @classmethod
    def of(cls, model: Any) -> "Calibration | None":
        """Return the calibration that lies beside a checkpoint, or None."""
        values = getattr(model, "calibration", {}).get("presence")
        return cls(**values) if values else None


STANDING_OUT = Calibration(slope=2.0, cut=2.0)
"""For a dual encoder nobody has calibrated: a name counts two standard deviations above the mean of the crowd."""
OTHERS = 8
"""Nouns beside the words of a photo, for a matching head nobody has calibrated."""
CROWD = 50
"""Names that a similarity is compared with; a smaller vocabulary is filled up with common nouns."""


@dataclass(frozen=True)
class Presence:
    """How likely a photo shows each of the classes that are asked for, and which of them get no mask."""

    scores: Mapping[str, float]
    """The chance of each class but the background, in [0, 1], in the order in which they were given."""
    choice: str
    calibrated: bool
    """Whether the chances were fitted to scenes whose classes are known. Else they are what the model says."""
    threshold: float = KEEP

    @property
    def absent(self) -> tuple[str, ...]:
        """The classes without a mask, as their chance is not above the threshold; none where all are taken."""
        low = tuple(name for name, score in self.scores.items() if not score > self.threshold)
        return low if self.choice == "auto" else ()

    def record(self) -> dict[str, Any]:
        """Return what a record says of it."""
        scores = {name: round(score, 6) for name, score in self.scores.items()}
        about = {"choice": self.choice, "threshold": self.threshold, "calibrated": self.calibrated}
        return about | {"scores": scores, "absent": list(self.absent)}

    def present(self, vocabulary: Vocabulary) -> Vocabulary:
        """Return the vocabulary without the absent classes; the background alone is nothing to look for."""
        absent = self.absent
        kept = {name: words for name, words in vocabulary.words.items() if name not in absent}
        return Vocabulary({} if absent and {*kept} <= {BACKGROUND} else kept, vocabulary.name)


def check_present(choice: str) -> None:
    """Raise ConfigError if it is no ``Present``."""
    if choice not in get_args(Present):
        raise ConfigError(f"expected present to be 'auto' or 'all', got {choice!r}; choose one")


def rate_presence(
    model: Any, photos: Photos, vocabularies: Sequence[Vocabulary], choice: str, size: int | None = None
) -> list[Presence] | None:
    """Return the presence of each photo's classes, or None where the model can say nothing of it.

    A class gets the largest chance of its words. ``size``: side of the square the model sees; None: its own.

    Raises: InputError if the model cannot know or read a class.
    """
    if not isinstance(model, Matcher | DualEncoder):
        return None
    asked = [{name: words for name, words in one.words.items() if name != BACKGROUND} for one in vocabularies]
    words = [tuple(word for some in classes.values() for word in some) for classes in asked]
    chances = _match(model, photos, words, size) if isinstance(model, Matcher) else _compare(model, photos, words)
    calibrated, found = Calibration.of(model) is not None, list[Presence]()
    for classes, flat, values in zip(asked, words, chances, strict=True):
        by_word = dict(zip(flat, values.tolist(), strict=True))
        scores = {name: max(by_word[word] for word in some) for name, some in classes.items()}
        found.append(Presence(scores, choice, calibrated))
    return found


def _match(model: Matcher, photos: Photos, words: Sequence[tuple[str, ...]], size: int | None) -> list[Scores]:
    """Return the chances by a matching head.

    Where nobody has calibrated it, a word has to match better than other nouns do: some heads, those of random weights
    among them, find that anything matches.
    """
    calibration = Calibration.of(model)
    pixels = model.prepare_all(photos, size, again=True)
    others = [() if calibration else fillers(model, some, len(some) + OTHERS) for some in words]
    prompts = [[make_prompt([word]) for word in names] for names in map(add, words, others)]
    if len({*words}) == 1:  # the usual case: all photos share their classes and are read as one batch
        odds = list(model.match(pixels, prompts[0]))
    else:
        odds = [model.match(one[None], some)[0] for one, some in zip(pixels, prompts, strict=True)]
    found = [one.cpu() for one in odds]
    if calibration:
        return [calibration(one) for one in found]
    parts = [(one[: len(some)], one[len(some) :]) for one, some in zip(found, words, strict=True)]
    above = [torch.minimum(own, own - rest.mean()) if len(rest) else own for own, rest in parts]
    return [Calibration()(one) for one in above]


def _compare(model: DualEncoder, photos: Photos, words: Sequence[tuple[str, ...]]) -> list[Scores]:
    calibration, found = Calibration.of(model), list[Scores]()
    for photo, some in zip(photos, words, strict=True):
        if not some:
            found.append(torch.empty(0))
            continue
        texts = model.encode_words(some if calibration else (*some, *fillers(model, some)), [f"{PREFIX}{{}}"])
        scores = (model.scale * similarity(model.encode_images(model.prepare(photo)[None]), texts)[0]).cpu()
        found.append(calibration(scores) if calibration else standing_out(scores, len(some)))
    return found


def standing_out(scores: Float[Tensor, " crowd"], count: int) -> Scores:
    """Return the chances of the first ``count`` names, by how far each stands out among all that are compared."""
    apart = (scores - scores.mean()) / scores.std().clamp_min(1e-6)
    return STANDING_OUT(apart[:count])


def fillers(model: Any, names: Sequence[str], count: int = CROWD) -> tuple[str, ...]:
    """Return what fills the names up to ``count``: names the model knows, where these are few, else common nouns."""
    taken = {fold(name) for name in names}
    others = model.known or class_names("context")
    return tuple(name for name in others if fold(name) not in taken)[: max(0, count - len(names))]
