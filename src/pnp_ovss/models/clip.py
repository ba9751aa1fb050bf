"""CLIP: image and text each become a vector, and near ones belong together. Its blocks are open to the methods.

Radford et al.: Learning Transferable Visual Models From Natural Language Supervision, ICML 2021. Any ``CLIPModel``
checkpoint fits: OpenAI's, LAION's, MetaCLIP's; its ``config.json`` says which GELU it was trained with.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import interpolate, layer_norm, normalize
from transformers.activations import QuickGELUActivation

from pnp_ovss.models.base import fused_attention
from pnp_ovss.models.blocks import quick_gelu
from pnp_ovss.models.gpu import moved
from pnp_ovss.models.hub import Checkpoint, find, of_kind
from pnp_ovss.models.kept import keep, recall
from pnp_ovss.models.loading import Pretrained

TEXTS_AT_ONCE = 256

Tokens = Float[Tensor, "b token width"]
"""States of an image's tokens: ``[CLS]``, then the patches row by row."""
Heads = Float[Tensor, "b head token _"]


class DualEncoder(Pretrained):
    """A checkpoint with a tower for images and one for texts. Vectors are of length 1, float32, on ``device``.

    ``prepare`` gives all of a photo, where CLIP's own code cuts the ends off.
    """

    for_any_name = "use clip-base"

    def __init__(self, checkpoint: Checkpoint, device: str, dtype: str) -> None:
        super().__init__(checkpoint, device, dtype)
        if self.has_tokenizer:  # what cannot be used is found before any photo
            self.tokenize(["a", "a b"])
        self.scale = float(self._model.logit_scale.detach().float().exp())
        """What the model was trained to multiply similarities by before a softmax."""
        self.longest: int = self._model.config.text_config.max_position_embeddings
        """Tokens of a text that the model reads."""
        self.dtype: torch.dtype = self._model.dtype
        self._vectors: dict[tuple[str, tuple[str, ...]], Tensor] = {}

    @torch.no_grad()
    def encode_images(self, pixels: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b width"]:
        """Return a vector for each image; ``pixels`` come from ``prepare``."""
        pixels = moved(pixels, self.device).to(self._model.dtype)
        pooled = self._model.vision_model(pixel_values=pixels).pooler_output
        return normalize(self._model.visual_projection(pooled).float(), dim=-1)

    @torch.no_grad()
    def encode_texts(self, texts: Sequence[str], unit: bool = True) -> Float[Tensor, "n width"]:
        """Return a vector for each text; what is longer than the model reads is cut off.

        ``unit``: of length 1; else as the model gives it.
        """
        parts = []
        for start in range(0, len(texts), TEXTS_AT_ONCE):
            some = list(texts[start : start + TEXTS_AT_ONCE])
            tokens = self.tokenize(some, truncation=True, max_length=self.longest)
            parts.append(self.embed_tokens(tokens["input_ids"], tokens["attention_mask"]))
        return normalize(torch.cat(parts), dim=-1) if unit else torch.cat(parts)

    def encode_tokens(self, ids: Int[Tensor, "n token"], mask: Int[Tensor, "n token"]) -> Float[Tensor, "n width"]:
        """Return a vector for each text, given as the tokenizer's ids; ``mask`` is 0 for padding."""
        return normalize(self.embed_tokens(ids, mask), dim=-1)

    @torch.no_grad()
    def embed_tokens(self, ids: Int[Tensor, "n token"], mask: Int[Tensor, "n token"]) -> Float[Tensor, "n width"]:
        """Return what ``encode_tokens`` does before its length is made 1."""
        pooled = self._model.text_model(input_ids=moved(ids, self.device), attention_mask=moved(mask, self.device))
        embedded: Tensor = self._model.text_projection(pooled.pooler_output)
        return embedded.float()

    def encode_words(
        self, words: Sequence[str], templates: Sequence[str], unit: bool = True
    ) -> Float[Tensor, "word width"]:
        """Return a vector for each word: the direction of the mean over its texts, one per template.

        ``unit``: whether all texts count alike; else longer vectors count more.

        In a template such as "a photo of a {}." the braces stand for the word. What was encoded once is kept; the
        vectors of many words, for other processes too, in the user's cache.

        Raises: InputError if the model cannot know a word.
        """
        self.check_known(words)
        form = (*templates, str(unit))
        new = [word for word in dict.fromkeys(words) if (word, form) not in self._vectors]
        if new:
            texts = [template.replace("{}", word) for word in new for template in templates]
            shape = len(new), len(templates), -1
            means = self._kept(texts, unit, lambda: ensemble(self.encode_texts(texts, unit).view(shape)))
            self._vectors |= {(word, form): mean for word, mean in zip(new, means, strict=True)}
        return torch.stack([self._vectors[word, form] for word in words])

    def _kept(self, texts: Sequence[str], unit: bool, encode: Callable[[], Tensor]) -> Float[Tensor, "word width"]:
        """Return what ``encode`` gives for these texts, or gave in an earlier process.

        Few texts are encoded in no time; a cache that cannot be read or written is as none.
        """
        if len(texts) <= TEXTS_AT_ONCE:
            return encode()
        tokenizer = self._tokenizer.backend_tokenizer.to_str()
        about = [self.revision, self.device.type, str(self.dtype), torch.__version__, tokenizer, unit, *texts]
        if (found := recall("vectors", about)) is not None:
            return found.to(self.device)
        vectors = encode()
        keep("vectors", about, vectors)
        return vectors


class Clip(DualEncoder):
    """A CLIP checkpoint, the blocks of its image tower open."""

    model_class = "CLIPModel"
    bfloat16_on_cpu = True
    tower = "run"
    int8_tower = "vision_model.encoder"

    def __init__(self, checkpoint: Checkpoint, device: str, dtype: str) -> None:
        super().__init__(checkpoint, device, dtype)
        self.blocks: int = len(self._model.vision_model.encoder.layers)
        """Transformer blocks of the image tower."""
        self.heads: int = self._model.config.vision_config.num_attention_heads

    def take_gelu(self, epsilon: float) -> None:
        """Let the image tower compute with GELU, and ``epsilon`` in its LayerNorms, whatever it was trained with."""
        for block in self._model.vision_model.encoder.layers:
            block.mlp.activation_fn = torch.nn.GELU()
        for layer in self._model.vision_model.modules():
            if isinstance(layer, torch.nn.LayerNorm):
                layer.eps = epsilon

    @torch.no_grad()
    def encode_queries_and_keys(self, pixels: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b gh gw width"]:
        """Return the sum of the last block's queries and keys of each patch, the heads side by side, float32."""
        q, k, _ = self.qkv(self.blocks - 1, self.run(self.embed(pixels), 0, self.blocks - 1))
        return (q + k)[:, 1:].float().view(len(pixels), -1, pixels.shape[3] // self.patch, q.shape[2])

    def embed(self, pixels: Float[Tensor, "b 3 h w"], by_size: bool = False) -> Tokens:
        """Return what the first block of the image tower reads.

        The grid has ``side // patch`` rows and columns; the rest is left out. ``by_size``: as ``positions``.
        """
        vision, weight = (
            self._model.vision_model.embeddings,
            self._model.vision_model.embeddings.position_embedding.weight,
        )
        patches = vision.patch_embedding(pixels.to(self.device, self._model.dtype))
        table = positions(weight, patches.shape[2], patches.shape[3], by_size)
        start = vision.class_embedding.expand(len(patches), 1, -1)
        tokens = torch.cat([start, patches.flatten(2).transpose(1, 2)], 1).float() + table
        return norm(self._model.vision_model.pre_layrnorm, tokens)

    def run(self, tokens: Tokens, first: int, last: int) -> Tokens:
        """Return the tokens after the blocks ``first`` to ``last - 1``."""
        for index in range(first, last):
            q, k, v = self.qkv(index, tokens)
            tokens = self.mix(index, fused_attention(q, k, v, self.heads)).float().add_(tokens)
            tokens = self.feed(index, tokens)
        return tokens

    def qkv(self, index: int, tokens: Tokens) -> tuple[Tokens, Tokens, Tokens]:
        """Return queries, keys and values of a block, from the tokens that enter it; the heads lie side by side."""
        block = self._block(index)
        y, attention = norm(block.layer_norm1, tokens).to(self.dtype), block.self_attn
        return attention.q_proj(y), attention.k_proj(y), attention.v_proj(y)

    def mix(self, index: int, attended: Tokens) -> Tokens:
        """Return what a block's attention gives: its heads' values, once attended, through the output layer."""
        mixed: Tokens = self._block(index).self_attn.out_proj(attended)
        return mixed

    def feed(self, index: int, tokens: Tokens) -> Tokens:
        """Return the tokens after the second half of a block: the feed-forward layers, added to what enters."""
        block = self._block(index)
        hidden, activation = block.mlp.fc1(norm(block.layer_norm2, tokens).to(self.dtype)), block.mlp.activation_fn
        hidden = quick_gelu(hidden) if isinstance(activation, QuickGELUActivation) else activation(hidden)
        fed: Tokens = block.mlp.fc2(hidden).float().add_(tokens)
        return fed

    def project(self, tokens: Tokens) -> Float[Tensor, "b token out"]:
        """Return vectors that can be compared with those of texts, not yet of length 1; float32."""
        normed = norm(self._model.vision_model.post_layernorm, tokens).to(self.dtype)
        projected: Tensor = self._model.visual_projection(normed)
        return projected.float()

    def _block(self, index: int) -> Any:
        return self._model.vision_model.encoder.layers[index]


def norm(layer: Any, tokens: Tokens) -> Tokens:
    """Return the tokens after a LayerNorm, computed in float32 whatever the dtype of its weights; float32."""
    return layer_norm(tokens.float(), layer.normalized_shape, layer.weight.float(), layer.bias.float(), layer.eps)


def ensemble(texts: Float[Tensor, "*word template width"]) -> Float[Tensor, "*word width"]:
    """Return the direction of the mean over the templates."""
    return normalize(texts.mean(-2), dim=-1)


def positions(
    table: Float[Tensor, "n width"], rows: int, columns: int, by_size: bool = False
) -> Float[Tensor, "_ width"]:
    """Return position embeddings for ``[CLS]`` and a grid of this size, from those of a square grid.

    Bicubic. As DINO does it, and after it all methods on CLIP, the factor is a tenth of a cell too large, and is itself
    what coordinates are scaled by; a table with as many cells as the grid, whatever its shape, is taken as it is.
    ``by_size``: as transformers and MMSegmentation do it, by the sizes of the two grids.
    """
    cells = table.shape[0] - 1
    side = int(cells**0.5)
    if rows * columns == cells and (not by_size or rows == columns):
        return table
    square = table[1:].T.reshape(1, -1, side, side).float()
    if by_size:
        grid = interpolate(square, size=(rows, columns), mode="bicubic")
    else:
        factors = (rows + 0.1) / side, (columns + 0.1) / side
        grid = interpolate(square, scale_factor=factors, mode="bicubic")
    return torch.cat([table[:1], grid[0].flatten(1).T.to(table)])


def similarity(images: Float[Tensor, "b width"], texts: Float[Tensor, "n width"]) -> Float[Tensor, "b n"]:
    """Return the cosine of every image with every text, in [-1, 1]."""
    return images @ texts.T


def load_clip(name: str | Path, device: str = "auto", dtype: str = "auto", revision: str | None = None) -> Clip:
    """Return the dual encoder with this short name, hub id or local folder. ``device``, ``dtype``: as in ``load_vlm``.

    Raises: ModelError if it cannot be found, fetched, read or used.
    """
    checkpoint = of_kind(find(name, revision), ("clip",), "a CLIP checkpoint such as clip-base")
    return Clip(checkpoint, device, dtype)
