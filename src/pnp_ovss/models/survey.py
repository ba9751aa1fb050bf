"""What can be known of a checkpoint before its weights are fetched or read: whether it is there, its size and shape."""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi, snapshot_download

from pnp_ovss.errors import ModelError
from pnp_ovss.models.hub import (
    SHORT_NAMES,
    Model,
    NoBar,
    explained,
    find_folder,
    read_settings,
    weight_files,
    weights_among,
)

INSTEAD = "set HF_ENDPOINT to a mirror, or give its folder in --weights"
"""What works without the hub."""
CLOSE = 0.15
"""Share by which the bytes of weights may differ from two or four for each parameter: files hold a little more."""


@dataclass(frozen=True)
class Survey:
    """A checkpoint, not loaded."""

    revision: str
    """The hub's commit; of a local folder what changes with its files."""
    size: int
    """Bytes of the weights."""
    to_fetch: int
    """Bytes of them that are not on this machine yet."""
    faults: tuple[str, ...]
    """In what it is not the model it should be, each in one line."""


def survey(name: str | Path, model: str) -> Survey:
    """Return what can be known of the checkpoint ``name``, a hub id or folder, which should be that of ``model``.

    Of the hub nothing but the list of files and ``config.json`` is fetched.

    Raises: ModelError if it is neither here nor on the hub.
    """
    expected = SHORT_NAMES[model]
    folder = find_folder(name)
    with suppress(ModelError):
        if folder is not None:
            files = weight_files(folder, model)
            states = [path.stat() for path in files]
            revision = folder.name if is_hub_folder(folder) else f"{states[0].st_size}-{states[0].st_mtime_ns}"
            return _of(folder, model, expected, revision, sum(state.st_size for state in states), here=True)
    if Path(name).is_dir():
        weight_files(Path(name), model)  # says what it lacks
        raise ModelError(f"{model}: expected a config.json in {name}, got none; fetch it")
    try:
        info = HfApi().model_info(str(name), files_metadata=True)
        sizes = {sibling.rfilename: sibling.size or 0 for sibling in info.siblings or []}
        small = snapshot_download(str(name), revision=info.sha, allow_patterns="config.json", tqdm_class=NoBar)
    except Exception as error:  # of the hub's client, or of its HTTP library
        raise explained(error, model, INSTEAD) from error
    weights = weights_among(list(sizes))
    if not weights:
        raise ModelError(f"{model}: its repository has no weights that are read here; give a folder with --weights")
    return _of(Path(small), model, expected, str(info.sha), sum(sizes[file] for file in weights), here=False)


def is_hub_folder(folder: Path) -> bool:
    """Return whether a folder is a revision in the hub's cache, and so named by its commit."""
    return folder.parent.name == "snapshots"


def _of(folder: Path, name: str, expected: Model, revision: str, size: int, here: bool) -> Survey:
    settings = read_settings(folder / "config.json", name)
    faults = (*_size_fault(size, expected), *_shape_faults(settings, expected))
    return Survey(revision, size, 0 if here else size, faults)


def _size_fault(size: int, expected: Model) -> Iterator[str]:
    each = size / (1e6 * expected.millions)
    if min(abs(each / 4 - 1), abs(each / 2 - 1)) > CLOSE:
        yield (
            f"its weights have {size / 1e6:.1f} MB; {expected.millions:.1f} M parameters have "
            f"{4 * expected.millions:.0f} MB, or half of it as float16"
        )


def _shape_faults(settings: dict[str, Any], expected: Model) -> Iterator[str]:
    kind = str(settings.get("model_type"))
    if not kind.startswith(expected.family):
        yield f"it is a model of kind {kind!r}; expected {expected.family!r}"
    vision = settings.get("vision_config")
    side = (vision if isinstance(vision, dict) else settings).get("image_size")
    if isinstance(side, int) and side != expected.pixels:
        yield f"its input has {side} pixels a side; expected {expected.pixels}"
