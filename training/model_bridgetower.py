"""The small BridgeTower: an image tower and a text tower, and layers in which each stream reads the other.

As in the published one the image tower is CLIP's. Here it is mini-clip's, and it stays as it is; a tag head on its
patches, the text tower and the cross-modal layers learn.
"""

from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from transformers import BridgeTowerConfig, BridgeTowerForImageAndTextRetrieval

from pnp_ovss.models.base import gather_tokens
from training.captions import NAMES
from training.config import TrainConfig
from training.model import Trainee, Watch, attend, recorder
from training.tokenizer import MAX_TOKENS, vocabulary

CROSS_LAYERS = 3  # in the last one only what the two pooled tokens read has a say
RENAMED = (  # CLIP's names for the parts of an image tower, and BridgeTower's
    ("pre_layrnorm", "ln_pre"),
    ("post_layernorm", "ln_post"),
    ("encoder.layers", "transformer.resblocks"),
    ("layer_norm", "ln_"),
    ("mlp.fc1", "mlp.c_fc"),
    ("mlp.fc2", "mlp.c_proj"),
    ("self_attn.out_proj", "attn.out_proj"),
)


class MiniBridgeTower(Trainee):
    """BridgeTower for image-text retrieval with a tag head.

    ``encode_image`` gives the tokens after each of the image tower's last ``CROSS_LAYERS`` layers, side by side.
    """

    def __init__(self, config: TrainConfig) -> None:
        super().__init__()
        tower = {"hidden_size": config.width, "num_hidden_layers": config.layers}
        text = {
            "vocab_size": len(vocabulary()),
            "max_position_embeddings": MAX_TOKENS + 1,  # positions are counted from pad_token_id + 1
            "num_attention_heads": config.heads,
            "intermediate_size": 4 * config.width,
            "bos_token_id": 2,  # [CLS]
            "eos_token_id": 3,  # [SEP]
            "pad_token_id": 0,
            "hidden_dropout_prob": 0.0,
            "initializer_factor": 0.4,
        }
        vision = {"image_size": config.image_size, "patch_size": config.patch}
        self.model = BridgeTowerForImageAndTextRetrieval(
            BridgeTowerConfig(
                hidden_size=config.width,
                num_hidden_layers=CROSS_LAYERS,
                num_attention_heads=config.heads,
                initializer_factor=0.4,  # of a deviation of 0.05
                text_config=tower | text,
                vision_config=tower | vision,
            )
        )
        self.tagger = nn.Linear(config.width, len(NAMES))
        self.heads = config.heads
        self.model.bridgetower.vision_model.visual.requires_grad_(False)

    def take_over(self, clip: dict[str, Tensor]) -> None:
        """Sees through the image tower of a CLIP, given its weights."""
        self.model.bridgetower.vision_model.visual.load_state_dict(image_tower(clip))

    @torch.no_grad()
    def encode_image(
        self, pixels: Float[Tensor, "b 3 s s"], keep: Int[Tensor, "b kept"] | None = None
    ) -> Float[Tensor, "b 1+kept levels*width"]:
        """Image tokens, [CLS] first, of the last layers side by side; of the patches only those in ``keep``, or all."""
        visual = self.model.bridgetower.vision_model.visual
        x = gather_tokens(visual.forward_pre(pixels).transpose(0, 1), keep)
        levels = []
        for block in visual.transformer.resblocks:
            own = block.attn
            q, k, v = nn.functional.linear(block.ln_1(x), own.in_proj_weight, own.in_proj_bias).chunk(3, -1)
            x = x + own.out_proj(attend(q, k, v, own.num_heads))
            y = block.ln_2(x)
            for part in block.mlp.values():
                y = part(y)
            x = x + y
            levels.append(visual.ln_post(x))
        return torch.cat(levels[-CROSS_LAYERS:], -1)

    def tags(self, image_tokens: Float[Tensor, "b token levels*width"]) -> Float[Tensor, "b patch name"]:
        """Name logits of each patch, from the last layer."""
        logits: Tensor = self.tagger(image_tokens[:, 1:, -self.tagger.in_features :])
        return logits

    def match(
        self,
        image_tokens: Float[Tensor, "b token levels*width"],
        ids: Int[Tensor, "b text t"],
        mask: Bool[Tensor, "b text t"],
        record: list[Tensor] | None = None,
        stays: Float[Tensor, "b token"] | None = None,
    ) -> Float[Tensor, "b text 2"]:
        """Match logits of each image with its texts; the attention of the text stream to the image goes to ``record``.

        The attention to each token is multiplied by ``stays``, after it was recorded.
        """
        tower, (b, n) = self.model.bridgetower, ids.shape[:2]
        kind = tower.token_type_embeddings.weight
        words = ~mask.flatten(0, 1)[:, None, None]  # which are none
        watch = together(n, recorder(record, stays))
        images = [tower.cross_modal_image_transform(level) + kind[1] for level in image_tokens.chunk(CROSS_LAYERS, -1)]
        texts = [tower.cross_modal_text_transform(level) + kind[0] for level in self._read(ids.flatten(0, 1), words)]
        text, image = tower.cross_modal_text_layernorm(texts[0]), tower.cross_modal_image_layernorm(images[0])
        for k in range(CROSS_LAYERS):
            if k:
                text = tower.cross_modal_text_link_tower[k - 1](texts[k], text, None)
                image = tower.cross_modal_image_link_tower[k - 1](images[k].repeat_interleave(n, 0), image, None)
            reader, seer = tower.cross_modal_text_layers[k], tower.cross_modal_image_layers[k]
            x = self._own(reader, text, words)
            y = self._own(seer, image, None, first=k == CROSS_LAYERS - 1)
            if k == 0:  # the texts of an image still share what they see of it
                image, y = image.repeat_interleave(n, 0), y.repeat_interleave(n, 0)
            asks, looks = reader.crossattention, seer.crossattention
            keys, values = asks.self.key(image), asks.self.value(image)
            read = asks.output(attend(asks.self.query(x), keys, values, self.heads, watch=watch), x)
            keys, values = looks.self.key(text), looks.self.value(text)
            found = looks.output(attend(looks.self.query(y), keys, values, self.heads, words), y)
            text, image = reader.feed_forward_chunk(read), seer.feed_forward_chunk(found)
        pooled = torch.cat([tower.cross_modal_text_pooler(text), tower.cross_modal_image_pooler(image)], -1)
        logits: Tensor = self.model.itm_score(pooled).reshape(b, n, 2)
        return logits

    def _read(
        self, ids: Int[Tensor, "text t"], padding: Bool[Tensor, "text 1 1 t"]
    ) -> list[Float[Tensor, "text t width"]]:
        """Text tokens after each of the text tower's last ``CROSS_LAYERS`` layers."""
        tower = self.model.bridgetower.text_model
        x, levels = tower.embeddings(ids), []
        for layer in tower.encoder.layer:
            x = layer.feed_forward_chunk(self._own(layer, x, padding))
            levels.append(x)
        return levels[-CROSS_LAYERS:]

    def _own(
        self, layer: Any, x: Float[Tensor, "b t width"], hidden: Bool[Tensor, "b 1 1 t"] | None, first: bool = False
    ) -> Float[Tensor, "b some width"]:
        """The layer's self-attention; with ``first``, what it gives the first token."""
        own, asker = layer.attention, x[:, :1] if first else x
        found = attend(own.self.query(asker), own.self.key(x), own.self.value(x), self.heads, hidden)
        y: Tensor = own.output(found, asker)
        return y


def together(n: int, watch: Watch) -> Watch:
    """Shows ``watch`` the attention of an image's ``n`` texts as that of one long text."""

    def both(weights: Float[Tensor, "bn head t m"]) -> Float[Tensor, "bn head t m"]:
        bn, head, t, m = weights.shape
        joined = weights.reshape(bn // n, n, head, t, m).transpose(1, 2).reshape(bn // n, head, n * t, m)
        return watch(joined).reshape(bn // n, head, n, t, m).transpose(1, 2).reshape(bn, head, t, m)

    return both


def image_tower(clip: dict[str, Tensor]) -> dict[str, Tensor]:
    """The weights of CLIP's image tower under BridgeTower's names, float32."""
    found: dict[str, Tensor] = {}
    for name, value in clip.items():
        if name.startswith("vision_model.") and "self_attn.q_proj" in name:
            joined = torch.cat([clip[name.replace("q_proj", f"{part}_proj")] for part in "qkv"]).float()
            name = name.replace("self_attn.q_proj.", "attn.in_proj_")
        elif name.startswith("vision_model.") and "k_proj" not in name and "v_proj" not in name:
            joined = value.float()
        else:
            continue
        name = name.removeprefix("vision_model.")
        for theirs, ours in RENAMED:
            name = name.replace(theirs, ours)
        found[name] = joined
    return found
