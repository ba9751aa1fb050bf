"""What training asks of a model, and the small BLIP: `encode_image` (image tower) and `match` (text with image).

The forward pass runs over the modules of the Hugging Face model but is written out here, for three reasons: the image
tower may leave out patch tokens, the texts of an image share its keys and values, and plain matrix products are
the fastest attention to train on a CPU. With nothing left out it equals the model's own forward.
"""

from collections.abc import Callable
from typing import Any

from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import BlipConfig, BlipForImageTextRetrieval

from pnp_ovss.models.base import gather_tokens
from training.captions import NAMES
from training.config import TrainConfig
from training.tokenizer import EXTRA_ROWS, MAX_TOKENS, vocabulary

Watch = Callable[[Tensor], Tensor]
"""Takes the attention (b, head, n, m) of a layer, and returns what is used of it."""


class Trainee(nn.Module):
    """What the training loop asks of a model."""

    model: Any  # the Hugging Face model, which is what is exported
    tagger: nn.Linear  # class logits per patch; used in training only

    def encode_image(
        self, pixels: Float[Tensor, "b 3 s s"], keep: Int[Tensor, "b kept"] | None = None
    ) -> Float[Tensor, "b 1+kept width"]:
        """Image tokens, [CLS] first; of the patches only those in ``keep``, or all."""
        raise NotImplementedError

    def tags(self, image_tokens: Float[Tensor, "b token width"]) -> Float[Tensor, "b patch name"]:
        """Name logits of each patch."""
        logits: Tensor = self.tagger(image_tokens[:, 1:])
        return logits

    def match(
        self,
        image_tokens: Float[Tensor, "b token width"],
        ids: Int[Tensor, "b text t"],
        mask: Bool[Tensor, "b text t"],
        record: list[Tensor] | None = None,
        stays: Float[Tensor, "b token"] | None = None,
    ) -> Float[Tensor, "b text 2"]:
        """Match logits of each image with its texts; cross-attention (b, head, text * t, token) goes to ``record``.

        The attention to each token is multiplied by ``stays``, after it was recorded.
        """
        raise NotImplementedError

    def vectors(
        self, image_tokens: Float[Tensor, "b token width"], ids: Int[Tensor, "b t"], mask: Bool[Tensor, "b t"]
    ) -> tuple[Float[Tensor, "b d"], Float[Tensor, "b d"]]:
        """Unit vectors of images and of texts, each on its own."""
        raise NotImplementedError


class MiniBlip(Trainee):
    """BLIP for image-text retrieval with a tag head."""

    def __init__(self, config: TrainConfig) -> None:
        super().__init__()
        words = len(vocabulary())
        shape = {
            "hidden_size": config.width,
            "intermediate_size": 4 * config.width,
            "num_hidden_layers": config.layers,
            "num_attention_heads": config.heads,
            "projection_dim": config.width,
            "initializer_range": 0.02,
        }
        text = {
            "vocab_size": words + EXTRA_ROWS,
            "max_position_embeddings": MAX_TOKENS,
            "bos_token_id": words,
            "pad_token_id": 0,
            "eos_token_id": 3,
            "sep_token_id": 3,
        }
        vision = {"image_size": config.image_size, "patch_size": config.patch}
        self.model = BlipForImageTextRetrieval(
            BlipConfig(text_config={**shape, **text}, vision_config={**shape, **vision}, image_text_hidden_size=64)
        )
        nn.init.normal_(self.model.vision_model.embeddings.position_embedding, std=0.02)
        nn.init.normal_(self.model.vision_model.embeddings.class_embedding, std=0.02)
        self.tagger = nn.Linear(config.width, len(NAMES))
        self.heads = config.heads

    def encode_image(
        self, pixels: Float[Tensor, "b 3 s s"], keep: Int[Tensor, "b kept"] | None = None
    ) -> Float[Tensor, "b 1+kept width"]:
        """Image tokens, [CLS] first; of the patches only those in ``keep``, or all."""
        tower = self.model.vision_model
        x = gather_tokens(tower.embeddings(pixels), keep)
        for layer in tower.encoder.layers:
            q, k, v = layer.self_attn.qkv(layer.layer_norm1(x)).chunk(3, -1)
            x = x + layer.self_attn.projection(attend(q, k, v, self.heads))
            x = x + layer.mlp(layer.layer_norm2(x))
        y: Tensor = tower.post_layernorm(x)
        return y

    def match(
        self,
        image_tokens: Float[Tensor, "b token width"],
        ids: Int[Tensor, "b text t"],
        mask: Bool[Tensor, "b text t"],
        record: list[Tensor] | None = None,
        stays: Float[Tensor, "b token"] | None = None,
    ) -> Float[Tensor, "b text 2"]:
        """Match logits of each image with its texts; cross-attention (b, head, text * t, token) goes to ``record``.

        The attention to each token is multiplied by ``stays``, after it was recorded.
        """
        ids = ids.clone()
        ids[..., 0] = self.model.config.text_config.vocab_size - 1  # [ENC]
        x = self._read(ids.flatten(0, 1), mask.flatten(0, 1), image_tokens, record, stays)
        logits: Tensor = self.model.itm_head(x[:, 0]).reshape(*ids.shape[:2], 2)
        return logits

    def vectors(
        self, image_tokens: Float[Tensor, "b token width"], ids: Int[Tensor, "b t"], mask: Bool[Tensor, "b t"]
    ) -> tuple[Float[Tensor, "b d"], Float[Tensor, "b d"]]:
        """Unit vectors of images and of texts, each on its own."""
        text = self.model.text_proj(self._read(ids, mask)[:, 0])
        return F.normalize(self.model.vision_proj(image_tokens[:, 0]).float(), dim=-1), F.normalize(
            text.float(), dim=-1
        )

    def _read(
        self,
        ids: Int[Tensor, "text t"],
        mask: Bool[Tensor, "text t"],
        image_tokens: Float[Tensor, "b token width"] | None = None,
        record: list[Tensor] | None = None,
        stays: Float[Tensor, "b token"] | None = None,
    ) -> Float[Tensor, "text t width"]:
        """Text tokens, after looking at the image if there is one (the texts of an image follow each other)."""
        x: Tensor = self.model.text_encoder.embeddings(ids)
        padding, watch = ~mask[:, None, None], recorder(record, stays)
        for layer in self.model.text_encoder.encoder.layer:
            own = layer.attention
            x = own.output(attend(own.self.query(x), own.self.key(x), own.self.value(x), self.heads, padding), x)
            if image_tokens is not None:
                cross = layer.crossattention
                asked = cross.self.query(x).reshape(len(image_tokens), -1, x.shape[-1])
                found = attend(
                    asked, cross.self.key(image_tokens), cross.self.value(image_tokens), self.heads, watch=watch
                )
                x = cross.output(found.reshape(x.shape), x)
            x = layer.feed_forward_chunk(x)
        return x


def attend(
    q: Float[Tensor, "b n width"],
    k: Float[Tensor, "b m width"],
    v: Float[Tensor, "b m width"],
    heads: int,
    hidden: Bool[Tensor, "*_ n_or_1 m"] | None = None,
    watch: Watch | None = None,
) -> Float[Tensor, "b n width"]:
    """Attention by plain matrix products; nothing ``hidden`` is looked at, and ``watch`` may keep or change weights."""
    q, k, v = (x.reshape(*x.shape[:2], heads, -1).transpose(1, 2) for x in (q, k, v))
    scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)
    if hidden is not None:
        scores = scores.masked_fill(hidden, -1e4)
    weights = scores.softmax(-1)
    if watch is not None:
        weights = watch(weights)
    found: Tensor = weights.to(v.dtype) @ v
    return found.transpose(1, 2).flatten(2)


def recorder(record: list[Tensor] | None, stays: Float[Tensor, "b m"] | None) -> Watch:
    """Appends the weights to ``record``, then multiplies those of each token by ``stays``."""

    def watch(weights: Float[Tensor, "b head n m"]) -> Float[Tensor, "b head n m"]:
        if record is not None:
            record.append(weights)
        return weights if stays is None else weights * stays[:, None, None]

    return watch
