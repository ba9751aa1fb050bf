"""What the patches of drawn scenes attend to in mini-clip, by the attention of each method.

Each row: over how many patches a patch's attention spreads (the exponential of its entropy), and, for patches of a
thing, how much of it lies on the same thing.

python -m benchmarks.attention --scenes 60
"""

import argparse
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pnp_ovss import load_method
from pnp_ovss.methods.dense_clip import neighbourhood
from pnp_ovss.methods.scclip import alike
from pnp_ovss.mini import draw
from pnp_ovss.models.base import split
from pnp_ovss.models.clip import Clip

SIZE = 224


def attentions(clip: Clip, tokens: Tensor, grid: int) -> Iterator[tuple[str, Tensor]]:
    """Yield each attention's name and its weights between patches, (head, patch, patch), before their sum is 1."""
    for index in range(clip.blocks):
        q, k, _ = (split(part, clip.heads)[0, :, 1:] for part in clip.qkv(index, tokens))
        s = q.shape[-1] ** -0.5
        yield f"clip (q k), block {index}", (q @ k.mT * s).softmax(-1)
        tokens = clip.run(tokens, index, index + 1)
        if index == 2:
            yield "scclip (outputs of block 2)", (likeness := alike(tokens[:, 1:])) * (likeness >= 0.4)
    near = neighbourhood((grid, grid), 1.5)[1:, 1:]
    yield "clearclip, half of sclip (q q)", (q @ q.mT * s).softmax(-1)
    yield "half of sclip (k k)", (k @ k.mT * s).softmax(-1)
    yield "naclip (k k + near)", (k @ k.mT * s + near).softmax(-1)
    yield "maskclip (itself)", torch.eye(grid**2)[None]


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scenes", type=int, default=60)
    method: Any = load_method("clip", "mini-clip", device="cpu")
    found = defaultdict[str, list[list[float]]](list)
    for number in range(parser.parse_args().scenes):
        scene = draw(2, number, SIZE)
        pixels = method.prepare(scene.image)[None]
        grid = pixels.shape[2] // method.clip.patch
        cells = torch.from_numpy(scene.things_mask().astype(np.int64)).view(grid, SIZE // grid, grid, SIZE // grid)
        things = cells.transpose(1, 2).reshape(grid**2, -1).mode(1).values
        same, thing = things[:, None] == things, things > 0
        for name, weights in attentions(method.clip, method.clip.embed(pixels), grid):
            shares = weights / weights.sum(-1, keepdim=True)
            spread = (-shares * shares.clamp(min=1e-12).log()).sum(-1).exp().mean()
            found[name].append([float(spread), float((shares * same).sum(-1)[:, thing].mean())])
        found["chance"].append([grid**2, float(same.float().mean(-1)[thing].mean())])
    for name, rows in found.items():
        spread, kept = np.mean(rows, 0)
        print(f"{name:32} {spread:5.0f} patches, {100 * kept:3.0f} % on the same thing")


if __name__ == "__main__":
    main()
