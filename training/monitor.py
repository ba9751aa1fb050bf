"""How well a checkpoint knows words and places, on tuning scenes. Masks are read here, to measure, and nowhere else."""

from itertools import pairwise

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import BertTokenizer

from pnp_ovss.mini.scenes import THINGS, draw
from training.batches import normalise, tags, tokens
from training.captions import PROMPT, pair
from training.config import TUNE_SEED, TrainConfig
from training.model import Trainee
from training.scene_cache import DrawnScenes

PREFIX = 4  # [CLS] a picture of
THRESHOLDS = (0.15, 0.3, 0.45)


def watch_match(
    model: Trainee, scenes: DrawnScenes, tokenizer: BertTokenizer, config: TrainConfig
) -> dict[str, object]:
    """What is logged of a model that matches: ``accuracies`` on the watched scenes, and ``places``."""
    found = {name: round(value, 4) for name, value in accuracies(model, scenes, tokenizer).items()}
    return {**found, **places(model, tokenizer, config)}


@torch.no_grad()
def accuracies(model: Trainee, scenes: DrawnScenes, tokenizer: BertTokenizer) -> dict[str, float]:
    """On fixed pairs: how often the logits are right, how often the true caption wins; and the share of tags found."""
    rng = np.random.default_rng(TUNE_SEED)
    rows = np.arange(len(scenes))
    texts = [pair(rng, scenes.things[k], scenes.stuff[k], 13) for k in rows]
    ids, mask = tokens(tokenizer, [caption.text for two in texts for caption in two])
    ids, mask = ids.reshape(len(rows), 2, -1), mask.reshape(len(rows), 2, -1)
    device = model.tagger.weight.device
    scores, shown = [], []
    for part in np.array_split(rows, max(1, len(rows) // 64)):
        image_tokens = model.encode_image(pixels(scenes.images[part], device))
        logits = model.match(image_tokens, ids[part].to(device), mask[part].to(device))
        scores.append((logits[..., 1] - logits[..., 0]).cpu())
        shown.append(model.tags(image_tokens).softmax(-1).topk(12, dim=1).values.mean(1).cpu())
    score, present = torch.cat(scores), tags(scenes, rows)
    best = torch.cat(shown).topk(8, dim=1).indices
    found = sum(
        len(set(best[k, : int(present[k].sum())].tolist()) & set(present[k].nonzero().flatten().tolist())) for k in rows
    )
    return {
        "match_accuracy": ((score[:, 0] > 0).float().mean() + (score[:, 1] < 0).float().mean()).item() / 2,
        "pair_accuracy": (score[:, 0] > score[:, 1]).float().mean().item(),
        "tag_accuracy": found / int(present.sum()),
        "match_logit": score[:, 0].mean().item(),
        "other_logit": score[:, 1].mean().item(),
    }


def places(model: Trainee, tokenizer: BertTokenizer, config: TrainConfig, count: int = 48) -> dict[str, object]:
    """The best layer and head on ``count`` tuning scenes: mIoU of raw class maps on the patch grid, with background.

    No blur, no CRF, no DropOut. ``attention`` is the cross-attention itself, ``gradcam`` attention * relu(gradient).
    """
    scale, cell = config.grid, config.patch
    confusion: dict[str, Int[np.ndarray, "threshold layer head truth prediction"]] = {}
    for index in range(count):
        scene = draw(TUNE_SEED, 10_000 + index, config.image_size)
        truth = scene.things_mask()[cell // 2 :: cell, cell // 2 :: cell]
        for kind, maps in class_maps(model, tokenizer, scene.image, scene.things).items():
            prediction = predictions(
                maps.reshape(*maps.shape[:-1], scale, scale), [THINGS.index(name) + 1 for name in scene.things]
            )
            joint = confusion.setdefault(kind, np.zeros((*prediction.shape[:3], len(THINGS) + 1, len(THINGS) + 1), int))
            for at in np.ndindex(*prediction.shape[:3]):
                np.add.at(joint[at], (truth, prediction[at]), 1)
    report: dict[str, object] = {}
    for kind, joint in confusion.items():
        score = mean_iou(joint)
        threshold, layer, head = (int(k) for k in np.unravel_index(score.argmax(), score.shape))
        report[kind] = {
            "miou": round(float(score.max()), 4),
            "layer": layer,
            "head": head,
            "threshold": THRESHOLDS[threshold],
            "by_layer": [round(float(x), 3) for x in score.max((0, 2))],
        }
    return report


def class_maps(
    model: Trainee, tokenizer: BertTokenizer, image: np.ndarray, names: tuple[str, ...]
) -> dict[str, Float[Tensor, "layer head name patch"]]:
    """Mean over the tokens of each name of the cross-attention, plain and times its positive gradient."""
    device = model.tagger.weight.device
    ids, mask = (x.to(device) for x in tokens(tokenizer, [PROMPT.format(" ".join(names))]))
    record: list[Tensor] = []
    with torch.enable_grad():
        image_tokens = model.encode_image(pixels(image[None], device)).detach().requires_grad_()
        logits = model.match(image_tokens, ids[None], mask[None], record)
        gradients = torch.autograd.grad(logits[0, 0, 1], record)
    starts = np.cumsum([PREFIX, *(name.count(" ") + 1 for name in names)])

    def by_name(maps: Tensor) -> Tensor:
        return torch.stack([maps[:, :, a:b, 1:].mean(2) for a, b in pairwise(starts)], 2)

    weights, gradient = torch.cat(record).detach().cpu(), torch.cat(gradients).cpu()
    return {"attention": by_name(weights), "gradcam": by_name(weights * gradient.relu())}


def predictions(
    maps: Float[Tensor, "layer head name p p"], numbers: list[int]
) -> Int[np.ndarray, "threshold layer head p p"]:
    """Per threshold the class with the largest raw value among those above it, 0 where there is none."""
    low, high = maps.amin((-1, -2), keepdim=True), maps.amax((-1, -2), keepdim=True)
    relative = (maps - low) / (high - low).clamp_min(1e-12)
    labels = torch.tensor(numbers)
    found = []
    for threshold in THRESHOLDS:
        value, which = maps.masked_fill(relative < threshold, 0).max(2)
        found.append(torch.where(value > 0, labels[which], 0))
    result: np.ndarray = torch.stack(found).numpy()
    return result


def mean_iou(
    confusion: Int[np.ndarray, "threshold layer head truth prediction"],
) -> Float[np.ndarray, "threshold layer head"]:
    """Mean over the classes in the truth, background included."""
    both = np.diagonal(confusion, axis1=-2, axis2=-1)
    either = confusion.sum(-1) + confusion.sum(-2) - both
    present = confusion.sum(-1) > 0
    score: np.ndarray = (np.where(present, both / np.maximum(either, 1), 0)).sum(-1) / present.sum(-1)
    return score


def pixels(images: np.ndarray, device: torch.device) -> Float[Tensor, "b 3 s s"]:
    """RGB bytes as the model on the device sees them."""
    return normalise(torch.from_numpy(np.ascontiguousarray(images)).to(device).permute(0, 3, 1, 2).float() / 255)
