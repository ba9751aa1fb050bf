"""A GPU timed: the whole pipeline, plain and compiled, and DenseCRF on a batch.

    python -m benchmarks.gpu [--photos DIR] [--batches 1,16] [--dtypes float32,bfloat16] [--profile trace.json]
    python -m benchmarks.gpu --device cpu --model mini-blip --passes 2     # to see that it runs
    python -m benchmarks.gpu --device cpu --model vit-b/16 --batches 1     # SCLIP on a CLIP of that shape

Markdown out. Published shapes have random weights: the arithmetic is the same, their maps mean nothing. Photos are the
.jpg files of DIR at 480 x 640; without it drawn scenes, which have fewer colours and are faster to refine. Plain and
compiled take turns, and the median of each counts. "One call" is ``segmenter(photos, classes)``; "many" is
``--many`` such batches through the pipeline of the commands, which refines one batch while the model looks at the next.
On a GPU seconds are of the clock, and those within the image tower of the device's own; on a CPU they are of the
processor, which other work lengthens less, but for the first call, which compiles. ``--profile`` runs the last row once
more, writes a trace for chrome://tracing, and prints what took longest; ``--plot`` draws what the GPU did.
"""

import argparse
import json
import re
import sys
import tempfile
import time
from collections import defaultdict, deque
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from torch.nn.functional import normalize

from benchmarks import refine
from benchmarks.clip_methods import WIDTH, random_clip
from benchmarks.segment import NAMES, PHOTO, WORDS, Case, drawn_case, load, random_model
from pnp_ovss import Segmenter, Vocabulary, load_method
from pnp_ovss.mini import HELD_OUT_SEED, draw
from pnp_ovss.runs.pipeline import Item, run

CRF_SIZE, CHANNELS = (480, 640), 7
"""Of the scores that DenseCRF is timed on: six classes and the background."""
VIT = "vit-b/16"
BINS = 240
KINDS = {
    "copies": "Memcpy|Memset|memcpy",
    "matrix products": "nvjet|gemm|cutlass|xmma|gemv",
    "attention": "sdpa|flash|fmha|attention",
    "lattice": "_sums|sort|Sort|radix|scatter|gather|index|scan|Scan|Select|select",
    "the rest": "",
}
"""Kinds of kernels, by their names."""
COLOURS = ("#b8b8b8", "#3577c8", "#8fb8e8", "#d9822b", "#7a9e4d")


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
    parser.add_argument("--photos", type=Path, metavar="DIR")
    parser.add_argument("--many", type=int, default=8, help="batches that follow each other")
    parser.add_argument("--profile", type=Path, metavar="FILE")
    parser.add_argument("--plot", type=Path, metavar="SVG", help="with --profile: what the GPU did, in time")
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
        "| dtype | photos | model | first call, s | one call, photos/s | a photo, ms | in the image tower, ms | share "
        "| many, photos/s | share |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for dtype in args.dtypes.split(","):
        for photos in map(int, args.batches.split(",")):
            torch.compiler.reset()
            works = {tower: Work(args, model, dtype, photos, tower) for tower in ("plain", "compiled")}
            first = {tower: refine.timed(work.once)[1] for tower, work in works.items()}
            taken: dict[tuple[str, int], list[tuple[float, float]]] = defaultdict(list)
            for work in works.values():  # CUDA graphs are recorded when a shape comes again
                work.once()
            for _ in range(args.rounds):
                for tower, work in works.items():
                    taken[tower, 1].append(work.once())
            for _ in range(min(2, args.rounds)):
                for tower, work in works.items():
                    taken[tower, args.many].append(work.many())
            for tower, seconds in first.items():
                cells = [dtype, str(photos), tower, f"{seconds:.1f}"]
                for batches in (1, args.many):
                    found = zip(*taken[tower, batches], strict=True)
                    whole, within = (median(one) / photos / batches for one in found)
                    each = [f"{1000 * whole:.2f}", f"{1000 * within:.2f}"] if batches == 1 else []
                    cells += [f"{1 / whole:.2f}", *each, f"{within / whole:.2f}"]
                rows.append(f"| {' | '.join(cells)} |")
    if args.profile:
        with torch.profiler.profile() as found:
            works["compiled"].many()
        found.export_chrome_trace(str(args.profile))
        if args.plot:
            args.plot.write_text(plot(json.loads(args.profile.read_text())["traceEvents"]), encoding="utf-8")
        by = f"self_{'device' if cuda else 'cpu'}_time_total"
        rows += ["", found.key_averages().table(sort_by=by, row_limit=15)]
    return "\n".join(rows)


class Work:
    """A model and a batch of photos to segment."""

    def __init__(self, args: argparse.Namespace, model: str | Path, dtype: str, photos: int, tower: str) -> None:
        self.cuda, self.batches = args.device.startswith("cuda"), args.many
        if args.model == VIT:
            method: Any = load_method("sclip", model, args.device, dtype, background="never")
            # Text vectors are at hand: those of the words are computed once, not per photo.
            vectors = normalize(torch.randn(99, WIDTH, device=args.device), dim=1)
            method.clip.encode_words = lambda words, templates: vectors[: len(words)]
            names: list[Sequence[str]] = [NAMES[: args.classes]] * photos
            scenes = [draw(HELD_OUT_SEED, index, PHOTO).image for index in range(photos)]
            case = Case(Segmenter(method), scenes, names)
        else:
            case = drawn_case(load(model, args, dtype), photos, args.classes)
        self.segmenter, self.names = case.segmenter, case.names
        self.photos: list[Any] = [*case.photos]
        if args.photos:
            found = refine.photos(args.photos, photos, PHOTO)
            self.photos = [found[index % len(found)] for index in range(photos)]
        backbone: Any = self.segmenter._backbone
        if tower == "compiled":
            backbone.compile_tower()
        self.clock = Clock(getattr(backbone, backbone.tower), self.cuda)
        setattr(backbone, backbone.tower, self.clock)

    def once(self) -> tuple[float, float]:
        """Segment the photos, and return the seconds of all of it and those within the image tower."""
        return self._timed(lambda: self.segmenter(self.photos, self.names))

    def many(self) -> tuple[float, float]:
        """Do the same for many such batches, one after the other."""
        vocabularies = [Vocabulary.of(names) for names in self.names]
        pairs = [*zip(self.photos, vocabularies, strict=True)] * self.batches
        items = [Item(str(key), partial(_read, photo), names) for key, (photo, names) in enumerate(pairs)]
        return self._timed(lambda: deque(run(lambda: self.segmenter, items, batch=len(self.photos)), maxlen=0))

    def _timed(self, work: Callable[[], Any]) -> tuple[float, float]:
        now = time.perf_counter if self.cuda else time.process_time
        begin = now()
        work()  # labels come back to the host, so that the device is done by then
        return now() - begin, self.clock.seconds()


def _read(photo: np.ndarray) -> tuple[np.ndarray, None]:
    return photo, None


def plot(events: Sequence[Mapping[str, Any]]) -> str:
    """Return an SVG of a trace: for each few milliseconds, the share of it in which kernels of each kind ran.

    Streams are added up, so what runs beside something else goes above 1.
    """
    kernels = [event for event in events if event.get("cat") in ("kernel", "gpu_memcpy", "gpu_memset")]
    begin = min((event["ts"] for event in kernels), default=0.0)
    end = max((event["ts"] + event["dur"] for event in kernels), default=1.0)
    step = (end - begin) / BINS
    busy = {kind: [0.0] * BINS for kind in KINDS}
    for event in kernels:
        kind = next(kind for kind, words in KINDS.items() if re.search(words, event["name"]))
        first = int((event["ts"] - begin) / step)
        busy[kind][min(first, BINS - 1)] += event["dur"] / step
    bars, top = [], [0.0] * BINS
    for shares, colour in zip(busy.values(), COLOURS, strict=True):
        for place, share in enumerate(shares):
            if share:
                bars.append(
                    f'<rect x="{40 + 3 * place}" y="{170 - 90 * (top[place] + share):.1f}" width="3" '
                    f'height="{90 * share:.1f}" fill="{colour}"/>'
                )
            top[place] += share
    legend = "".join(
        f'<rect x="{40 + 150 * number}" y="198" width="10" height="10" fill="{colour}"/>'
        f'<text x="{55 + 150 * number}" y="207">{kind}</text>'
        for number, (kind, colour) in enumerate(zip(KINDS, COLOURS, strict=True))
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {60 + 3 * BINS} 215" font-family="sans-serif" '
        f'font-size="12"><rect width="100%" height="100%" fill="#fff"/>{"".join(bars)}'
        f'<path d="M40 80H{40 + 3 * BINS}" stroke="#888" stroke-dasharray="4 4"/>'
        f'<path d="M40 20V170H{40 + 3 * BINS}" stroke="#888" fill="none"/><text x="20" y="84">1</text>'
        f'<text x="40" y="185">0</text><text x="{40 + 3 * BINS}" y="185" text-anchor="end">'
        f"{(end - begin) / 1000:.0f} ms</text>{legend}</svg>\n"
    )


def crf(device: str) -> str:
    """Return the table of DenseCRF on a batch of photos, beside pydensecrf2 on a core, where that is installed."""
    case = draw(HELD_OUT_SEED, 0, CRF_SIZE).image, refine.scores_of(CHANNELS, CRF_SIZE, 0)
    theirs = [refine.timed(refine.theirs, *case)[1] for _ in range(3)] if find_spec("pydensecrf") else []
    return f"{refine.SPEED}\n{refine.on_gpu(CRF_SIZE, CHANNELS, case, theirs, device)}"


if __name__ == "__main__":
    sys.exit(main())
