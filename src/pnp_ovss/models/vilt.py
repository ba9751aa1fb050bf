"""ViLT fine-tuned for retrieval: one stream, in which words and patches attend to each other from the first layer on.

Kim, Son, Kim: ViLT, ICML 2021. Any ``ViltForImageAndTextRetrieval`` checkpoint fits.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from pnp_ovss.models.base import VLM, Fused, Indices, Kept, Pixels, States, Tokens, additive, gather_tokens
from pnp_ovss.models.loading import raise_epsilon


class Vilt(VLM):
    """A ViLT checkpoint.

    ``match`` of its attention is the ranking score, which fine-tuning drew from the matching head's 'they match': it
    orders texts by how well they fit, but has no meaning of its own, so ViLT is no ``Matcher``.
    """

    model_class = "ViltForImageAndTextRetrieval"
    preset = "vilt"
    tower = ""  # the words go through every layer with the image
    mean = std = (0.5, 0.5, 0.5)

    def _configure(self, config: Any) -> None:
        self.layers, self.heads = config.num_hidden_layers, config.num_attention_heads
        self.max_tokens = config.max_position_embeddings
        # All but the words' embeddings, which are BERT's.
        raise_epsilon(self._model.vilt.encoder)
        raise_epsilon(self._model.vilt.layernorm)

    def _encode_images(self, pixels: Pixels, keep: Indices | None = None) -> list[Tensor]:
        """Return the embeddings of the image's ``[CLS]`` and of the patches, row by row.

        transformers shuffles the patches; here they keep their places. Positions are interpolated, as it does.
        """
        embeddings = self._model.vilt.embeddings
        projection, positions = embeddings.patch_embeddings.projection, embeddings.position_embeddings
        grid = projection(pixels.to(projection.weight.dtype))
        square = positions[:, 1:].transpose(1, 2).view(1, grid.shape[1], *[self.size // self.patch] * 2)
        placed = grid + interpolate(square, size=grid.shape[2:], mode="bilinear", align_corners=True)
        cls = (embeddings.cls_token + positions[:, :1]).expand(len(grid), -1, -1)
        patches = torch.cat([cls, placed.flatten(2).transpose(1, 2)], dim=1)
        return [gather_tokens(patches + embeddings.token_type_embeddings.weight[1], keep)]

    def _encode_texts(self, ids: Tokens, mask: Tokens) -> list[Tensor]:
        embeddings = self._model.vilt.embeddings
        return [embeddings.text_embeddings(input_ids=ids) + embeddings.token_type_embeddings.weight[0]]

    def _fuse(self, images: States, texts: States, mask: Tokens, lowest: int | None) -> Fused:
        vilt, hidden = self._model.vilt, torch.cat([*texts, *images], dim=1)
        patches = mask.new_ones(images[0].shape[:2])
        padding = additive(torch.cat([mask, patches], dim=1), hidden.dtype)
        attention: dict[int, Kept] = {}
        for index, layer in enumerate(vilt.encoder.layer):
            if index == lowest:
                # The graph starts here, so that nothing below costs a backward pass.
                hidden.requires_grad_()
            normed = layer.layernorm_before(hidden)
            found, weights = self._kept(layer.attention.attention, normed, normed, padding)
            attention[index] = (weights,)
            hidden = hidden + layer.attention.output.dense(found)
            hidden = hidden + layer.output.dense(layer.intermediate(layer.layernorm_after(hidden)))
        return self._model.rank_output(vilt.pooler(vilt.layernorm(hidden))), attention

    def _maps(self, attention: Kept, slopes: Kept, tokens: int) -> tuple[Tensor, Tensor]:
        """Return the rows of the words and the columns of the patches, which follow the words and ``[CLS]``."""
        words, patches = slice(tokens), slice(tokens + 1, None)
        return attention[0][..., words, patches], slopes[0][..., words, patches]
