"""What each family's adapter must give, computed plainly: the model's own forward, hooks, one full backward."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import (
    AutoTokenizer,
    Blip2ForImageTextRetrieval,
    BlipForImageTextRetrieval,
    BridgeTowerForImageAndTextRetrieval,
    ViltForImageAndTextRetrieval,
)


@dataclass(frozen=True)
class Reference:
    """Per layer: attention and gradient (b, head, token, patch), 0 for padding. All float64."""

    match: Tensor
    odds: Tensor | None
    weights: list[Tensor]
    gradient: list[Tensor]


def blip(folder: Path, texts: Sequence[str], pixels: Tensor, keep: Sequence[int] | None = None) -> Reference:
    model, tokens = read(BlipForImageTextRetrieval, folder, texts)
    see_only(model.vision_model.embeddings, keep)
    ids = tokens["input_ids"]
    ids[:, 0] = model.config.text_config.vocab_size - 1  # [ENC]
    with attention_of(layer.crossattention.self for layer in model.text_encoder.encoder.layer) as kept:
        mask = tokens["attention_mask"]
        out = model(ids, pixels, attention_mask=mask, use_itm_head=True, interpolate_pos_encoding=True)
        out.itm_score[:, 1].sum().backward()
    return without_cls(out.itm_score, kept, mask)


def bridgetower(folder: Path, texts: Sequence[str], pixels: Tensor, keep: Sequence[int] | None = None) -> Reference:
    model, tokens = read(BridgeTowerForImageAndTextRetrieval, folder, texts)
    see_only(model.bridgetower.vision_model.visual.embeddings, keep)
    with attention_of(layer.crossattention.self for layer in model.bridgetower.cross_modal_text_layers) as kept:
        mask = tokens["attention_mask"]
        out = model(tokens["input_ids"], mask, pixel_values=pixels, interpolate_pos_encoding=True)
        out.logits[:, 1].sum().backward()
    return without_cls(out.logits, kept, mask)


def vilt(folder: Path, texts: Sequence[str], pixels: Tensor, keep: Sequence[int] | None = None) -> Reference:
    model, tokens = read(ViltForImageAndTextRetrieval, folder, texts)
    for norm in (*model.vilt.encoder.modules(), model.vilt.layernorm):
        if isinstance(norm, nn.LayerNorm):
            norm.eps = 1e-6  # of the authors' code; config.json has but one, BERT's
    places: list[Tensor] = []  # transformers shuffles the patches: where each column comes from
    embed = model.vilt.embeddings.visual_embed

    def watched(*args: Any, **kwargs: Any) -> Any:
        embedded, mask, (index, grid) = embed(*args, **kwargs)
        place = index[..., 0] * grid[1] + index[..., 1]
        kept = slice(None) if keep is None else torch.isin(place[0], torch.tensor(keep))
        places.append(place[:, kept])
        embedded, mask = (torch.cat([part[:, :1], part[:, 1:][:, kept]], 1) for part in (embedded, mask))
        return embedded, mask, (index, grid)

    model.vilt.embeddings.visual_embed = watched
    mask = tokens["attention_mask"]
    out = model(tokens["input_ids"], mask, pixel_values=pixels, output_attentions=True)
    for attention in out.attentions:
        attention.retain_grad()
    out.logits.sum().backward()
    words, order = mask.shape[1], places[0].argsort(-1)[:, None, None]

    def patches_in_order(map_: Tensor) -> Tensor:
        seen = map_[:, :, :words, words + 1 :] * mask[:, None, :, None]
        return seen.gather(-1, order.expand(*seen.shape[:3], -1))

    return Reference(
        match=out.logits[:, 0].detach(),
        odds=None,
        weights=[patches_in_order(a.detach()) for a in out.attentions],
        gradient=[patches_in_order(a.grad) for a in out.attentions],
    )


def blip2(folder: Path, texts: Sequence[str], pixels: Tensor, keep: Sequence[int] | None = None) -> Reference:
    model, tokens = read(Blip2ForImageTextRetrieval, folder, texts)
    see_only(model.vision_model.embeddings, keep)
    see = model.vision_model.forward
    model.vision_model.forward = lambda pixel_values, **_: see(pixel_values, interpolate_pos_encoding=True)
    layers, mask = model.qformer.encoder.layer, tokens["attention_mask"]
    looking = [layer for layer in layers if layer.has_cross_attention]
    with (
        attention_of(layer.attention.attention for layer in layers) as own,
        attention_of(layer.crossattention.attention for layer in looking) as crossing,
    ):
        out = model(pixels, tokens["input_ids"], mask, use_image_text_matching_head=True, return_dict=True)
        out.logits_per_image[:, 1].sum().backward()
    weights, gradient = [], []
    for pair in range(len(looking) - 1):
        reads, looks = own[2 * pair + 1], crossing[pair]
        pairs = [(reads.detach(), looks.detach()), (reads * reads.grad.relu(), looks * looks.grad.relu())]
        plain, salient = (through_queries(a.detach(), c.detach(), mask) for a, c in pairs)
        weights.append(plain)
        gradient.append(torch.where(plain > 0, salient / plain, 0))
    match = out.logits_per_image[:, 1]
    return Reference(match.detach(), (match - out.logits_per_image[:, 0]).detach(), weights, gradient)


def through_queries(reads: Tensor, looks: Tensor, mask: Tensor) -> Tensor:
    """Return the sum over the queries, of any head for the words and of one for the image, step by step."""
    b, heads, queries, patches = looks.shape
    found = torch.zeros(b, heads, mask.shape[1], patches - 1, dtype=looks.dtype)
    for query in range(queries):
        for head in range(heads):
            for token in range(mask.shape[1]):
                share = sum(reads[:, other, queries + token, query] for other in range(heads)) / heads
                found[:, head, token] += share[:, None] * looks[:, head, query, 1:]
    return found * mask[:, None, :, None]


def read(model_class: Any, folder: Path, texts: Sequence[str]) -> tuple[Any, Any]:
    """Return the model in float64 and the tokens, both as transformers reads them."""
    model = model_class.from_pretrained(folder, attn_implementation="eager").double().eval()
    return model, AutoTokenizer.from_pretrained(folder)(list(texts), padding=True, return_tensors="pt")


def see_only(embeddings: nn.Module, keep: Sequence[int] | None) -> None:
    """Take every patch but those in ``keep`` from what a model's image tower gets, behind their positions."""
    if keep is not None:
        seen = [0, *(1 + patch for patch in keep)]  # [CLS] is first
        embeddings.register_forward_hook(lambda module, inputs, tokens: tokens[:, seen])


@contextmanager
def attention_of(modules: Iterable[nn.Module]) -> Iterator[list[Tensor]]:
    """Keep the attention weights that the modules compute, and let them have a gradient."""
    kept: list[Tensor] = []

    def keep(module: nn.Module, inputs: Any, output: Any) -> None:
        output[1].retain_grad()
        kept.append(output[1])

    hooks = [module.register_forward_hook(keep) for module in modules]
    yield kept
    for hook in hooks:
        hook.remove()


def without_cls(logits: Tensor, kept: Sequence[Tensor], mask: Tensor) -> Reference:
    real = mask[:, None, :, None]
    return Reference(
        match=logits[:, 1].detach(),
        odds=(logits[:, 1] - logits[:, 0]).detach(),
        weights=[(a.detach() * real)[..., 1:] for a in kept],
        gradient=[(a.grad * real)[..., 1:] for a in kept],
    )
