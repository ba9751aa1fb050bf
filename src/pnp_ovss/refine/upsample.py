"""Step 7: keep what is salient on the grid, then stretch the grid to the photo."""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import interpolate


def threshold_and_upsample(
    class_maps: Float[Tensor, "b cls gh gw"], size: tuple[int, int], *, threshold: float, background: bool
) -> Float[Tensor, "b ch h w"]:
    """Return scores per pixel: each class map with its weak part set to 0, enlarged to ``size`` = (h, w).

    ``low``, ``high`` are the extremes of a map over its grid; a cell is kept where
    ``(map - low) / (high - low) >= threshold``, and keeps its raw value. Then bilinear, corners aligned.
    A constant map locates nothing: its normalised value is 0, so any ``threshold`` above 0 removes it.

    With ``background``, channel 0 is 1 where every class is 0 after enlarging, else 0; the classes follow.

    Source: PnP-OVSS, arXiv:2311.17095, the steps between Saliency DropOut and the Gaussian blur.
    """
    low = class_maps.amin((2, 3), keepdim=True)
    spread = class_maps.amax((2, 3), keepdim=True) - low
    normalised = (class_maps - low) / torch.where(spread > 0, spread, 1)
    kept = torch.where(normalised >= threshold, class_maps, 0)
    scores = interpolate(kept, size=size, mode="bilinear", align_corners=True)
    if not background:
        return scores
    nothing = (scores == 0).all(1, keepdim=True)
    return torch.cat([nothing.to(scores.dtype), scores], 1)
