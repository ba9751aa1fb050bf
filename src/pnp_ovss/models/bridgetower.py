"""BridgeTower with an image-text-matching head: two towers, and above them text and image that read each other.

Xu, Wu, Rosenman, Lal, Che, Duan: BridgeTower, AAAI 2023. Any BridgeTower checkpoint whose weights hold the matching
head fits, whatever architecture its ``config.json`` names.
"""

from typing import Any

import torch
from torch import Tensor, nn

from pnp_ovss.models.base import (
    Fused,
    Hidden,
    Indices,
    Kept,
    Matcher,
    Padding,
    Pixels,
    States,
    Tokens,
    additive,
    gather_tokens,
)


class BridgeTower(Matcher):
    """A BridgeTower checkpoint.

    ``layers`` are the cross-modal ones. The towers below never see each other, so they run once and without gradients,
    although their upper layers feed every cross-modal layer. Above the lowest picked layer the gradient takes both
    branches, for there the image reads the text as well.
    """

    model_class = "BridgeTowerForImageAndTextRetrieval"
    preset = "bridgetower"
    # The image branch reads the text, so each prompt has a pass over all patches.
    prompts_at_once = 16

    def _configure(self, config: Any) -> None:
        self.layers, self.heads = config.num_hidden_layers, config.text_config.num_attention_heads
        self._pad: int = config.text_config.pad_token_id
        # Positions start behind the padding's.
        self.max_tokens = config.text_config.max_position_embeddings - self._pad - 1

    def _encode_images(self, pixels: Pixels, keep: Indices | None = None) -> list[Tensor]:
        """Return what each cross-modal layer gets from the image tower, ``[CLS]`` first.

        Positions are interpolated where the input is not of the checkpoint's own size. Every patch it gets is part
        of the image, so there is nothing to mask.
        """
        tower = self._model.bridgetower
        visual = tower.vision_model.visual
        embedded = gather_tokens(visual.embeddings(pixels, interpolate_pos_encoding=True), keep)
        hidden = visual.ln_pre(embedded).transpose(0, 1)
        states = []
        # The towers go up together.
        for block in visual.transformer.resblocks[: len(tower.text_model.encoder.layer)]:
            hidden = block(hidden)
            states.append(hidden)
        upper = [visual.ln_post(state.transpose(0, 1)) for state in states[-self.layers :]]
        kind = tower.token_type_embeddings.weight[1]
        return _arriving(upper, tower.cross_modal_image_transform, kind, tower.cross_modal_image_layernorm)

    def _encode_texts(self, ids: Tokens, mask: Tokens) -> list[Tensor]:
        """Return what each cross-modal layer gets from the text tower."""
        tower = self._model.bridgetower
        hidden = tower.text_model.embeddings(input_ids=ids)
        padding = additive(mask, hidden.dtype)
        states = []
        for layer in tower.text_model.encoder.layer:
            hidden = layer.feed_forward_chunk(self._block(layer.attention, hidden, hidden, padding))
            states.append(hidden)
        kind = tower.token_type_embeddings.weight[0]
        upper = states[-self.layers :]
        return _arriving(upper, tower.cross_modal_text_transform, kind, tower.cross_modal_text_layernorm)

    def _fuse(self, images: States, texts: States, mask: Tokens, lowest: int | None) -> Fused:
        tower = self._model.bridgetower
        text, image, padding = texts[0], images[0], additive(mask, texts[0].dtype)
        attention: dict[int, Kept] = {}
        for index in range(self.layers):
            # The bridge: what came up the tower joins what crossed over below.
            if index > 0:
                text = _of(tower.cross_modal_text_link_tower, index - 1)(texts[index], text, None)
                image = _of(tower.cross_modal_image_link_tower, index - 1)(images[index], image, None)
            if index == lowest:
                # The graph starts here, so that nothing below costs a backward pass.
                text.requires_grad_()
            layer = tower.cross_modal_text_layers[index]
            attended = self._block(layer.attention, text, text, padding)
            found, weights = self._kept(layer.crossattention.self, attended, image)
            attention[index] = (weights,)
            crossed = layer.feed_forward_chunk(layer.crossattention.output(found, attended))
            layer = tower.cross_modal_image_layers[index]
            # The matching head reads [CLS] alone, so the last layer needs no patch but as context.
            reading = image[:, :1] if index == self.layers - 1 else image
            attended = self._block(layer.attention, reading, image, None)
            image = layer.feed_forward_chunk(self._block(layer.crossattention, attended, text, padding))
            text = crossed
        pooled = tower.cross_modal_text_pooler(text), tower.cross_modal_image_pooler(image)
        return self._model.itm_score(torch.cat(pooled, dim=-1)), attention

    def _block(self, block: Any, hidden: Hidden, context: Tensor, padding: Padding) -> Hidden:
        """Return ``hidden`` after a block's attention to the context."""
        attended: Tensor = block.output(self._fused(block.self, hidden, context, padding), hidden)
        return attended

    def _ids(self, ids: Tokens, mask: Tokens) -> Tokens:
        # Positions count the tokens that are not padding.
        return ids.masked_fill(mask == 0, self._pad)


def _arriving(states: States, transforms: nn.Module, kind: Tensor, norm: nn.Module) -> list[Tensor]:
    """Return a tower's states as the cross-modal layers take them; the first has no bridge, so it is normalised."""
    arriving = [_of(transforms, index)(state) + kind for index, state in enumerate(states)]
    return [norm(arriving[0]), *arriving[1:]]


def _of(modules: nn.Module, index: int) -> nn.Module:
    """Return a layer's own module, or the one that all layers share."""
    return modules[index] if isinstance(modules, nn.ModuleList) else modules
