"""Steps 4 and 5: attention and its gradient become one map per class, and one that ranks the patches for DropOut."""

import torch
from jaxtyping import Float
from torch import Tensor

from pnp_ovss.types import Attention


def class_maps(
    attention: Attention, layer: int, head: int, gradient: bool = True, sum_last_name: bool = False
) -> Float[Tensor, "b cls gh gw"]:
    """Return the attention that raises the match logit, averaged over the tokens of each class name.

    ``S[b, c, p] = sum_t membership[b, c, t] * weights[b, t, p] * relu(gradient[b, t, p])``

    of one ``layer`` and ``head`` (0-based). Values are >= 0 and unbounded; the classes of an image share one scale.
    Without ``gradient`` the attention alone is averaged. With ``sum_last_name`` the tokens of each image's last name
    are added up instead: the released code forgets to divide there, and scales that one map by its number of tokens.
    Source: PnP-OVSS, arXiv 2311.17095, GradCAM step.

    Raises: ValueError if ``attention`` does not hold that layer.
    """
    shares = _undivided_last(attention.membership) if sum_last_name else attention.membership
    return torch.einsum("bct,btyx->bcyx", shares, _salience(attention, layer, head, gradient))


def patch_salience(attention: Attention, layer: int, head: int, gradient: bool = True) -> Float[Tensor, "b gh gw"]:
    """Return by how much each patch stands out: its salience summed over the tokens from the first class name on.

    Tokens are summed, not averaged per class, and the token that ends the prompt counts as well. So does the authors'
    code for every prompt of a batch but the longest, where it leaves the last token out; ours does not depend on the
    batch.

    Raises: ValueError if ``attention`` does not hold that layer.
    """
    named = attention.membership.sum(1) > 0
    counts = named.cumsum(1) > 0  # padding has no salience, so it may count
    return torch.einsum("bt,btyx->byx", counts.float(), _salience(attention, layer, head, gradient))


def _undivided_last(membership: Float[Tensor, "b cls token"]) -> Float[Tensor, "b cls token"]:
    named = membership.sum(2) > 0
    last = named & (named.flip(1).cumsum(1).flip(1) == 1)  # rows that pad a batch come after the last name
    return torch.where(last[:, :, None], (membership > 0).float(), membership)


def _salience(attention: Attention, layer: int, head: int, gradient: bool) -> Float[Tensor, "b token gh gw"]:
    if layer not in attention.layers:
        raise ValueError(f"layer {layer} is not among the layers attended, {attention.layers}")
    index = attention.layers.index(layer)
    weights = attention.weights[:, index, head]
    return weights * attention.gradient[:, index, head].relu() if gradient else weights
