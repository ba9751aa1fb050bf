"""Drawn scenes as a data set, and the table of what each step of the method earns on them."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from io import BytesIO
from pathlib import Path

import numpy as np
from jaxtyping import Integer

from pnp_ovss.config import Config
from pnp_ovss.data import Dataset, Sample
from pnp_ovss.data.dataset import table
from pnp_ovss.evaluation.ablation import STEPS, TASKS, Task, ablation
from pnp_ovss.evaluation.metrics import Confusion
from pnp_ovss.evaluation.result import Table
from pnp_ovss.files import write_bytes
from pnp_ovss.mini import CLASSES, THINGS, draw
from pnp_ovss.models import VLM
from pnp_ovss.types import RGB

CAVEAT = (
    "Drawn scenes and a small model trained on such scenes: a test bench for the method, no statement about photos."
)


def scenes(count: int, seed: int, size: int) -> Dataset:
    """Return drawn scenes of a series as a data set: the things before a background."""
    samples = tuple(
        Sample(f"scene-{seed}-{index:05}", partial(_photo, seed, index, size), partial(_mask, seed, index, size))
        for index in range(count)
    )
    values = table({label: label for label in range(len(THINGS) + 1)})
    title = f"Drawn scenes, {len(THINGS)} things and background"
    return Dataset("scenes", title, THINGS, True, samples, values, "scenes", f"series {seed}, {size} x {size} pixels")


def variants(config: Config) -> dict[str, tuple[Task, Config]]:
    """Return the columns of the table: each task, with the settings' own DropOut and with the paper's share."""
    hidden = f"{config.drop:.0%}" if isinstance(config.drop, float) else str(config.drop)
    dropouts = {f"{hidden} a pass": config, "50% a pass": replace(config, drop=0.5, count_first_twice=False)}
    return {f"{task.name}, {told}": (task, own) for task in TASKS.values() for told, own in dropouts.items()}


def steps(vlm: VLM, config: Config, indices: Sequence[int], seed: int, size: int, folder: Path) -> Iterator[None]:
    """Score every step and variant on each scene; a file per scene, and those that are there are left.

    Yields after each scene.
    """
    for index in indices:
        path = folder / f"{index:05}.npy"
        if not path.is_file():
            scene = draw(seed, index, size)
            scored = [ablation(vlm, own, [scene], task) for task, own in variants(config).values()]
            counts = [[column[step].counts for step in STEPS] for column in scored]
            buffer = BytesIO()
            np.save(buffer, np.array(counts))
            write_bytes(path, buffer.getvalue())
        yield


def steps_table(config: Config, count: int, folders: Sequence[Path]) -> list[Table]:
    """Return the table of the first ``count`` scenes; none while a scene is in none of the folders."""
    columns = variants(config)
    pooled = np.zeros((len(columns), len(STEPS), len(CLASSES), len(CLASSES)), dtype=np.int64)
    for index in range(count):
        found = next((path for folder in folders if (path := folder / f"{index:05}.npy").is_file()), None)
        if found is None:
            return []
        pooled += np.load(found, allow_pickle=False)
    rows = [
        (step, *(f"{100 * Confusion(pooled[column, row]).miou():.1f}" for column in range(len(columns))))
        for row, step in enumerate(STEPS)
    ]
    note = (
        f"mIoU in percent over truth or guess, {count} scenes, the true names given in the order of drawing. {CAVEAT}"
    )
    return [Table("What each step earns", note, ("step", *columns), tuple(rows))]


def _photo(seed: int, index: int, size: int) -> RGB:
    return draw(seed, index, size).image


def _mask(seed: int, index: int, size: int) -> Integer[np.ndarray, "h w"]:
    return draw(seed, index, size).things_mask()
