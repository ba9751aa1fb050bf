"""From a model's name to a folder on this machine: a local folder as it is, a hub repository through its cache."""

import hashlib
import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import (
    constants,
    errors,
    get_hf_file_metadata,
    hf_hub_download,
    hf_hub_url,
    try_to_load_from_cache,
)
from huggingface_hub import logging as hub_logging
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from pnp_ovss.errors import ModelError, one_line

# Of whichever HTTP library the installed hub client uses: its name changed between versions 1 and 2.
NETWORK_ERROR: type[Exception] = errors.HTTPError  # type: ignore[attr-defined]

SIDE_FILES = (
    "preprocessor_config.json",
    "tokenizer_config.json",
    "tokenizer.json",
    "special_tokens_map.json",
    "vocab.txt",
)
WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")
"""In the order of preference; several repositories hold only ``.bin``. An index names the parts of weights in parts."""

LOCAL = "local-"


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


def resolve(
    source: str | Path, name: str, revision: str | None = None, known: str = "`pnp-ovss models` lists the short names"
) -> Checkpoint:
    """Return the folder of ``source``: a local folder, else a hub id, downloaded on first use.

    ``known`` says what else the name could have been.

    Raises: ModelError if it is neither, cannot be reached, or holds no weights.
    """
    folder = _local(source)
    if folder is not None:
        if revision is not None:
            raise ModelError(
                f"{name} is a local folder and has no revision {revision!r}; leave the revision out, or give a hub id"
            )
        return Checkpoint(folder, name, _fingerprint(folder, name))
    if isinstance(source, Path) or str(source).startswith((".", "/", "~")) or str(source).count("/") != 1:
        raise ModelError(
            f"no model {name!r}: neither a short name, nor a folder, nor a hub id such as owner/model; {known}"
        )
    with _quiet():
        return _fetch(source, name, revision)


def config_at_hand(source: str | Path, revision: str | None = None) -> Path | None:
    """Return the ``config.json`` of ``source`` where it is on this machine, or None; nothing is fetched."""
    folder = _local(source)
    try:
        found = _cached(str(source), "config.json", revision) if folder is None else folder / "config.json"
    except HFValidationError:
        return None
    return found if found and found.is_file() else None


def weight_files(folder: Path, name: str) -> list[Path]:
    """Return the file that holds a folder's weights, or all of them where they come in parts.

    Raises: ModelError if there is none, or an index is broken or names a file that is not in the folder.
    """
    for file in WEIGHTS:
        if (folder / file).is_file():
            found = [folder / part for part in parts(folder / file, name)]
            absent = [path.name for path in found if not path.is_file()]
            if absent:
                raise ModelError(f"{name}: {absent[0]!r} is not in the folder, but {file} asks for it; fetch it again")
            return found
    raise ModelError(f"{name}: the folder holds no weights; model.safetensors or pytorch_model.bin is wanted")


def parts(weights: Path, name: str) -> list[str]:
    """Return the file's own name, or those that it lists where it is an index.

    Raises: ModelError if the index cannot be read or reaches out of its folder.
    """
    if weights.suffix != ".json":
        return [weights.name]
    kind = Path(weights.name.removesuffix(".index.json")).suffix
    try:
        listed = sorted(set(json.loads(weights.read_text(encoding="utf-8"))["weight_map"].values()))
        broken = not listed or any(Path(part).name != part or not part.endswith(kind) for part in listed)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        broken = True
    if broken:
        raise ModelError(f"{name}: {weights.name} does not list the files of the weights; fetch the checkpoint again")
    return listed


def _local(source: str | Path) -> Path | None:
    """Return the folder that ``source`` names, if it names one."""
    try:
        folder = Path(source).expanduser()
        return folder if str(source) != "" and folder.is_dir() else None
    except (OSError, RuntimeError, ValueError):  # ~nobody, a NUL, a name too long for the file system
        return None


def _fetch(repository: str, name: str, revision: str | None) -> Checkpoint:
    """Bring the repository's files into the cache where they are not there yet, all from one commit.

    The weights come last, and the branch moves on after them: a download that stops leaves the cache as it was.
    """
    commit, trouble = _commit(repository, name, revision)
    online = trouble is None
    config = _file(repository, "config.json", commit, name, online)
    for file in SIDE_FILES:
        _file(repository, file, commit, name, online)
    weights = next((path for file in WEIGHTS if (path := _cached(repository, file, commit))), None) or next(
        (path for file in WEIGHTS if (path := _file(repository, file, commit, name, online))), None
    )
    listed = parts(weights, name) if weights else []
    complete = bool(listed) and all(_file(repository, part, commit, name, online) for part in listed)
    if trouble and not complete:
        raise trouble
    if config is None:
        raise ModelError(f"{name}: the repository {repository} has no config.json; a transformers checkpoint is wanted")
    if not complete:
        raise ModelError(
            f"{name}: the repository {repository} lacks its weights; model.safetensors or pytorch_model.bin is wanted"
        )
    if online and _cached(repository, "config.json", revision) != config:
        with suppress(ModelError):
            _download(repository, "config.json", revision, name)  # held already: the cache notes the branch's commit
    return Checkpoint(config.parent, name, commit)


def _commit(repository: str, name: str, revision: str | None) -> tuple[str, ModelError | None]:
    """Return the commit of a revision as the hub has it, or as the cache has it and why the hub could not be asked."""
    try:
        known = _cached(repository, "config.json", revision)
        if known is not None and known.parent.name == revision:
            return revision, None  # a commit stays what it is
        if constants.HF_HUB_OFFLINE:
            trouble = ModelError(
                f"{name}: not in the cache, or not all of it, and HF_HUB_OFFLINE is set; fetch it once without it, or "
                "give a local folder"
            )
        else:
            commit = get_hf_file_metadata(hf_hub_url(repository, "config.json", revision=revision)).commit_hash
            if commit:
                return commit, None
            trouble = ModelError(f"{name}: what answers in place of the hub is none; check HF_ENDPOINT and the proxy")
    except HFValidationError as error:
        raise ModelError(f"no model {name!r}: that is no hub id; `pnp-ovss models` lists the short names") from error
    except EntryNotFoundError as error:
        raise ModelError(
            f"{name}: the repository {repository} has no config.json; a transformers checkpoint is wanted"
        ) from error
    except RevisionNotFoundError as error:
        raise ModelError(
            f"{name}: the repository {repository} has no revision {revision!r}; give one of its branches, tags or "
            "commits, or none"
        ) from error
    except (NETWORK_ERROR, OSError) as error:
        trouble = _trouble(error, repository, name, "config.json")
        trouble.__cause__ = error
    if known is None:
        raise trouble
    return known.parent.name, trouble


def _file(repository: str, file: str, commit: str, name: str, online: bool) -> Path | None:
    """Return the file's place in the cache, fetching it if need be, or None if the repository has no such file."""
    found = try_to_load_from_cache(repository, file, revision=commit)
    if isinstance(found, str):
        return Path(found)
    if found is not None or not online:  # not None: the cache knows that the repository has none
        return None
    return _download(repository, file, commit, name)


def _cached(repository: str, file: str, revision: str | None) -> Path | None:
    found = try_to_load_from_cache(repository, file, revision=revision)
    return Path(found) if isinstance(found, str) else None


def _download(repository: str, file: str, revision: str | None, name: str) -> Path | None:
    try:
        return Path(hf_hub_download(repository, file, revision=revision))
    except LocalEntryNotFoundError as error:  # also an EntryNotFoundError, so it comes first
        raise _trouble(error.__cause__ or error, repository, name, file) from error
    except EntryNotFoundError:
        return None
    except (NETWORK_ERROR, OSError, RuntimeError, ValueError) as error:
        raise _trouble(error, repository, name, file) from error


def _trouble(error: BaseException, repository: str, name: str, file: str) -> ModelError:
    """Return the line that says why the hub did not give the file."""
    if isinstance(error, GatedRepoError):
        text = f"the repository {repository} is gated; accept its terms on its page and set HF_TOKEN"
    elif isinstance(error, RepositoryNotFoundError):
        text = (
            f"neither a folder here nor a repository of the hub ({repository}), or a private one; check the spelling, "
            "or set HF_TOKEN"
        )
    elif isinstance(error, HfHubHTTPError) and error.response.status_code in (401, 403):
        text = f"the hub refuses access to {repository} ({error.response.status_code}); check HF_TOKEN"
    elif isinstance(error, HfHubHTTPError):
        text = f"the hub answers {error.response.status_code} for {file} of {repository}; try again later"
    else:
        text = f"fetching {file} of {repository} failed ({one_line(error)}); check connection and disk, then try again"
    return ModelError(f"{name}: {text}")


def _fingerprint(folder: Path, name: str) -> str:
    config = folder / "config.json"
    if not config.is_file():
        raise ModelError(f"{name}: the folder holds no config.json; a checkpoint in the Hugging Face layout is wanted")
    try:
        digest = hashlib.sha256(config.read_bytes())
        for path in weight_files(folder, name):
            with path.open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
    except OSError as error:
        raise ModelError(f"{name}: the folder cannot be read ({one_line(error)}); check its permissions") from error
    return LOCAL + digest.hexdigest()[:12]


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the hub client's warnings off the screen; what matters in them becomes a ModelError. Its bars stay."""
    verbosity = hub_logging.get_verbosity()
    hub_logging.set_verbosity(logging.CRITICAL)
    try:
        yield
    finally:
        hub_logging.set_verbosity(verbosity)
