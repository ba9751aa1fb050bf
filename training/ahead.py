"""Batches made by other processes while this one trains: a GPU takes a step in less time than a core makes its batch.

They are the ones that would have been made in place: all that is random in one follows from its step.
"""

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import BertTokenizer

from pnp_ovss.concurrent import ahead
from training.batches import Batch, joined, make_batch
from training.config import TrainConfig
from training.scene_cache import DrawnScenes
from training.tokenizer import build_tokenizer

EACH = 4  # batches that every process may be ahead


def whole_batch(scenes: DrawnScenes, tokenizer: BertTokenizer, config: TrainConfig, step: int) -> Batch:
    """All shards of a step."""
    return joined([make_batch(scenes, tokenizer, config, step, shard) for shard in range(config.shards)])


def batches(scenes: DrawnScenes, config: TrainConfig, step: int, workers: int) -> Iterator[Batch]:
    """The batches of the steps from ``step`` on, in order; ``workers`` processes make them."""
    context = get_context("forkserver")  # not forked from here, where threads run and CUDA may
    context.set_forkserver_preload(["training.ahead", "training.export", "training.recipes"])  # once, and not in each
    with ProcessPoolExecutor(workers, context, _begin, (scenes, config)) as executor:

        def begin(step: int) -> Callable[[], dict[str, Any]]:
            return executor.submit(_arrays, step).result

        for arrays in ahead(begin, range(step, config.steps), EACH * workers):
            yield Batch(**{name: _tensor(x) for name, x in arrays.items()})


def _tensor(x: Any) -> Any:
    return torch.from_numpy(x) if isinstance(x, np.ndarray) else x


_make: Callable[[int], Batch]
"""In a process of the pool: makes the batch of a step."""


def _begin(scenes: DrawnScenes, config: TrainConfig) -> None:
    global _make
    torch.set_num_threads(1)
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    _make = partial(whole_batch, scenes, build_tokenizer(), config)


def _arrays(step: int) -> dict[str, Any]:
    """The batch as NumPy arrays: they go through a pipe, where tensors would take a file in shared memory each."""
    return {name: x.numpy() if isinstance(x, Tensor) else x for name, x in _make(step).parts().items()}
