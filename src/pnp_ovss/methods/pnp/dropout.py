"""Step 6: Saliency DropOut. The VLM comes in as a callable; nothing here knows of models or pixels."""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from pnp_ovss.types import OnStep, Pass, ignore

Locate = Callable[
    [Bool[Tensor, "b gh gw"]], tuple[Float[Tensor, "b cls gh gw"], Float[Tensor, "b gh gw"], Float[Tensor, " b"]]
]
"""From the visible patches to the class maps, the salience of each patch, and the match logits."""


def saliency_dropout(
    locate: Locate, visible: Bool[Tensor, "b gh gw"], passes: int, drop: int | float, on_step: OnStep = ignore
) -> list[Pass]:
    """Return ``passes`` passes; after each one the most salient patches are hidden, so that the next finds the rest.

    Hidden are the patches of the largest salience among those still visible: ``drop`` of them, or that share (rounded
    down) where it is a float. Equal patches go in reading order. Each image has its own choice, and it is one for all
    its classes. Start with ``visible`` all true.
    Source: PnP-OVSS, arXiv 2311.17095, Saliency DropOut; a count, as the authors' code; a share, as the paper's text.
    """
    done: list[Pass] = []
    for number in range(passes):
        on_step("pass", number, passes)
        maps, patch_salience, match = locate(visible)
        done.append(Pass(visible, maps * visible[:, None], match))
        if number + 1 < passes:
            visible = _hide(visible, patch_salience, drop)
    return done


def total(passes: Sequence[Pass], count_first_twice: bool) -> Float[Tensor, "b cls gh gw"]:
    """Return the sum of all passes' maps; ``count_first_twice`` as the authors' code does it."""
    maps = torch.stack([one.maps for one in passes]).sum(0)
    return maps + passes[0].maps if count_first_twice else maps


def _hide(
    visible: Bool[Tensor, "b gh gw"], patch_salience: Float[Tensor, "b gh gw"], drop: int | float
) -> Bool[Tensor, "b gh gw"]:
    left = visible.flatten(1).sum(1, keepdim=True)
    # No host round trip: the number of patches to hide may differ from image to image and stays on the device.
    # 1e-3 lifts a product that float32 rounded to just under a whole number.
    count = (left * drop + 1e-3).long() if isinstance(drop, float) else left.clamp(max=drop)
    # Hidden patches come last, so they are never chosen while a visible one is left; a stable sort keeps reading order.
    order = patch_salience.masked_fill(~visible, -torch.inf).flatten(1).argsort(dim=1, descending=True, stable=True)
    places = torch.arange(order.shape[1], device=order.device).expand_as(order)
    rank = torch.empty_like(order).scatter_(1, order, places)
    return visible & (rank >= count).view_as(visible)
