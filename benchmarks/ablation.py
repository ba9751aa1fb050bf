"""mIoU of the mini models on held-out drawn scenes, step by step, for both published DropOut variants.

    python -m benchmarks.ablation [--model mini-blip --model mini-bridgetower] [--scenes 400] [--seed 2]

Markdown out. Drawn scenes and mini models: a test bench for the code, no statement about photos.
"""

import argparse
from collections.abc import Iterator
from dataclasses import replace

from tqdm import tqdm

from pnp_ovss import Segmenter
from pnp_ovss.evaluation.ablation import TASKS, ablation, left_out, table
from pnp_ovss.mini import HELD_OUT_SEED, Scene, draw
from pnp_ovss.models import MODELS


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", action="append", help="mini model (default: every one that is shipped)")
    parser.add_argument("--scenes", type=int, default=400)
    parser.add_argument("--seed", type=int, default=HELD_OUT_SEED)
    parser.add_argument("--size", type=int, default=224, help="side of the drawn scenes, in pixels")
    parser.add_argument("--preset", default="auto")
    parser.add_argument("--task", choices=TASKS, action="append", help="things, stuff or both (default: both)")
    args = parser.parse_args()
    rows, without = {}, {}
    for model in args.model or [name for name in MODELS if name.startswith("mini-")]:
        segmenter = Segmenter.from_pretrained(model, preset=args.preset)
        own = segmenter.config
        variants = {
            f"{own.drop} a pass": own,
            "50 % a pass": replace(own, drop=0.5, count_first_twice=False),
        }
        for task in (TASKS[name] for name in args.task or TASKS):
            for name, config in variants.items():
                title = f"{model}, {task.name}, {name}"
                rows[title] = ablation(segmenter.vlm, config, _scenes(args, title), task)
                without[title] = left_out(segmenter.vlm, config, _scenes(args, title), task)
    print(f"{args.scenes} scenes of seed {args.seed} at {args.size} px, mIoU over truth or guess\n")
    print(table(rows) + "\n")
    print(table(without))


def _scenes(args: argparse.Namespace, title: str) -> Iterator[Scene]:
    for index in tqdm(range(args.scenes), desc=title):
        yield draw(args.seed, index, args.size)


if __name__ == "__main__":
    main()
