"""Is this commit slower than an older one: the main paths of both, in turns, and the ratio of their times.

    python -m benchmarks.guard OLD_COMMIT [--rounds 9] [--paths salience,segmenter,...] [--threads 1]

Markdown out: per path the median of the paired ratios, new / old, and its 90 % interval. The exit code is 1 if a whole
interval lies above 1.1. Each commit has a process of its own, in which every path has run once before; "cold" is a
process for each photo. What is new is the working tree as it is.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np
from scipy.stats import quantile_test

ROOT = Path(__file__).resolve().parents[1]
LIMIT = 1.1
"""A path is slower if the interval of its ratio lies above this."""
CONFIDENCE = 0.9
KEPT = {"MALLOC_MMAP_THRESHOLD_": "1000000000", "MALLOC_TRIM_THRESHOLD_": "2000000000"}
"""Has glibc keep freed memory: else one process takes it anew at each call and the other does not, which is chance."""
SCENES = 8
SIZE = (480, 640)
Found = tuple[str, list[tuple[float, float]] | str]
"""A path, and its seconds before and after, round by round, or why there are none."""


def salience() -> Callable[[], object]:
    """Steps 3 to 6 of eight scenes, mini-blip."""
    import torch

    import pnp_ovss

    vlm, scenes = pnp_ovss.load_vlm("mini-blip", device="cpu"), _scenes()
    pixels = torch.stack([vlm.prepare(scene.image) for scene in scenes])
    prompts = [pnp_ovss.make_prompt(scene.things) for scene in scenes]
    return lambda: pnp_ovss.salience(vlm, pixels, prompts, pnp_ovss.PRESETS["mini"])


def segmenter() -> Callable[[], object]:
    """The whole of PnP-OVSS on eight scenes, mini-blip."""
    return _segmenting("mini-blip", "pnp")


def naclip() -> Callable[[], object]:
    """NACLIP on eight scenes, mini-clip."""
    return _segmenting("mini-clip", "naclip")


def crf() -> Callable[[], object]:
    """DenseCRF at 480 x 640, 6 channels."""
    return _refining("crf")


def pamr() -> Callable[[], object]:
    """PAMR at 480 x 640, 6 channels."""
    return _refining("pamr")


def cold() -> Callable[[], object]:
    """``pnp-ovss segment`` of one scene, from start to exit."""
    from PIL import Image

    folder, scene = tempfile.TemporaryDirectory(), _scenes()[0]
    Image.fromarray(scene.image).save(f"{folder.name}/scene.png")
    words = ["segment", "scene.png", "--classes", ", ".join(scene.things), "--model", "mini-blip", "--device", "cpu"]
    command = [sys.executable, "-m", "pnp_ovss", *words]
    return lambda: subprocess.run(command, cwd=folder.name, check=True, stdout=sys.stderr)


PATHS = {path.__name__: path for path in (salience, segmenter, naclip, crf, pamr, cold)}
"""By name, what prepares a path in the process that is timed, and returns it."""


def _scenes() -> list[Any]:
    from pnp_ovss.mini import draw

    return [draw(1, index, 224) for index in range(SCENES)]


def _segmenting(model: str, method: str) -> Callable[[], object]:
    from pnp_ovss import Segmenter

    whole, scenes = Segmenter.from_pretrained(model, method=method, device="cpu"), _scenes()
    images, names = [scene.image for scene in scenes], [scene.things for scene in scenes]
    return lambda: whole(images, names)


def _refining(step: str) -> Callable[[], object]:
    import pnp_ovss
    from pnp_ovss.mini import draw

    maps, image = np.random.default_rng(0).random((5, 21, 21), dtype=np.float32), draw(1, 0, SIZE).image
    return lambda: pnp_ovss.refine(maps, image, pnp_ovss.Config(refiners=(step,)))


def answer() -> None:
    """Run the path of each line of stdin, and write the seconds that it took."""
    ready: dict[str, Callable[[], object]] = {}
    replies, sys.stdout = sys.stdout, sys.stderr  # nothing else may be read as a reply
    for name in map(str.strip, sys.stdin):
        try:
            if name not in ready:
                ready[name] = PATHS[name]()
                ready[name]()
            begin = perf_counter()
            ready[name]()
            print(perf_counter() - begin, file=replies, flush=True)
        except Exception as error:  # an old commit may lack a path
            print(f"{type(error).__name__}: {error}".partition("\n")[0], file=replies, flush=True)


@contextmanager
def process(tree: Path, threads: int) -> Iterator[Callable[[str], str]]:
    """Start a process that runs the package in a tree; yield what returns a path's seconds, or why there are none."""
    environment = os.environ | KEPT | {"PYTHONPATH": str(tree / "src"), "OMP_NUM_THREADS": str(threads)}
    pipes: dict[str, Any] = {
        "stdin": subprocess.PIPE,
        "stdout": subprocess.PIPE,
        "stderr": subprocess.DEVNULL,
        "text": True,
    }
    with subprocess.Popen([sys.executable, "-P", __file__, "--answer"], cwd=tree, env=environment, **pipes) as child:
        asked: Any = child.stdin
        replies: Any = child.stdout

        def seconds(name: str) -> str:
            print(name, file=asked, flush=True)
            return str(replies.readline()).strip()

        yield seconds


def compare(old: Path, new: Path, paths: Sequence[str], rounds: int, threads: int = 1) -> Iterator[Found]:
    """Yield for each path the seconds of both trees, round by round, or why one of them cannot run it."""
    with process(old, threads) as before, process(new, threads) as after:
        for path in paths:
            pairs = list[tuple[float, float]]()
            try:
                for number in range(rounds):
                    if number % 2:  # whoever comes second may find a warmer machine
                        first = float(before(path))
                        pairs.append((first, float(after(path))))
                    else:
                        first = float(after(path))
                        pairs.append((float(before(path)), first))
            except ValueError as error:
                yield path, str(error)
            else:
                yield path, pairs


def spread(ratios: Sequence[float]) -> tuple[float, float, float]:
    """Return the median, and the ends of its interval: order statistics, which hold whatever the distribution.

    The ends are infinite below five ratios, which cannot give an interval.
    """
    low, high = quantile_test(ratios, q=1, p=0.5).confidence_interval(CONFIDENCE)
    return median(ratios), float(np.nan_to_num(low, nan=-np.inf)), float(np.nan_to_num(high, nan=np.inf))


@contextmanager
def tree_of(commit: str) -> Iterator[Path]:
    """Unpack a commit's package into a temporary folder."""
    with tempfile.TemporaryDirectory() as folder:
        packed = Path(folder, "src.tar")
        subprocess.run(["git", "archive", f"--output={packed}", commit, "src"], cwd=ROOT, check=True)
        shutil.unpack_archive(packed, folder, filter="data")
        yield Path(folder)


def main(argv: Sequence[str] | None = None) -> int:
    """Print the table, and return 1 if a path is slower."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("commit", help="what this tree is compared with")
    parser.add_argument("--rounds", type=int, default=9, help="5 at least")
    parser.add_argument("--paths", default=",".join(PATHS))
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args(argv)
    with tree_of(args.commit) as old:
        return report(compare(old, ROOT, args.paths.split(","), args.rounds, args.threads))


def report(found: Iterable[Found]) -> int:
    """Print a row for each path, and return 1 if one is slower."""
    slower = []
    print("| path | old, s | new, s | new / old | 90 % of it |\n|---|---|---|---|---|")
    for path, pairs in found:
        if isinstance(pairs, str):
            print(f"| {path} | {pairs} | | | |", flush=True)
            continue
        old, new = map(median, zip(*pairs, strict=True))
        middle, low, high = spread([after / before for before, after in pairs])
        slower += [path] * (low > LIMIT)
        print(f"| {path} | {old:.3f} | {new:.3f} | {middle:.2f} | {low:.2f} to {high:.2f} |", flush=True)
    if slower:
        print(f"\nslower: {', '.join(slower)}")
    return int(bool(slower))


if __name__ == "__main__":
    if sys.argv[1:] == ["--answer"]:
        answer()
    else:
        sys.exit(main())
