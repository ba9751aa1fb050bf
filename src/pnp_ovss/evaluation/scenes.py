"""Drawn scenes as a data set."""

from pnp_ovss.data.dataset import IGNORE, Dataset, Sample, table
from pnp_ovss.mini import THINGS, draw


def scenes(count: int, seed: int, size: int) -> Dataset:
    """Return drawn scenes of a series as a data set: the things before a background."""

    def sample(index: int) -> Sample:
        key = f"scene-{seed}-{index:05}"
        return Sample(key, lambda: draw(seed, index, size).image, lambda: draw(seed, index, size).things_mask())

    samples, title = tuple(map(sample, range(count))), f"Drawn scenes, {len(THINGS)} things and background"
    to_label = table(range(1, len(THINGS) + 1), {0: 0, IGNORE: IGNORE})
    return Dataset("scenes", title, THINGS, True, samples, to_label, "scenes", f"series {seed}, {size} x {size} pixels")
