"""Class maps prompt SAM: its mask of what a class map points at takes the place of the class's own."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from pnp_ovss.refine.base import Images, Refiner, Scores
from pnp_ovss.regions.sam import MEMORY, load_kept
from pnp_ovss.settings import setting
from pnp_ovss.types import OnStep, ignore


@dataclass(frozen=True)
class Prompts(Refiner):
    """SAM's mask of each class, prompted by the peak of its scores and the box of where they are the largest."""

    prompts_model: str = setting("sam2-tiny", "prompts: SAM or SAM 2 by short name, hub id or local folder")

    def __call__(self, scores: Scores, image: Images, on_step: OnStep = ignore) -> Scores:
        """Return the scores with the channels of SAM's masks in them; none of them is the background."""
        return self._prompted(scores, image, 0)

    def with_background(self, scores: Scores, image: Images, on_step: OnStep = ignore) -> Scores:
        """Return the scores with the channels of SAM's masks in them; the background, channel 0, has none."""
        return self._prompted(scores, image, 1)

    def memory(self, channels: int, pixels: int, image: Callable[[], Images] | None = None) -> int:
        """Return the scores before and after, and SAM."""
        return 4 * pixels * 3 * channels + MEMORY

    def _prompted(self, scores: Scores, image: Images, first: int) -> Scores:
        sam, result = load_kept(self.prompts_model, str(scores.device)), scores.clone()
        for own, photo in zip(result, image, strict=True):
            peaks, boxes, there = find_prompts(own, first)
            if there.any():
                embedded = sam.embed(photo.cpu().numpy())
                labels = torch.ones(len(peaks), 1, dtype=torch.long)
                masks = torch.from_numpy(sam.masks(embedded, peaks[:, None], labels, boxes))
                replace_masks(own, masks.to(own.device), there, first)
        return result


def find_prompts(
    scores: Float[Tensor, "ch h w"], first: int
) -> tuple[Float[Tensor, "n 2"], Float[Tensor, "n 4"], Bool[Tensor, " ch"]]:
    """Return the peak (column, row) and the box of each channel from ``first`` on that has a peak, and which these are.

    A channel has a peak where it is larger than all others somewhere; its box holds all such pixels.
    """
    best, owner = scores.max(0)
    ties = (scores == best).sum(0) > 1
    peaks, boxes, there = [], [], torch.zeros(len(scores), dtype=torch.bool)
    for channel in range(first, len(scores)):
        rows, columns = ((owner == channel) & ~ties).nonzero(as_tuple=True)
        if len(rows):
            top = scores[channel, rows, columns].argmax()
            peaks.append([columns[top], rows[top]])
            boxes.append([columns.min(), rows.min(), columns.max(), rows.max()])
            there[channel] = True
    return torch.tensor(peaks).float().view(-1, 2), torch.tensor(boxes).float().view(-1, 4), there


def replace_masks(
    scores: Float[Tensor, "ch h w"], masks: Bool[Tensor, "n h w"], there: Bool[Tensor, " ch"], first: int
) -> None:
    """Put the masks of the channels that are ``there`` in the place of those of their scores.

    Within its mask a class has the mean of its score and its peak, so that of masks that overlap the one counts that
    scored higher before. Beyond, it has 0 where another mask is, or the background can be; else half its score.
    """
    covered = masks.any(0)
    for channel, mask in zip(there.nonzero()[:, 0].tolist(), masks, strict=True):
        own = scores[channel]
        own.add_(own.max() * mask).div_(2)
        own[~mask if first else covered & ~mask] = 0
    if first:
        scores[0, covered] = 0
