"""How well masks show their classes, as a dual encoder sees it: one number per class, no mask label anywhere.

``Pr(x, k)`` is the softmax, over all names of the set, of the similarities of the picture ``x`` with the names. All
pictures are the whole photo with some pixels black. Ties are no win, and a class without a pixel is worth 0 in every
form. With a single name the softmax is 1 everywhere and nothing can win: two names at least are wanted.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

__all__ = [
    "LOOK_AT_REST",
    "REWARDS",
    "Evidence",
    "Form",
    "graded",
    "probabilities",
    "wins_over_black",
    "wins_over_rest",
]


@dataclass(frozen=True)
class Evidence:
    """What the dual encoder makes of one photo's masks: similarities, times the model's scale, with every name."""

    kept: Float[Tensor, "cls name"]
    """Of the photo with all but the class's mask black."""
    removed: Float[Tensor, "cls name"]
    """Of the photo with the class's mask black; those of black where the form does not look at it."""
    black: Float[Tensor, " name"]
    """Of the black picture."""
    own: Int[Tensor, " cls"]
    """Which of the names each class is."""
    seen: Bool[Tensor, " cls"]
    """Whether the class's mask has a pixel."""


Form = Callable[[Evidence], Float[Tensor, " cls"]]
"""A reward: what each class's mask is worth. That of a photo is the sum over its classes."""


def wins_over_black(evidence: Evidence) -> Float[Tensor, " cls"]:
    """Return 1 where ``Pr(mask * photo, k) > Pr(black, k)``, else 0. Source: PnP-OVSS, equations 4 and 5."""
    return _wins(evidence, probabilities(evidence.black[None], evidence.own))


def wins_over_rest(evidence: Evidence) -> Float[Tensor, " cls"]:
    """Return 1 where ``Pr(mask * photo, k) > Pr((1 - mask) * photo, k)``, else 0. Source: the authors' code.

    There the negative picture is the rest of the photo in one line and black in another.
    """
    return _wins(evidence, probabilities(evidence.removed, evidence.own))


def graded(evidence: Evidence) -> Float[Tensor, " cls"]:
    """Return ``Pr(mask * photo, k) / (Pr(mask * photo, k) + Pr(black, k))``, in [0, 1]. Ours.

    Above 0.5 exactly where ``wins_over_black``, and the further the better the mask shows its class: unlike wins, it
    ranks masks, and candidates rarely tie.
    """
    kept, black = probabilities(evidence.kept, evidence.own), probabilities(evidence.black[None], evidence.own)
    return torch.where(evidence.seen, kept / (kept + black), 0.0)


def probabilities(similarities: Float[Tensor, "row name"], own: Int[Tensor, " cls"]) -> Float[Tensor, " cls"]:
    """Return the softmax over the names, for each class its own: of row k for class k, or of the only row for all."""
    shares = similarities.double().softmax(1).expand(len(own), -1)
    return shares.gather(1, own[:, None])[:, 0].float()


def _wins(evidence: Evidence, other: Float[Tensor, " cls"]) -> Float[Tensor, " cls"]:
    return ((probabilities(evidence.kept, evidence.own) > other) & evidence.seen).float()


REWARDS: dict[str, Form] = {"black": wins_over_black, "rest": wins_over_rest, "graded": graded}
"""The forms by name."""

LOOK_AT_REST = ("rest",)
"""Those that need ``Evidence.removed``."""
