"""A GPU timed: the whole pipeline, plain and with its image tower compiled, and DenseCRF on a batch.

    python -m benchmarks.gpu [--batches 1,16] [--dtypes float32,bfloat16] [--profile trace.json]
    python -m benchmarks.gpu --device cpu --model mini-blip --passes 2     # to see that it runs
    python -m benchmarks.gpu --device cpu --model vit-b/16 --batches 1     # SCLIP on a CLIP of that shape

Markdown out. Published shapes have random weights: the arithmetic is the same, their maps mean nothing. Plain and
compiled take turns, and the median of each counts. On a GPU seconds are of the clock, and those within the image tower
of the device's own; on a CPU they are of the processor, which other work lengthens less, but for the first call, which
compiles. ``--profile`` runs the last row once more, writes a trace for chrome://tracing, and prints what took longest.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch.nn.functional import normalize

from benchmarks import refine
from benchmarks.clip_methods import WIDTH, random_clip
from benchmarks.segment import NAMES, PHOTO, WORDS, Case, drawn_case, load, random_model
from pnp_ovss import Segmenter, load_method
from pnp_ovss.mini import HELD_OUT_SEED, draw

CRF_SIZE, CHANNELS = (480, 640), 7
"""Of the scores that DenseCRF is timed on: six classes and the background."""
VIT = "vit-b/16"


class Clock:
    """A function, and the seconds that the device spends in it."""

    def __init__(self, run: Callable[..., Any], cuda: bool) -> None:
        self.run, self.cuda = run, cuda
        self.spans: list[tuple[Any, Any]] = []

    def __call__(self, *args: Any) -> Any:
        """Return what the function does."""
        begin = self._now()
        found = self.run(*args)
        self.spans.append((begin, self._now()))
        return found

    def seconds(self) -> float:
        """Return the seconds since the last time this was asked; on CUDA, after what is queued is done."""
        spans, self.spans = self.spans, []
        return sum((begin.elapsed_time(end) / 1000 if self.cuda else end - begin for begin, end in spans), 0.0)

    def _now(self) -> Any:
        if not self.cuda:
            return time.process_time()
        event: Any = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        event.record()
        return event


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the tables; return 2 where there is no such device."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="blip-large", help=f"{', '.join(WORDS)}, {VIT}, or what load_vlm takes")
    parser.add_argument("--size", type=int, help="side of the input (default: 336; tiny and mini models: their own)")
    parser.add_argument("--passes", type=int, default=4)
    parser.add_argument("--classes", type=int, default=3)
    parser.add_argument("--dtypes", default="float32,bfloat16")
    parser.add_argument("--batches", default="1,16", help="photos at a time, with commas")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--profile", type=Path, metavar="FILE")
    args = parser.parse_args(arguments)
    if args.device.startswith("cuda") and not torch.cuda.is_available():
        print("there is no CUDA device here; give --device cpu to see that it runs")
        return 2
    torch.set_num_threads(args.threads)
    with tempfile.TemporaryDirectory() as folder:
        print(pipeline(args, Path(folder)))
    print("\n" + crf(args.device))
    return 0


def pipeline(args: argparse.Namespace, folder: Path) -> str:
    """Return the table of photos per second and of the share of the image tower."""
    cuda = args.device.startswith("cuda")
    model = args.model
    if model == VIT:
        model = random_clip(folder)
    elif model in WORDS:
        model = random_model(model, folder)
    rows = [
        f"{args.model}, {args.passes} passes, {args.classes} classes, medians of {args.rounds}; "
        f"{torch.cuda.get_device_name(args.device) if cuda else 'CPU'}, {args.threads} threads, "
        f"torch {torch.__version__}, {time.strftime('%Y-%m-%d')}",
        "",
        "| dtype | photos | image tower | first call, s | photos/s | a photo, s | in the image tower, s | share |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for dtype in args.dtypes.split(","):
        for photos in map(int, args.batches.split(",")):
            torch.compiler.reset()
            works = {tower: work_of(args, model, dtype, photos, tower) for tower in ("plain", "compiled")}
            first = {tower: refine.timed(work)[1] for tower, work in works.items()}
            taken: dict[str, list[tuple[float, float]]] = {tower: [] for tower in works}
            for _ in range(args.rounds):
                for tower, work in works.items():
                    taken[tower].append(work())
            for tower, seconds in taken.items():
                whole, within = (median(one) / photos for one in zip(*seconds, strict=True))
                cells = f"{first[tower]:.1f} | {1 / whole:.2f} | {whole:.4f} | {within:.4f} | {within / whole:.2f}"
                rows.append(f"| {dtype} | {photos} | {tower} | {cells} |")
    if args.profile:
        with torch.profiler.profile() as found:
            works["compiled"]()
        found.export_chrome_trace(str(args.profile))
        by = f"self_{'device' if cuda else 'cpu'}_time_total"
        rows += ["", found.key_averages().table(sort_by=by, row_limit=15)]
    return "\n".join(rows)


def work_of(
    args: argparse.Namespace, model: str | Path, dtype: str, photos: int, tower: str
) -> Callable[[], tuple[float, float]]:
    """Return what segments the photos once and returns the seconds of all of it and those within the image tower."""
    cuda = args.device.startswith("cuda")
    if args.model == VIT:
        method: Any = load_method("sclip", model, args.device, dtype, background="never")
        # Text vectors are at hand: those of the words are computed once, not per photo.
        vectors = normalize(torch.randn(99, WIDTH, device=args.device), dim=1)
        method.clip.encode_words = lambda words, templates: vectors[: len(words)]
        names: list[Sequence[str]] = [NAMES[: args.classes]] * photos
        case = Case(Segmenter(method), [draw(HELD_OUT_SEED, index, PHOTO).image for index in range(photos)], names)
    else:
        case = drawn_case(load(model, args, dtype), photos, args.classes)
    segmenter: Any = case.segmenter
    backbone = segmenter.method.backbone
    if tower == "compiled":
        backbone.compile_tower()
    clock = Clock(getattr(backbone, backbone.tower), cuda)
    setattr(backbone, backbone.tower, clock)
    now = time.perf_counter if cuda else time.process_time

    def work() -> tuple[float, float]:
        begin = now()
        segmenter(case.photos, case.names)  # labels come back to the host, so that the device is done by then
        return now() - begin, clock.seconds()

    return work


def crf(device: str) -> str:
    """Return the table of DenseCRF on a batch of photos, beside pydensecrf2 on a core, where that is installed."""
    case = draw(HELD_OUT_SEED, 0, CRF_SIZE).image, refine.scores_of(CHANNELS, CRF_SIZE, 0)
    theirs = [refine.timed(refine.theirs, *case)[1] for _ in range(3)] if find_spec("pydensecrf") else []
    return f"{refine.SPEED}\n{refine.on_gpu(CRF_SIZE, CHANNELS, case, theirs, device)}"


if __name__ == "__main__":
    sys.exit(main())
