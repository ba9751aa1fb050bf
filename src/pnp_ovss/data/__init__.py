"""The benchmarks, and folders of one's own.

A new benchmark is a function in ``benchmarks.py`` that finds its samples, an entry in ``benchmarks.json``, and a class
list in ``classes/``.
"""

from pnp_ovss.data.benchmarks import DATASETS, load_dataset
from pnp_ovss.data.dataset import IGNORE, Dataset
from pnp_ovss.data.vocabulary import benchmark_vocabulary, default_vocabulary, load_vocabulary, vocabularies

__all__ = [
    "DATASETS",
    "IGNORE",
    "Dataset",
    "benchmark_vocabulary",
    "default_vocabulary",
    "load_dataset",
    "load_vocabulary",
    "vocabularies",
]
