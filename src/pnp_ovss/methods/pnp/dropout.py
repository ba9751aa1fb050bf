"""Step 6: Saliency DropOut. The VLM comes in as a callable; nothing here knows of models or pixels."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor


@dataclass(frozen=True)
class Look:
    """What one pass saw and found."""

    visible: Bool[Tensor, "b gh gw"]
    """Patches the VLM was shown."""
    maps: Float[Tensor, "b cls gh gw"]
    """Class maps, 0 where a patch was hidden."""
    match: Float[Tensor, " b"]
    """Match logit of the photo as shown."""


See = Callable[
    [Bool[Tensor, "b gh gw"]], tuple[Float[Tensor, "b cls gh gw"], Float[Tensor, "b gh gw"], Float[Tensor, " b"]]
]
"""Shows a VLM the visible patches; gives the class maps, what each patch stands out by, and the match logits."""


def saliency_dropout(see: See, visible: Bool[Tensor, "b gh gw"], passes: int, drop: int | float) -> Iterator[Look]:
    """Look ``passes`` times; after each pass hide the patches that stood out, so that the next one finds the rest.

    A look is yielded when it is done, and the next one starts when it is asked for.

    Hidden are the patches that stand out most among those still visible: ``drop`` of them, or that share (rounded down)
    where it is a float. Equal patches go in reading order. Each image has its own choice,
    and it is one for all its classes. Start with ``visible`` all true.
    Source: PnP-OVSS, arXiv 2311.17095, Saliency DropOut; a count, as the authors' code; a share, as the paper's text.
    """
    for _ in range(passes):
        maps, prominence, match = see(visible)
        maps = maps * visible[:, None]
        yield Look(visible, maps, match)
        visible = _hide(visible, prominence, drop)


def total(looks: Sequence[Look], count_first_twice: bool) -> Float[Tensor, "b cls gh gw"]:
    """Return the sum of all passes' maps; ``count_first_twice`` as the authors' code does it."""
    maps = torch.stack([look.maps for look in looks]).sum(0)
    return maps + looks[0].maps if count_first_twice else maps


def _hide(
    visible: Bool[Tensor, "b gh gw"], prominence: Float[Tensor, "b gh gw"], drop: int | float
) -> Bool[Tensor, "b gh gw"]:
    left = visible.flatten(1).sum(1, keepdim=True)
    # No host round trip: the number of patches to hide may differ from image to image and stays on the device.
    # 1e-3 lifts a product that float32 rounded to just under a whole number.
    count = (left * drop + 1e-3).long() if isinstance(drop, float) else left.clamp(max=drop)
    # Hidden patches come last, so they are never chosen while a visible one is left; a stable sort keeps reading order.
    order = prominence.masked_fill(~visible, -torch.inf).flatten(1).argsort(dim=1, descending=True, stable=True)
    rank = torch.empty_like(order).scatter_(
        1, order, torch.arange(order.shape[1], device=order.device).expand_as(order)
    )
    return visible & (rank >= count).view_as(visible)
