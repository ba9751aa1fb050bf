"""Saliency DropOut with hidden patches as zeros, as published, and left out of the image tower (``drop_tokens``).

    python -m benchmarks.drop_tokens [--model mini-blip --model mini-bridgetower] [--scenes 200] [--task things]
    python -m benchmarks.drop_tokens --random blip-base --rounds 5      # times alone, at 336 px

Markdown out: mIoU on held-out drawn scenes, and medians of the processor seconds of steps 3 to 6, which take turns.
"""

import argparse
import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from benchmarks.ablation import TASKS, Task, confusion
from benchmarks.segment import NAMES, PHOTO, WORDS, random_model
from pnp_ovss import Config, load_vlm, make_prompt, refine, salience
from pnp_ovss.evaluation.metrics import Confusion
from pnp_ovss.methods.pnp import PnP
from pnp_ovss.mini import CLASSES, HELD_OUT_SEED, Scene, draw
from pnp_ovss.models import VLM

HALF: dict[str, Any] = {"passes": 4, "drop": 0.5, "count_first_twice": False}
"""What the preset ``paper`` says of DropOut."""


def in_turns(vlm: VLM, pixels: Tensor, names: Sequence[str], config: Config) -> list[tuple[Tensor, float]]:
    """Return the class maps of a photo and the processor seconds they took: exact, then with tokens dropped."""
    found = []
    for drop_tokens in (False, True):
        start = time.process_time()
        maps = salience(vlm, pixels, [make_prompt(names)], replace(config, drop_tokens=drop_tokens))[0]
        found.append((maps, time.process_time() - start))
    return found


def score(vlm: VLM, config: Config, scenes: Iterable[Scene], task: Task) -> tuple[list[Confusion], list[float]]:
    """Return the pooled confusion of both ways, and the median of the seconds of each."""
    config = task.config(config)
    zeros, left_out, seconds = Confusion.empty(len(CLASSES)), Confusion.empty(len(CLASSES)), []
    for scene in scenes:
        pixels = vlm.prepare(scene.image, config.size or vlm.size)[None]
        both = in_turns(vlm, pixels, task.classes(scene), config)
        labels = [refine(maps, torch.from_numpy(scene.image), config)[0] for maps, _ in both]
        slow, fast = (confusion(scene, task, found, background=not task.stuff) for found in labels)
        zeros, left_out = zeros + slow, left_out + fast
        seconds.append([taken for _, taken in both])
    return [zeros, left_out], [median(column) for column in zip(*seconds, strict=True)]


def scored(args: argparse.Namespace) -> None:
    """Print the table of the mini models: their own settings, and half of the visible patches hidden each pass."""
    print(f"{args.scenes} scenes of seed {args.seed} at {args.size} px\n")
    print("| model | task | hidden per pass | passes | mIoU, zeros | mIoU, left out | zeros, s | left out, s | ratio |")
    print("|---|---|---|---|---|---|---|---|---|")
    for model in args.model or ("mini-blip", "mini-bridgetower"):
        method = PnP.from_pretrained(model, "cpu", "float32", None, "auto")
        for task in (TASKS[name] for name in args.task or TASKS):
            for config in (method.config, method.config.override(HALF)):
                hidden = f"{config.drop:.0%}" if isinstance(config.drop, float) else config.drop
                title = f"{model} | {task.name} | {hidden} | {config.passes}"
                scenes = (draw(args.seed, index, args.size) for index in tqdm(range(args.scenes), desc=title))
                (zeros, left_out), (slow, fast) = score(method.vlm, config, scenes, task)
                times = f"{slow:.3f} | {fast:.3f} | {fast / slow:.2f}"
                print(f"| {title} | {zeros.miou():.3f} | {left_out.miou():.3f} | {times} |", flush=True)


def timed(shape: str, rounds: int) -> None:
    """Print the table of times of a model of random weights, with the settings of ``paper`` and three names."""
    print("| model | zeros, s | left out, s | ratio |\n|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        vlm = load_vlm(random_model(shape, Path(folder)), "cpu", "float32")
        config = Config.from_preset("paper")
        pixels = vlm.prepare(draw(HELD_OUT_SEED, 0, PHOTO).image, config.size)[None]
        in_turns(vlm, pixels, NAMES[:3], config)  # the first is slower: memory is fetched
        turns = [[taken for _, taken in in_turns(vlm, pixels, NAMES[:3], config)] for _ in range(rounds)]
        slow, fast = (median(column) for column in zip(*turns, strict=True))
        print(f"| {shape} of random weights | {slow:.2f} | {fast:.2f} | {fast / slow:.2f} |")


def main() -> None:
    """Print the table asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", action="append", help="mini model (default: those of this method)")
    parser.add_argument("--scenes", type=int, default=200)
    parser.add_argument("--seed", type=int, default=HELD_OUT_SEED)
    parser.add_argument("--size", type=int, default=224, help="side of the drawn scenes, in pixels")
    parser.add_argument("--task", choices=TASKS, action="append", help="things, stuff or both (default: both)")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--random", choices=[name for name in WORDS if name.startswith("blip")], help="times alone")
    parser.add_argument("--rounds", type=int, default=5, help="--random: how often each is timed")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if args.random:
        timed(args.random, args.rounds)
    else:
        scored(args)


if __name__ == "__main__":
    main()
