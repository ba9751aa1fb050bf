"""What each difference from the authors' code does to the labels, on held-out drawn scenes.

    python -m benchmarks.deviations [--model mini-blip] [--scenes 200]

Markdown out. Each row has the method as it is here, and the same with one behaviour of the authors' code put back.
"""

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from tqdm import tqdm

from benchmarks.ablation import TASKS, Task, confusion
from pnp_ovss import Config, Prompt, make_prompt, refine, salience
from pnp_ovss.evaluation.metrics import Confusion
from pnp_ovss.methods.pnp import PnP
from pnp_ovss.mini import CLASSES, HELD_OUT_SEED, Scene, draw
from pnp_ovss.models import VLM

Label = Callable[[Scene], Tensor]


@dataclass(frozen=True)
class Case:
    """A behaviour of the authors' code: where it shows, our labels and theirs."""

    name: str
    task: Task
    concerns: Callable[[Scene], bool]
    ours: Label
    theirs: Label


def cases(vlm: VLM, config: Config) -> list[Case]:
    """Return the behaviours that drawn scenes can show."""
    things, stuff = TASKS["things"], TASKS["stuff"]
    always = replace(config, background="always")
    labels = labeller(vlm, config, things)
    everything = labeller(vlm, always, stuff)
    return [
        Case(
            "a constant channel makes the whole image background (classes cover the image, background asked for)",
            replace(stuff, name="stuff behind a background"),
            lambda scene: True,
            everything,
            lambda scene: whole_background(everything, vlm, always, scene),
        ),
        Case(
            "a name of several words is split: word k counts for class k",
            things,
            lambda scene: any(" " in name for name in scene.things),
            labels,
            labeller(vlm, config, things, split_names),
        ),
        Case(
            "the last name's tokens are added up, not averaged",
            things,
            lambda scene: " " in scene.things[-1],
            labels,
            labeller(vlm, replace(config, sum_last_name=True), things),
        ),
        Case(
            "the same without blur",
            things,
            lambda scene: " " in scene.things[-1],
            labeller(vlm, config.override({"refiners": ("crf",)}), things),
            labeller(vlm, replace(config.override({"refiners": ("crf",)}), sum_last_name=True), things),
        ),
        Case(
            "the first pass's map counts twice",
            things,
            lambda scene: True,
            labels,
            labeller(vlm, replace(config, count_first_twice=not config.count_first_twice), things),
        ),
    ]


def labeller(vlm: VLM, config: Config, task: Task, prompt: Callable[[Sequence[str]], Prompt] = make_prompt) -> Label:
    """Return what turns a scene into labels that index its true classes, behind a background if the config has one."""

    def label(scene: Scene) -> Tensor:
        pixels = vlm.prepare(scene.image, config.size or vlm.size)[None]
        maps = salience(vlm, pixels, [prompt(task.classes(scene))], config)[0]
        return refine(maps, torch.from_numpy(scene.image), config)[0]

    return label


def split_names(classes: Sequence[str]) -> Prompt:
    """Return the prompt with the first K words in the place of the K names."""
    whole = make_prompt(classes)
    words = [word for name in whole.classes for word in name.split()][: len(classes)]
    start, spans = whole.spans[0][0], []
    for word in words:
        spans.append((start, start + len(word)))
        start += len(word) + 1
    return Prompt(whole.text, whole.classes, tuple(spans))


def whole_background(label: Label, vlm: VLM, config: Config, scene: Scene) -> Tensor:
    """Return all background where some channel is constant before the min-max (0 / 0 there), else our labels."""
    bare = config.override({"refiners": ()})
    pixels = vlm.prepare(scene.image, config.size or vlm.size)[None]
    maps = salience(vlm, pixels, [make_prompt(TASKS["stuff"].classes(scene))], bare)[0]
    _, scores = refine(maps, torch.from_numpy(scene.image), bare)
    constant = (scores.amax((1, 2)) == scores.amin((1, 2))).any()
    labels = label(scene)
    return torch.zeros_like(labels) if constant else labels


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="mini-blip")
    parser.add_argument("--scenes", type=int, default=200)
    parser.add_argument("--size", type=int, default=224, help="side of the drawn scenes, in pixels")
    args = parser.parse_args()
    method = PnP.from_pretrained(args.model, "auto", "auto", None, "auto")
    print(f"{args.model}, {args.scenes} scenes of seed {HELD_OUT_SEED} at {args.size} px\n")
    print("| behaviour of the authors' code | scenes concerned | mIoU ours | mIoU with it | equal labels |")
    print("|---|---|---|---|---|")
    for case in cases(method.vlm, method.config):
        print(row(case, args), flush=True)


def row(case: Case, args: argparse.Namespace) -> str:
    """Return one line of the table."""
    ours, theirs = Confusion.empty(len(CLASSES)), Confusion.empty(len(CLASSES))
    count, equal = 0, 0.0
    behind = case.task.name.endswith("background")
    for index in tqdm(range(args.scenes), desc=case.name[:30]):
        scene = draw(HELD_OUT_SEED, index, args.size)
        if not case.concerns(scene):
            continue
        a, b = case.ours(scene), case.theirs(scene)
        ours += confusion(scene, case.task, a, background=behind or not case.task.stuff)
        theirs += confusion(scene, case.task, b, background=behind or not case.task.stuff)
        count, equal = count + 1, equal + float((a == b).float().mean())
    return f"| {case.name} | {count} | {ours.miou():.3f} | {theirs.miou():.3f} | {equal / max(count, 1):.1%} |"


if __name__ == "__main__":
    main()
