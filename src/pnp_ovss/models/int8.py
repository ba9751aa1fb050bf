"""Linear layers in int8, for image towers on a CPU; everything else stays float32.

Weights are rounded once, with a scale for each output; inputs at every call, with a scale and an offset for each image,
so that no image changes another's result. oneDNN, as torch comes with it, multiplies the integers and returns float32.
"""

import math
from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pnp_ovss.errors import ModelError

LEAST = 1e-30
"""No scale is smaller."""


def check_int8(name: str, tower: str, device: torch.device) -> None:
    """Raise ModelError unless the model of this name has a ``tower`` that can be int8, and the device computes so."""
    if not tower:
        raise ModelError(f"{name}: only BLIP, BLIP-2 and CLIP can be int8; give --dtype float32 or bfloat16")
    if device.type != "cpu" or "onednn" not in torch.backends.quantized.supported_engines:
        raise ModelError(f"{name}: int8 is for CPUs with oneDNN; on {device.type} give --dtype float32 or bfloat16")


def to_int8(tower: nn.Module) -> None:
    """Replace the linear layers below ``tower``, which must be float32; they take no gradient."""
    for module in list(tower.modules()):
        for name, layer in module.named_children():
            if isinstance(layer, nn.Linear):
                setattr(module, name, Int8Linear(layer))


class Int8Linear(nn.Module):
    """A linear layer whose products are of int8; in and out come float32 (image, token, width)."""

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        weight = layer.weight.detach()
        self._scales = weight.abs().amax(1).clamp_min(LEAST) / 127
        self._zeros = torch.zeros(len(weight), dtype=torch.int32)
        rounded = (weight / self._scales[:, None]).round().to(torch.int8)
        self._packed = torch.ops.onednn.qlinear_prepack(rounded, None)
        self._bias = layer.bias
        able: Mapping[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()  # torch 2.6 cannot say
        # Without VNNI sums of two products are kept in 16 bits, which inputs of 8 bits can exceed.
        self._steps = 255 if able.get("avx512_vnni") or able.get("avx_vnni") else 127

    def forward(self, x: Float[Tensor, "b n width"]) -> Float[Tensor, "b n out"]:
        """Return the products with the weights, plus the bias."""
        parts = [self._image(one) for one in x]
        return parts[0][None] if len(parts) == 1 else torch.stack(parts)

    def _image(self, x: Float[Tensor, "n width"]) -> Float[Tensor, "n out"]:
        low, high = (float(end) for end in torch.aminmax(x))
        if not math.isfinite(high - low):  # as float32 would have it, though for the whole image
            return x.new_full((len(x), len(self._scales)), math.nan)
        low, high = min(low, 0.0), max(high, 0.0)
        step = max((high - low) / self._steps, LEAST)
        zero = int(-low / step)  # rounded down, so that `high` is no more than the last step
        rounded = torch.add(torch.tensor(zero + 0.5), x, alpha=1 / step).to(torch.uint8)
        packed = self._packed, self._scales, self._zeros, self._bias
        product: Tensor = torch.ops.onednn.qlinear_pointwise(
            rounded, step, zero, *packed, 1.0, 0, torch.float32, "none", [], ""
        )
        return product
