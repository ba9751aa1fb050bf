"""The scores of a photo, held at the size they were refined at and enlarged class by class when they are asked for."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from pnp_ovss.refine.guided import enlarge
from pnp_ovss.types import OnStep, ignore

ROWS = 2**20
"""Pixels that are counted at a time."""


Clean = Callable[[Int[np.ndarray, "h w"]], Int[np.ndarray, "h w"]]
"""What is done to the finished labels."""

Labelled = tuple[Int[np.ndarray, "h w"], tuple[float, ...]]
"""Labels, int32, and the mean score of each class in its mask, 0 for a class without a pixel."""


@dataclass(frozen=True)
class ScoreMap:
    """A score per class and pixel of a photo. Those of a large photo are enlarged from fewer, and never all held."""

    channels: Float[Tensor, "ch sh sw"]
    """As they were refined."""
    owners: tuple[tuple[int, ...], ...]
    """The channels of each class; its score is the largest of theirs, and 0 where it has none."""
    small: UInt8[Tensor, "sh sw 3"] | None = None
    """The photo as large as ``channels``, where these are smaller than the photo."""
    photo: UInt8[Tensor, "h w 3"] | None = None
    """The photo, where the channels are smaller."""

    @classmethod
    def of(cls, scores: Float[np.ndarray, "cls h w"]) -> "ScoreMap":
        """Return the map of scores that are there, at full size."""
        return cls(torch.from_numpy(scores), tuple((channel,) for channel in range(len(scores))))

    @property
    def shape(self) -> tuple[int, int, int]:
        """Classes, rows and columns."""
        h, w = self.channels.shape[1:] if self.photo is None else self.photo.shape[:2]
        return len(self.owners), h, w

    @property
    def size(self) -> tuple[int, int]:
        """Rows and columns at which the scores were refined."""
        return self.channels.shape[1], self.channels.shape[2]

    @property
    def is_plain(self) -> bool:
        """Whether each class has one channel, in order and at full size."""
        return self.photo is None and self.owners == tuple((channel,) for channel in range(len(self.channels)))

    def only(self, classes: Sequence[int]) -> "ScoreMap":
        """Return the scores of these classes alone."""
        return replace(self, owners=tuple(self.owners[number] for number in classes))

    def among(self, places: Sequence[int], count: int) -> "ScoreMap":
        """Return the scores of ``count`` classes: those of this map at their places, and 0 for all others."""
        owners = dict(zip(places, self.owners, strict=True))
        return replace(self, owners=tuple(owners.get(number, ()) for number in range(count)))

    def __iter__(self) -> Iterator[Float[Tensor, "h w"]]:
        """Yield the scores of each class."""
        return self.classes()

    def classes(self, on_step: OnStep = ignore) -> Iterator[Float[Tensor, "h w"]]:
        """Yield the scores of each class, as iterating does."""
        if self.photo is None or self.small is None:
            for channels in self.owners:
                if len(channels) > 1:
                    yield self.channels[list(channels)].amax(0)
                else:
                    yield self.channels[channels[0]] if channels else self._none()
            return
        order = [channel for channels in self.owners for channel in channels]
        enlarged = enlarge(self.channels[None], self.small[None], self.photo[None], order=order, on_step=on_step)
        for channels in self.owners:
            if not channels:
                yield self._none()
                continue
            scores = next(enlarged)[0]
            for _ in channels[1:]:
                torch.maximum(scores, next(enlarged)[0], out=scores)
            yield scores
            del scores  # not held while the next ones are made

    def _none(self) -> Float[Tensor, "h w"]:
        return torch.zeros(self.shape[1:], device=self.channels.device)

    def array(self) -> Float[np.ndarray, "cls h w"]:
        """Return all scores at full size, float32."""
        if self.is_plain:
            return self.channels.cpu().numpy()
        result = np.empty(self.shape, dtype=np.float32)
        for number, scores in enumerate(self):
            result[number] = scores.cpu().numpy()
        return result

    def label(self, clean: Clean = lambda labels: labels, on_step: OnStep = ignore) -> Labelled:
        """Return the class of the largest score per pixel, the lowest on a tie, after ``clean``, and the means."""
        classes = self.classes(on_step)
        best = next(classes).clone()
        labels = torch.zeros_like(best, dtype=torch.int32)
        for number, scores in enumerate(classes, start=1):
            better = scores > best
            labels.masked_fill_(better, number)
            torch.maximum(best, scores, out=best)
            del scores, better
        found = labels.cpu().numpy()
        cleaned = clean(found)
        if cleaned is not found and not np.array_equal(cleaned, found):
            labels = torch.from_numpy(cleaned).to(best.device)
            for number, scores in enumerate(self):
                best = torch.where(labels == number, scores, best)
        sums = counts = torch.zeros(len(self.owners), dtype=torch.double, device=best.device)
        for some, values in zip(*(torch.split(part.flatten(), ROWS) for part in (labels, best)), strict=True):
            counts = counts + some.bincount(minlength=len(self.owners))
            sums = sums + some.bincount(values.double(), minlength=len(self.owners))
        return cleaned, tuple((sums / counts.clamp(min=1)).tolist())


def label_together(maps: Sequence[ScoreMap]) -> list[Labelled]:
    """Return what ``label`` returns of maps of one size and as many classes, in few steps: a GPU waits for each."""
    best, labels = torch.stack([one.channels if one.is_plain else torch.stack([*one]) for one in maps]).max(1)
    counts, sums = [], []
    for number in range(len(maps[0].owners)):
        inside = labels == number
        counts.append(inside.sum((1, 2)))
        sums.append(torch.where(inside, best, 0).sum((1, 2), dtype=torch.double))
    means = (torch.stack(sums, 1) / torch.stack(counts, 1).clamp(min=1)).tolist()
    narrow = labels.byte() if len(sums) <= 256 else labels.int()
    return [(one.astype(np.int32), tuple(values)) for one, values in zip(narrow.cpu().numpy(), means, strict=True)]
