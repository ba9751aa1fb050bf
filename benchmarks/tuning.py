"""Does the reward find good settings, and wrong masks? Measured on drawn scenes, whose masks only the score sees.

    python -m benchmarks.tuning [--model mini-blip] [--clip mini-clip] [--scenes 100] [--parts grid search quality]
    python -m benchmarks.tuning --parts seeds [--searches 10] [--photos 30] [--scenes 40] [--size 112]

Tuned on the tuning series, scored on the held-out one. Markdown out. Drawn scenes and mini models: a test bench for the
code, no statement about photos.
"""

import argparse
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cached_property, partial
from itertools import product
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from tqdm import tqdm

from benchmarks.ablation import TASKS, confusion
from pnp_ovss import Config, Segmenter, load_vlm
from pnp_ovss.evaluation.metrics import Confusion
from pnp_ovss.methods import resolve_config
from pnp_ovss.methods.pnp import PnP
from pnp_ovss.mini import CLASSES, HELD_OUT_SEED, SIMILAR, THINGS, TUNE_SEED, Scene, draw
from pnp_ovss.models.clip import Clip, load_clip
from pnp_ovss.refine import refine
from pnp_ovss.tuning.objective import Candidate, Example, MapCache, Objective, search_space
from pnp_ovss.tuning.reward import REWARDS, ClipReward, named_masks, rate
from pnp_ovss.tuning.search import best_trial, choose, finished_trials, open_study, run_trials
from pnp_ovss.types import BACKGROUND

WRONG = 0.5
"""A mask of less IoU with its class's truth is wrong; so is one of a class that the scene does not show."""
PARTS = ("grid", "search", "quality", "seeds")


class Bench:
    """The models, the scenes, and what is computed once for all parts."""

    def __init__(self, args: argparse.Namespace, folder: Path) -> None:
        self.args, self.folder = args, folder
        self.vlm, self.preset = load_vlm(args.model), resolve_config(args.model)
        self.config = replace(self.preset, passes=1)
        self.clip: Clip = load_clip(args.clip)
        self.reward = ClipReward(self.clip, THINGS, "rest")  # which encodes all that any form needs

    def objective(self, seed: int, form: str, count: int = 0, first: int = 0) -> Objective:
        """Return what the search maximises: the true names are given, the true masks are not."""
        examples = [
            Example(f"{seed}-{index}", partial(self._photo, seed, index), self.scene(seed, index).things)
            for index in range(first, first + (count or self.args.scenes))
        ]
        maps = MapCache(self.vlm, self.config, self.folder / "maps")
        return Objective(maps, ClipReward(self.clip, THINGS, form), examples, self.config)

    def scene(self, seed: int, index: int) -> Scene:
        """Return a drawn scene."""
        return draw(seed, index, self.args.size)

    def _photo(self, seed: int, index: int) -> np.ndarray:
        return self.scene(seed, index).image

    @cached_property
    def cells(self) -> list[Candidate]:
        """Every layer and head, with the preset's threshold and blur."""
        config = self.config
        space = search_space(self.vlm, threshold=[config.threshold], blur=[config.blur])
        return [dict(zip(space, values, strict=True)) for values in product(*space.values())]

    @cached_property
    def rewards(self) -> dict[str, Float[np.ndarray, " cell"]]:
        """Return the mean reward of every cell on the tuning scenes, in every form; no mask is read."""
        objective = self.objective(TUNE_SEED, "rest")
        worth = {form: np.zeros(len(self.cells)) for form in REWARDS}
        classes = 0
        for example in tqdm(objective.examples, desc="rewards"):
            photo = example.read()
            classes += len(example.classes)
            for cell, candidate in enumerate(self.cells):
                labels = objective.labels(photo, example.classes, candidate)
                masks = labels == np.arange(1, 1 + len(example.classes))[:, None, None]
                probabilities = self.reward.probabilities(photo, masks, example.classes)
                for form, reward in REWARDS.items():
                    worth[form][cell] += float(reward(*probabilities).sum())
        return {form: total / classes for form, total in worth.items()}

    @cached_property
    def scores(self) -> Float[np.ndarray, " cell"]:
        """Return the true mIoU of every cell on the held-out scenes."""
        maps = MapCache(self.vlm, self.config, self.folder / "maps")
        pooled = [Confusion.empty(len(CLASSES)) for _ in self.cells]
        for index in tqdm(range(self.args.scenes), desc="scores"):
            scene = self.scene(HELD_OUT_SEED, index)
            class_maps = maps(scene.image, scene.things)
            for cell, candidate in enumerate(self.cells):
                settings = replace(self.config, **candidate)
                found = class_maps.at(candidate["layer"], candidate["head"])
                labels, _ = refine(found, torch.from_numpy(scene.image), settings)
                pooled[cell] += confusion(scene, TASKS["things"], labels, background=True)
        return np.array([one.miou() for one in pooled])

    def miou(self, config: Config) -> float:
        """Return the mIoU of settings on the held-out scenes, DropOut included."""
        segmenter, pooled = Segmenter(PnP(self.vlm, config)), Confusion.empty(len(CLASSES))
        for index in tqdm(range(self.args.scenes), desc="mIoU"):
            scene = self.scene(HELD_OUT_SEED, index)
            labels = torch.from_numpy(segmenter(scene.image, scene.things).labels)
            pooled += confusion(scene, TASKS["things"], labels, background=True)
        return pooled.miou()


def grid(bench: Bench) -> Iterator[str]:
    """Yield the reward against the true mIoU over all layers and heads."""
    scores, rewards = bench.scores, bench.rewards
    best, median = float(scores.max()), float(np.median(scores))
    yield "## Layer and head: reward on tuning scenes, mIoU on held-out ones\n"
    yield f"Best of the grid {best:.3f}, median {median:.3f}, worst {scores.min():.3f}; threshold, blur as preset.\n"
    yield "| reward | Spearman with mIoU | its choice | mIoU of the choice | below the best | above the median |"
    yield "|---|---|---|---|---|---|"
    for form, values in rewards.items():
        chosen = int(values.argmax())
        cell, score = bench.cells[chosen], float(scores[chosen])
        yield (
            f"| {form} | {spearman(values, scores):.2f} | layer {cell['layer']}, head {cell['head']} | {score:.3f} | "
            f"{best - score:.3f} | {score - median:+.3f} |"
        )
    yield "\n| layer | head | mIoU | " + " | ".join(rewards) + " |"
    yield "|---|---|---|" + "---|" * len(rewards)
    for index, cell in enumerate(bench.cells):
        row = " | ".join(f"{values[index]:.3f}" for values in rewards.values())
        yield f"| {cell['layer']} | {cell['head']} | {scores[index]:.3f} | {row} |"


def search(bench: Bench) -> Iterator[str]:
    """Yield what a random search of the poster's size chooses, and what it costs."""
    yield "\n## Random search\n"
    yield "| reward | choice | mIoU without DropOut | with the preset's | passes | trials | pruned | seconds |"
    yield "|---|---|---|---|---|---|---|---|"
    for form in bench.args.forms:
        objective = bench.objective(TUNE_SEED, form)
        objective.maps.folder = bench.folder / f"maps-{form}"  # each form pays for its own passes of the model
        url, space = f"sqlite:///{bench.folder / form}.db", search_space(bench.vlm)
        study = open_study(url, {"form": form}, space, "random", bench.args.seed)
        begin = time.perf_counter()
        for _ in tqdm(run_trials(study, objective, bench.args.trials), total=bench.args.trials, desc=form):
            pass
        seconds, finished, best = time.perf_counter() - begin, finished_trials(study), best_trial(study)
        if best is None:
            continue
        chosen = ", ".join(f"{name} {value}" for name, value in best.params.items())
        alone, whole = (bench.miou(replace(config, **best.params)) for config in (bench.config, bench.preset))
        yield (
            f"| {form} | {chosen} | {alone:.3f} | {whole:.3f} | {objective.maps.passes} | {len(finished)} | "
            f"{len(finished) - sum(trial.state.name == 'COMPLETE' for trial in finished)} | {seconds:.0f} |"
        )
    yield (
        f"\nRunning {bench.args.trials} trials afresh takes {bench.args.trials * bench.args.scenes} passes. The "
        f"preset itself, chosen by true masks: mIoU {bench.miou(bench.preset):.3f}."
    )


def quality(bench: Bench) -> Iterator[str]:
    """Yield how well a mask's quality tells wrong masks from right ones, with true names and a false one."""
    segmenter = Segmenter(PnP(bench.vlm, bench.preset))
    values: dict[bool, list[float]] = {True: [], False: []}
    wrong: dict[bool, list[bool | np.bool_]] = {True: [], False: []}
    for index in tqdm(range(bench.args.scenes), desc="quality"):
        scene = bench.scene(HELD_OUT_SEED, index)
        for extra in (False, True):
            names = (*scene.things, *(_absent(scene) if extra else ()))
            result = rate(segmenter(scene.image, names), scene.image, bench.clip)
            masks, _ = named_masks(result)
            assert result.quality is not None
            for name, mask, value in zip(names, masks, result.quality, strict=True):
                truth = scene.things_mask() == (CLASSES.index(name) if name in scene.things else len(CLASSES))
                values[extra].append(float(value))
                wrong[extra].append(
                    float((mask & truth).sum()) < WRONG * float((mask | truth).sum()) or not truth.any()
                )
    yield f"\n## Quality of a mask\n\nWrong: an IoU below {WRONG}, or a class that is not in the scene.\n"
    yield "| names | masks | wrong | " + " | ".join(f"below {t}" for t in LEAST) + " |"
    yield "|---|---|---|" + "---|" * len(LEAST)
    for extra, title in ((False, "the true ones"), (True, "the true ones and a false one")):
        found, bad = np.array(values[extra]), np.array(wrong[extra])
        told = " | ".join(_precision_and_recall(found < least, bad) for least in LEAST)
        yield f"| {title} | {len(bad)} | {bad.sum()} | {told} |"
    yield "\nEach cell: precision / recall of wrong masks among those of less quality."


def seeds(bench: Bench) -> Iterator[str]:
    """Yield what ``pnp-ovss tune`` ends with, search by search: other photos, another order of the candidates."""
    args, start = bench.args, {name: getattr(bench.preset, name) for name in search_space(bench.vlm)}
    before = bench.miou(bench.preset)
    yield f"\n## {args.searches} searches of {args.trials} trials on {args.photos} photos each\n"
    yield f"The settings at the start have mIoU {before:.3f} on {args.scenes} held-out scenes.\n"
    yield "| seed | best candidate | gain in reward | taken | its mIoU | mIoU of what comes out | against the start |"
    yield "|---|---|---|---|---|---|---|"
    worst = 0.0
    for seed in range(args.searches):
        objective = bench.objective(TUNE_SEED, args.forms[0], args.photos, seed * args.photos)
        url = f"sqlite:///{bench.folder / f'seed-{seed}'}.db"
        study = open_study(url, {"seed": seed}, search_space(bench.vlm), "random", seed, start=start)
        for _ in tqdm(run_trials(study, objective, args.trials), total=args.trials, desc=f"seed {seed}"):
            pass
        choice = choose(study, objective, start)
        assert choice is not None
        best = before if choice.best.params == start else bench.miou(replace(bench.preset, **choice.best.params))
        after = before if choice.params == start else best
        worst = min(worst, after - before)
        settings = ", ".join(f"{name} {value}" for name, value in choice.best.params.items())
        taken = "yes" if choice.gain and choice.gain.certain else "no"
        gained = choice.gain or "it is the start"
        yield f"| {seed} | {settings} | {gained} | {taken} | {best:.3f} | {after:.3f} | {after - before:+.3f} |"
    yield f"\nThe worst of them: {worst:+.3f}."


LEAST = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7)


def _absent(scene: Scene) -> tuple[str, ...]:
    """Return a thing that the scene does not show, one easily taken for what it shows where there is one."""
    near = [name for thing in scene.things for name in SIMILAR[thing] if name not in scene.things]
    return tuple(near[:1]) or tuple(name for name in THINGS if name not in scene.things)[:1]


def _precision_and_recall(flagged: np.ndarray, bad: np.ndarray) -> str:
    hit = float((flagged & bad).sum())
    precision = f"{hit / flagged.sum():.2f}" if flagged.any() else "-"
    return f"{precision} / {hit / max(1, bad.sum()):.2f}"


def spearman(a: Sequence[float] | np.ndarray, b: Sequence[float] | np.ndarray) -> float:
    """Return the rank correlation; equals share the mean of their ranks."""
    first, second = _ranks(np.asarray(a)), _ranks(np.asarray(b))
    if not (first.std() and second.std()):
        return float("nan")
    return float(np.corrcoef(first, second)[0, 1])


def _ranks(values: np.ndarray) -> np.ndarray:
    return np.array([((values < value).sum() + (values <= value).sum() - 1) / 2 for value in values])


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="mini-blip")
    parser.add_argument("--clip", default="mini-clip")
    parser.add_argument("--scenes", type=int, default=100, help="of each series")
    parser.add_argument("--size", type=int, default=224, help="side of the drawn scenes, in pixels")
    parser.add_argument("--trials", type=int, default=34)
    parser.add_argument("--seed", type=int, default=0, help="of the random search")
    parser.add_argument("--searches", type=int, default=10, help="seeds: how many")
    parser.add_argument("--photos", type=int, default=30, help="seeds: of each search")
    parser.add_argument("--forms", nargs="+", choices=REWARDS, default=["black", "graded"], help="to search with")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS[:3]))
    parser.add_argument("--folder", type=Path, help="keep maps and studies here, and go on with what is there")
    args = parser.parse_args()
    print(
        f"{args.model} with {args.clip}, {args.scenes} scenes of {args.size} px in each series, {BACKGROUND} included\n"
    )
    with tempfile.TemporaryDirectory() as temporary:
        bench = Bench(args, args.folder or Path(temporary))
        bench.folder.mkdir(parents=True, exist_ok=True)
        for name, part in (("grid", grid), ("search", search), ("quality", quality), ("seeds", seeds)):
            if name in args.parts:
                for line in part(bench):
                    print(line, flush=True)


if __name__ == "__main__":
    main()
