"""Attention as the families share it: by torch's fused kernel, or plainly where its weights are wanted."""

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

Hidden = Float[Tensor, "b n width"]
Context = Float[Tensor, "b m width"]
Padding = Float[Tensor, "b 1 1 m"] | None


def additive(mask: Int[Tensor, "b token"], dtype: torch.dtype) -> Float[Tensor, "b 1 1 token"]:
    """Return a mask to add to attention scores: 0 for tokens, the lowest number for padding."""
    return torch.zeros_like(mask, dtype=dtype).masked_fill(mask == 0, torch.finfo(dtype).min)[:, None, None]


def project(attention: Any, hidden: Hidden, context: Float[Tensor, "b m _"]) -> tuple[Tensor, Tensor, Tensor]:
    """Return the queries of ``hidden``, and the keys and values of ``context``, by an attention's linear layers."""
    return attention.query(hidden), attention.key(context), attention.value(context)


def fused_attention(q: Hidden, k: Context, v: Context, heads: int, padding: Padding = None) -> Hidden:
    """Return attention by torch's fused kernel, each of ``heads`` on its part of the width.

    Where a gradient is taken it is computed plainly, but on a CPU: on CUDA the backward pass of the fused kernels adds
    up in no fixed order, and the same photo would not always get the same labels.
    """
    differentiated = torch.is_grad_enabled() and any(part.requires_grad for part in (q, k, v))
    if differentiated and q.device.type != "cpu":
        return kept_attention(q, k, v, heads, padding)[0]
    q, k, v = (_split(part, heads) for part in (q, k, v))
    return _join(scaled_dot_product_attention(q, k, v, attn_mask=padding))


def kept_attention(q: Hidden, k: Context, v: Context, heads: int, padding: Padding = None) -> tuple[Hidden, Tensor]:
    """Return attention as ``fused_attention`` does, and the weights after softmax that it was computed from."""
    q, k, v = (_split(part, heads) for part in (q, k, v))
    scores = q @ k.transpose(2, 3) * q.shape[-1] ** -0.5
    weights = (scores if padding is None else scores + padding).softmax(-1)
    return _join(weights @ v), weights


def image_tower(vision: Any, pixels: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b patch width"]:
    """Return the output of BLIP's and BLIP-2's image tower, ``[CLS]`` first, by torch's fused attention.

    Positions are interpolated where the input is not of the checkpoint's own size.
    """
    hidden = vision.embeddings(pixels, interpolate_pos_encoding=True)
    for layer in vision.encoder.layers:
        attention = layer.self_attn
        query, key, value = attention.qkv(layer.layer_norm1(hidden)).chunk(3, dim=-1)
        hidden = hidden + attention.projection(fused_attention(query, key, value, attention.num_heads))
        hidden = hidden + layer.mlp(layer.layer_norm2(hidden))
    patches: Tensor = vision.post_layernorm(hidden)
    return patches


def _split(part: Hidden, heads: int) -> Float[Tensor, "b head n _"]:
    return part.view(*part.shape[:2], heads, -1).transpose(1, 2)


def _join(parts: Float[Tensor, "b head n _"]) -> Hidden:
    return parts.transpose(1, 2).flatten(2)
