"""BLIP-2's first stage with its matching head: learned queries read the image, and the words read the queries.

Li, Li, Savarese, Hoi: BLIP-2, ICML 2023. Any ``Blip2ForImageTextRetrieval`` checkpoint fits.
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from pnp_ovss.errors import ModelError
from pnp_ovss.models.base import Fused, Hidden, Kept, Matcher, Padding, States, Tokens, additive


class Blip2(Matcher):
    """A BLIP-2 checkpoint.

    No word attends to a patch, so attention is the product of two: of the words to the queries, and of the queries to
    the patches in the layer below, where they last attended to the image. ``layers`` counts these pairs from below; the
    topmost is left out, for nothing reads its words. ``heads`` are those of the attention to the image; over the words'
    heads, which have no counterpart there, the mean is taken.
    """

    model_class = "Blip2ForImageTextRetrieval"
    preset = "blip2"
    int8_tower = "vision_model.encoder"
    prompts_at_once = 32

    def _configure(self, config: Any) -> None:
        queries = config.qformer_config
        if not queries.use_qformer_text_input:
            raise ModelError(f"{self.name}: expected a Q-Former that reads words, as blip2's, got another")
        self.heads, self.max_tokens = queries.num_attention_heads, queries.max_position_embeddings
        self._crossing = range(0, queries.num_hidden_layers - 2, queries.cross_attention_frequency)
        """The Q-Former's layers in which queries attend to the image, as long as a layer reads the words above."""
        self.layers = len(self._crossing)

    def _fuse(self, images: States, texts: States, mask: Tokens, lowest: int | None) -> Fused:
        """Return the logits, the mean over the queries, and per pair two attentions.

        The first is among queries and words, in this order; the second is the queries' to the image.
        """
        former, queries = self._model.qformer, self._model.query_tokens
        # Transformers may keep the Q-Former in float32.
        count, dtype = queries.shape[1], former.layernorm.weight.dtype
        both = self._model.embeddings(input_ids=texts[0], query_embeds=queries.expand(len(mask), -1, -1))
        hidden, patches = former.layernorm(both.to(dtype)), images[0].to(dtype)
        padding = additive(torch.cat([mask.new_ones(len(mask), count), mask], dim=1), dtype)
        own, crossing = {}, {}
        for index, layer in enumerate(former.encoder.layer):
            if lowest is not None and index == self._crossing[lowest]:
                # The graph starts here, so that nothing below costs a backward pass.
                hidden.requires_grad_()
            attended, own[index] = self._block(layer.attention, hidden, hidden, padding)
            seeing, words = attended[:, :count], attended[:, count:]
            if layer.has_cross_attention:
                seeing, crossing[index] = self._block(layer.crossattention, seeing, patches, None)
            hidden = torch.cat([layer.feed_forward_chunk_query(seeing), layer.feed_forward_chunk(words)], dim=1)
        logits = self._model.itm_head(hidden[:, :count].to(self._model.itm_head.weight.dtype)).mean(1)
        return logits, {pair: (own[index + 1], crossing[index]) for pair, index in enumerate(self._crossing)}

    def _maps(self, attention: Kept, slopes: Kept, tokens: int) -> tuple[Tensor, Tensor]:
        """Return the product of a pair, and the gradient that makes weights * gradient the product of GradCAMs.

        ``weights[h, t, p] = sum_q mean_g own[g, t, q] * crossing[h, q, p]``
        ``weights * gradient`` is the same sum of ``own * relu(dy / d own)`` and ``crossing * relu(dy / d crossing)``.
        """
        own, crossing, own_slope, crossing_slope = (part.float() for part in (*attention, *slopes))
        weights = _route(own, crossing)
        salience = _route(own * own_slope.relu(), crossing * crossing_slope.relu())
        return weights, salience / weights.clamp_min(torch.finfo(weights.dtype).tiny)

    def _block(self, block: Any, hidden: Hidden, context: Tensor, padding: Padding) -> tuple[Hidden, Tensor]:
        """Return ``hidden`` after a block's attention to the context, and that attention."""
        found, weights = self._kept(block.attention, hidden, context, padding)
        return block.output(found, hidden), weights


def _route(own: Tensor, crossing: Float[Tensor, "b head query _"]) -> Float[Tensor, "b head token _"]:
    """Return how words reach patches through the queries; the image's ``[CLS]`` is left out."""
    queries = crossing.shape[2]
    reading = own[:, :, queries:, :queries].mean(1)
    return torch.einsum("btq,bhqp->bhtp", reading, crossing[..., 1:])
