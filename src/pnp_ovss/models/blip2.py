"""BLIP-2's first stage with its matching head: learned queries read the image, and the words read the queries.

Li, Li, Savarese, Hoi: BLIP-2, ICML 2023. Any ``Blip2ForImageTextRetrieval`` checkpoint fits.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import Blip2ForImageTextRetrieval

from pnp_ovss.errors import ModelError
from pnp_ovss.models.adapter import MatchingAdapter, additive, kept_attention, see


class Blip2(MatchingAdapter):
    """A BLIP-2 checkpoint behind the ``VLM`` protocol.

    No word attends to a patch, so attention is the product of two: of the words to the queries, and of the queries to
    the patches in the layer below, where they last looked at the image. ``layers`` counts these pairs from below; the
    topmost is left out, for nothing reads its words. ``heads`` are those that look at the image; over the words' heads,
    which have no counterpart there, the mean is taken.
    """

    model_class = Blip2ForImageTextRetrieval
    preset = "blip2"
    prompts_at_once = 32

    def __init__(self, folder: Path, name: str, revision: str, device: torch.device, dtype: torch.dtype) -> None:
        super().__init__(folder, name, revision, device, dtype)
        vision, queries = self._model.config.vision_config, self._model.config.qformer_config
        if not queries.use_qformer_text_input:
            raise ModelError(
                f"{name}: qformer_config of config.json lacks use_qformer_text_input, so this Q-Former reads no words; "
                "a checkpoint for image-text matching is wanted, such as blip2"
            )
        self.size, self.patch = vision.image_size, vision.patch_size
        self.heads, self._longest = queries.num_attention_heads, queries.max_position_embeddings
        self._looking = range(0, queries.num_hidden_layers - 2, queries.cross_attention_frequency)
        """The Q-Former's layers in which queries look at the image, as long as a layer reads the words above."""
        self.layers = len(self._looking)

    def _trace(
        self,
        pixels: Float[Tensor, "b 3 h w"],
        ids: Int[Tensor, "b token"],
        mask: Int[Tensor, "b token"],
        picked: tuple[int, ...],
    ) -> tuple[Float[Tensor, " b"], list[Tensor]]:
        looking = [self._looking[index] for index in picked]
        logits, own, crossing = self._meet(self._patches(pixels), ids, mask, min(looking))
        return logits[:, 1], [kept for index in looking for kept in (own[index + 1], crossing[index])]

    def _maps(
        self, traced: Sequence[Tensor], gradients: Sequence[Tensor], tokens: int
    ) -> tuple[Sequence[Tensor], Sequence[Tensor]]:
        """Return the product of each pair, and the gradient that makes weights * gradient the product of GradCAMs.

        ``weights[h, t, p] = sum_q mean_g own[g, t, q] * crossing[h, q, p]``
        ``weights * gradient`` is the same sum of ``own * relu(dy / d own)`` and ``crossing * relu(dy / d crossing)``.
        """
        queries = self._model.query_tokens.shape[1]
        weights, gradient = [], []
        for pair in zip(traced[::2], traced[1::2], gradients[::2], gradients[1::2], strict=True):
            own, crossing, own_slope, crossing_slope = (part.float() for part in pair)
            route = _route(own, crossing, queries)
            salience = _route(own * own_slope.relu(), crossing * crossing_slope.relu(), queries)
            weights.append(route)
            gradient.append(salience / route.clamp_min(torch.finfo(route.dtype).tiny))
        return weights, gradient

    def _looks(self, pixels: Float[Tensor, "b 3 h w"]) -> list[Float[Tensor, "b patch width"]]:
        return [self._patches(pixels)]

    def _odds(
        self, ids: Int[Tensor, "n token"], mask: Int[Tensor, "n token"], looks: Sequence[Float[Tensor, "b patch width"]]
    ) -> Float[Tensor, "b n"]:
        b, n = len(looks[0]), len(ids)
        patches = looks[0].repeat_interleave(n, dim=0)  # all texts of the first image, then of the second
        logits, _, _ = self._meet(patches, ids.repeat(b, 1), mask.repeat(b, 1), None)
        return (logits[:, 1] - logits[:, 0]).view(b, n)

    def _meet(
        self,
        patches: Float[Tensor, "b patch _"],
        ids: Int[Tensor, "b token"],
        mask: Int[Tensor, "b token"],
        lowest: int | None,
    ) -> tuple[Float[Tensor, "b 2"], dict[int, Tensor], dict[int, Tensor]]:
        """Return the matching head's logits, the mean over the queries, and each layer's attention.

        Its own is among queries and words, in this order; the other is the queries' to the image. The graph starts at
        layer ``lowest``; None: there is none.
        """
        former, queries = self._model.qformer, self._model.query_tokens
        lowest = len(former.encoder.layer) if lowest is None else lowest
        own: dict[int, Tensor] = {}
        crossing: dict[int, Tensor] = {}
        count, dtype = queries.shape[1], former.layernorm.weight.dtype  # transformers may keep the Q-Former in float32
        with torch.no_grad():
            both = self._model.embeddings(input_ids=ids, query_embeds=queries.expand(len(ids), -1, -1))
            hidden, patches = former.layernorm(both.to(dtype)), patches.to(dtype)
            padding = additive(torch.cat([mask.new_ones(len(mask), count), mask], dim=1), dtype)
        for index, layer in enumerate(former.encoder.layer):
            if index == lowest:
                hidden.requires_grad_()  # the graph starts here, so that nothing below costs a backward pass
            with torch.set_grad_enabled(index >= lowest):
                attended, own[index] = self._block(layer.attention, hidden, hidden, padding)
                looking, words = attended[:, :count], attended[:, count:]
                if layer.has_cross_attention:
                    looking, crossing[index] = self._block(layer.crossattention, looking, patches, None)
                parts = layer.feed_forward_chunk_query(looking), layer.feed_forward_chunk(words)
                hidden = torch.cat(parts, dim=1)
        logits: Tensor = self._model.itm_head(hidden[:, :count].to(self._model.itm_head.weight.dtype)).mean(1)
        return logits, own, crossing

    def _block(
        self,
        block: Any,
        hidden: Float[Tensor, "b n width"],
        seen: Float[Tensor, "b m _"],
        padding: Float[Tensor, "b 1 1 m"] | None,
    ) -> tuple[Float[Tensor, "b n width"], Float[Tensor, "b head n m"]]:
        """Return ``hidden`` after a block's attention to what is ``seen``, and that attention."""
        reads = block.attention
        parts = reads.query(hidden), reads.key(seen), reads.value(seen)
        found, weights = kept_attention(*parts, self.heads, padding)
        return block.output(found, hidden), weights

    @torch.no_grad()
    def _patches(self, pixels: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b patch width"]:
        return see(self._model.vision_model, pixels)


def _route(
    own: Float[Tensor, "b head both both"], crossing: Float[Tensor, "b head query _"], queries: int
) -> Float[Tensor, "b head token _"]:
    """Return how words reach patches through the queries; the image's ``[CLS]`` is left out."""
    reading = own[:, :, queries:, :queries].mean(1)
    return torch.einsum("btq,bhqp->bhtp", reading, crossing[..., 1:])
