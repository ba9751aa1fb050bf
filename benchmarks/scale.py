"""`pnp-ovss batch` over drawn scenes: photos per hour, and the peak of its memory as photos become more.

    python -m benchmarks.scale [--counts 100,1000] [--model mini-blip] [--batch-size 8] [-- FLAGS OF BATCH]

Markdown out. Each row is a process of its own, started as anybody would start it; its peak is what the system says.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from pnp_ovss.mini import HELD_OUT_SEED, THINGS, draw


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--counts", default="100,1000", help="how many scenes, with commas")
    parser.add_argument("--side", type=int, default=224, help="of a scene, in pixels (default: 224)")
    parser.add_argument("--model", default="mini-blip")
    parser.add_argument("--classes", default=", ".join(THINGS[:3]))
    parser.add_argument("--batch-size", default="8")
    parser.add_argument("flags", nargs="*", help="more flags of batch, behind --")
    args = parser.parse_args()
    rows = ["| scenes | s | photos per hour | peak, MB | / the first |", "|---|---|---|---|---|"]
    first = 0.0
    for count in (int(number) for number in args.counts.split(",")):
        with tempfile.TemporaryDirectory() as folder:
            scenes = Path(folder) / "scenes"
            scenes.mkdir()
            for index in range(count):
                Image.fromarray(draw(HELD_OUT_SEED, index, args.side).image).save(scenes / f"scene-{index:06}.png")
            flags = ["--model", args.model, "--classes", args.classes, "--batch-size", args.batch_size, *args.flags]
            seconds, peak = run([str(scenes), "--out", str(Path(folder) / "out"), *flags])
        first = first or peak
        rows.append(
            f"| {count} | {seconds:.0f} | {3600 * count / seconds:.0f} | {peak / 1e6:.0f} | {peak / first:.3f} |"
        )
    print(f"batch {' '.join(flags)}; scenes of {args.side} pixels; starting and loading the model included\n")
    print("\n".join(rows))


def run(arguments: Sequence[str]) -> tuple[float, float]:
    """Return seconds and peak memory in bytes of a process that runs ``batch``."""
    start = time.perf_counter()
    process = subprocess.Popen([sys.executable, "-m", "pnp_ovss", "batch", *arguments], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)  # so that Popen does not wait for it again
    if process.returncode:
        raise SystemExit(f"batch ended with {process.returncode}")
    return time.perf_counter() - start, usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)


if __name__ == "__main__":
    main()
