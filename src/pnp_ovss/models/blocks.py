"""Transformer blocks over tensors by name, for checkpoints that transformers has no class for."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import gelu, layer_norm, linear, scaled_dot_product_attention

from pnp_ovss.errors import ModelError
from pnp_ovss.models.base import fused_attention, joined, split

Hidden = Float[Tensor, "b token width"]
Attend = Callable[[Hidden, Hidden, Hidden], Hidden]
"""(q, k, v) -> what the attention gives; the heads lie side by side."""


@dataclass(frozen=True)
class Weights:
    """Tensors by name, and the part of the name that all have in common."""

    tensors: Mapping[str, Tensor]
    prefix: str = ""

    def __getitem__(self, name: str) -> Tensor:
        """Return a tensor. Raises: ModelError if there is none."""
        try:
            return self.tensors[self.prefix + name]
        except KeyError as error:
            raise ModelError(f"the checkpoint lacks {self.prefix}{name}; take the released one") from error

    def at(self, name: str) -> "Weights":
        """Return what lies below a name."""
        return Weights(self.tensors, f"{self.prefix}{name}.")

    def below(self) -> dict[str, Tensor]:
        """Return the tensors by what follows the prefix."""
        start = len(self.prefix)
        return {name[start:]: tensor for name, tensor in self.tensors.items() if name.startswith(self.prefix)}

    def each(self, name: str) -> list["Weights"]:
        """Return what lies below ``name.0``, ``name.1``, ..."""
        numbers = {key.split(".")[0] for key in self.at(name).below()}
        return [self.at(f"{name}.{number}") for number in range(len(numbers))]

    def linear(self, x: Tensor, name: str) -> Tensor:
        """Return ``x`` through a linear layer, or a convolution of one pixel."""
        return linear(x, self[f"{name}.weight"].flatten(1), self.tensors.get(f"{self.prefix}{name}.bias"))

    def norm(self, x: Tensor, name: str, eps: float = 1e-5) -> Tensor:
        """Return ``x`` through a LayerNorm."""
        return layer_norm(x, x.shape[-1:], self[f"{name}.weight"], self[f"{name}.bias"], eps)

    def mlp(self, x: Tensor, name: str) -> Tensor:
        """Return ``x`` through two linear layers with a GELU between them."""
        return self.linear(gelu(self.linear(x, f"{name}.fc1")), f"{name}.fc2")


def by_heads(heads: int) -> Attend:
    """Return plain attention."""
    return lambda q, k, v: fused_attention(q, k, v, heads)


def vit_block(x: Hidden, w: Weights, heads: int, eps: float = 1e-6) -> Hidden:
    """Return the tokens after a block with the names of timm's vision transformer."""
    q, k, v = w.linear(w.norm(x, "norm1", eps), "attn.qkv").chunk(3, dim=-1)
    x = x + w.linear(fused_attention(q, k, v, heads), "attn.proj")
    return x + w.mlp(w.norm(x, "norm2", eps), "mlp")


def clip_block(x: Hidden, w: Weights, attend: Attend) -> Hidden:
    """Return the tokens after a block with the names of OpenAI's CLIP."""
    y = w.norm(x, "ln_1")
    q, k, v = linear(y, w["attn.in_proj_weight"], w["attn.in_proj_bias"]).chunk(3, dim=-1)
    return clip_feed(x + w.linear(attend(q, k, v), "attn.out_proj"), w)


def clip_feed(x: Hidden, w: Weights) -> Hidden:
    """Return the tokens after the second half of such a block."""
    return x + w.linear(quick_gelu(w.linear(w.norm(x, "ln_2"), "mlp.c_fc")), "mlp.c_proj")


def clip_text(ids: Int[Tensor, "n token"], w: Weights) -> Float[Tensor, "n width"]:
    """Return a vector for each text by the text tower of OpenAI's CLIP, at its token with the highest id, its end."""
    tokens = w["token_embedding.weight"][ids] + w["positional_embedding"][: ids.shape[1]]
    heads = max(1, tokens.shape[2] // 64)
    for block in w.at("transformer").each("resblocks"):
        tokens = clip_block(tokens, block, lambda q, k, v: _causal(q, k, v, heads))
    ends = w.norm(tokens, "ln_final")[torch.arange(len(ids)), ids.argmax(1)]
    vectors: Tensor = ends @ w["text_projection"]
    return vectors


def _causal(q: Hidden, k: Hidden, v: Hidden, heads: int) -> Hidden:
    """Return attention of each token to those up to itself."""
    q, k, v = (split(part, heads) for part in (q, k, v))
    return joined(scaled_dot_product_attention(q, k, v, is_causal=True))


def quick_gelu(x: Tensor) -> Tensor:
    """Return x sigmoid(1.702 x), OpenAI's GELU, with one further tensor, not three; for use without gradients."""
    return (1.702 * x).sigmoid_().mul_(x)
