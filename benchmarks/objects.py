"""How well the confidence of objects orders them, on held-out drawn scenes.

    python -m benchmarks.objects [--model mini-blip] [--method pnp] [--scenes 150]

A line of text out: the average precision of the confidence of each object, and of that of its class alone. Each scene
is segmented into its things and one that it does not show. Drawn scenes and mini models: a test bench for the code, no
statement about photos.
"""

import argparse

import numpy as np
from tqdm import tqdm

from benchmarks.trust import RIGHT
from pnp_ovss import Segmenter
from pnp_ovss.evaluation.trust import average_precision
from pnp_ovss.methods import DEFAULT_METHOD
from pnp_ovss.mini import CLASSES, HELD_OUT_SEED, THINGS, draw
from pnp_ovss.parts import find_objects


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="mini-blip")
    parser.add_argument("--method", default=DEFAULT_METHOD)
    parser.add_argument("--scenes", type=int, default=150)
    given = parser.parse_args()
    segmenter, rng = Segmenter.from_pretrained(given.model, method=given.method), np.random.default_rng(0)
    own, of_class, right = list[float](), list[float](), list[bool]()
    for index in tqdm(range(given.scenes)):
        scene = draw(HELD_OUT_SEED, index)
        absent = rng.choice([name for name in THINGS if name not in scene.things])
        result = segmenter(scene.image, [*scene.things, str(absent)])
        known = dict(zip(result.classes, result.label_map().scores, strict=True))
        for one in result.instances():
            truth = find_objects((scene.mask == CLASSES.index(one.name)).astype(int), True)
            parts = (truth.index == number for number in range(1, len(truth.labels) + 1))
            right.append(any((one.mask & part).sum() > RIGHT * (one.mask | part).sum() for part in parts))
            own.append(one.confidence or 0.0)
            of_class.append(known[one.name])
    scores = (average_precision(np.array(some), np.array(right)) for some in (own, of_class))
    each, shared = (f"{score:.3f}" for score in scores)
    print(
        f"{len(right)} objects, {sum(right)} right: average precision {each}, by the confidence of the class {shared}"
    )


if __name__ == "__main__":
    main()
