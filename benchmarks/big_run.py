"""`pnp-ovss batch` over very many tiny photos: memory and time as they become more, through kills, to equal results.

    python -m benchmarks.big_run [--count 100000] [--kills 3] [--folder /dev/shm] [--formats files,parquet]

Markdown out. Photos have 8 x 8 pixels and the method compares two colours, so that what is measured is all that is
around a method: lists, queues, records, packing. Each run is a process of its own. The killed run gets SIGKILL at
random moments and goes on by the same command. A folder in memory, such as /dev/shm, leaves the disk out of the times.
"""

import argparse
import io
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from pnp_ovss import Config
from pnp_ovss.cli import main as command
from pnp_ovss.files import Folder
from pnp_ovss.methods import DEFAULT_METHOD, METHODS
from pnp_ovss.runs.record import Results, load_results, read_shard
from pnp_ovss.types import ClassMaps, OnStep, Photos, Vocabulary, ignore

CLASSES = "red, green"
PARTS = 10
"""Rows of the table of a run."""


class Colours:
    """Takes the first class where a photo is more red than green, else the second."""

    name, model, revision = DEFAULT_METHOD, "mini-blip", "colours"
    device = torch.device("cpu")

    def __init__(self) -> None:
        self.config = Config(refiners=())

    def class_maps(
        self, images: Photos, vocabularies: Sequence[Vocabulary], on_step: OnStep = ignore
    ) -> list[ClassMaps]:
        """Return red and green."""
        pixels = [torch.from_numpy(image[..., :2]).permute(2, 0, 1).float() / 255 for image in images]
        return [ClassMaps(*pair) for pair in zip(pixels, vocabularies, strict=True)]

    def scores(self, maps: ClassMaps, size: tuple[int, int]) -> Float[Tensor, "ch h w"]:
        """Return red and green, and no background."""
        return maps.maps


def main() -> None:
    """Print the tables, or be one of the processes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=100_000, help="photos (default: 100000)")
    parser.add_argument("--kills", type=int, default=3)
    parser.add_argument("--folder", help="where the photos and results go (default: the temporary folder)")
    parser.add_argument("--formats", default="files,parquet")
    parser.add_argument("--child", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        raise SystemExit(child(int(args.child[0]), args.child[1:]))
    with tempfile.TemporaryDirectory(dir=args.folder) as name:
        folder = Path(name)
        draw(folder / "photos", args.count)
        for format in args.formats.split(","):
            measure(folder, format, args.count, args.kills)


def draw(folder: Path, count: int) -> None:
    """Write so many photos of noise, a thousand in a folder."""
    rng = np.random.default_rng(0)
    for number in range(count):
        place = folder / f"{number // 1000:04}" / f"{number:07}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        buffer = io.BytesIO()
        Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(buffer, format="PNG", compress_level=1)
        place.write_bytes(buffer.getvalue())


def measure(folder: Path, format: str, count: int, kills: int) -> None:
    """Print how a run goes, how one goes that is killed, whether they come to the same, and how they are read."""
    whole, killed = folder / f"{format}-whole", folder / f"{format}-killed"
    print(f"--format {format}, {count} photos of 8 x 8\n\n| photos | s | s for these | memory, MB |\n|---|---|---|---|")
    code = run(folder / "photos", whole, format, count, show=True)
    moments = [count * (number + random.random()) / (kills + 1) for number in range(kills)]
    codes = [run(folder / "photos", killed, format, count, int(moment)) for moment in moments]
    begin = time.perf_counter()
    codes.append(run(folder / "photos", killed, format, count))
    last = time.perf_counter() - begin
    begin = time.perf_counter()
    again = run(folder / "photos", killed, format, count)
    print(f"\nexit codes {code}; killed at {', '.join(f'{moment:.0f}' for moment in moments)}: {codes}")
    print(f"last part {last:.0f} s; once more, with nothing left to do: exit code {again}, ", end="")
    print(f"{time.perf_counter() - begin:.1f} s with the start of the process")
    same = all(one == other for one, other in zip(rows(whole), rows(killed), strict=True))
    print(f"results of the killed run are {'equal' if same else 'DIFFERENT'}")
    begin, before = time.perf_counter(), memory()
    found = load_results(whole)
    held = memory() - before
    pixels = sum(one.values(("red", "green")).size for one in found)
    assert (len(found), pixels) == (count, 64 * count)
    print(f"read as export does: {time.perf_counter() - begin:.0f} s, {held:.0f} MB held for {len(found)} results\n")


def run(photos: Path, out: Path, format: str, count: int, kill_at: int = 0, show: bool = False) -> int:
    """Run ``batch`` in a process, show what it prints of itself, kill it when so many are done; return its code."""
    given = ["batch", str(photos), "--classes", CLASSES, "--model", "mini-blip", "--out", str(out), "--format", format]
    module = [sys.executable, "-m", "benchmarks.big_run", "--child", str(count // PARTS)]
    process = subprocess.Popen([*module, *given], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("|") and show:
            print(line, end="", flush=True)
        if kill_at and line.startswith("done ") and int(line.split()[1]) >= kill_at:
            process.kill()
    return process.wait()


def child(part: int, arguments: list[str]) -> int:
    """Be ``batch`` with the method of colours, and print time and memory after every part."""
    torch.set_num_threads(1)
    METHODS[DEFAULT_METHOD] = replace(METHODS[DEFAULT_METHOD], load=lambda *all, **more: Colours())
    write, begin, before, done = Results.write, time.perf_counter(), time.perf_counter(), 0
    loose = Results.loose

    def writing(self: Results, *all: Any) -> Any:
        nonlocal before, done
        entry, now = write(self, *all), time.perf_counter()
        done += 1
        if done % part == 0:
            print(f"| {done} | {now - begin:.0f} | {now - before:.1f} | {memory():.0f} |", flush=True)
            before = now
        if done % 10 == 0:
            print(f"done {done + there}", flush=True)
        return entry

    there = 0

    def counting(self: Results) -> Any:
        nonlocal there
        found = loose(self)
        there = len(found) + sum(map(len, self.packed().values()))
        return found

    Results.write, Results.loose = writing, counting  # type: ignore[method-assign, assignment]
    return command(arguments)


def memory() -> float:
    """Return what this process holds, in MB."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def rows(folder: Path) -> Iterator[tuple[Any, ...]]:
    """Yield every result by key, without the time it took."""
    packed = {name: read_shard(Folder(folder), name) for name in Results(Folder(folder)).shards()}
    if packed:
        every = [row for rows in packed.values() for row in rows]
        for row in sorted(every, key=lambda row: str(row["key"])):
            yield tuple(value for name, value in row.items() if name != "seconds")
        return
    for path in sorted((folder / "images").rglob("*.png")):
        record = path.with_suffix(".json").read_text().split('"seconds"')
        yield path.name, path.read_bytes(), record[0], record[1].partition(",")[2]


if __name__ == "__main__":
    main()
