"""What presence, confidence and match mean: their calibration, and what they are worth on held-out scenes.

    python -m benchmarks.trust [--model mini-blip] [--fit] [--tune 200] [--scenes 100] [--diagram FILE.svg]

With ``--fit`` the numbers of the checkpoint's ``calibration.json`` are chosen anew, on tuning scenes. Then held-out
scenes are segmented four ways: with their true names, with as many absent ones among them, and with all 20 things,
of which all are taken, or those that are present. Markdown out. Drawn scenes and mini models: a test bench for the
code, no statement about photos.
"""

import argparse
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from tqdm import tqdm

from benchmarks import vlm_of
from benchmarks.calibration import calibrate
from pnp_ovss import Segmentation, Segmenter, make_prompt
from pnp_ovss.evaluation.metrics import Confusion
from pnp_ovss.evaluation.trust import average_precision, calibration_error, reliability
from pnp_ovss.methods.confidence import region_odds
from pnp_ovss.mini import CLASSES, HELD_OUT_SEED, STUFF, THINGS, TUNE_SEED, Scene, draw
from pnp_ovss.models import MODELS

RIGHT = 0.5
"""A region is right if its IoU with the truth of its class is above this."""
LOW = 0.01
"""Share of tuning scenes whose true names match less than the bound."""
WAYS = ("the true names", "as many absent ones among them", "all 20 things, all taken", "all 20 things, those present")


@dataclass
class Regions:
    """Confidences of regions, and whether each is right."""

    sure: list[float] = field(default_factory=list)
    right: list[bool] = field(default_factory=list)

    def add(self, result: Segmentation, scene: Scene) -> None:
        """Count the regions of a result."""
        truth = scene.things_mask()
        scores = dict(zip(result.classes, result.label_map().scores, strict=True))
        for region in result.label_map().regions(THINGS):
            own = truth == CLASSES.index(region.name)
            overlap = (region.mask & own).sum() / (region.mask | own).sum()
            self.sure.append(scores[region.name])
            self.right.append(bool(overlap > RIGHT))


def with_absent(scene: Scene, index: int) -> list[str]:
    """Return the things of a scene and as many that it does not show, in random order."""
    rng = np.random.default_rng((9, index))
    absent = [name for name in THINGS if name not in scene.things]
    names = [*scene.things, *rng.permutation(absent)[: len(scene.things)].tolist()]
    return [str(name) for name in rng.permutation(names)]


def fit(segmenter: Segmenter, args: argparse.Namespace) -> dict[str, Any]:
    """Return the calibration that tuning scenes give."""
    vlm, names = vlm_of(segmenter), THINGS + STUFF
    scored, present = list[torch.Tensor](), list[list[bool]]()
    scenes = [draw(TUNE_SEED, index, args.size) for index in range(args.tune)]
    for scene in tqdm(scenes, desc="presence"):
        scored.append(vlm.match(vlm.prepare(scene.image)[None], [make_prompt([name]) for name in names])[0].cpu())
        present.append([name in (*scene.things, *scene.stuff) for name in names])
    presence = calibrate(torch.stack(scored), torch.tensor(present))
    vlm.calibration = {"presence": vars(presence)}
    inputs, right, matches = list[Any](), list[bool](), list[float]()
    for index, scene in enumerate(tqdm(scenes, desc="confidence")):
        for names_given in (list(scene.things), with_absent(scene, index)):
            result, counted = segmenter(scene.image, names_given), Regions()
            if len(names_given) == len(scene.things):
                matches.append(float(result.match or 0))
            counted.add(result, scene)
            assert result.presence
            chances = list(result.presence.scores.values())
            *weighed, there = region_odds(result.labels, result.salience, chances)
            inputs += np.stack(weighed, 1)[there].tolist()
            # Regions come in the order of THINGS, classes in that of the names.
            order = [name for name in THINGS if result.areas.get(name, 0) > 0]
            right += [counted.right[order.index(name)] for name in result.classes[1:] if name in order]
    bias, chance, focus = logistic(np.array(inputs), np.array(right))
    return {
        "presence": {"slope": round(presence.slope, 3), "cut": round(presence.cut, 3)},
        "match": round(float(np.quantile(matches, LOW)), 2),
        "confidence": {"bias": round(bias, 2), "chance": round(chance, 3), "focus": round(focus, 2)},
    }


def logistic(inputs: Float[np.ndarray, "n k"], right: Bool[np.ndarray, " n"]) -> list[float]:
    """Return bias and weights of a logistic regression, a little held back so that they stay finite."""
    design, weights = np.c_[np.ones(len(inputs)), inputs], np.zeros(inputs.shape[1] + 1)
    for _ in range(50):
        sure = 1 / (1 + np.exp(-design @ weights))
        slope = design.T @ (sure - right) + 1e-2 * weights
        curve = (design * (sure * (1 - sure))[:, None]).T @ design + 1e-2 * np.eye(len(weights))
        weights = weights - np.linalg.solve(curve, slope)
    return [float(weight) for weight in weights]


def measure(segmenter: Segmenter, args: argparse.Namespace) -> dict[str, Any]:
    """Return what each way of ``WAYS`` gives on held-out scenes: regions, pooled mIoU, and the named classes."""
    auto = Segmenter(segmenter.method, present="auto")
    regions = {way: Regions() for way in WAYS}
    pooled = {way: Confusion.empty(len(CLASSES)) for way in WAYS}
    found, named, true = 0, 0, 0
    for index in tqdm(range(args.scenes), desc="held out"):
        scene = draw(HELD_OUT_SEED, index, args.size)
        given = (list(scene.things), with_absent(scene, index), list(THINGS), list(THINGS))
        for way, names, one in zip(WAYS, given, (segmenter, segmenter, segmenter, auto), strict=True):
            result = one(scene.image, names)
            regions[way].add(result, scene)
            own = np.array([CLASSES.index(name) for name in result.classes])[result.labels]
            pooled[way] += Confusion.of(scene.things_mask().astype(np.int64), own, len(CLASSES))
        assert result.presence
        kept = set(THINGS) - set(result.presence.absent)
        found, named, true = found + len(kept & {*scene.things}), named + len(kept), true + len(scene.things)
    return {"regions": regions, "miou": {way: one.miou() for way, one in pooled.items()}, "names": (found, named, true)}


def table(measured: dict[str, Any]) -> Iterator[str]:
    """Yield what was measured, as Markdown."""
    found, named, true = measured["names"]
    yield f"\nPresence of 20 things: precision {found / max(1, named):.3f}, recall {found / max(1, true):.3f}\n"
    yield "| asked for | mIoU | regions | right | calibration error | average precision |"
    yield "|---|---|---|---|---|---|"
    for way, one in measured["regions"].items():
        sure, right = np.array(one.sure), np.array(one.right)
        numbers = f"{calibration_error(sure, right):.3f} | {average_precision(sure, right):.3f}"
        yield f"| {way} | {measured['miou'][way]:.3f} | {len(sure)} | {right.mean():.2f} | {numbers} |"
    sure, right = pooled_regions(measured)
    yield f"\nAll but the third row: calibration error {calibration_error(sure, right):.3f}\n"
    yield "| confidence | regions | mean | right |"
    yield "|---|---|---|---|"
    for low, high, count, mean, share in reliability(sure, right):
        yield f"| {low:.1f} to {high:.1f} | {count} | {mean:.2f} | {share:.2f} |"


def pooled_regions(measured: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """Return the regions of the ways that people use: not those of all things in every scene."""
    some = [one for way, one in measured["regions"].items() if way != WAYS[2]]
    return np.concatenate([one.sure for one in some]), np.concatenate([one.right for one in some])


def diagram(sure: np.ndarray, right: np.ndarray) -> str:
    """Return a reliability diagram as SVG: the share of right regions over their confidence."""
    side, pad = 320, 44
    rows = list(reliability(sure, right))
    place = [
        (pad + side * mean, pad + side * (1 - share), 3 + 9 * count / len(sure)) for *_, count, mean, share in rows
    ]
    dots = "".join(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{r:.1f}" fill="#2a7f8e"/>' for x, y, r in place)
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y, _ in place)
    end, low = pad + side, pad + side + 30
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {side + 2 * pad} {side + 2 * pad}" font-size="13">'
    frame = f'<rect x="{pad}" y="{pad}" width="{side}" height="{side}" fill="#fbfaf7" stroke="#80848e"/>'
    even = f'<line x1="{pad}" y1="{end}" x2="{end}" y2="{pad}" stroke="#80848e" stroke-dasharray="4"/>'
    marks = "".join(
        f'<text x="{pad + side * v}" y="{end + 15}" text-anchor="middle">{v}</text>'
        f'<text x="{pad - 6}" y="{end - side * v + 4}" text-anchor="end">{v}</text>'
        for v in (0, 0.5, 1)
    )
    texts = f'<text x="{pad + side / 2}" y="{low}" text-anchor="middle">confidence</text>'
    texts += f'<text x="{pad}" y="{pad - 12}">share of right regions</text>'
    curve = f'<polyline points="{line}" fill="none" stroke="#2a7f8e" stroke-width="2"/>'
    return f"{head}{frame}{even}{marks}{texts}{curve}{dots}</svg>\n"


def main() -> None:
    """Write the calibration if asked, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="mini-blip")
    parser.add_argument("--preset", default="auto")
    parser.add_argument("--fit", action="store_true")
    parser.add_argument("--tune", type=int, default=200, help="tuning scenes")
    parser.add_argument("--scenes", type=int, default=100, help="held-out scenes")
    parser.add_argument("--size", type=int, default=224, help="side of the drawn scenes, in pixels")
    parser.add_argument("--diagram", type=Path, help="write the reliability diagram here")
    args = parser.parse_args()
    segmenter = Segmenter.from_pretrained(args.model, args.preset)
    if args.fit:
        numbers = fit(segmenter, args)
        path = Path(MODELS[args.model].source) / "calibration.json"
        path.write_text(json.dumps(numbers, indent=1) + "\n", encoding="ascii")
        print(f"{path.name}: {json.dumps(numbers)}")
        segmenter = Segmenter.from_pretrained(args.model, args.preset)
    measured = measure(segmenter, args)
    for line in table(measured):
        print(line)
    if args.diagram:
        args.diagram.write_text(diagram(*pooled_regions(measured)), encoding="ascii")


if __name__ == "__main__":
    main()
