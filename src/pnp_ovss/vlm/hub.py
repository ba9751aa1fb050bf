"""From a model's name to a folder on this machine: a local folder as it is, a hub repository through its cache."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import constants, errors, hf_hub_download
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from pnp_ovss.errors import ModelError

# Of whichever HTTP library the installed hub client uses: its name changed between versions 1 and 2.
NETWORK_ERROR: type[Exception] = errors.HTTPError  # type: ignore[attr-defined]

SIDE_FILES = (
    "preprocessor_config.json",
    "tokenizer_config.json",
    "tokenizer.json",
    "special_tokens_map.json",
    "vocab.txt",
)
WEIGHTS = ("model.safetensors", "pytorch_model.bin")
"""In the order of preference; several repositories hold only the second."""


@dataclass(frozen=True)
class Checkpoint:
    """A folder in the Hugging Face layout. ``revision``: the hub's commit, or for a local folder ``"local-"`` and the
    first digits of the SHA-256 of its ``config.json`` and the names and sizes of its weights."""

    folder: Path
    name: str
    revision: str


def resolve(source: str | Path, name: str, revision: str | None = None) -> Checkpoint:
    """Return the folder of ``source``: a local folder, else a hub id, downloaded on first use.

    Raises: ModelError if it is neither, cannot be reached, or holds no weights.
    """
    folder = Path(source).expanduser()
    if folder.is_dir():
        return Checkpoint(folder, name, _fingerprint(folder, name))
    if isinstance(source, Path) or str(source).startswith((".", "/", "~")) or str(source).count("/") != 1:
        raise ModelError(
            f"no model {name!r}: neither a short name, nor a folder, nor a hub id such as owner/model; "
            "`pnp-ovss models` lists the short names"
        )
    return _fetch(source, name, revision)


def _fetch(repository: str, name: str, revision: str | None) -> Checkpoint:
    config = _download(repository, "config.json", revision, name)
    if config is None:
        raise ModelError(f"{name}: the repository {repository} has no config.json; a transformers checkpoint is wanted")
    commit = config.parent.name  # all files from one commit, though the repository may move on meanwhile
    for file in SIDE_FILES:
        _download(repository, file, commit, name)
    if not any(_download(repository, file, commit, name) for file in WEIGHTS):
        raise ModelError(f"{name}: the repository {repository} holds neither {' nor '.join(WEIGHTS)}")
    return Checkpoint(config.parent, name, commit)


def _download(repository: str, file: str, revision: str | None, name: str) -> Path | None:
    """Return the file's place in the cache, or None if the repository has no such file."""
    offline = constants.HF_HUB_OFFLINE
    try:
        return Path(hf_hub_download(repository, file, revision=revision))
    except LocalEntryNotFoundError as error:  # also an EntryNotFoundError, so it comes first
        if not offline:
            raise ModelError(
                f"{name}: the hub cannot be reached and {file} is not in the cache; connect once, or give a "
                "local folder"
            ) from error
        if file == "config.json":
            raise ModelError(
                f"{name}: not in the cache, and HF_HUB_OFFLINE is set; fetch it once without it, or give a local folder"
            ) from error
        return None
    except EntryNotFoundError:
        return None
    except GatedRepoError as error:
        raise ModelError(
            f"{name}: the repository {repository} is gated; accept its terms on its page and set HF_TOKEN"
        ) from error
    except RevisionNotFoundError as error:
        raise ModelError(f"{name}: the repository {repository} has no revision {revision!r}") from error
    except RepositoryNotFoundError as error:
        raise ModelError(
            f"{name}: the hub has no repository {repository}, or it is private; check the spelling, or set HF_TOKEN"
        ) from error
    except HFValidationError as error:
        raise ModelError(f"no model {name!r}: that is no hub id; `pnp-ovss models` lists the short names") from error
    except (HfHubHTTPError, NETWORK_ERROR, OSError) as error:
        reason = str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__
        raise ModelError(
            f"{name}: fetching {file} failed ({reason}); try again, it goes on where it stopped"
        ) from error


def _fingerprint(folder: Path, name: str) -> str:
    config = folder / "config.json"
    if not config.is_file():
        raise ModelError(f"{name}: the folder holds no config.json; a checkpoint in the Hugging Face layout is wanted")
    sizes = [f"{path.name} {path.stat().st_size}" for file in WEIGHTS if (path := folder / file).is_file()]
    if not sizes:
        raise ModelError(f"{name}: the folder holds neither {' nor '.join(WEIGHTS)}")
    digest = hashlib.sha256(config.read_bytes() + "\n".join(sizes).encode())
    return f"local-{digest.hexdigest()[:12]}"
