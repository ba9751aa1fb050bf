"""How well masks show their classes, as CLIP sees it: a number per class, without a mask label anywhere.

``Pr(x, k)`` is the softmax, over all names that are compared, of the similarities of the picture ``x`` with the names.
All pictures are the whole photo with some pixels black. Ties are no win, and a class without a pixel gets 0 in every
form.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import lru_cache, partial

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from pnp_ovss.errors import InputError
from pnp_ovss.methods.pnp.prompt import PREFIX
from pnp_ovss.methods.presence import fillers
from pnp_ovss.models.clip import Clip, similarity
from pnp_ovss.segmentation import Segmentation
from pnp_ovss.types import RGB

Masks = Bool[np.ndarray, "cls h w"]

REWARDS: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "black": lambda kept, removed, black: (kept > black).float(),
    "rest": lambda kept, removed, black: (kept > removed).float(),
    "graded": lambda kept, removed, black: kept / (kept + black),
}
"""The forms of the reward by name, of three probabilities of each mask's class: ``kept`` = ``Pr(mask * photo, k)``,
``removed`` = ``Pr((1 - mask) * photo, k)`` and ``black`` = ``Pr(0, k)``.

``black`` is 1 or 0. Source: PnP-OVSS, equations 4 and 5.
``rest`` is 1 or 0. Source: the authors' code, where the negative picture is the rest of the photo in one line and black
in another.
``graded`` is ours, in [0, 1]: above 0.5 exactly where ``black`` is 1, and the further the better the mask shows its
class. Unlike wins, it ranks masks, and candidates rarely tie.
"""


class ClipReward:
    """The reward of each mask of a photo, in one of the forms of ``REWARDS``.

    ``names`` are what the softmax runs over. Their texts, and the black picture, are encoded once.

    Raises: InputError if there are fewer than two names (the softmax of one is always 1), or one the model cannot know.
    """

    def __init__(self, clip: Clip, names: Sequence[str], form: str = "black") -> None:
        self.names = tuple(dict.fromkeys(names))
        if len(self.names) < 2:
            raise InputError(f"expected two names or more to compare, got {len(self.names)}; give a --vocabulary")
        clip.check_known(self.names)
        self.clip, self.form = clip, form
        self._texts = clip.encode_texts([PREFIX + name for name in self.names])
        self._black = self._similarities(clip.prepare(np.zeros((clip.size, clip.size, 3), np.uint8))[None])

    def __call__(self, photo: RGB, masks: Masks, classes: Sequence[str]) -> Float[np.ndarray, " cls"]:
        """Return the reward of each mask, float32 in [0, 1]; ``classes`` are among ``names``."""
        return REWARDS[self.form](*self.probabilities(photo, masks, classes)).numpy()

    def probabilities(self, photo: RGB, masks: Masks, classes: Sequence[str]) -> Float[Tensor, "picture=3 cls"]:
        """Return the probabilities that ``REWARDS`` take, encoding each photo's pictures as one batch.

        ``kept`` is 0 for a mask without a pixel; ``removed`` is that of black where the form does not use it.
        """
        # A mask without a pixel shows black, and one of every pixel leaves black: both are encoded already.
        shown, left = masks.any((1, 2)), ~masks.all((1, 2))
        kind, row = np.nonzero([shown, left] if self.form == "rest" else [shown])
        found = self._black.repeat(3, len(masks), 1)
        if len(row):
            kept = (masks[index] != bool(removed) for removed, index in zip(kind, row, strict=True))
            pictures = (np.where(part[..., None], photo, np.uint8(0)) for part in kept)  # one at a time
            found[kind, row] = self._similarities(torch.stack([self.clip.prepare(picture) for picture in pictures]))
        own = torch.tensor([self.names.index(name) for name in classes], dtype=torch.long)
        shares = found.double().softmax(-1)[:, torch.arange(len(own)), own].float()
        shares[0, torch.from_numpy(~shown)] = 0
        return shares

    def _similarities(self, pixels: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b name"]:
        return (self.clip.scale * similarity(self.clip.encode_images(pixels), self._texts)).cpu()


def rate(result: Segmentation, photo: RGB, clip: Clip) -> Segmentation:
    """Return the segmentation with its ``quality``: the graded reward of each class's mask on the segmented photo.

    Compared are the classes, and common nouns: without them a single class would have nothing to compare with.

    Raises: InputError if the model cannot know a class.
    """
    masks, classes = named_masks(result)
    return replace(result, quality=_quality_reward(clip, classes)(photo, masks, classes))


@lru_cache(maxsize=8)
def _quality_reward(clip: Clip, classes: tuple[str, ...]) -> ClipReward:
    """Photos mostly share their classes: their texts are encoded once."""
    return ClipReward(clip, [*classes, *fillers(clip, classes)], "graded")


def drop_below(result: Segmentation, quality: float) -> Segmentation:
    """Return the segmentation without the classes of less than this quality; their pixels go to the next best channel.

    Without a background one class has to stay: the best. The scores of what stays are as they were.

    Raises: ValueError if the segmentation has no quality yet.
    """
    if result.quality is None:
        raise ValueError("expected a segmentation with a quality, got none; rate it first")
    keep = result.quality >= quality
    first = len(result.classes) - len(result.salience)  # 1 where there is a background
    if not (first or keep.any()):
        keep[result.quality.argmax()] = True
    if keep.all():
        return result
    channels = np.flatnonzero([*[True] * first, *keep])
    score_map, classes = result.score_map.only(channels.tolist()), tuple(result.classes[one] for one in channels)
    labels, means = score_map.label(partial(result.config.clean, background=bool(first)))
    salience, rated = result.salience[keep], result.quality[keep]
    sure = None if result.confidence is None else result.confidence[keep]
    kept = replace(result, labels=labels, classes=classes, score_map=score_map, means=means)
    return replace(kept, salience=salience, quality=rated, confidence=sure)


def named_masks(result: Segmentation) -> tuple[Masks, tuple[str, ...]]:
    """Return the mask of every class, and the classes: all but the background, if there is one."""
    first = len(result.classes) - len(result.salience)
    return result.labels == np.arange(first, len(result.classes))[:, None, None], result.classes[first:]
