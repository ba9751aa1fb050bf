"""The benchmarks, and folders of one's own. A new one is a function that returns ``Dataset``, and a line here."""

from collections.abc import Callable
from pathlib import Path

from pnp_ovss.data.ade import ade150
from pnp_ovss.data.coco import object80, object81, panoptic133, stuff171
from pnp_ovss.data.context import context59, context60
from pnp_ovss.data.dataset import IGNORE, Dataset, Sample
from pnp_ovss.data.folder import folder
from pnp_ovss.data.voc import voc20, voc21
from pnp_ovss.data.vocabulary import benchmark_vocabulary, load_vocabulary, vocabularies
from pnp_ovss.errors import InputError

__all__ = [
    "DATASETS",
    "IGNORE",
    "Dataset",
    "Sample",
    "benchmark_vocabulary",
    "load_dataset",
    "load_vocabulary",
    "vocabularies",
]

DATASETS: dict[str, Callable[[Path, str | None], Dataset]] = {
    "voc20": voc20,
    "voc21": voc21,
    "context59": context59,
    "context60": context60,
    "object80": object80,
    "object81": object81,
    "stuff171": stuff171,
    "panoptic133": panoptic133,
    "ade150": ade150,
    "folder": folder,
}
"""Each reads a data set below a root folder; the second argument is the split, None for the usual one."""


def load_dataset(name: str, root: str | Path, split: str | None = None) -> Dataset:
    """Return a data set by its name.

    Raises: InputError if there is none of that name, or a file is missing: it says which, and where to get it.
    """
    if name not in DATASETS:
        raise InputError(f"no data set {name!r}; the data sets are {', '.join(DATASETS)}")
    root = Path(root).expanduser()
    if not root.is_dir():
        raise InputError(f"there is no folder {root}; give the one that holds the data set")
    dataset = DATASETS[name](root, split)
    if not dataset.samples:
        raise InputError(f"{root} holds no image of {name}; check the folder and the split")
    return dataset
