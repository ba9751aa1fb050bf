"""From a model's name to a folder on this machine: a local folder as it is, a hub repository through its cache.

Short names are rows of ``registry.csv``.
"""

import csv
import hashlib
import logging
import os
import warnings
from collections.abc import Container, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from fnmatch import fnmatch
from functools import cache
from pathlib import Path
from traceback import extract_tb
from typing import Any

from huggingface_hub import (
    HfApi,
    constants,
    errors,
    get_token,
    hf_hub_download,
    snapshot_download,
    try_to_load_from_cache,
)
from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]
from tqdm.auto import tqdm

from pnp_ovss.errors import InputError, ModelError, one_line
from pnp_ovss.files import expanded, read_json
from pnp_ovss.redaction import keep_key

PANIC = "PanicException"
"""What the libraries in Rust raise over their own bugs; no ``Exception``, and in no module that can be imported."""
SMALL_FILES = ["config.json", "preprocessor_config.json", "tokenizer*.json", "special_tokens_map.json", "vocab.txt"]
PAIRS = ["vocab.json", "merges.txt"]
"""What a tokenizer of byte pairs is made of where there is no ``tokenizer.json``."""
INDEX = ".index.json"
"""End of the file that lists the parts of weights in parts."""
WEIGHTS = [name + end for name in ("model.safetensors", "pytorch_model.bin") for end in ("", INDEX)]
"""Where weights may be, the best first."""

REASONS = {
    errors.OfflineModeIsEnabled: "not all of it is in the cache, and HF_HUB_OFFLINE is set; fetch it once without it",
    errors.RevisionNotFoundError: "the hub has no such revision of it; give a branch, a tag or a commit, or none",
    errors.GatedRepoError: "its repository is gated; accept its terms on its page and set HF_TOKEN",
    UnicodeEncodeError: "the hub's token holds characters that no token has; copy the token alone into HF_TOKEN",
    errors.RepositoryNotFoundError: "no folder here, no public repository on the hub; check the name, or set HF_TOKEN",
}
"""What an error of the hub client means, and what to do."""
INSTEAD = "set HF_ENDPOINT to a mirror, give --model a local folder, or take mini-blip, which is in the box"
"""What works without the hub."""
BY_XET = "xet_get"
"""The function of the hub's client that fetches by Xet: where ``hf_xet`` is installed, and from hosts of its own."""

LOCAL = "local-"
SHIPPED = Path(__file__).parents[1] / "mini" / "checkpoints"
"""Folder of the checkpoints in the package."""


@dataclass(frozen=True)
class Model:
    """A model with a short name. Of dual encoders no more is listed than ``source``, ``family``, ``millions``,
    ``pixels`` and licence; of captioners only the first two and that."""

    source: str | Path
    """Hub id, or the folder of a shipped checkpoint."""
    family: str
    """``model_type``, as ``config.json`` names it; or "captioner"."""
    preset: str
    millions: float
    """Parameters, in millions."""
    pixels: int
    """Side of its own input."""
    licence: str
    checked: str
    """What was seen to work with it; "arithmetic": the weights were not at hand, only random ones."""


def _model(name: str, source: str, family: str, preset: str, millions: str, pixels: str, *about: str) -> Model:
    place = SHIPPED / name if source == "shipped" else source
    return Model(place, family, preset, float(millions or 0), int(pixels or 0), *about)


_ROWS = Path(__file__).with_name("registry.csv").read_text(encoding="utf-8").splitlines()[1:]
SHORT_NAMES = {row[0]: _model(*row) for row in csv.reader(_ROWS)}
MODELS = {name: model for name, model in SHORT_NAMES.items() if model.preset}
"""Vision-language models by short name."""


@dataclass(frozen=True)
class Checkpoint:
    """A folder in the Hugging Face layout. ``revision``: the hub's commit, or for a local folder ``"local-"`` and the
    first digits of a SHA-256 over its ``config.json`` and its weights."""

    folder: Path
    name: str
    revision: str

    @property
    def is_local(self) -> bool:
        """Whether it is a local folder, which has no commit to ask for."""
        return self.revision.startswith(LOCAL)


def find(name: str | Path, revision: str | None = None, instead: str = INSTEAD) -> Checkpoint:
    """Return where the checkpoint with this short name, hub id or local folder is on this machine.

    A hub repository is downloaded on first use. Later the hub is asked whether the branch has moved on; where it does
    not answer, the cache has to do. ``instead``: what an error says that works without the hub.

    Raises: ModelError if there is none, it cannot be fetched, or a local folder cannot be read.
    """
    source = SHORT_NAMES[str(name)].source if str(name) in SHORT_NAMES else name
    folder, name = _local(source), str(name)
    if folder is None and not _is_hub_id(source):
        expected = f"a folder, a hub id such as owner/model, or one of {', '.join(SHORT_NAMES)}"
        raise ModelError(f"no model {name!r}: expected {expected}")
    if folder is not None and revision is not None:
        raise ModelError(f"{name} is a local folder and has no revision {revision!r}; leave it out")
    with reading(name, "the folder cannot be read"):
        if folder is None:
            folder = _fetch(str(source), name, revision, instead)
            return Checkpoint(folder, name, folder.name)
        files = [folder / "config.json", *weight_files(folder, name)]
        states = [(path, path.stat().st_size, path.stat().st_mtime_ns) for path in files]
        return Checkpoint(folder, name, LOCAL + digest(*states))


def of_kind(checkpoint: Checkpoint, kinds: Container[str], expected: str) -> Checkpoint:
    """Return the checkpoint, if the ``model_type`` in its ``config.json`` is one of ``kinds``.

    Raises: ModelError that says what was ``expected``.
    """
    kind = read_settings(checkpoint.folder / "config.json", checkpoint.name).get("model_type")
    if kind not in kinds:
        raise ModelError(f"{checkpoint.name}: expected {expected}, got {kind!r}")
    return checkpoint


def find_folder(source: str | Path, revision: str | None = None) -> Path | None:
    """Return where the ``config.json`` of a folder or hub id is on this machine, or None; nothing is fetched."""
    folder = _local(source)
    if folder is None and _is_hub_id(source):
        config = try_to_load_from_cache(str(source), "config.json", revision=revision)
        folder = Path(config).parent if isinstance(config, str) else None
    return folder if folder and (folder / "config.json").is_file() else None


def weight_files(folder: Path, name: str) -> list[Path]:
    """Return the file that holds a folder's weights, or all of them where they come in parts.

    Raises: ModelError if there is none, or one is missing.
    """
    file = next((file for file in WEIGHTS if (folder / file).is_file()), None)
    if file is None:
        raise ModelError(f"{name}: expected model.safetensors or pytorch_model.bin, got neither")
    if not file.endswith(INDEX):
        return [folder / file]
    with reading(name, f"{file} does not list the files of weights"):
        parts = read_settings(folder / file, name)["weight_map"].values()
        paths = [folder / Path(part).name for part in sorted(set(parts))]
    for path in paths:
        if not path.is_file():
            raise ModelError(f"{name}: {file} lists {path.name}, which is not there; fetch it")
    return paths


def read_settings(path: Path, name: str) -> dict[str, Any]:
    """Return the settings in a file of the checkpoint ``name``.

    Raises: ModelError if it cannot be read as a JSON object.
    """
    try:
        return read_json(path)
    except InputError as error:
        raise ModelError(f"{name}: {error}, or fetch the checkpoint again") from error


@contextmanager
def reading(name: str, fault: str) -> Iterator[None]:
    """Turn whatever the libraries raise over a checkpoint into one line, and keep their reports off the screen.

    Raises: ModelError.
    """
    loggers = map(logging.getLogger, ("huggingface_hub", "transformers"))
    levels = {logger: logger.level for logger in loggers}
    try:
        for logger in levels:
            logger.setLevel(logging.CRITICAL)
        with warnings.catch_warnings(action="ignore"):
            yield
    except ModelError:
        raise
    except BaseException as error:  # damaged files make the readers raise anything
        if not is_fault(error):
            raise
        raise ModelError(f"{name}: {fault} ({one_line(error)}); fetch the checkpoint again") from error
    finally:
        for logger, level in levels.items():
            logger.setLevel(level)


def is_fault(error: BaseException) -> bool:
    """Return whether it is an error, or a panic of a library in Rust, and no wish to stop."""
    return isinstance(error, Exception) or type(error).__name__ == PANIC


def _local(source: str | Path) -> Path | None:
    folder = expanded(source)
    return Path(folder) if os.path.isdir(folder) else None


def _is_hub_id(source: str | Path) -> bool:
    with suppress(errors.HFValidationError):
        validate_repo_id(str(source))
        return isinstance(source, str) and "/" in source
    return False


@cache
def digest(*files: tuple[Path, int, int]) -> str:
    """Return the first digits of a SHA-256 over files, each with its size and its time of change.

    Gigabytes are read again only where one of these changed.
    """
    config, *weights = [path for path, *_ in files]
    digest = hashlib.sha256(config.read_bytes())
    for path in weights:
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:12]


def _fetch(repository: str, name: str, revision: str | None, instead: str) -> Path:
    """Return the folder of a revision in the cache, as the hub has it now, or whole as it was there before."""
    try:
        keep_key(get_token())
        return _download(repository, revision)
    except BaseException as error:  # of the hub's client, of its HTTP library, of the disk
        if not is_fault(error):
            raise
        cached = find_folder(repository, revision)
        with suppress(ModelError):
            if cached and weight_files(cached, name):
                return cached
        raise explained(error, name, instead) from error


def explained(error: BaseException, name: str, instead: str = INSTEAD) -> ModelError:
    """Return what an error of the hub's client means, and what to do, in one line."""
    outer = isinstance(error, errors.LocalEntryNotFoundError)
    cause = error.__cause__ if outer and isinstance(error.__cause__, Exception) else error
    by_xet = any(frame.name == BY_XET for frame in extract_tb(error.__traceback__))
    how, more = (" by Xet", ", set HF_HUB_DISABLE_XET=1") if by_xet else ("", "")
    reason = f"fetching it{how} failed ({one_line(cause)}); check connection, disk and HF_TOKEN{more}"
    known = "" if by_xet else next((text for kind, text in REASONS.items() if isinstance(cause, kind)), "")
    if known and not isinstance(cause, errors.OfflineModeIsEnabled):
        return ModelError(f"{name}: {known}")
    return ModelError(f"{name}: {known or reason}, {instead}; the cache is {constants.HF_HUB_CACHE}")


def fetch_tokenizer(repository: str) -> Path:
    """Return the folder of a hub repository without its weights. Raises: ModelError if it cannot be fetched."""
    try:
        return Path(snapshot_download(repository, allow_patterns=SMALL_FILES, tqdm_class=NoBar))
    except BaseException as error:
        if not is_fault(error):
            raise
        advice = f"put the weights into a folder as model.safetensors, with a tokenizer.json, or {INSTEAD}"
        raise ModelError(f"the tokenizer of {repository} cannot be fetched ({one_line(error)}); {advice}") from error


def _download(repository: str, revision: str | None) -> Path:
    """Bring into the cache what it lacks of a revision, all from one commit; return the folder.

    The weights come last, and the cache notes the branch's new commit after them: a download that stops leaves the
    cache as it was.
    """
    info = HfApi().model_info(repository, revision=revision)
    files = [sibling.rfilename for sibling in info.siblings or []]
    wanted = SMALL_FILES if "tokenizer.json" in files else [*SMALL_FILES, *PAIRS]
    small = snapshot_download(repository, revision=info.sha, allow_patterns=wanted, tqdm_class=NoBar)
    weights = weights_among(files)
    # Else loading says what the checkpoint lacks.
    if weights and "config.json" in files:
        if not all(Path(small, file).is_file() for file in weights):
            snapshot_download(repository, revision=info.sha, allow_patterns=weights)
        if find_folder(repository, revision) != Path(small):
            hf_hub_download(repository, "config.json", revision=revision)
    return Path(small)


def weights_among(files: Sequence[str]) -> list[str]:
    """Return which of a repository's files hold its weights, and the list of them where they come in parts."""
    first = next((file for file in WEIGHTS if file in files), "")
    parts = first.removesuffix(INDEX).replace(".", "-*.") if first.endswith(INDEX) else first
    return [file for file in files if file == first or fnmatch(file, parts)]


class NoBar(tqdm):  # type: ignore[misc]
    """A progress bar that nobody sees."""

    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **settings | {"disable": True})
