"""Photos a minute of one machine: processes, threads of each, photos in a batch, refinement beside the model or not.

    python -m benchmarks.throughput [--model blip-base] [--count 8] [--photos DIR] [--times 2]

Markdown out. All processes of a row begin together once their models are loaded; each does ``count`` photos of 480 x
640 divided by their number. The rows take turns, and the best of each counts. ``blip-base`` has random weights.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks import refine
from benchmarks.busy import NAMES, SIZE
from benchmarks.segment import random_model
from pnp_ovss import Segmenter, Vocabulary
from pnp_ovss.mini import THINGS
from pnp_ovss.runs import pipeline

ROWS = (
    (1, 1, 1, False),
    (1, 2, 1, True),
    (1, 2, 1, False),
    (1, 2, 4, False),
    (1, 2, 8, False),
    (2, 1, 1, False),
    (2, 1, 4, False),
)
"""Processes, threads of each, photos in a batch, and whether one is refined while the model looks at the next."""


def main() -> None:
    """Print the table, or be one of its processes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="blip-base", help="blip-base or mini-blip")
    parser.add_argument("--count", type=int, default=8)
    parser.add_argument("--photos", type=Path)
    parser.add_argument("--times", type=int, default=2)
    parser.add_argument("--child", nargs=4, metavar=("FIRST", "THREADS", "BATCH", "BESIDE"), help=argparse.SUPPRESS)
    parser.add_argument("--share", type=int, default=1, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        first, threads, batch, beside = map(int, args.child)
        work(args, first, threads, batch, bool(beside))
        return
    with tempfile.TemporaryDirectory() as folder:
        model = args.model if args.model.startswith("mini-") else str(random_model(args.model, Path(folder)))
        common = [
            "--model",
            model,
            "--count",
            str(args.count),
            *(["--photos", str(args.photos)] if args.photos else []),
        ]
        best = dict.fromkeys(ROWS, float("inf"))
        for _ in range(args.times):
            for row in ROWS:
                best[row] = min(best[row], seconds(common, *row))
    print("| processes | threads of each | batch | refined beside the model | photos a minute | of the best |")
    print("|---" * 6 + "|")
    for (processes, threads, batch, beside), took in best.items():
        rate, share = 60 * args.count / took, min(best.values()) / took
        print(f"| {processes} | {threads} | {batch} | {'yes' if beside else 'no'} | {rate:.1f} | {share:.2f} |")


def seconds(common: Sequence[str], processes: int, threads: int, batch: int, beside: bool) -> float:
    """Return the seconds from the start of the first photo to the end of the last."""
    command = [sys.executable, "-m", "benchmarks.throughput", *common, "--share", str(processes)]
    children = [
        subprocess.Popen(
            [*command, "--child", str(first), str(threads), str(batch), str(int(beside))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for first in range(processes)
    ]
    for child in children:
        assert child.stdout is not None
        child.stdout.readline()  # it is ready
    begin = time.perf_counter()
    for child in children:
        assert child.stdin is not None
        child.stdin.write("go\n")
        child.stdin.close()
    if any(child.wait() for child in children):
        raise SystemExit("a process failed")
    return time.perf_counter() - begin


def work(args: argparse.Namespace, first: int, threads: int, batch: int, beside: bool) -> None:
    """Segment every ``share``-th photo from the ``first`` on, once a line arrives."""
    torch.set_num_threads(threads)
    own = args.model.startswith("mini-")
    settings: dict[str, Any] = {} if own else {"size": 336}
    segmenter = Segmenter.from_pretrained(args.model, device="cpu", **settings)
    photos = refine.photos(args.photos, args.count, SIZE)[first :: args.share]
    vocabulary = Vocabulary.of(THINGS[:3] if own else NAMES)
    segmenter(photos[0], vocabulary)
    if beside:
        pipeline._turn = lambda cores, segmenter: nullcontext()
    print("ready", flush=True)
    sys.stdin.readline()
    items = [pipeline.Item(str(number), partial(read, photo), vocabulary) for number, photo in enumerate(photos)]
    for outcome in pipeline.run(lambda: segmenter, items, batch=batch):
        assert outcome.result is not None


def read(photo: np.ndarray) -> tuple[np.ndarray, None]:
    """Return what the pipeline takes from a photo that is at hand."""
    return photo, None


if __name__ == "__main__":
    main()
