"""A quality for each mask of a segmentation, so that people review the worst first, and dropping what is too bad."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from jaxtyping import Bool

from pnp_ovss.models.clip import Clip
from pnp_ovss.naming.clip import fillers
from pnp_ovss.segmentation import Segmentation
from pnp_ovss.tuning.judge import Judge
from pnp_ovss.tuning.objective import masks
from pnp_ovss.types import BACKGROUND, RGB

__all__ = ["drop_below", "judge_for", "masks_of", "rate"]


def judge_for(clip: Clip, classes: Sequence[str], form: str = "graded") -> Judge:
    """Return what judges masks of these classes: against each other and what ``naming.clip`` fills them up with.

    Without the nouns a photo of one class would have nothing to compare with.

    Raises: InputError if the model cannot know a class.
    """
    return Judge(clip, [*classes, *fillers(clip, classes)], form)


def rate(result: Segmentation, photo: RGB, judge: Judge) -> Segmentation:
    """Return the segmentation with its ``quality``: what ``judge`` gives each class's mask.

    ``photo`` is the one that was segmented.
    """
    masks, names = masks_of(result)
    return replace(result, quality=judge(photo, masks, names))


def drop_below(result: Segmentation, quality: float) -> Segmentation:
    """Return the segmentation without the classes of less than this quality; their pixels go to the next best channel.

    Without a background one class has to stay: the best. The scores of what stays are as they were.
    """
    if result.quality is None:
        raise ValueError("the segmentation has no quality; rate it first")
    keep = result.quality >= quality
    first = int(has_background(result))
    if not (first or keep.any()):
        keep[result.quality.argmax()] = True
    if keep.all():
        return result
    channels = np.concatenate([np.ones(first, dtype=bool), keep])
    scores = result.scores[channels]
    return replace(
        result,
        labels=scores.argmax(0).astype(result.labels.dtype),
        classes=tuple(name for name, stays in zip(result.classes, channels, strict=True) if stays),
        scores=scores,
        salience=result.salience[keep],
        quality=result.quality[keep],
    )


def masks_of(result: Segmentation) -> tuple[Bool[np.ndarray, "cls h w"], tuple[str, ...]]:
    """Return the mask of every named class, and the names: without the background, if there is one."""
    background = has_background(result)
    named = result.classes[int(background) :]
    return masks(result.labels, len(named), background), named


def has_background(result: Segmentation) -> bool:
    """Return whether channel 0 is the background's rather than a named class's."""
    return result.classes[0] == BACKGROUND and len(result.classes) > len(result.salience)
