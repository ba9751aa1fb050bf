"""mIoU, boundary mIoU and time of refinement with regions, on drawn scenes and on photos with stored class maps.

    python -m benchmarks.regions [--scenes 200] [--seed 2] [--sources watershed] [--sizes 0.05]
    python -m benchmarks.regions --cases CASES --photos DIR

``--sources`` takes scikit-image's felzenszwalb, slic and basins (its watershed) as well, where it is installed
(``pip install scikit-image``).

Markdown out. Seed 1 draws the scenes to choose settings on, seed 2 those that are held out. Every method is run once
per scene, and its class maps are refined in every way. CASES is a folder of .npz files with `class_maps` and `truth`,
named like the photos.
"""

import argparse
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from time import process_time
from typing import Any

import numpy as np
import torch
from PIL import Image
from tqdm import tqdm

from pnp_ovss import Config, Segmenter, refine
from pnp_ovss.evaluation.metrics import boundary_iou, confusion_of, count, mean_of_known, no_counts
from pnp_ovss.mini import CLASSES, HELD_OUT_SEED, draw
from pnp_ovss.regions import SOURCES, RegionMap, RegionSettings, find_regions
from pnp_ovss.regions.base import numbered
from pnp_ovss.regions.watershed import LEAST, SIGMA
from pnp_ovss.types import RGB, Vocabulary

METHODS = {"pnp on mini-blip": ("pnp", "mini-blip"), "naclip on mini-clip": ("naclip", "mini-clip")}

TRUTH = ", labelled by the truth"
"""End of the name of a row: the best that regions can give."""

PEERS: dict[str, Callable[[Any, RGB, int], Any]] = {
    "felzenszwalb": lambda skimage, photo, area: skimage.segmentation.felzenszwalb(
        photo, scale=area / 5, sigma=SIGMA, min_size=round(LEAST * area)
    ),
    "slic": lambda skimage, photo, area: skimage.segmentation.slic(photo, photo.shape[0] * photo.shape[1] // area),
    "basins": lambda skimage, photo, area: skimage.segmentation.watershed(
        skimage.filters.sobel(skimage.color.rgb2gray(photo)), markers=photo.shape[0] * photo.shape[1] // area
    ),
}
"""scikit-image's regions of a photo, of about so many pixels each."""

Chains = dict[str, dict[str, Any]]
"""Settings of the refiners by what a row is called."""


def peer(name: str, photo: RGB, settings: Any, device: str = "cpu") -> RegionMap:
    """Return scikit-image's regions, as a source of regions does."""
    import skimage.color
    import skimage.filters
    import skimage.segmentation

    return numbered(PEERS[name](skimage, photo, int((settings.regions_size * max(photo.shape[:2])) ** 2)))


def chains(sources: list[str], sizes: list[float]) -> Chains:
    """Return none, the CRF, and with and without it the regions of each source and size."""
    found: Chains = {"none": {"refiners": ()}, "crf": {"refiners": ("crf",)}}
    for before in ((), ("crf",)):
        for source in sources:
            for size in sizes:
                name = ", ".join([*before, f"{source} {size:g}"])
                found[name] = {"refiners": (*before, "regions"), "regions": source, "regions_size": size}
    return found


def best(photo: np.ndarray, truth: np.ndarray, ways: Chains) -> Iterator[tuple[str, np.ndarray]]:
    """Yield the labels of regions, each with the label that most of its pixels have in the truth."""
    for name, way in ways.items():
        if way["refiners"] == ("regions",):
            regions = find_regions(photo, RegionSettings(way["regions"], way["regions_size"]))
            values = np.unique(truth)
            shares = [np.bincount(regions.ravel(), (truth == value).ravel()) for value in values]
            yield name + TRUTH, values[np.argmax(shares, axis=0)[regions]]


def scenes(method: str, model: str, ways: Chains, args: argparse.Namespace) -> Iterator[str]:
    """Yield a row per chain: pooled scores and the seconds of processor per scene."""
    segmenter = Segmenter.from_pretrained(model, method=method, device="cpu")
    own: Any = segmenter.method
    config, counts = own.config, {name: no_counts(len(CLASSES)) for name in ways}
    seconds, locating = dict.fromkeys(ways, 0.0), 0.0
    for index in tqdm(range(args.scenes), desc=f"{method} on {model}"):
        scene = draw(args.seed, index, args.size)
        own.config = config.override({"background": "always"})
        begin = process_time()
        located = segmenter.locate([scene.image], [Vocabulary.of(scene.things)])[0]
        locating += process_time() - begin
        for name, way in ways.items():
            own.config = config.override({"background": "always"} | way)
            begin = process_time()
            result = segmenter.refine(located)
            seconds[name] += process_time() - begin
            numbers = np.array([CLASSES.index(one) for one in result.classes])
            counts[name] += count(scene.things_mask(), numbers[result.labels].astype(np.uint8), len(CLASSES))
        for name, labels in best(scene.image, scene.things_mask(), ways):
            counts[name] = counts.get(name, no_counts(len(CLASSES))) + count(scene.things_mask(), labels, len(CLASSES))
    yield f"class maps: {locating / args.scenes:.3f} s of processor a scene"
    yield from rows(
        {name: (confusion_of(part).miou(), mean_of_known(boundary_iou(part))) for name, part in counts.items()},
        {name: total / args.scenes for name, total in seconds.items()},
    )


def photos(cases: Path, folder: Path, ways: Chains) -> Iterator[str]:
    """Yield a row per chain: means over photos, each over the classes that are in its truth."""
    scores: dict[str, list[tuple[float, float]]] = {}
    seconds = dict.fromkeys(ways, 0.0)
    files = sorted(cases.glob("*.npz"))
    for file in tqdm(files):
        case = np.load(file)
        maps, truth = case["class_maps"], case["truth"].astype(np.uint8)
        photo = np.array(Image.open(folder / f"{file.stem}.jpg").convert("RGB"))
        there, found = np.isin(np.arange(1, len(maps) + 1), truth), dict[str, np.ndarray]()
        for name, way in ways.items():
            begin = process_time()
            found[name] = refine(maps, photo, Config(**way))[0].astype(np.uint8)
            seconds[name] += process_time() - begin
        for name, labels in (*found.items(), *best(photo, truth, ways)):
            counts = count(truth, labels, len(maps) + 1)
            whole, edge = confusion_of(counts).iou()[1:], boundary_iou(counts)[1:]
            scores.setdefault(name, []).append((whole[there].mean(), edge[there].mean()))
    means = {name: tuple(np.mean(some, axis=0)) for name, some in scores.items()}
    yield from rows(means, {name: total / len(files) for name, total in seconds.items()})


def rows(scores: dict[str, tuple[float, ...]], seconds: dict[str, float]) -> Iterator[str]:
    """Yield the table."""
    yield "| refiners | mIoU | boundary mIoU | s of processor |\n|---|---|---|---|"
    for name, (whole, edge) in scores.items():
        yield f"| {name} | {whole:.3f} | {edge:.3f} | {f'{seconds[name]:.3f}' if name in seconds else ''} |"


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenes", type=int, default=200)
    parser.add_argument("--seed", type=int, default=HELD_OUT_SEED)
    parser.add_argument("--size", type=int, default=224, help="side of the drawn scenes, in pixels")
    parser.add_argument("--sources", default="watershed")
    parser.add_argument("--sizes", default=f"{RegionSettings().regions_size:g}")
    parser.add_argument("--cases", type=Path)
    parser.add_argument("--photos", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    SOURCES.update((name, partial(peer, name)) for name in PEERS)
    ways = chains(args.sources.split(","), [float(size) for size in args.sizes.split(",")])
    tables: dict[str, Iterator[str]] = {
        f"{title}, {args.scenes} scenes of seed {args.seed} at {args.size} px": scenes(method, model, ways, args)
        for title, (method, model) in METHODS.items()
        if args.scenes
    }
    if args.cases:
        tables["stored class maps"] = photos(args.cases, args.photos, ways)
    for title, table in tables.items():
        print(f"\n{title}\n", *table, sep="\n", flush=True)


if __name__ == "__main__":
    main()
