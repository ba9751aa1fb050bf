"""Whether a benchmark on this machine is the published one: its images by number and by id, its photos and masks."""

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path

from pnp_ovss.data.benchmarks import ABOUT, DATASETS, load_dataset
from pnp_ovss.data.dataset import Dataset, Sample
from pnp_ovss.errors import InputError
from pnp_ovss.images import image_size

AHEAD = 64
"""Images that are read at a time."""


def find_dataset(name: str, root: Path, protocol: str = "standard") -> tuple[Dataset, Path]:
    """Return a data set by its name, and the folder it was found in: ``root``, or the one below it named for it.

    Raises: as ``load_dataset`` does.
    """
    below = root / ABOUT[DATASETS[name][0]].get("folder", ".")
    if below != root and os.path.isdir(below):
        return load_dataset(name, below, protocol=protocol), below
    return load_dataset(name, root, protocol=protocol), root


def digest_of_ids(dataset: Dataset) -> str:
    """Return the SHA-256 of the images' ids, sorted, one a line; 64 hexadecimal digits."""
    return sha256("\n".join(sorted(sample.key for sample in dataset.samples)).encode()).hexdigest()


def differences(dataset: Dataset) -> Iterator[str]:
    """Yield in what a data set's list of images, or its truth, differs from the published one, each in one line."""
    whole, count = ABOUT[dataset.words]["whole"], len(dataset.samples)
    yield from (fault for _, fault in dataset.faults)
    if dataset.lacks:
        yield dataset.lacks
    if count not in whole["images"]:
        yield f"expected {' or '.join(map(str, whole['images']))} images, got {count}"
    elif digest_of_ids(dataset) != whole.get("ids", digest_of_ids(dataset)):
        yield f"its {count} images are not those of the published list"


def unreadable(dataset: Dataset) -> Iterator[str]:
    """Yield for each image why it cannot be scored, "" if it can: its mask is read, and of its photo the size."""

    def fault(sample: Sample) -> str:
        try:
            dataset.truth(sample)
        except InputError as error:
            return str(error)
        lost = isinstance(sample.image, Path) and image_size(sample.image) is None
        return f"{sample.key}: there is no photo {sample.image}, or it is damaged" if lost else ""

    with ThreadPoolExecutor() as pool:
        for start in range(0, len(dataset.samples), AHEAD):
            yield from pool.map(fault, dataset.samples[start : start + AHEAD])
