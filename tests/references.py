"""What each family's adapter must give, computed plainly: the model's own forward, hooks, one full backward."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from transformers import AutoTokenizer, BlipForImageTextRetrieval, BridgeTowerForImageAndTextRetrieval


@dataclass(frozen=True)
class Reference:
    """Per layer: attention and gradient (b, head, token, patch), 0 for padding. All float64."""

    match: Tensor
    odds: Tensor
    weights: list[Tensor]
    gradient: list[Tensor]


def blip(folder: Path, texts: Sequence[str], pixels: Tensor) -> Reference:
    model, tokens = read(BlipForImageTextRetrieval, folder, texts)
    ids = tokens["input_ids"]
    ids[:, 0] = model.config.text_config.vocab_size - 1  # [ENC]
    with attention_of(layer.crossattention.self for layer in model.text_encoder.encoder.layer) as kept:
        mask = tokens["attention_mask"]
        out = model(ids, pixels, attention_mask=mask, use_itm_head=True, interpolate_pos_encoding=True)
        out.itm_score[:, 1].sum().backward()
    return without_cls(out.itm_score, kept, mask)


def bridgetower(folder: Path, texts: Sequence[str], pixels: Tensor) -> Reference:
    model, tokens = read(BridgeTowerForImageAndTextRetrieval, folder, texts)
    with attention_of(layer.crossattention.self for layer in model.bridgetower.cross_modal_text_layers) as kept:
        mask = tokens["attention_mask"]
        out = model(tokens["input_ids"], mask, pixel_values=pixels, interpolate_pos_encoding=True)
        out.logits[:, 1].sum().backward()
    return without_cls(out.logits, kept, mask)


def read(model_class: Any, folder: Path, texts: Sequence[str]) -> tuple[Any, Any]:
    """Return the model in float64 and the tokens, both as transformers reads them."""
    model = model_class.from_pretrained(folder, attn_implementation="eager").double().eval()
    return model, AutoTokenizer.from_pretrained(folder)(list(texts), padding=True, return_tensors="pt")


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
