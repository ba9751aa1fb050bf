"""What other processes on the same cores cost: DenseCRF beside pydensecrf2's, and the whole method, alone and not.

    python -m benchmarks.busy [--photos DIR] [--count 5] [--busy 0,1,2] [--channels 3,6,21]
    python -m benchmarks.busy --segment [--photos DIR] [--count 20] [--busy 0,1]

Markdown out. Photos are the .jpg files of DIR; without it, drawn scenes, which have fewer colours and are faster. A
busy process counts without end, and no more of them are started than asked for: begin on a machine that is idle.
"spinning" is how libgomp waits by itself, "sleeping" is GOMP_SPINCOUNT=0, which the command line sets.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

import torch

from benchmarks import refine
from benchmarks.segment import random_model
from pnp_ovss import Segmenter

SIZE = (480, 640)
WAITING = {"spinning": {}, "sleeping": {"GOMP_SPINCOUNT": "0"}}
NAMES = ("person", "dog", "tree")


def main() -> None:
    """Print the table asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path)
    parser.add_argument("--count", type=int, default=5)
    parser.add_argument("--busy", default="0,1,2", help="busy processes, with commas")
    parser.add_argument("--channels", default="3,6,21")
    parser.add_argument("--threads", default="1,2")
    parser.add_argument(
        "--segment", action="store_true", help="the method with a random BLIP-base, 4 passes and DenseCRF"
    )
    parser.add_argument("--child", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        torch.set_num_threads(int(args.threads))
        print(json.dumps(segment(args) if args.segment else crf(args)))
        return
    unit = "a photo, s" if args.segment else f"DenseCRF at {SIZE[0]} x {SIZE[1]}, s"
    print(f"| busy processes | threads | they wait | channels | {unit} | pydensecrf2, s | ratio | equal labels |")
    print("|---|---|---|---|---|---|---|---|")
    for busy in map(int, args.busy.split(",")):
        for waiting, environment in WAITING.items():
            for threads in args.threads.split(","):
                if threads != "1" or waiting == "sleeping":  # one thread waits for nobody
                    with busy_processes(busy):
                        for row in in_a_process(threads, environment):
                            print(f"| {busy} | {threads} | {waiting} | " + " | ".join(row) + " |", flush=True)


@contextmanager
def busy_processes(count: int) -> Iterator[None]:
    """Keep so many cores busy."""
    started = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for process in started:
            process.kill()
            process.wait()


def in_a_process(threads: str, environment: dict[str, str]) -> list[list[str]]:
    """Return the rows of a process of its own, as libgomp reads its settings once."""
    command = [sys.executable, "-m", "benchmarks.busy", *sys.argv[1:], "--threads", threads, "--child", "1"]
    done = subprocess.run(command, env=os.environ | environment, stdout=subprocess.PIPE, check=True)
    rows: list[list[str]] = json.loads(done.stdout.splitlines()[-1])
    return rows


def crf(args: argparse.Namespace) -> list[list[str]]:
    """Return channels, seconds of ours and of pydensecrf2's, taken in turns, their ratio, and how many labels agree."""
    pictures, rows = refine.photos(args.photos, args.count, SIZE), []
    for channels in map(int, args.channels.split(",")):
        cases = [(picture, refine.scores_of(channels, SIZE, seed)) for seed, picture in enumerate(pictures)]
        refine.ours(*cases[0])  # the first call loads what later ones have
        own, theirs, equal = [], [], []
        for case in cases:
            labels, seconds = refine.timed(refine.ours, *case)
            own.append(seconds)
            expected, seconds = refine.timed(refine.theirs, *case)
            theirs.append(seconds)
            equal.append(float((labels == expected).mean()))
        times = [f"{median(own):.2f}", f"{median(theirs):.2f}", f"{median(own) / median(theirs):.2f}"]
        rows.append([str(channels), *times, f"{100 * min(equal):.3f} %"])
    return rows


def segment(args: argparse.Namespace) -> list[list[str]]:
    """Return the seconds that a photo takes."""
    with tempfile.TemporaryDirectory() as folder:
        segmenter = Segmenter.from_pretrained(random_model("blip-base", Path(folder)), size=336, device="cpu")
        pictures = refine.photos(args.photos, args.count, SIZE)
        segmenter(pictures[0], NAMES)
        start = time.perf_counter()
        for picture in pictures:
            segmenter(picture, NAMES)
        return [[str(1 + len(NAMES)), f"{(time.perf_counter() - start) / len(pictures):.2f}", "", "", ""]]


if __name__ == "__main__":
    main()
