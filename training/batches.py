"""What a step learns from: pixels, hidden patches, kept tokens and texts, all decided by (seed, step, shard)."""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from functools import cache
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor
from torch.nn import functional as F
from transformers import BertTokenizer

from pnp_ovss.models.gpu import moved
from training.captions import NAMES, Caption, pair
from training.config import TrainConfig
from training.scene_cache import DrawnScenes
from training.tokenizer import vocabulary

MEAN = (0.48145466, 0.4578275, 0.40821073)  # as in the BLIP folders of the hub
STD = (0.26862954, 0.26130258, 0.27577711)
WORDS = (8, 8, 13)  # most words of a caption's names; one limit per step, as texts are padded to the longest
PADDING = {"ids": 0, "mask": False, "said": -1, "sentence_ids": 0, "sentence_mask": False}  # of texts, by field
NUMBER = {name: number for number, name in enumerate(NAMES)}


@dataclass(frozen=True)
class Batch:
    """One shard of a step, or all of them one after the other."""

    images: UInt8[Tensor, "b s s 3"]
    mirrored: Bool[Tensor, "b 1 1 1"]
    gain: Float[Tensor, "b 3 1 1"]  # what colours from 0 to 1 are multiplied by
    shift: Float[Tensor, "b 1 1 1"]  # what is added to them then
    visible: Float[Tensor, "b grid grid"]  # 0 for patches that are blacked out in the normalised pixels, else 1
    keep: Int[Tensor, "b kept"] | None  # patches the image tower sees
    stays: Float[Tensor, "b kept"] | None  # 1 where the match's attention to them stays, else 0; None: everywhere
    tags: Bool[Tensor, "b name"]  # the classes of training.captions.NAMES that are present
    ids: Int[Tensor, "b text t"]  # true, almost true, true, almost true
    mask: Bool[Tensor, "b text t"]
    said: Int[Tensor, "b text t"]  # which name of NAMES a token belongs to, -1 for none
    sentence_ids: Int[Tensor, "b t"]  # the scene's own caption, for the contrastive loss
    sentence_mask: Bool[Tensor, "b t"]
    shards: int = 1

    @property
    def pixels(self) -> Float[Tensor, "b 3 s s"]:
        """What the model sees, computed where the batch lies: tinted and normalised; hidden patches are 0."""
        x = self.images.permute(0, 3, 1, 2).float().div_(255)
        x = torch.where(self.mirrored, x.flip(-1), x)
        return hide(normalise(x.mul_(self.gain).add_(self.shift).clamp_(0, 1)), self.visible)

    def to(self, device: torch.device) -> "Batch":
        """The same on the device."""
        found: dict[str, Any] = {name: moved(x, device) for name, x in self.parts().items() if isinstance(x, Tensor)}
        return replace(self, **found)

    def parts(self) -> dict[str, Any]:
        """The fields by name."""
        return {field.name: getattr(self, field.name) for field in fields(self)}


def joined(shards: Sequence[Batch]) -> Batch:
    """All shards of a step as one batch, their texts padded to the longest."""
    found: dict[str, Any] = {"shards": len(shards)}
    for name in shards[0].parts().keys() - found.keys():
        values = [getattr(shard, name) for shard in shards]
        if name in PADDING:
            longest = max(value.shape[-1] for value in values)
            values = [F.pad(value, (0, longest - value.shape[-1]), value=PADDING[name]) for value in values]
        found[name] = torch.cat(values) if isinstance(values[0], Tensor) else values[0]
    return Batch(**found)


def make_batch(scenes: DrawnScenes, tokenizer: BertTokenizer, config: TrainConfig, step: int, shard: int) -> Batch:
    """The shard'th part of the step's batch."""
    rng = np.random.default_rng((config.seed, step, shard))
    words = WORDS[step % len(WORDS)]
    rows = np.sort(rng.integers(len(scenes), size=config.batch // config.shards))  # sorted: reads the file in order
    mirrored = rng.random(len(rows)) < 0.5  # no name depends on left and right
    gain = rng.uniform(0.92, 1.08, (len(rows), 3, 1, 1)).astype(np.float32)
    shift = rng.uniform(-0.06, 0.06, (len(rows), 1, 1, 1)).astype(np.float32)
    kept = config.kept(step)
    pairs = [pair(rng, scenes.things[k], scenes.stuff[k], words) for k in rows for _ in range(config.pairs)]
    captions = [caption for two in pairs for caption in two]
    ids, mask = tokens(tokenizer, [caption.text for caption in captions])
    sentence_ids, sentence_mask = tokens(tokenizer, [scenes.captions[k] for k in rows])
    order = rng.random((len(rows), config.grid**2)).argsort(1)[:, :kept]
    return Batch(
        images=torch.from_numpy(np.ascontiguousarray(scenes.images[rows])),
        mirrored=torch.from_numpy(mirrored)[:, None, None, None],
        gain=torch.from_numpy(gain),
        shift=torch.from_numpy(shift),
        visible=visible(rng, len(rows), config),
        keep=torch.from_numpy(np.sort(order, 1)) if kept < config.grid**2 else None,
        stays=stays(rng, len(rows), kept, config) if step >= config.fade_from and config.fade_none < 1 else None,
        tags=tags(scenes, rows),
        ids=ids.reshape(len(rows), 2 * config.pairs, -1),
        mask=mask.reshape(len(rows), 2 * config.pairs, -1),
        said=names_of(ids, captions).reshape(len(rows), 2 * config.pairs, -1),
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


def names_of(ids: Int[Tensor, "text t"], captions: list[Caption]) -> Int[Tensor, "text t"]:
    """For each token the number in NAMES of the name it is part of, -1 for other words."""
    # Not by calling the tokenizer without padding: that is a state, which the other shard's thread may be using.
    result = np.full(tuple(ids.shape), -1)
    for row, (line, caption) in enumerate(zip(ids.tolist(), captions, strict=True)):
        for name in caption.names:
            wanted = spelled(name)
            for at in range(len(line) - len(wanted) + 1):
                if line[at] == wanted[0] and line[at : at + len(wanted)] == wanted:
                    result[row, at : at + len(wanted)] = NUMBER[name]
    return torch.from_numpy(result)


@cache
def spelled(name: str) -> list[int]:
    """The tokens of a name: one per word."""
    words = vocabulary()
    return [words.index(word) for word in name.split()]


def tags(scenes: DrawnScenes, rows: Int[np.ndarray, "b"]) -> Bool[Tensor, "b name"]:
    """Which names are said of each scene."""
    present = np.zeros((len(rows), len(NAMES)), bool)
    for row, k in enumerate(rows):
        present[row, [NUMBER[name] for name in (*scenes.things[k], *scenes.stuff[k])]] = True
    return torch.from_numpy(present)


def normalise(x: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 h w"]:
    """What the model sees: mean 0, deviation 1 per channel."""
    mean, deviation = _channels(x.device)
    return (x - mean) / deviation


@cache
def _channels(device: torch.device) -> tuple[Float[Tensor, "3 1 1"], Float[Tensor, "3 1 1"]]:
    """Mean and deviation of each channel; kept, for a GPU would have to wait for every copy."""
    return torch.tensor(MEAN, device=device)[:, None, None], torch.tensor(STD, device=device)[:, None, None]


def visible(rng: np.random.Generator, b: int, config: TrainConfig) -> Float[Tensor, "b grid grid"]:
    """1, and 0 for patches of some images, scattered or in small blocks: the plainer rest must be learned too."""
    grid = config.grid
    result = np.ones((b, grid, grid), np.float32)
    for k in np.flatnonzero(rng.random(b) < config.hide):
        count, block = round(rng.uniform(*config.hide_share) * grid**2), int(rng.integers(1, 5))
        while grid**2 - np.count_nonzero(result[k]) < count:
            i, j = rng.integers(1 - block, grid, size=2)
            result[k, max(i, 0) : i + block, max(j, 0) : j + block] = 0
    return torch.from_numpy(result)


def hide(pixels: Float[Tensor, "b 3 s s"], visible: Float[Tensor, "b grid grid"]) -> Float[Tensor, "b 3 s s"]:
    """Blacks out the patches that are not ``visible``."""
    patch = pixels.shape[-1] // visible.shape[-1]
    return pixels * visible.repeat_interleave(patch, 1).repeat_interleave(patch, 2)[:, None]
