"""What a step learns from: pixels, hidden patches, kept tokens and texts, all decided by (seed, step, shard)."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor
from transformers import BertTokenizer

from training.captions import NAMES, Caption, pair
from training.config import TrainConfig
from training.scene_cache import DrawnScenes

MEAN = (0.48145466, 0.4578275, 0.40821073)  # as in the BLIP folders of the hub
STD = (0.26862954, 0.26130258, 0.27577711)
WORDS = (8, 8, 13)  # most words of a caption's names; one limit per step, as texts are padded to the longest


@dataclass(frozen=True)
class Batch:
    """One shard of a step."""

    pixels: Float[Tensor, "b 3 s s"]  # normalised; hidden patches are 0
    keep: Int[Tensor, "b kept"] | None  # patches the image tower sees
    stays: Float[Tensor, "b kept"] | None  # 1 where the match's attention to them stays, else 0; None: everywhere
    tags: Bool[Tensor, "b name"]  # the classes of training.captions.NAMES that are present
    ids: Int[Tensor, "b text t"]  # true, almost true, true, almost true
    mask: Bool[Tensor, "b text t"]
    said: Int[Tensor, "b text t"]  # which name of NAMES a token belongs to, -1 for none
    sentence_ids: Int[Tensor, "b t"]  # the scene's own caption, for the contrastive loss
    sentence_mask: Bool[Tensor, "b t"]


def make_batch(scenes: DrawnScenes, tokenizer: BertTokenizer, config: TrainConfig, step: int, shard: int) -> Batch:
    """The shard'th part of the step's batch."""
    rng = np.random.default_rng((config.seed, step, shard))
    words = WORDS[step % len(WORDS)]
    rows = np.sort(rng.integers(len(scenes), size=config.batch // config.shards))  # sorted: reads the file in order
    pixels = normalise(tint(rng, scenes.images[rows]))
    kept = config.kept(step)
    pairs = [pair(rng, scenes.things[k], scenes.stuff[k], words) for k in rows for _ in range(config.pairs)]
    captions = [caption for two in pairs for caption in two]
    ids, mask = tokens(tokenizer, [caption.text for caption in captions])
    sentence_ids, sentence_mask = tokens(tokenizer, [scenes.captions[k] for k in rows])
    order = rng.random((len(rows), config.grid**2)).argsort(1)[:, :kept]
    return Batch(
        pixels=hide(rng, pixels, config),
        keep=torch.from_numpy(np.sort(order, 1)) if kept < config.grid**2 else None,
        stays=stays(rng, len(rows), kept, config) if step >= config.fade_from and config.fade_none < 1 else None,
        tags=tags(scenes, rows),
        ids=ids.reshape(len(rows), 2 * config.pairs, -1),
        mask=mask.reshape(len(rows), 2 * config.pairs, -1),
        said=names_of(tokenizer, ids, captions).reshape(len(rows), 2 * config.pairs, -1),
        sentence_ids=sentence_ids,
        sentence_mask=sentence_mask,
    )


def stays(rng: np.random.Generator, b: int, kept: int, config: TrainConfig) -> Float[Tensor, "b kept"]:
    """1 where the match's attention to a patch stays, 0 where it is taken away."""
    share = np.where(rng.random((b, 1)) < config.fade_none, 1, rng.uniform(*config.fade, (b, 1)))
    return torch.from_numpy((rng.random((b, kept)) < share).astype(np.float32))


def tokens(tokenizer: BertTokenizer, texts: list[str]) -> tuple[Int[Tensor, "text t"], Bool[Tensor, "text t"]]:
    """Token ids padded to the longest, and which of them are not padding."""
    coded = tokenizer(texts, padding=True, return_tensors="pt")
    return coded["input_ids"], coded["attention_mask"].bool()


def names_of(tokenizer: BertTokenizer, ids: Int[Tensor, "text t"], captions: list[Caption]) -> Int[Tensor, "text t"]:
    """For each token the number in NAMES of the name it is part of, -1 for other words."""
    # Not by calling the tokenizer without padding: that is a state, which the other shard's thread may be using.
    spelled = [[tokenizer.vocab[word] for word in name.split()] for name in NAMES]
    result = np.full(tuple(ids.shape), -1)
    for row, (line, caption) in enumerate(zip(ids.tolist(), captions, strict=True)):
        for number in (NAMES.index(name) for name in caption.names):
            wanted = spelled[number]
            for at in range(len(line) - len(wanted) + 1):
                if line[at : at + len(wanted)] == wanted:
                    result[row, at : at + len(wanted)] = number
    return torch.from_numpy(result)


def tags(scenes: DrawnScenes, rows: Int[np.ndarray, "b"]) -> Bool[Tensor, "b name"]:
    """Which names are said of each scene."""
    return torch.tensor([[name in (*scenes.things[k], *scenes.stuff[k]) for name in NAMES] for k in rows])


def tint(rng: np.random.Generator, images: UInt8[np.ndarray, "b h w 3"]) -> Float[Tensor, "b 3 h w"]:
    """Images from 0 to 1, half of them mirrored (no name depends on left and right), all slightly re-coloured."""
    x = torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2).float().div_(255)
    mirrored = torch.from_numpy(rng.random(len(x)) < 0.5)
    x[mirrored] = x[mirrored].flip(-1)
    gain = torch.from_numpy(rng.uniform(0.92, 1.08, (len(x), 3, 1, 1))).float()
    shift = torch.from_numpy(rng.uniform(-0.06, 0.06, (len(x), 1, 1, 1))).float()
    return x.mul_(gain).add_(shift).clamp_(0, 1)


def normalise(x: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 h w"]:
    """What the model sees: mean 0, deviation 1 per channel."""
    return (x - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None]


def hide(rng: np.random.Generator, pixels: Float[Tensor, "b 3 s s"], config: TrainConfig) -> Float[Tensor, "b 3 s s"]:
    """Blacks out patches of some images, scattered or in small blocks, so that the plainer rest must be learned too."""
    grid = config.grid
    visible = np.ones((len(pixels), grid, grid), np.float32)
    for k in np.flatnonzero(rng.random(len(pixels)) < config.hide):
        count, block = round(rng.uniform(*config.hide_share) * grid**2), int(rng.integers(1, 5))
        while (visible[k] == 0).sum() < count:
            i, j = rng.integers(1 - block, grid, size=2)
            visible[k, max(i, 0) : i + block, max(j, 0) : j + block] = 0
    mask = torch.from_numpy(visible).repeat_interleave(config.patch, 1).repeat_interleave(config.patch, 2)
    return pixels * mask[:, None]
