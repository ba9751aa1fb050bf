"""mIoU of the mini models on held-out drawn scenes, step by step, for both published DropOut variants.

    python -m benchmarks.ablation [--model mini-blip --model mini-bridgetower] [--scenes 400] [--seed 2]

Markdown out. Drawn scenes and mini models: a test bench for the code, no statement about photos.
"""

import argparse
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor
from tqdm import tqdm

from pnp_ovss import Config, make_prompt, refine, salience
from pnp_ovss.evaluation.metrics import Confusion
from pnp_ovss.methods.pnp import PnP
from pnp_ovss.methods.pnp.dropout import total
from pnp_ovss.methods.pnp.method import dropout_passes
from pnp_ovss.mini import CLASSES, HELD_OUT_SEED, Scene, draw
from pnp_ovss.models import MODELS, VLM
from pnp_ovss.types import BACKGROUND

STEPS = ("attention only", "+ GradCAM", "+ DropOut", "+ blur", "+ DenseCRF")


@dataclass(frozen=True)
class Task:
    """What is asked of a scene: its things before a background, or its things and its stuff with no background."""

    name: str
    stuff: bool

    def classes(self, scene: Scene) -> tuple[str, ...]:
        """Return the true class names of the scene."""
        return scene.things + scene.stuff if self.stuff else scene.things

    def truth(self, scene: Scene) -> Tensor:
        """Return the scene's mask, an index into ``mini.CLASSES``."""
        return torch.from_numpy(scene.mask if self.stuff else scene.things_mask()).long()

    def config(self, config: Config) -> Config:
        """Return the settings with this task's background."""
        return replace(config, background="never" if self.stuff else "always")


TASKS = {"things": Task("things", stuff=False), "stuff": Task("stuff", stuff=True)}


def ablation(vlm: VLM, config: Config, scenes: Iterable[Scene], task: Task) -> dict[str, Confusion]:
    """Return the pooled confusion over ``mini.CLASSES`` of every one of ``STEPS``, each on top of the one before."""
    pooled = {step: Confusion.empty(len(CLASSES)) for step in STEPS}
    for scene in scenes:
        image = torch.from_numpy(scene.image)
        for step, maps, settings in _steps(vlm, task.config(config), scene, task.classes(scene)):
            labels, _ = refine(maps, image.to(maps.device), settings)
            pooled[step] += confusion(scene, task, labels.cpu(), background=not task.stuff)
    return pooled


def left_out(vlm: VLM, config: Config, scenes: Iterable[Scene], task: Task) -> dict[str, Confusion]:
    """Return the pooled confusion of the whole method, and of the method with one step left out at a time."""
    whole = task.config(config).override({"refiners": ("blur", "crf")})
    settings = {
        "the whole method": whole,
        "without GradCAM": replace(whole, gradient=False),
        "without DropOut": replace(whole, passes=1),
        "without blur": whole.override({"refiners": ("crf",)}),
        "without DenseCRF": whole.override({"refiners": ("blur",)}),
    }
    pooled = {name: Confusion.empty(len(CLASSES)) for name in settings}
    for scene in scenes:
        pixels = vlm.prepare(scene.image, config.size or vlm.size)[None]
        prompts = [make_prompt(task.classes(scene))]
        for name, chosen in settings.items():
            maps = salience(vlm, pixels, prompts, chosen)[0]
            labels, _ = refine(maps, torch.from_numpy(scene.image).to(maps.device), chosen)
            pooled[name] += confusion(scene, task, labels.cpu(), background=not task.stuff)
    return pooled


def confusion(scene: Scene, task: Task, labels: Tensor, background: bool) -> Confusion:
    """Return the confusion of a label map whose labels index the scene's true classes, behind a background if any."""
    names = (BACKGROUND, *task.classes(scene)) if background else task.classes(scene)
    index = torch.tensor([CLASSES.index(name) for name in names])
    return Confusion.of(task.truth(scene).numpy(), index[labels.long()].numpy(), len(CLASSES))


def _steps(
    vlm: VLM, config: Config, scene: Scene, classes: tuple[str, ...]
) -> Iterator[tuple[str, Float[Tensor, "cls gh gw"], Config]]:
    prompts = [make_prompt(classes)]
    pixels = vlm.prepare(scene.image, config.size or vlm.size)[None]
    bare = config.override({"refiners": ()})
    plain = dropout_passes(vlm, pixels, prompts, replace(bare, gradient=False, passes=1))
    passes = dropout_passes(vlm, pixels, prompts, bare)
    maps = total(passes, config.count_first_twice)[0]
    yield STEPS[0], plain[0].maps[0], bare
    yield STEPS[1], passes[0].maps[0], bare
    yield STEPS[2], maps, bare
    yield STEPS[3], maps, config.override({"refiners": ("blur",)})
    yield STEPS[4], maps, config.override({"refiners": ("blur", "crf")})


def table(rows: dict[str, dict[str, Confusion]]) -> str:
    """Return the mIoU of every step as a Markdown table, one row per named ablation."""
    steps = list(next(iter(rows.values())))
    lines = ["| | " + " | ".join(steps) + " |", "|---|" + "---|" * len(steps)]
    for name, found in rows.items():
        lines.append(f"| {name} | " + " | ".join(f"{found[step].miou():.3f}" for step in steps) + " |")
    return "\n".join(lines)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", action="append", help="mini model (default: every one that is shipped)")
    parser.add_argument("--scenes", type=int, default=400)
    parser.add_argument("--seed", type=int, default=HELD_OUT_SEED)
    parser.add_argument("--size", type=int, default=224, help="side of the drawn scenes, in pixels")
    parser.add_argument("--preset", default="auto")
    parser.add_argument("--task", choices=TASKS, action="append", help="things, stuff or both (default: both)")
    args = parser.parse_args()
    rows, without = {}, {}
    for model in args.model or [name for name in MODELS if name.startswith("mini-")]:
        method = PnP.from_pretrained(model, "auto", "auto", None, args.preset)
        own = method.config
        variants = {
            f"{own.drop} a pass": own,
            "50 % a pass": replace(own, drop=0.5, count_first_twice=False),
        }
        for task in (TASKS[name] for name in args.task or TASKS):
            for name, config in variants.items():
                title = f"{model}, {task.name}, {name}"
                rows[title] = ablation(method.vlm, config, _scenes(args, title), task)
                without[title] = left_out(method.vlm, config, _scenes(args, title), task)
    print(f"{args.scenes} scenes of seed {args.seed} at {args.size} px, mIoU over truth or prediction\n")
    print(table(rows) + "\n")
    print(table(without))


def _scenes(args: argparse.Namespace, title: str) -> Iterator[Scene]:
    for index in tqdm(range(args.scenes), desc=title):
        yield draw(args.seed, index, args.size)


if __name__ == "__main__":
    main()
