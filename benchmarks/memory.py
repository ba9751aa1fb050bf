"""The peak of the memory of ``pnp-ovss segment`` on large photos, with and without a budget.

    python -m benchmarks.memory [--cases 12x26,48x26,144x10] [--budgets ,4GB] [--model mini-blip] [-- FLAGS OF SEGMENT]

Markdown out. Each row is a process of its own, started as anybody would start it, on a drawn scene with sensor noise;
its peak is what the system says.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from pnp_ovss.mini import HELD_OUT_SEED, draw

NOISE = 3.0
"""Standard deviation, in colour steps."""
TILE = 1000
"""Side of the square of noise that is repeated, in pixels."""
NAMES = (
    *("dog", "cat", "fish", "bird", "house", "car", "bus", "sail boat", "rocket", "hot air balloon", "umbrella"),
    *("pine tree", "palm tree", "mushroom", "flower", "cactus", "snowman", "traffic light", "ice cream", "star"),
    *("sky", "grass", "sand", "water", "brick wall", "snow"),
)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", default="12x26,48x26,144x10", help="megapixels x names, with commas")
    parser.add_argument("--budgets", default=",4GB", help="values of --memory, with commas; an empty one: not given")
    parser.add_argument("--model", default="mini-blip")
    parser.add_argument("flags", nargs="*", help="more flags of segment, behind --")
    args = parser.parse_args()
    print("| photo | names | --memory | refined at | s | peak, GB |\n|---|---|---|---|---|---|")
    for case in args.cases.split(","):
        megapixels, names = map(int, case.split("x"))
        for budget in args.budgets.split(","):
            memory = ["--memory", budget] if budget else []
            with tempfile.TemporaryDirectory() as folder:
                seconds, peak, at = measure(
                    Path(folder), megapixels, names, ["--model", args.model, *memory, *args.flags]
                )
            cells = f"{megapixels} MP | {names} | {budget or 'default'} | {at} | {seconds:.0f} | {peak / 1e9:.2f}"
            print(f"| {cells} |", flush=True)


def measure(folder: Path, megapixels: int, names: int, flags: Sequence[str]) -> tuple[float, float, str]:
    """Return seconds and peak in bytes of the command on one photo, and the size it was refined at."""
    save_photo(folder / "photo.jpg", megapixels)
    what = ["--classes", ", ".join(NAMES[:names]), "--out", str(folder / "out"), *flags]
    start = time.perf_counter()
    command = [sys.executable, "-m", "pnp_ovss", "segment", str(folder / "photo.jpg"), *what]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)  # so that Popen does not wait for it again
    seconds = time.perf_counter() - start
    if process.returncode:
        raise SystemExit(f"segment ended with {process.returncode}")
    record = json.loads((folder / "out" / "photo.json").read_text(encoding="utf-8"))
    height, width = record.get("refined", (record["height"], record["width"]))
    return seconds, usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024), f"{height * width / 1e6:.1f} MP"


def save_photo(path: Path, megapixels: int) -> None:
    """Write a drawn scene of so many megapixels, 3 to 4, with noise on it."""
    side = (megapixels * 1e6 / 12) ** 0.5
    scene = Image.fromarray(draw(HELD_OUT_SEED, 3, (600, 800)).image)
    photo = np.array(scene.resize((round(4 * side), round(3 * side)), Image.Resampling.BICUBIC))
    noise = np.random.default_rng(0).normal(0, NOISE, (TILE, TILE, 3))
    for top in range(0, photo.shape[0], TILE):
        for left in range(0, photo.shape[1], TILE):
            part = photo[top : top + TILE, left : left + TILE]
            part[:] = np.rint(part + noise[: part.shape[0], : part.shape[1]]).clip(0, 255)
    Image.fromarray(photo).save(path, quality=92)


if __name__ == "__main__":
    main()
