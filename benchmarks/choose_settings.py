"""Choose a mini model's settings on tuning scenes, by mIoU, one coordinate after the other; never on held-out ones.

    python -m benchmarks.choose_settings [--model mini-blip] [--scenes 60] [--rounds 2] [--gradient on]

Prints the best settings as they are found, and at the end as JSON, which ``--preset FILE.json`` takes.
"""

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from benchmarks.ablation import TASKS, Task, confusion
from pnp_ovss import PRESETS, Config, make_prompt, refine, salience
from pnp_ovss.evaluation.metrics import Confusion
from pnp_ovss.methods.pnp import PnP
from pnp_ovss.mini import CLASSES, TUNE_SEED, Scene, draw
from pnp_ovss.models import VLM

Settings = dict[str, Any]
GRADIENT = {"either": (True, False), "on": (True,), "off": (False,)}
SALIENCE: tuple[Sequence[Settings], ...] = (
    [{"passes": 1}]
    + [
        {"passes": passes, "drop": drop, "count_first_twice": False}
        for passes in (2, 4)
        for drop in (3, 6, 12, 20, 0.15, 0.3, 0.5)
    ],
)
REFINEMENT: tuple[Sequence[Settings], ...] = (
    [{"threshold": t} for t in (0.01, 0.02, 0.03, 0.05, 0.1, 0.15, 0.2, 0.3, 0.5)],
    [{"blur": b} for b in (0.01, 0.02, 0.03, 0.04, 0.05, 0.07)],
    [{"crf_bilateral_srgb": s} for s in (3.0, 5.0, 8.0, 13.0)],
    [{"crf_bilateral_sxy": s} for s in (15.0, 30.0, 50.0, 80.0)],
    [{"crf_bilateral_weight": w} for w in (4.0, 7.0, 10.0, 15.0)],
)


def main() -> None:
    """Search, and print what is found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="mini-blip")
    parser.add_argument("--preset", default="mini", help="where the search starts")
    parser.add_argument("--scenes", type=int, default=60)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--size", type=int, default=224, help="side of the drawn scenes, in pixels")
    parser.add_argument("--task", choices=TASKS, default="things")
    parser.add_argument("--gradient", choices=GRADIENT, default="either", help="whether settings weigh by it")
    args = parser.parse_args()
    vlm = PnP.from_pretrained(args.model, "auto", "auto", None, "mini", layer=0, head=0).vlm
    scenes = [draw(TUNE_SEED, index, args.size) for index in range(args.scenes)]
    task = TASKS[args.task]
    config = task.config(
        replace(PRESETS["mini"], layer=0, head=0) if args.preset == "mini" else Config.from_preset(args.preset)
    )
    config = choose_head(vlm, config, scenes, task, GRADIENT[args.gradient])
    for _ in range(args.rounds):
        config = choose_salience(vlm, config, scenes, task)
        maps = salience_of(vlm, config, scenes, task)
        for choices in REFINEMENT:
            config = best(
                (replace(config, **choice), score(maps, replace(config, **choice), scenes, task)) for choice in choices
            )
    print(config.to_json())


def choose_head(vlm: VLM, config: Config, scenes: Sequence[Scene], task: Task, gradients: Sequence[bool]) -> Config:
    """Return the layer and head whose attention, with each of ``gradients``, blurred, scores best."""
    rough = replace(config, passes=1).override({"refiners": ("blur",)})

    def scored() -> Iterator[tuple[Config, float]]:
        for layer in range(vlm.layers):
            for head in range(vlm.heads):
                for gradient in gradients:
                    candidate = replace(rough, layer=layer, head=head, gradient=gradient)
                    yield candidate, score(salience_of(vlm, candidate, scenes, task), candidate, scenes, task)

    chosen = best(scored())
    return replace(config, layer=chosen.layer, head=chosen.head, gradient=chosen.gradient)


def choose_salience(vlm: VLM, config: Config, scenes: Sequence[Scene], task: Task) -> Config:
    """Return the best number of passes and hidden patches."""
    return best(
        (candidate, score(salience_of(vlm, candidate, scenes, task), candidate, scenes, task))
        for choices in SALIENCE
        for candidate in (replace(config, **choice) for choice in choices)
    )


def salience_of(vlm: VLM, config: Config, scenes: Sequence[Scene], task: Task) -> list[Float[Tensor, "_ gh gw"]]:
    """Return the summed class maps of each scene."""
    side = config.size or vlm.size
    return [
        salience(vlm, vlm.prepare(scene.image, side)[None], [make_prompt(task.classes(scene))], config)[0]
        for scene in scenes
    ]


def score(maps: Sequence[Tensor], config: Config, scenes: Sequence[Scene], task: Task) -> float:
    """Return the mIoU of class maps after refinement."""
    pooled = Confusion.empty(len(CLASSES))
    for scene, one in zip(scenes, maps, strict=True):
        labels, _ = refine(one, torch.from_numpy(scene.image), config)
        pooled += confusion(scene, task, labels, background=not task.stuff)
    return pooled.miou()


def best(scored: Iterator[tuple[Config, float]]) -> Config:
    """Return the candidate with the highest score, and print how all did."""
    ranked = sorted(scored, key=lambda pair: -pair[1])
    first = ranked[0][0]
    for candidate, value in ranked[:5]:
        differs = {k: v for k, v in vars(candidate).items() if len({vars(other)[k] for other, _ in ranked}) > 1}
        print(f"{value:.4f}  {differs}", flush=True)
    print(flush=True)
    return first


if __name__ == "__main__":
    main()
