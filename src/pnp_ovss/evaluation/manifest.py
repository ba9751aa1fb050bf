"""What a run was made with: written before the first image, and compared when a run goes on."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pnp_ovss._version import VERSION
from pnp_ovss.data import Dataset
from pnp_ovss.errors import InputError
from pnp_ovss.files import write_text
from pnp_ovss.images import shown
from pnp_ovss.runs.manifest import about_model as model_and_settings
from pnp_ovss.runs.manifest import check_same
from pnp_ovss.segmenter import Segmenter
from pnp_ovss.types import Vocabulary

FORMAT = 2
"""Of manifest and records; raised when older ones cannot be read any more."""


def about_data(dataset: Dataset, name: str, split: str | None) -> dict[str, Any]:
    """Return what is scored; ``name`` is that of the data set in its table."""
    return {
        "dataset": name,
        "title": dataset.title,
        "split": split,
        "layout": dataset.layout,
        "classes": list(dataset.classes),
        "nothing": dataset.labels[0],
        "version": VERSION,
    }


def about_model(segmenter: Segmenter, dtype: str, names: str, vocabulary: Vocabulary) -> dict[str, Any]:
    """Return who guesses, and what it is told."""
    vlm = segmenter.vlm
    return model_and_settings(vlm.name, vlm.revision, vlm.device.type, dtype, segmenter.config) | {
        "names": names,
        "vocabulary": vocabulary.name,
        "words": {cls: list(words) for cls, words in vocabulary.words.items() if words != (cls,)},
    }


def open_run(
    folder: Path,
    settings: dict[str, Any],
    keys: Sequence[str],
    faults: Sequence[Sequence[str]],
    root: str | None = None,
) -> None:
    """Write the manifest of a run, or see that the one that is there has the same settings.

    ``root``, where the data set lies, may be another one on every machine, and with it the title.

    Raises: ConfigError naming the first setting that differs.
    """
    path = folder / "manifest.json"
    manifest = {"format": FORMAT, "settings": settings, "root": root, "keys": list(keys)}
    manifest["faults"] = [list(fault) for fault in faults]
    if path.is_file():
        check_run(folder, settings)
    write_text(path, json.dumps(manifest, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def check_run(folder: Path, settings: dict[str, Any]) -> None:
    """Raise ConfigError naming the first setting in which the run in ``folder`` differs; the title is none."""
    before = read_manifest(folder)["settings"]
    check_same(shown(folder), before | {"title": settings["title"]}, settings)


def read_manifest(folder: Path) -> dict[str, Any]:
    """Return a run's manifest.

    Raises: InputError if there is none that can be read.
    """
    path = folder / "manifest.json"
    try:
        manifest: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if manifest["format"] != FORMAT or not manifest["keys"]:
            raise InputError(f"{shown(path)} is of another version; score the images anew with another --out")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{shown(folder)} holds no run that can be read; give a folder that evaluate wrote") from error
    return manifest
