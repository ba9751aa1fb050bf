"""The small dual encoder: CLIP's architecture, with its loss and how its progress is watched.

It learns from words alone, as the other models do: whole image and whole caption find each other, each patch shows one
of the image's words, and the image is near ``"a picture of NAME"`` exactly for the names that are said of it. The last
one is what naming asks of it later, and what a softmax over a batch does not teach: several names are true at once.
"""

from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import BertTokenizer, CLIPConfig, CLIPModel

from pnp_ovss.models.base import gather_tokens
from training.batches import Batch, tags, tokens
from training.captions import NAMES, PROMPT
from training.config import TrainConfig
from training.losses import by_shard, contrast_loss, tag_loss
from training.model import Trainee, attend
from training.monitor import pixels
from training.scene_cache import DrawnScenes
from training.tokenizer import MAX_TOKENS, build_tokenizer, vocabulary

BEGIN, END, PADDING = 2, 3, 0  # [CLS], [SEP], [PAD]
HEAD = 64  # width of an attention head, as in every CLIP
NAMES_WEIGHT = 10.0  # of the name loss, a mean over 26 names most of which are easily absent
PRIOR = -1.5  # log odds of a name before anything is image_tokens


class MiniClip(Trainee):
    """CLIP with a tag head; what is exported is ``model`` alone."""

    name_ids: Int[Tensor, "name t"]
    name_mask: Bool[Tensor, "name t"]

    def __init__(self, config: TrainConfig) -> None:
        super().__init__()
        tower = {
            "hidden_size": config.width,
            "intermediate_size": 4 * config.width,
            "num_hidden_layers": config.layers,
            "num_attention_heads": max(1, config.width // HEAD),
        }
        text = {
            "vocab_size": len(vocabulary()),
            "max_position_embeddings": MAX_TOKENS,
            "bos_token_id": BEGIN,
            "eos_token_id": END,
            "pad_token_id": PADDING,
        }
        vision = {"image_size": config.image_size, "patch_size": config.patch}
        self.model = CLIPModel(
            CLIPConfig(text_config=tower | text, vision_config=tower | vision, projection_dim=config.width)
        )
        self.tagger = nn.Linear(config.width, len(NAMES))
        self.prior = nn.Parameter(torch.tensor(PRIOR))
        self.heads = max(1, config.width // HEAD)
        ids, mask = tokens(build_tokenizer(), [PROMPT.format(name) for name in NAMES])
        self.register_buffer("name_ids", ids, persistent=False)
        self.register_buffer("name_mask", mask, persistent=False)

    def encode_image(
        self, pixels: Float[Tensor, "b 3 s s"], keep: Int[Tensor, "b kept"] | None = None
    ) -> Float[Tensor, "b 1+kept width"]:
        """Image tokens after the last norm, [CLS] first; of the patches only those in ``keep``, or all."""
        tower = self.model.vision_model
        x = gather_tokens(tower.embeddings(pixels), keep)
        y: Tensor = tower.post_layernorm(self._read(tower.encoder.layers, tower.pre_layrnorm(x)))
        return y

    def vectors(
        self, image_tokens: Float[Tensor, "b token width"], ids: Int[Tensor, "n t"], mask: Bool[Tensor, "n t"]
    ) -> tuple[Float[Tensor, "b d"], Float[Tensor, "n d"]]:
        """Unit vectors of images and of texts, each on its own."""
        tower = self.model.text_model
        # Nothing looks ahead, and padding comes last: what the end token reads is free of it without a mask.
        ahead = torch.ones(ids.shape[1], ids.shape[1], dtype=torch.bool, device=ids.device).triu(1)
        x = tower.final_layer_norm(self._read(tower.encoder.layers, tower.embeddings(ids), ahead))
        last = x[torch.arange(len(ids), device=ids.device), (ids == END).int().argmax(1)]
        image, text = self.model.visual_projection(image_tokens[:, 0]), self.model.text_projection(last)
        return F.normalize(image.float(), dim=-1), F.normalize(text.float(), dim=-1)

    def names(self, image_tokens: Float[Tensor, "b token width"]) -> Float[Tensor, "b name"]:
        """Log odds that each of ``NAMES`` is said of the image."""
        image, text = self.vectors(image_tokens, self.name_ids, self.name_mask)
        odds: Tensor = self.model.logit_scale.exp() * image @ text.T + self.prior
        return odds

    def _read(
        self, layers: Any, x: Float[Tensor, "b t width"], hidden: Bool[Tensor, "t t"] | None = None
    ) -> Float[Tensor, "b t width"]:
        for layer in layers:
            own, y = layer.self_attn, layer.layer_norm1(x)
            x = x + own.out_proj(attend(own.q_proj(y), own.k_proj(y), own.v_proj(y), self.heads, hidden))
            x = x + layer.mlp(layer.layer_norm2(x))
        return x


def clip_loss(model: MiniClip, batch: Batch, config: TrainConfig, step: int) -> tuple[Tensor, dict[str, Tensor]]:
    """The weighted sum, and its parts for the log."""
    image_tokens = model.encode_image(batch.pixels, batch.keep)
    image, text = model.vectors(image_tokens, batch.sentence_ids, batch.sentence_mask)
    odds = model.names(image_tokens)
    parts = {
        "tags": tag_loss(model.tags(image_tokens), batch.tags),
        "contrast": by_shard(contrast_loss, batch.shards, image, text, batch.tags, config.temperature),
        "names": F.binary_cross_entropy_with_logits(odds, batch.tags.float()),
    }
    loss = config.tags * parts["tags"] + config.contrast * parts["contrast"] + NAMES_WEIGHT * parts["names"]
    parts["right"] = ((odds > 0) == batch.tags).float().mean()
    return loss, {name: value.detach() for name, value in parts.items()}


@torch.no_grad()
def watch_clip(
    model: MiniClip, scenes: DrawnScenes, tokenizer: BertTokenizer, config: TrainConfig
) -> dict[str, object]:
    """Precision, recall and F1 of naming on the watched scenes, at even odds."""
    chunks = range(0, len(scenes), 64)
    device = model.prior.device
    odds = [model.names(model.encode_image(pixels(scenes.images[k : k + 64], device))).cpu() for k in chunks]
    prediction, truth = torch.cat(odds) > 0, tags(scenes, torch.arange(len(scenes)).numpy())
    right, named, present = (int(x.sum()) for x in (prediction & truth, prediction, truth))
    return {
        "precision": round(right / max(1, named), 4),
        "recall": round(right / present, 4),
        "f1": round(2 * right / (named + present), 4),
    }
