"""BridgeTower with an image-text-matching head: two towers, and above them text and image that read each other.

Xu, Wu, Rosenman, Lal, Che, Duan: BridgeTower, AAAI 2023. Any BridgeTower checkpoint whose weights hold the matching
head fits, whatever architecture its ``config.json`` names.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import BridgeTowerForImageAndTextRetrieval

from pnp_ovss.models.adapter import MatchingAdapter, Tokens, additive, fused_attention, kept_attention
from pnp_ovss.types import Prompt


class BridgeTower(MatchingAdapter):
    """A BridgeTower checkpoint behind the ``VLM`` protocol.

    ``layers`` are the cross-modal ones. The towers below never see each other, so they run once and without gradients,
    although their upper layers feed every cross-modal layer. Above the lowest picked layer the gradient takes both
    branches, for there the image reads the text as well.
    """

    model_class = BridgeTowerForImageAndTextRetrieval
    preset = "bridgetower"
    prompts_at_once = 16  # the image branch reads the text, so each prompt has a pass over all patches

    def __init__(self, folder: Path, name: str, revision: str, device: torch.device, dtype: torch.dtype) -> None:
        super().__init__(folder, name, revision, device, dtype)
        config = self._model.config
        self.size, self.patch = config.vision_config.image_size, config.vision_config.patch_size
        self.layers, self.heads = config.num_hidden_layers, config.text_config.num_attention_heads
        self._pad: int = config.text_config.pad_token_id
        self._longest = config.text_config.max_position_embeddings - self._pad - 1  # positions start behind it

    def _trace(
        self,
        pixels: Float[Tensor, "b 3 h w"],
        ids: Int[Tensor, "b token"],
        mask: Int[Tensor, "b token"],
        picked: tuple[int, ...],
    ) -> tuple[Float[Tensor, " b"], list[Tensor]]:
        logits, weights = self._meet(self._words(ids, mask), self._patches(pixels), mask, picked)
        return logits[:, 1], [weights[index] for index in picked]  # index 1: 'they match'

    def _looks(self, pixels: Float[Tensor, "b 3 h w"]) -> list[Float[Tensor, "b patch width"]]:
        return self._patches(pixels)

    def _odds(
        self, ids: Int[Tensor, "n token"], mask: Int[Tensor, "n token"], looks: Sequence[Float[Tensor, "b patch width"]]
    ) -> Float[Tensor, "b n"]:
        b, n = len(looks[0]), len(ids)
        words = [state.repeat(b, 1, 1) for state in self._words(ids, mask)]  # all texts of the first image, then ...
        patches = [state.repeat_interleave(n, dim=0) for state in looks]
        logits, _ = self._meet(words, patches, mask.repeat(b, 1), ())
        return (logits[:, 1] - logits[:, 0]).view(b, n)

    def _meet(
        self,
        words: Sequence[Float[Tensor, "b token width"]],
        patches: Sequence[Float[Tensor, "b patch width"]],
        mask: Int[Tensor, "b token"],
        picked: tuple[int, ...],
    ) -> tuple[Float[Tensor, "b 2"], dict[int, Tensor]]:
        """Return the matching head's logits, and the attention of each layer's text to the image, ``[CLS]`` first."""
        tower = self._model.bridgetower
        text, image, padding = words[0], patches[0], additive(mask, words[0].dtype)
        lowest = min(picked, default=self.layers)
        weights: dict[int, Tensor] = {}
        for index in range(self.layers):
            with torch.set_grad_enabled(index >= lowest):
                if index > 0:  # the bridge: what came up the tower joins what crossed over below
                    text = _of(tower.cross_modal_text_link_tower, index - 1)(words[index], text, None)
                    image = _of(tower.cross_modal_image_link_tower, index - 1)(patches[index], image, None)
                if index == lowest:
                    text.requires_grad_()  # the graph starts here, so that nothing below costs a backward pass
                reader = tower.cross_modal_text_layers[index]
                attended = self._block(reader.attention, text, text, padding)
                found, weights[index] = kept_attention(*_projected(reader.crossattention, attended, image), self.heads)
                said = reader.feed_forward_chunk(reader.crossattention.output(found, attended))
                reader = tower.cross_modal_image_layers[index]
                # The matching head reads [CLS] alone, so the last layer needs no patch to look around.
                looking = image[:, :1] if index == self.layers - 1 else image
                attended = self._block(reader.attention, looking, image, None)
                image = reader.feed_forward_chunk(self._block(reader.crossattention, attended, text, padding))
                text = said
        pooled = tower.cross_modal_text_pooler(text), tower.cross_modal_image_pooler(image)
        logits: Tensor = self._model.itm_score(torch.cat(pooled, dim=-1))
        return logits, weights

    @torch.no_grad()
    def _words(self, ids: Int[Tensor, "b token"], mask: Int[Tensor, "b token"]) -> list[Float[Tensor, "b token width"]]:
        """Return what each cross-modal layer gets from the text tower."""
        tower = self._model.bridgetower
        hidden = tower.text_model.embeddings(input_ids=ids)
        padding = additive(mask, hidden.dtype)
        states = []
        for layer in tower.text_model.encoder.layer:
            hidden = layer.feed_forward_chunk(self._block(layer.attention, hidden, hidden, padding))
            states.append(hidden)
        transforms, kind = tower.cross_modal_text_transform, tower.token_type_embeddings.weight[0]
        return _arriving(states[-self.layers :], transforms, kind, tower.cross_modal_text_layernorm)

    @torch.no_grad()
    def _patches(self, pixels: Float[Tensor, "b 3 h w"]) -> list[Float[Tensor, "b patch width"]]:
        """Return what each cross-modal layer gets from the image tower, ``[CLS]`` first.

        Positions are interpolated where the input is not of the checkpoint's own size. Every patch is part of the
        image, so there is nothing to mask.
        """
        tower = self._model.bridgetower
        visual = tower.vision_model.visual
        hidden = visual.ln_pre(visual.embeddings(pixels, interpolate_pos_encoding=True)).transpose(0, 1)
        states = []
        for block in visual.transformer.resblocks[: len(tower.text_model.encoder.layer)]:  # the towers go up together
            hidden = block(hidden)
            states.append(hidden)
        arrived = [visual.ln_post(state.transpose(0, 1)) for state in states[-self.layers :]]
        transforms, kind = tower.cross_modal_image_transform, tower.token_type_embeddings.weight[1]
        return _arriving(arrived, transforms, kind, tower.cross_modal_image_layernorm)

    def _block(
        self,
        block: Any,
        hidden: Float[Tensor, "b n width"],
        seen: Float[Tensor, "b m width"],
        padding: Float[Tensor, "b 1 1 m"] | None,
    ) -> Float[Tensor, "b n width"]:
        """Return ``hidden`` after a block's attention to what is ``seen``."""
        attended: Tensor = block.output(fused_attention(*_projected(block, hidden, seen), self.heads, padding), hidden)
        return attended

    def _tokens(self, prompts: Sequence[Prompt]) -> Tokens:
        ids, mask, offsets = super()._tokens(prompts)
        # Positions count the tokens that are not this one, whatever the tokenizer pads with.
        return ids.masked_fill(mask == 0, self._pad), mask, offsets


def _arriving(
    states: Sequence[Float[Tensor, "b n _"]], transforms: nn.Module, kind: Float[Tensor, " width"], norm: nn.Module
) -> list[Float[Tensor, "b n width"]]:
    """Return a tower's states as the cross-modal layers take them; the first has no bridge, so it is normalised."""
    arriving = [_of(transforms, index)(state) + kind for index, state in enumerate(states)]
    return [norm(arriving[0]), *arriving[1:]]


def _projected(block: Any, hidden: Tensor, seen: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return block.self.query(hidden), block.self.key(seen), block.self.value(seen)


def _of(modules: nn.Module, index: int) -> nn.Module:
    """Return a layer's own module, or the one that all layers share."""
    return modules[index] if isinstance(modules, nn.ModuleList) else modules
