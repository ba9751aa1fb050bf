"""The authors' procedure for steps 3 to 6, as their released code runs it, for timing beside ours.

Per photo and pass: one forward in which every cross-attention of every layer is kept, one backward into every weight,
all maps fetched to the host, one layer and head picked there. transformers' own models with their plain attention.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from pnp_ovss import Config

Forward = Callable[[Any, Tensor, Tensor, Tensor], Tensor]
"""Model, pixels, ids, mask: the match logit."""


def blip(model: Any, pixels: Tensor, ids: Tensor, mask: Tensor) -> Tensor:
    out = model(ids, pixels, attention_mask=mask, use_itm_head=True, interpolate_pos_encoding=True)
    logit: Tensor = out.itm_score[:, 1]
    return logit


def bridgetower(model: Any, pixels: Tensor, ids: Tensor, mask: Tensor) -> Tensor:
    logit: Tensor = model(ids, mask, pixel_values=pixels, interpolate_pos_encoding=True).logits[:, 1]
    return logit


def crossings(model: Any) -> list[nn.Module]:
    """Return the modules in which the text attends to the image."""
    layers = model.bridgetower.cross_modal_text_layers if hasattr(model, "bridgetower") else None
    return [layer.crossattention.self for layer in (layers or model.text_encoder.encoder.layer)]


def salience(
    forward: Forward,
    model: Any,
    pixels: Float[Tensor, "1 3 h w"],
    tokens: tuple[Int[Tensor, "1 token"], Int[Tensor, "1 token"]],
    membership: Float[np.ndarray, "cls token"],
    config: Config,
    patch: int,
) -> Float[np.ndarray, "cls gh gw"]:
    """Return the summed class maps of one photo. ``tokens``: ids and mask; ``membership``: as ``Attention`` has it."""
    grid = pixels.shape[2] // patch, pixels.shape[3] // patch
    visible = np.ones(grid, dtype=bool)
    summed = np.zeros((len(membership), *grid), dtype=np.float32)
    first_name = int(np.flatnonzero(membership.sum(0))[0])
    for number in range(config.passes):
        found = _one_pass(forward, model, _hidden(pixels, visible, patch), tokens)
        weights, gradient = (maps[config.layer][0, config.head, :, 1:] for maps in found)
        cam = (weights * gradient.clip(min=0)).reshape(-1, *grid)
        maps = np.einsum("ct,tyx->cyx", membership, cam) * visible
        summed += maps * (2 if number == 0 and config.count_first_twice else 1)
        visible = _without_the_most(visible, cam[first_name:].sum(0), int(config.drop))
    return summed


def _one_pass(
    forward: Forward, model: Any, pixels: Tensor, tokens: tuple[Tensor, Tensor]
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Return attention and gradient of every layer, on the host."""
    with _kept(crossings(model)) as kept:
        logit = forward(model, pixels, *tokens)
        model.zero_grad()
        logit.sum().backward()  # type: ignore[no-untyped-call]
    weights = [map_.detach().float().cpu().numpy() for map_ in kept]
    return weights, [map_.grad.float().cpu().numpy() for map_ in kept if map_.grad is not None]


def _hidden(pixels: Tensor, visible: Bool[np.ndarray, "gh gw"], patch: int) -> Tensor:
    mask = np.kron(visible, np.ones((patch, patch), dtype=np.float32)).astype(np.float32)
    return pixels * torch.from_numpy(mask).to(pixels)


def _without_the_most(
    visible: Bool[np.ndarray, "gh gw"], patch_salience: Float[np.ndarray, "gh gw"], drop: int
) -> Bool[np.ndarray, "gh gw"]:
    order = np.argsort(-np.where(visible, patch_salience, -np.inf), axis=None, kind="stable")
    left = visible.flatten()
    left[order[:drop]] = False
    return left.reshape(visible.shape)


@contextmanager
def _kept(modules: Iterable[nn.Module]) -> Iterator[list[Tensor]]:
    """Keep the attention that the modules compute, with its gradient."""
    kept: list[Tensor] = []

    def keep(module: nn.Module, inputs: Any, output: Sequence[Tensor]) -> None:
        output[1].retain_grad()
        kept.append(output[1])

    hooks = [module.register_forward_hook(keep) for module in modules]
    try:
        yield kept
    finally:
        for hook in hooks:
            hook.remove()
