"""OpenAI's CLIP on a residual network, its patches open: each place of the last stage gets a vector that knows words.

Radford et al.: Learning Transferable Visual Models From Natural Language Supervision, ICML 2021. That the values of the
last attention, each by itself, can be compared with words is Zhou, Loy, Dai's: Extract Free Dense Labels from CLIP.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import avg_pool2d, batch_norm, conv2d, relu

from pnp_ovss.models.blocks import Weights, clip_text
from pnp_ovss.models.released import Released

Maps = Float[Tensor, "b _ _ _"]


class ClipResNet(Released):
    """A checkpoint with the names of OpenAI's ``RN50`` to ``RN50x64``. It reads texts, and the parts of an image."""

    kind, flag = "reco-dense", "dense"

    def _build(self, weights: Weights, settings: Mapping[str, Any]) -> None:
        self._image, self._text = weights.at("visual"), weights
        self.patch = 32
        self.size = self.patch * int((len(self._image["attnpool.positional_embedding"]) - 1) ** 0.5)
        self.longest, self._words = len(weights["positional_embedding"]), len(weights["token_embedding.weight"])
        self.scale = float(weights["logit_scale"].float().exp())

    @torch.no_grad()
    def encode_patches(self, pixels: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b gh gw width"]:
        """Return a vector for each 32 x 32 pixels, float32, not of length 1; ``pixels`` are normalised."""
        w = self._image
        x = pixels.to(self.device, self.dtype)
        for number, stride in ((1, 2), (2, 1), (3, 1)):
            x = relu(convolved(x, w, str(number), stride, 1))
        x = avg_pool2d(x, 2)
        for stage in range(1, 5):
            for number, block in enumerate(w.each(f"layer{stage}")):
                x = bottleneck(x, block, 2 if stage > 1 and not number else 1)
        pool = w.at("attnpool")
        vectors: Tensor = pool.linear(pool.linear(x.movedim(1, -1), "v_proj"), "c_proj")
        return vectors.float()

    @torch.no_grad()
    def embed_tokens(self, ids: Int[Tensor, "n token"], mask: Int[Tensor, "n token"]) -> Float[Tensor, "n width"]:
        """Return a vector for each text."""
        return clip_text(ids.to(self.device), self._text).float()


def convolved(x: Maps, w: Weights, number: str, stride: int = 1, padding: int = 0) -> Maps:
    """Return ``x`` through the convolution and the batch norm of this number."""
    return _normed(conv2d(x, w[f"conv{number}.weight"], stride=stride, padding=padding), w.at(f"bn{number}"))


def bottleneck(x: Maps, w: Weights, stride: int) -> Maps:
    """Return ``x`` through a residual block; where it makes the grid smaller, it takes means over the places."""
    y = relu(convolved(relu(convolved(x, w, "1")), w, "2", padding=1))
    y = convolved(avg_pool2d(y, stride), w, "3")
    if "downsample.0.weight" in w.below():
        x = _normed(conv2d(avg_pool2d(x, stride), w["downsample.0.weight"]), w.at("downsample.1"))
    return relu(x + y)


def _normed(x: Maps, w: Weights) -> Maps:
    return batch_norm(x, w["running_mean"], w["running_var"], w["weight"], w["bias"])


def load_clip_resnet(name: str | Path, device: str = "auto", dtype: str = "auto") -> ClipResNet:
    """Return the model of a file or folder, as ``Released`` says. Raises: ModelError if it cannot be read or used."""
    return ClipResNet(name, device, dtype)
