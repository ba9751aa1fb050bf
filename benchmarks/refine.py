"""Refinement measured: DenseCRF against pydensecrf2, every refiner against the truth, large photos.

    python -m benchmarks.refine [--photos DIR] [--count 10] [--threads 2] [--sizes 480x640,...] [--channels 2,6,21]
    python -m benchmarks.refine --large [--photos DIR]
    python -m benchmarks.refine --quality CASES --photos DIR

Markdown out. Photos are the .jpg files of DIR; without it, drawn scenes, which have fewer colours and are faster.
CASES is a folder of .npz files with `class_maps` and `truth`, named like the photos. pydensecrf2 comes with the extra
[bench].
"""

import argparse
import multiprocessing
import re
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from pnp_ovss import Config, refine
from pnp_ovss.evaluation.metrics import Confusion
from pnp_ovss.mini import draw
from pnp_ovss.refine.blur import gaussian_blur
from pnp_ovss.refine.crf import dense_crf
from pnp_ovss.refine.upsample import threshold_and_upsample

try:
    import pydensecrf.densecrf as yardstick
except ImportError:
    yardstick = None

GRID = (21, 21)
BATCH = 8  # photos at a time on a GPU
NOISE = 3.0  # standard deviation of the sensor noise put on enlarged photos, in colour steps
SPEED = "| size | channels | pydensecrf2, s | ours, s | ours / theirs | equal labels | pydensecrf2, MB | ours, MB |"
SPEED += "\n" + re.sub(r"[^|]+", "---", SPEED)
CHAINS = ((), ("blur",), ("blur", "crf"), ("crf",), ("pamr",), ("blur", "pamr"), ("guided",), ("blur", "guided"))


def main() -> None:
    """Print the table asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path)
    parser.add_argument("--count", type=int, default=10)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--sizes", default="320x480,480x640,1080x1920")
    parser.add_argument("--channels", default="2,6,21", help="score channels, the background's included")
    parser.add_argument("--large", action="store_true", help="time, memory and agreement on large photos")
    parser.add_argument("--quality", type=Path, metavar="CASES", help="mIoU of every refiner on these cases")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if args.quality:
        print(quality(args.quality, args.photos))
    elif args.large:
        print(large(args.photos))
    else:
        sizes = [(int(h), int(w)) for h, w in (size.split("x") for size in args.sizes.split(","))]
        print(speed(args.photos, args.count, sizes, [int(n) for n in args.channels.split(",")]))


def speed(folder: Path | None, count: int, sizes: Sequence[tuple[int, int]], channels: Sequence[int]) -> str:
    """Return the table of times, memory and agreement of DenseCRF, ours and pydensecrf2's."""
    if yardstick is None:
        print("pydensecrf2 is not installed (pip install 'pnp-ovss[bench]' needs a C compiler): ours alone\n")
    rows = [SPEED]
    for size in sizes:
        pictures = photos(folder, count, size)
        for number in channels:
            cases = [(picture, scores_of(number, size, seed)) for seed, picture in enumerate(pictures)]
            ours(*cases[0])  # the first call loads what later ones have
            theirs_s, ours_s, equal = [], [], []
            for case in cases:
                labels, seconds = timed(ours, *case)
                ours_s.append(seconds)
                if yardstick is not None:
                    expected, seconds = timed(theirs, *case)
                    theirs_s.append(seconds)
                    equal.append(float((labels == expected).mean()))
            row = [
                f"{size[0]} x {size[1]}",
                str(number),
                "",
                f"{median(ours_s):.2f}",
                "",
                "",
                "",
                extra(ours, *cases[0]),
            ]
            if yardstick is not None:
                share = "100 %" if min(equal) == 1 else f"{100 * np.mean(equal):.3f} %, least {100 * min(equal):.3f} %"
                row[2], row[4], row[5] = f"{median(theirs_s):.2f}", f"{median(ours_s) / median(theirs_s):.2f}", share
                row[6] = extra(theirs, *cases[0])
            rows.append("| " + " | ".join(row) + " |")
            if torch.cuda.is_available():
                rows.append(on_gpu(size, number, cases[0], theirs_s))
    return f"Medians of {count} photos, {torch.get_num_threads()} threads, torch {torch.__version__}\n\n" + "\n".join(
        rows
    )


def photos(folder: Path | None, count: int, size: tuple[int, int]) -> list[np.ndarray]:
    """Return RGB photos of one size: those that have it, then others cut and scaled to it."""
    h, w = size
    if folder is None:
        return [draw(0, index, size).image for index in range(count)]
    files = sorted(folder.glob("*.jpg"))
    own = [file for file in files if Image.open(file).size == (w, h)]
    chosen = (own + [file for file in files if file not in own])[:count]
    return [np.array(ImageOps.fit(Image.open(file).convert("RGB"), (w, h))) for file in chosen]


def scores_of(channels: int, size: tuple[int, int], seed: int) -> Tensor:
    """Return what step 8 hands to step 9: blurred maps of blobs, background first."""
    maps = torch.rand(1, channels - 1, *GRID, generator=torch.Generator().manual_seed(seed))
    maps = torch.nn.functional.avg_pool2d(maps, 5, 1, 2)
    return gaussian_blur(threshold_and_upsample(maps, size, threshold=0.5, background=True), sigma=0.02)


def ours(photo: np.ndarray, scores: Tensor) -> np.ndarray:
    """Return the labels of our DenseCRF."""
    return dense_crf(scores, torch.from_numpy(photo)[None]).max(1).indices[0].numpy()


def theirs(photo: np.ndarray, scores: Tensor) -> np.ndarray:
    """Return the labels of pydensecrf2 on the same unary."""
    channels, h, w = scores.shape[1:]
    unary = -scores[0].softmax(0).clamp(min=1e-5).log().reshape(channels, -1).numpy()
    crf = yardstick.DenseCRF2D(w, h, channels)
    crf.setUnaryEnergy(np.ascontiguousarray(unary))
    crf.addPairwiseGaussian(sxy=3, compat=7)
    crf.addPairwiseBilateral(sxy=50, srgb=5, rgbim=np.ascontiguousarray(photo), compat=10)
    return np.asarray(np.array(crf.inference(10)).argmax(0).reshape(h, w))


def on_gpu(
    size: tuple[int, int],
    channels: int,
    case: tuple[np.ndarray, Tensor],
    theirs_s: list[float],
    device: str = "cuda",
) -> str:
    """Return the table row of a batch on the GPU: seconds per photo, and its speed as a multiple of pydensecrf2's."""
    image = torch.from_numpy(case[0])[None].to(device).repeat(BATCH, 1, 1, 1)
    scores = case[1].to(device).repeat(BATCH, 1, 1, 1)
    dense_crf(scores, image)
    labels, seconds = timed(lambda: dense_crf(scores, image).max(1).indices.cpu().numpy())  # .cpu() waits for it
    equal, seconds = float((labels[0] == ours(*case)).mean()), seconds / BATCH
    cells = f"{median(theirs_s):.2f}" if theirs_s else "", f"{seconds:.4f}"
    faster = f"{median(theirs_s) / seconds:.0f} x" if theirs_s else ""
    share = f"{100 * equal:.3f} % of the CPU's"
    return f"| {size[0]} x {size[1]}, {device} | {channels} | {' | '.join(cells)} | {faster} | {share} | | |"


def large(folder: Path | None) -> str:
    """Return the table for large photos: with the default bound, and what the bound costs where none is needed."""
    rows = [
        "| photo | classes | refined at | s | peak of the process, GB | labels as without a bound |",
        "|---|---|---|---|---|---|",
    ]
    bound = Config().max_pixels
    for pixels, classes in ((12e6, 6), (24e6, 6), (24e6, 20), (50e6, 6)):
        rows.append(large_row(folder, pixels, classes, bound))
    for share in (bound / 12e6, bound / 24e6):  # 4 megapixels shrunk as much as 12 and 24 are
        rows.append(large_row(folder, 4e6, 6, round(4e6 * share), compare=True))
    return f"{torch.get_num_threads()} threads, torch {torch.__version__}\n\n" + "\n".join(rows)


def large_row(folder: Path | None, pixels: float, classes: int, bound: int, compare: bool = False) -> str:
    """Return one row: a photo of so many pixels, 3 to 2, refined at ``bound`` pixels in a process of its own."""
    size = round((pixels * 2 / 3) ** 0.5), round((pixels * 3 / 2) ** 0.5)
    noise = np.random.default_rng(0).normal(0, NOISE, (*size, 3)).astype(np.float32)
    photo = (photos(folder, 1, size)[0] + noise).clip(0, 255).astype(np.uint8)
    del noise
    maps = torch.nn.functional.avg_pool2d(
        torch.rand(classes, *GRID, generator=torch.Generator().manual_seed(0)), 5, 1, 2
    )
    labels, seconds, most, _ = apart(refined, photo, maps.numpy(), Config(max_pixels=bound, threshold=0.5))
    equal = ""
    if compare:
        whole, *_ = apart(refined, photo, maps.numpy(), Config(max_pixels=10**9, threshold=0.5))
        equal = f"{100 * float((labels == whole).mean()):.2f} %"
    cells = [f"{pixels / 1e6:.0f} MP", str(classes), f"{bound / 1e6:.1f} MP", f"{seconds:.1f}", f"{most / 1e9:.1f}"]
    return "| " + " | ".join([*cells, equal]) + " |"


def refined(photo: np.ndarray, maps: np.ndarray, config: Config) -> np.ndarray:
    """Return the labels of steps 7 to 9."""
    return refine(maps, photo, config)[0]


def quality(cases: Path, folder: Path | None) -> str:
    """Return the table of mIoU per chain of refiners: mean over the photos, over the classes that are in the truth."""
    if folder is None:
        raise SystemExit("--quality needs --photos: the folder of the photos the cases are named after")
    rows = ["| refiners | mIoU | s per photo |", "|---|---|---|"]
    files = sorted(cases.glob("*.npz"))
    for chain in CHAINS:
        scores, seconds = [], 0.0
        for file in files:
            case = np.load(file)
            photo = np.array(Image.open(folder / f"{file.stem}.jpg").convert("RGB"))
            (labels, _), taken = timed(refine, case["class_maps"], photo, Config(refiners=chain))
            confusion = Confusion.of(case["truth"].astype(np.int64), labels, len(case["class_maps"]) + 1)
            scores.append(confusion.miou("truth", first=1))
            seconds += taken
        rows.append(f"| {', '.join(chain) or 'none'} | {np.mean(scores):.4f} | {seconds / len(files):.2f} |")
    return f"{len(files)} photos\n\n" + "\n".join(rows)


def extra(run: Callable[..., Any], *args: Any) -> str:
    """Return the memory it takes beyond its input, in MB."""
    return f"{apart(run, *args)[3] / 1e6:.0f}"


def timed(run: Callable[..., Any], *args: Any) -> tuple[Any, float]:
    """Return the result and the seconds it took."""
    start = time.perf_counter()
    return run(*args), time.perf_counter() - start


def apart(run: Callable[..., Any], *args: Any) -> tuple[Any, float, float, float]:
    """Return the result of a fresh process, its seconds, its peak in bytes and how far that is above its start."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(_measured, torch.get_num_threads(), run, args).result()


def _measured(threads: int, run: Callable[..., Any], args: Sequence[Any]) -> tuple[Any, float, float, float]:
    torch.set_num_threads(threads)
    Path("/proc/self/clear_refs").write_text("5")  # Linux: the peak starts anew
    before = _memory("VmRSS")
    result, seconds = timed(run, *args)
    return result, seconds, _memory("VmHWM"), _memory("VmHWM") - before


def _memory(name: str) -> float:
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(name))
    return float(line.split()[1]) * 1024


if __name__ == "__main__":
    main()
