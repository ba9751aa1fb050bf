"""Methods whose models group patches: a pixel has the scores of its group. GroupViT, SegCLIP and OVSegmentor share it.

Source: Xu et al., "GroupViT: semantic segmentation emerges from text supervision", CVPR 2022, and its authors' code.
"""

from typing import Any

import torch
from jaxtyping import Float, Integer
from torch import Tensor
from torch.nn.functional import interpolate

from pnp_ovss.methods.on_clip import ClipConfig, Encoded, OnClip, Pixels, Queries
from pnp_ovss.types import Vocabulary

MOST = 5
"""Words that a window is scored for: those most like the window as a whole."""
STEEPEST = 100.0
"""No model multiplies cosines by more than this."""
TRAINED: dict[str, Any] = {
    "templates": ("a photo of a {}.",),
    "short_side": 448,
    "crop": 448,
    "stride": 224,
    "logit_scale": 1.0,
    "background_words": (),
}
"""For models that were trained to segment: their scores are no cosines, and the background has no words."""


class Trained(OnClip):
    """A method with a background of its own making: no word, and nothing that a probability is compared with."""

    clip: Any
    mini = None

    def _surroundings(self, vocabulary: Vocabulary) -> tuple[str, ...]:
        return ()

    @property
    def _floor(self) -> float:
        return 0.0


class Grouping(Trained):
    """A method that scores groups of patches. ``clip`` is a model with ``encode_groups``."""

    settings = ClipConfig

    def encode(self, pixels: Pixels) -> Encoded:
        """Return vectors of the groups of each window, one of the window as a whole, and each pixel's group."""
        groups, image, shares = self.clip.encode_groups(pixels)
        owners = interpolate(shares, size=pixels.shape[2:], mode="bilinear").max(1).indices
        return groups, image, owners.to(torch.uint8)

    def compare(self, encoded: Encoded, queries: Queries) -> Float[Tensor, "b query h w"]:
        """Return the score of each pixel of a window for each query, in [0, 1]."""
        return spread(self._scores(encoded, queries), encoded[2])

    def _channels(self, encoded: Encoded, queries: Queries, vocabulary: Vocabulary) -> Float[Tensor, "b ch h w"]:
        scores = self._scores(encoded, queries)
        if self._has_background(vocabulary):
            scores = with_background(scores, self.config.prob_threshold)
        return spread(scores, encoded[2])

    def _scores(self, encoded: Encoded, queries: Queries) -> Float[Tensor, "b query group"]:
        return group_scores(encoded[0], encoded[1], queries, min(self.clip.scale, STEEPEST))


def group_scores(
    groups: Float[Tensor, "b group vector"], image: Float[Tensor, "b vector"], queries: Queries, scale: float
) -> Float[Tensor, "b query group"]:
    """Return softmax(``scale`` g t) over all queries t, times the same over the queries nearest to the whole image.

    The queries that are not among the ``MOST`` nearest have 0. Vectors are of length 1.
    """
    logits = scale * torch.einsum("bgc,qc->bqg", groups, queries)
    near = torch.zeros(len(image), len(queries), dtype=torch.bool, device=logits.device)
    near.scatter_(1, (image @ queries.T).topk(min(MOST, len(queries)), dim=1).indices, True)
    return logits.masked_fill(~near[..., None], -torch.inf).softmax(1) * logits.softmax(1)


def with_background(scores: Float[Tensor, "b query group"], threshold: float) -> Float[Tensor, "b ch group"]:
    """Return the scores behind a channel that is 1 for groups whose best score is low, else 0.

    Low is below ``threshold``, and below the best score of any group of the window.
    """
    best = scores.amax(1, keepdim=True)
    low = best < best.amax(2, keepdim=True).clamp(max=threshold)
    return torch.cat([low.to(scores), scores], 1)


def spread(scores: Float[Tensor, "b ch group"], owners: Integer[Tensor, "b h w"]) -> Float[Tensor, "b ch h w"]:
    """Return the scores of each pixel's group."""
    index = owners.flatten(1).long()[:, None].expand(-1, scores.shape[1], -1)
    return scores.gather(2, index).view(*scores.shape[:2], *owners.shape[1:])
