"""Naming on drawn scenes, and what it costs in mIoU; or the cost of a vocabulary of 1,000 names on one photo.

    python -m benchmarks.naming [--model mini-blip] [--clip mini-clip] [--scenes 400] [--tune 200]
    python -m benchmarks.naming --cost [--model blip-large-flickr]

Markdown out. Calibrations are chosen on tuning scenes, and printed; scores are those of held-out ones. Drawn scenes and
mini models: a test bench for the code, no statement about photos.
"""

import argparse
import resource
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from tqdm import tqdm

from benchmarks import vlm_of
from benchmarks.calibration import calibrate
from pnp_ovss import Segmenter, load_vlm
from pnp_ovss.evaluation.metrics import Confusion
from pnp_ovss.methods.pnp import PnP
from pnp_ovss.methods.presence import Calibration
from pnp_ovss.mini import CLASSES, HELD_OUT_SEED, STUFF, THINGS, TUNE_SEED, Scene, draw
from pnp_ovss.models.clip import load_clip
from pnp_ovss.naming.scores import ClipNamer, Itm
from pnp_ovss.types import BACKGROUND, KEEP, RGB, Vocabulary

VOCABULARIES = {"things": THINGS, "things and stuff": THINGS + STUFF}
Scores = Callable[[RGB, Sequence[str]], Float[Tensor, " name"]]


@dataclass(frozen=True)
class Counts:
    """Names right, named and true, summed over scenes."""

    right: int
    named: int
    true: int

    def __str__(self) -> str:
        f1 = 2 * self.right / max(1, self.named + self.true)
        return f"{self.right / max(1, self.named):.3f} | {self.right / max(1, self.true):.3f} | {f1:.3f}"


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="mini-blip")
    parser.add_argument("--preset", default="auto", help="of the segmentation; for a folder: mini")
    parser.add_argument("--clip", help="a dual encoder, such as mini-clip")
    parser.add_argument("--scenes", type=int, default=400, help="held-out scenes")
    parser.add_argument("--tune", type=int, default=200, help="tuning scenes")
    parser.add_argument("--size", type=int, default=224, help="side of the drawn scenes, in pixels")
    parser.add_argument("--no-masks", action="store_true", help="leave out the mIoU")
    parser.add_argument("--cost", action="store_true", help="time and memory by the number of names")
    args = parser.parse_args()
    if args.cost:
        print(cost(args.model))
        return
    segmenter = Segmenter.from_pretrained(args.model, args.preset)
    namers: dict[str, Scores] = {f"itm by {args.model}": Itm(vlm_of(segmenter)).scores}
    if args.clip:
        namers[f"clip by {args.clip}"] = ClipNamer(load_clip(args.clip)).scores
    print("| vocabulary | namer | precision | recall | F1 |" + ("" if args.no_masks else " mIoU | with true names |"))
    print("|---|---|---|---|---|" + ("" if args.no_masks else "---|---|"))
    found = {f"{namer}, uncalibrated": Calibration() for namer in namers if namer.startswith("itm")}
    masks = Masks(segmenter, args.size)
    true = {title: [_present(scene, names) for scene in _held_out(args)] for title, names in VOCABULARIES.items()}
    found |= {namer: calibration(scores, args.tune, args.size) for namer, scores in namers.items()}
    for namer, calibrated in found.items():
        scores = namers[namer.removesuffix(", uncalibrated")]
        for title, names in VOCABULARIES.items():
            chosen = _chosen(scores, calibrated, names, args)
            row = f"| {title} | {namer} | {_counts(chosen, true[title])} |"
            if not args.no_masks:
                row += f" {_miou(masks, title, chosen):.3f} | {_miou(masks, title, true[title]):.3f} |"
            print(row, flush=True)
    for namer, chosen_calibration in found.items():
        print(f"\n{namer}: {chosen_calibration}")


def calibration(scores: Scores, count: int, size: int) -> Calibration:
    """Return the calibration of scores on tuning scenes, over all things and stuff."""
    names, scored, present = THINGS + STUFF, [], []
    for index in tqdm(range(count), desc="tuning"):
        scene = draw(TUNE_SEED, index, size)
        scored.append(scores(scene.image, names))
        present.append(_present(scene, names))
    return calibrate(torch.stack(scored), torch.stack(present))


def _chosen(
    scores: Scores, calibrated: Calibration, names: tuple[str, ...], args: argparse.Namespace
) -> list[Bool[Tensor, " name"]]:
    """Return which names are kept, scene by scene."""
    return [calibrated(scores(scene.image, names)) > KEEP for scene in _held_out(args)]


def _counts(chosen: Sequence[Bool[Tensor, " name"]], true: Sequence[Bool[Tensor, " name"]]) -> Counts:
    predicted, target = torch.stack(list(chosen)), torch.stack(list(true))
    return Counts(int((predicted & target).sum()), int(predicted.sum()), int(target.sum()))


def _miou(measured: "Masks", title: str, chosen: Sequence[Bool[Tensor, " name"]]) -> float:
    """Return the pooled mIoU with the chosen names."""
    names, pooled = VOCABULARIES[title], Confusion.empty(len(CLASSES))
    for index, kept in enumerate(tqdm(chosen, desc=f"{title}, masks")):
        given = tuple(name for name, is_kept in zip(names, kept.tolist(), strict=True) if is_kept)
        pooled += measured(title, index, given)
    return pooled.miou()


class Masks:
    """Segments a scene with some names, once: most namers agree on most scenes."""

    def __init__(self, segmenter: Segmenter, size: int) -> None:
        vlm, config, self._size = vlm_of(segmenter), segmenter.config, size
        self._segmenters = [Segmenter(PnP(vlm, replace(config, background=kind))) for kind in ("always", "never")]
        self._known: dict[tuple[str, int, tuple[str, ...]], Confusion] = {}

    def __call__(self, title: str, index: int, names: tuple[str, ...]) -> Confusion:
        """Return the confusion of held-out scene ``index`` with these names, in the vocabulary's order."""
        found = self._known.get((title, index, names))
        if found is None:
            scene = draw(HELD_OUT_SEED, index, self._size)
            with_stuff = title != "things"
            target = scene.mask if with_stuff else scene.things_mask()
            found = _confusion(self._segmenters[with_stuff], scene, np.asarray(target, np.int64), names)
            self._known[title, index, names] = found
        return found


def _confusion(segmenter: Segmenter, scene: Scene, target: Int[np.ndarray, "h w"], names: tuple[str, ...]) -> Confusion:
    """Return the confusion of a scene with these names; where there is none, all is background."""
    predicted = np.zeros(scene.mask.shape, np.int64)
    if names:
        result = segmenter(scene.image, names)
        predicted = np.array([CLASSES.index(name) for name in result.classes])[result.labels]
    assert CLASSES[0] == BACKGROUND
    return Confusion.of(target, predicted, len(CLASSES))


def _held_out(args: argparse.Namespace) -> "tqdm[Scene]":
    return tqdm((draw(HELD_OUT_SEED, index, args.size) for index in range(args.scenes)), total=args.scenes)


def _present(scene: Scene, names: Sequence[str]) -> Bool[Tensor, " name"]:
    return torch.tensor([name in (*scene.things, *scene.stuff) for name in names])


def cost(model: str, counts: Sequence[int] = (1, 250, 500, 1000)) -> str:
    """Return seconds and peak memory of itm on one photo, by the number of names."""
    vlm = load_vlm(model)
    photo = draw(HELD_OUT_SEED, 0, 480).image
    syllables = ["ba", "do", "ki", "lu", "me", "no", "ra", "se", "ti", "wu"]
    invented = [a + b + c for a in syllables for b in syllables for c in syllables]
    namer = Itm(vlm)
    namer(photo, Vocabulary.of(invented[:8]), "")  # the first look pays for what is set up once
    rows = [f"{model}, {vlm.size} px, {vlm.device}, {torch.get_num_threads()} threads", ""]
    rows += ["| names | seconds | ms per further name | peak memory, MB |", "|---|---|---|---|"]
    first = 0.0
    for count in counts:
        started = time.perf_counter()
        namer(photo, Vocabulary.of(invented[:count]), "")
        seconds = time.perf_counter() - started
        first = first or seconds
        each = f"{1000 * (seconds - first) / (count - 1):.1f}" if count > 1 else ""
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        rows.append(f"| {count:,} | {seconds:.2f} | {each} | {peak:,.0f} |")
    return "\n".join(rows)


if __name__ == "__main__":
    main()
