"""Trains one mini checkpoint: `python -m training.train --name mini-blip`.

A run that was stopped goes on where its last checkpoint was; `--fresh` starts again. Two runs on a CPU, or on a GPU
that is reached through CUDA, are the same to the bit.
"""

import argparse
import copy
import json
import math
import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor
from tqdm import tqdm
from transformers import BertTokenizer

from pnp_ovss.cores import usable_cores
from training.ahead import batches, whole_batch
from training.batches import Batch, make_batch
from training.config import TUNE_SEED, TrainConfig
from training.export import WEIGHTS, export, write_card
from training.recipes import RECIPES
from training.scene_cache import DrawnScenes, draw_scenes, open_scenes
from training.tokenizer import build_tokenizer

Gradients = list[Tensor | None]
Log = dict[str, Tensor]
CPU = torch.device("cpu")
WORKERS = 8  # processes that make batches for a GPU, where there are cores for so many
CHECKPOINTS = Path(__file__).parent.parent / "src" / "pnp_ovss" / "mini" / "checkpoints"


class Trainer:
    """Model, optimiser and the running mean of the weights; everything a resumed run needs.

    ``zoo`` is the folder of finished checkpoints, one of which may lend its image tower. On a CPU each shard has a
    thread of its own; a GPU takes all of them at once, made by ``workers`` processes (0: by this one).
    """

    def __init__(
        self,
        config: TrainConfig,
        scenes: DrawnScenes,
        folder: Path,
        zoo: Path = CHECKPOINTS,
        device: torch.device = CPU,
        workers: int = 0,
    ) -> None:
        self.config, self.scenes, self.folder = config, scenes, folder
        self.device, self.workers = device, workers
        self.recipe = RECIPES[config.name]
        with torch.random.fork_rng():
            torch.manual_seed(config.seed)  # transformers draws initial weights from the global generator
            self.model = self.recipe.model(config)
        if config.image_tower:
            self.model.take_over(weights_of(zoo / config.image_tower))
        self.model.to(device)  # drawn on the CPU: the same weights on all devices
        self.mean = copy.deepcopy(self.model).eval()
        self.tokenizer: BertTokenizer = build_tokenizer()
        self.parameters = [p for p in self.model.parameters() if p.requires_grad]
        self.means = [p for p in self.mean.parameters() if p.requires_grad]
        self.mean.requires_grad_(False)
        matrices = [p for p in self.parameters if p.ndim > 1]
        vectors = [p for p in self.parameters if p.ndim <= 1]
        groups: list[dict[str, Any]] = [
            {"params": matrices, "weight_decay": config.decay},
            {"params": vectors, "weight_decay": 0.0},
        ]
        self.optimizer = torch.optim.AdamW(groups, lr=config.rate, betas=(0.9, 0.98), fused=True)
        self.step = 0
        self.seconds = 0.0  # spent in training steps, over all starts
        self.threads = ThreadPoolExecutor(config.shards)
        self.coming: Iterator[Batch] | None = None

    def advance(self) -> Log:
        """One step; what is logged of it stays on the device, for to read it there is to wait for it."""
        started = time.monotonic()
        if self.step == self.config.learned:  # explaining starts from the weights that learning would have exported
            self.model.load_state_dict(self.mean.state_dict())
        gradients, log = self.in_threads() if self.device.type == "cpu" else self.in_one_pass()
        for parameter, gradient in zip(self.parameters, gradients, strict=True):
            parameter.grad = gradient
        torch.nn.utils.clip_grad_norm_(self.parameters, self.config.clip)
        for group in self.optimizer.param_groups:
            group["lr"] = self.config.rate * schedule(self.step, self.config)
        self.optimizer.step()
        self.step += 1
        decay = min(self.config.average, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            torch._foreach_lerp_(list[Tensor](self.means), list[Tensor](self.parameters), 1 - decay)
        if self.device.type == "cuda" and self.step % self.config.log_every == 0:
            torch.cuda.synchronize()  # so that the seconds count its work, and not only that it was asked for
        self.seconds += time.monotonic() - started
        return log

    def in_threads(self) -> tuple[Gradients, Log]:
        """The gradient of each shard in a thread of its own, then their mean."""
        results = list(self.threads.map(self._shard, range(self.config.shards)))
        gradients: Gradients = []
        for some in zip(*(found for found, _ in results), strict=True):
            found = [gradient for gradient in some if gradient is not None]
            gradients.append(torch.stack(found).mean(0) if found else None)
        logs = [log for _, log in results]
        return gradients, {name: torch.stack([log[name] for log in logs]).double().mean() for name in logs[0]}

    def in_one_pass(self) -> tuple[Gradients, Log]:
        """The gradient of the mean of all shards' losses."""
        if self.workers and self.coming is None:
            self.coming = batches(self.scenes, self.config, self.step, self.workers)
        made = next(self.coming) if self.coming else whole_batch(self.scenes, self.tokenizer, self.config, self.step)
        gradients, log = self._gradients(made.to(self.device))
        return [None if gradient is None else gradient.contiguous() for gradient in gradients], log

    def _shard(self, shard: int) -> tuple[Gradients, Log]:
        torch.set_num_threads(1)  # two threads with one core each waste far less than one operation on two cores
        return self._gradients(make_batch(self.scenes, self.tokenizer, self.config, self.step, shard))

    def _gradients(self, batch: Batch) -> tuple[Gradients, Log]:
        gpu = self.device.type != "cpu"  # on a CPU with bfloat16 two equal runs differ from the first step on
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=gpu):
            loss, log = self.recipe.loss(self.model, batch, self.config, self.step)
        return list(torch.autograd.grad(loss, self.parameters, allow_unused=True)), log

    def save(self) -> None:
        """Writes everything a resumed run needs, atomically."""
        state = {
            "config": self.config.to_dict(),
            "step": self.step,
            "seconds": self.seconds,
            "model": self.model.state_dict(),
            "mean": self.mean.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }
        partial = self.folder / "last.pt.partial"
        torch.save(state, partial)
        os.replace(partial, self.folder / "last.pt")

    def load(self) -> None:
        """Goes on from the last checkpoint; the number of steps alone may differ from then."""
        state = torch.load(self.folder / "last.pt", map_location=self.device, weights_only=True)
        then, now = dict(state["config"], steps=0), dict(self.config.to_dict(), steps=0)
        if then != now:
            changed = sorted(name for name in now if then.get(name) != now[name])
            raise SystemExit(f"the run in {self.folder} was started with other values of {changed}; use --fresh")
        self.model.load_state_dict(state["model"])
        self.mean.load_state_dict(state["mean"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step, self.seconds = state["step"], state["seconds"]

    def log(self, line: dict[str, object]) -> None:
        """Appends to log.jsonl."""
        with (self.folder / "log.jsonl").open("a") as file:
            file.write(json.dumps({"step": self.step, "seconds": round(self.seconds), **line}) + "\n")


def schedule(step: int, config: TrainConfig) -> float:
    """The learning rate over its peak: a ramp and a cosine to 0, for learning and once more for explaining."""
    if step >= config.learned:
        left = 0.5 + 0.5 * math.cos(math.pi * (step - config.learned) / config.explain)
        return config.explain_rate * left * min(1.0, (step - config.learned + 1) / 50)
    return min((step + 1) / config.warmup, 0.5 + 0.5 * math.cos(math.pi * step / config.learned))


def weights_of(folder: Path) -> dict[str, Tensor]:
    """The weights of a finished checkpoint."""
    try:
        return load_file(folder / WEIGHTS)
    except FileNotFoundError:
        advice = f"train {folder.name} first, with the same --out"
        raise SystemExit(
            f"an image tower is to be taken over from {folder}, which has no {WEIGHTS}; {advice}"
        ) from None


def reproducible() -> None:
    """Has CUDA add up in the same order each time, and multiply float32 in full, in all of this process."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read by cuBLAS when it starts
    torch.use_deterministic_algorithms(True)
    deterministic: Any = torch.utils.deterministic
    deterministic.fill_uninitialized_memory = False  # a kernel for each new tensor, which is to find mistakes
    torch.backends.cudnn.allow_tf32 = False


def name_of(device: torch.device) -> str:
    """What a card says of it."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else f"{usable_cores()} CPU cores"


def train(trainer: Trainer, watched: DrawnScenes) -> Iterator[dict[str, Any]]:
    """Runs to the end, saving, watching and exporting on the way; yields what is logged."""
    config, sums, count = trainer.config, Log(), 0
    mark = trainer.seconds
    trainer.log({"started": {"device": name_of(trainer.device), "torch": str(torch.__version__)}})
    while trainer.step < config.steps:
        losses = trainer.advance()
        sums = {name: sums.get(name, 0.0) + value.double() for name, value in losses.items()}
        count += 1
        if trainer.step % config.log_every == 0:
            line: dict[str, Any] = {name: round(value.item() / count, 4) for name, value in sums.items()}
            line["images_per_second"] = round(count * config.batch / (trainer.seconds - mark), 1)
            sums, count, mark = {}, 0, trainer.seconds
            trainer.log(line)
            yield line
        if trainer.step % config.save_every == 0 or trainer.step == config.steps:
            trainer.save()
        if trainer.step % config.watch_every == 0 or trainer.step == config.steps:
            line = trainer.recipe.watch(trainer.mean, watched, trainer.tokenizer, config)
            trainer.log({"watched": line})
            finish(trainer, trainer.folder / f"export-{trainer.step}")
            yield line


def finish(trainer: Trainer, folder: Path) -> None:
    """Writes the checkpoint with its card."""
    export(trainer.mean, trainer.tokenizer, trainer.config, folder)
    write_card(folder, trainer.config, trainer.recipe.card, trainer.folder / "log.jsonl")


def main(arguments: list[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--name", choices=sorted(RECIPES), default="mini-blip")
    parser.add_argument("--steps", type=int, help="length of the run; without it, the recipe's")
    parser.add_argument("--scenes", type=int, default=TrainConfig.scenes, help="scenes drawn ahead")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="folder of checkpoints and the log")
    parser.add_argument("--out", type=Path, default=CHECKPOINTS, help="folder the finished checkpoint goes to")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help="auto: a GPU if there is one")
    parser.add_argument("--fresh", action="store_true", help="start again even if there is a run to go on with")
    given = parser.parse_args(arguments)

    if given.device == "cuda" and not torch.cuda.is_available():
        parser.error(f"--device cuda: torch {torch.__version__} finds no CUDA device; give cpu")
    device = torch.device("cuda" if given.device != "cpu" and torch.cuda.is_available() else "cpu")
    torch.set_num_threads(1)  # each shard has a thread; threads within operations would only wait for each other
    if device.type == "cuda":
        reproducible()
    config = replace(RECIPES[given.name].config, scenes=given.scenes)
    folder: Path = given.runs / given.name
    folder.mkdir(parents=True, exist_ok=True)
    scenes = open_scenes(given.runs / f"scenes-{config.seed}", config.seed, config.scenes, config.image_size)
    config = replace(config, steps=given.steps or config.steps)
    workers = min(WORKERS, usable_cores() - 1) if device.type == "cuda" and usable_cores() > 2 else 0
    trainer = Trainer(config, scenes, folder, given.out, device, workers)
    if (folder / "last.pt").exists() and not given.fresh:
        trainer.load()
    else:
        (folder / "log.jsonl").unlink(missing_ok=True)
    watched = draw_scenes(TUNE_SEED, config.watch_scenes, config.image_size)
    with tqdm(total=trainer.config.steps, initial=trainer.step, unit="step") as bar:
        for line in train(trainer, watched):
            bar.update(trainer.step - bar.n)
            bar.write(json.dumps({"step": trainer.step, **line}))
    finish(trainer, given.out / given.name)


if __name__ == "__main__":
    main()
