"""ViLT fine-tuned for retrieval: one stream, in which words and patches attend to each other from the first layer on.

Kim, Son, Kim: ViLT, ICML 2021. Any ``ViltForImageAndTextRetrieval`` checkpoint fits.
"""

from collections.abc import Sequence
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import interpolate
from transformers import ViltForImageAndTextRetrieval

from pnp_ovss.models.adapter import Adapter, additive, kept_attention
from pnp_ovss.models.loading import Preparation


class Vilt(Adapter):
    """A ViLT checkpoint behind the ``VLM`` protocol.

    ``match`` of its attention is the ranking score, which fine-tuning drew from the matching head's 'they match': it
    orders texts by how well they fit, but has no meaning of its own, so ViLT is no ``Matcher``.
    """

    model_class = ViltForImageAndTextRetrieval
    preset = "vilt"
    preparation = Preparation((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))

    def __init__(self, folder: Path, name: str, revision: str, device: torch.device, dtype: torch.dtype) -> None:
        super().__init__(folder, name, revision, device, dtype)
        config = self._model.config
        self.size, self.patch = config.image_size, config.patch_size
        self.layers, self.heads = config.num_hidden_layers, config.num_attention_heads
        self._longest = config.max_position_embeddings

    def _trace(
        self,
        pixels: Float[Tensor, "b 3 h w"],
        ids: Int[Tensor, "b token"],
        mask: Int[Tensor, "b token"],
        picked: tuple[int, ...],
    ) -> tuple[Float[Tensor, " b"], list[Tensor]]:
        vilt = self._model.vilt
        hidden = self._stream(pixels, ids)
        shown = mask.new_ones(len(mask), hidden.shape[1] - mask.shape[1])
        padding = additive(torch.cat([mask, shown], dim=1), hidden.dtype)
        weights: dict[int, Tensor] = {}
        for index, layer in enumerate(vilt.encoder.layer):
            if index == min(picked):
                hidden.requires_grad_()  # the graph starts here, so that nothing below costs a backward pass
            with torch.set_grad_enabled(index >= min(picked)):
                block, normed = layer.attention.attention, layer.layernorm_before(hidden)
                parts = block.query(normed), block.key(normed), block.value(normed)
                found, weights[index] = kept_attention(*parts, self.heads, padding)
                hidden = hidden + layer.attention.output.dense(found)
                hidden = hidden + layer.output.dense(layer.intermediate(layer.layernorm_after(hidden)))
        match = self._model.rank_output(vilt.pooler(vilt.layernorm(hidden)))[:, 0]
        return match, [weights[index] for index in picked]

    def _maps(
        self, traced: Sequence[Tensor], gradients: Sequence[Tensor], tokens: int
    ) -> tuple[Sequence[Tensor], Sequence[Tensor]]:
        """Return the rows of the words and the columns of the patches, which follow the words and ``[CLS]``."""
        here = (..., slice(tokens), slice(tokens + 1, None))
        return [map_[here] for map_ in traced], [map_[here] for map_ in gradients]

    @torch.no_grad()
    def _stream(self, pixels: Float[Tensor, "b 3 h w"], ids: Int[Tensor, "b token"]) -> Float[Tensor, "b both width"]:
        """Return what the first layer reads: words, the image's ``[CLS]``, patches row by row.

        transformers shuffles the patches; here they keep their places. Positions are interpolated, as it does.
        """
        embeddings = self._model.vilt.embeddings
        text, image = embeddings.token_type_embeddings.weight[:2]
        projection, positions = embeddings.patch_embeddings.projection, embeddings.position_embeddings
        grid = projection(pixels.to(projection.weight.dtype))
        square = positions[:, 1:].transpose(1, 2).view(1, grid.shape[1], *[self.size // self.patch] * 2)
        placed = grid + interpolate(square, size=grid.shape[2:], mode="bilinear", align_corners=True)
        cls = (embeddings.cls_token + positions[:, :1]).expand(len(grid), -1, -1)
        patches = torch.cat([cls, placed.flatten(2).transpose(1, 2)], dim=1)
        return torch.cat([embeddings.text_embeddings(input_ids=ids) + text, patches + image], dim=1)
