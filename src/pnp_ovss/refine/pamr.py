"""Pixel-adaptive mask refinement: scores flow between neighbours of like colour."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import pad

from pnp_ovss.refine.base import Images, Refiner, Scores, group_size, groups
from pnp_ovss.settings import MOST_STEPS, setting
from pnp_ovss.types import OnStep, ignore

Dilations = tuple[int, ...]
DILATIONS: Dilations = (1, 2, 4, 8, 12, 24)
RING = ((-1, -1), (-1, 0), (-1, 1), (0, -1), (0, 1), (1, -1), (1, 0), (1, 1))
SHARPNESS = 0.1
LEAST = 1e-8


@dataclass(frozen=True)
class PAMR(Refiner):
    """Scores averaged over neighbours of like colour."""

    pamr_iterations: int = setting(10, "pamr: iterations", 0, MOST_STEPS)

    def __call__(self, scores: Scores, image: Images, on_step: OnStep = ignore) -> Scores:
        """Return ``pamr(scores, image)`` with these settings."""
        return pamr(scores, image, iterations=self.pamr_iterations, on_step=on_step)

    def memory(self, channels: int, pixels: int, image: Callable[[], Images] | None = None) -> int:
        """Return the scores before and after, four copies of a group, and three of the affinities."""
        neighbours = len(DILATIONS) * len(RING)
        return 4 * pixels * (2 * channels + 4 * group_size(channels, pixels) + 3 * neighbours)


@torch.no_grad()
def pamr(
    scores: Scores, image: Images, *, iterations: int = 10, dilations: Dilations = DILATIONS, on_step: OnStep = ignore
) -> Scores:
    """Return ``scores`` after so many steps of ``scores <- sum over neighbours n of affinity[n] * scores[n]``.

    The neighbours of a pixel are the 8 around it at each distance of ``dilations`` (pixels; the photo's edge is
    repeated outwards). ``affinity = softmax over n of mean over RGB of -|colour - colour[n]| / (0.1 * deviation)``,
    ``deviation`` the standard deviation of the colour over the neighbours and the pixel itself, per distance.
    An average: scores keep their range.

    Source: Araslanov and Roth, "Single-stage semantic segmentation from image labels", CVPR 2020, section 4.2.
    """
    return diffuse(scores, image.permute(0, 3, 1, 2).to(scores) / 255, iterations, dilations, on_step)


def diffuse(
    scores: Scores, colour: Float[Tensor, "b 3 h w"], iterations: int, dilations: Dilations, on_step: OnStep = ignore
) -> Scores:
    """Return ``pamr`` of the scores for a picture in floats; its scale and offset per channel do not matter."""
    affinity = _affinity(colour, dilations)
    parts = [scores[:, part] for part in groups(scores.shape[1], scores[:, 0].numel())]
    for iteration in range(iterations):
        on_step("pamr", iteration, iterations)
        for number, part in enumerate(parts):
            following = torch.zeros_like(part)
            for share, neighbour in zip(affinity.unbind(1), _neighbours(part, dilations), strict=True):
                following.addcmul_(share[:, None], neighbour)
            parts[number] = following
    return torch.cat(parts, 1)


def _affinity(colour: Float[Tensor, "b 3 h w"], dilations: Dilations) -> Float[Tensor, "b n h w"]:
    mean = sum(_neighbours(colour, dilations), len(dilations) * colour) / (9 * len(dilations))
    squares = len(dilations) * (colour - mean) ** 2
    for neighbour in _neighbours(colour, dilations):
        squares += (neighbour - mean) ** 2
    width = SHARPNESS * (squares / (9 * len(dilations) - 1)).sqrt() + LEAST
    distance = [((neighbour - colour).abs() / width).mean(1) for neighbour in _neighbours(colour, dilations)]
    affinity = torch.stack(distance, 1).neg_()
    affinity.sub_(affinity.amax(1, keepdim=True)).exp_()  # the rounding of a softmax depends on the number of threads
    return affinity.div_(affinity.sum(1, keepdim=True))


def _neighbours(values: Float[Tensor, "b ch h w"], dilations: Dilations) -> Iterator[Float[Tensor, "b ch h w"]]:
    """Yield ``values`` as seen from each pixel's neighbours, in a fixed order."""
    h, w = values.shape[2:]
    far = max(dilations)
    wide = pad(values, (far, far, far, far), mode="replicate")
    for step in dilations:
        for down, right in RING:
            top, left = far + step * down, far + step * right
            yield wide[:, :, top : top + h, left : left + w]
