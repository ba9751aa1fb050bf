"""A run over many photos: what is still to be done, in the order in which Parquet files become complete."""

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from pnp_ovss._version import VERSION
from pnp_ovss.errors import InputError
from pnp_ovss.models import find
from pnp_ovss.naming.cached import digest
from pnp_ovss.runs.manifest import about_model, check_same
from pnp_ovss.runs.photos import Source
from pnp_ovss.runs.results import Results, check_parquet, shard_of
from pnp_ovss.runs.work import Job, Names, Outcome
from pnp_ovss.segmenter import settle
from pnp_ovss.store import Folder

FORMAT = 1
"""Of manifest and results; raised when older ones cannot be read any more."""
MANIFEST = "manifest.json"

Engine = Callable[[Job, Sequence[Source]], Iterator[Outcome]]
"""Does photos, wherever, and yields each when its result is written."""


@dataclass(frozen=True)
class Run:
    """What a run has to do."""

    job: Job
    results: Results
    sources: Sequence[Source]
    """All photos."""
    todo: Sequence[Source]
    """Those without a result, shard after shard."""
    shards: int
    """How many Parquet files the results fall to."""
    packs: bool
    """Whether results are moved into Parquet files."""

    def __call__(self, engine: Engine) -> Iterator[Outcome]:
        """Do what is to be done and yield every photo; a shard is packed when its last photo is there."""
        left = Counter(shard_of(source.key, self.shards) for source in self.todo)
        loose: dict[int, list[str]] = defaultdict(list)
        failed = set()
        if self.packs:
            for key in self.results.loose():
                loose[shard_of(key, self.shards)].append(key)
            for shard in [shard for shard in loose if not left[shard]]:
                self.results.pack(shard, loose.pop(shard))
        for outcome in engine(self.job, self.todo) if self.todo else ():
            shard = shard_of(outcome.key, self.shards)
            left[shard] -= 1
            if outcome.fault:
                failed.add(outcome.key)
            else:
                loose[shard].append(outcome.key)
            if self.packs and not left[shard] and loose[shard]:
                self.results.pack(shard, loose.pop(shard))
            yield outcome
        self.results.forget_faults(source.key for source in self.sources if source.key not in failed)


def open_run(job: Job, format: str, rows: int, sources: Sequence[Source]) -> Run:
    """Return the run over these photos: a new one, or what is left of the one that is in the folder.

    ``rows`` is about how many photos a Parquet file gets; a run that goes on keeps the number of files it began with.

    Raises: ConfigError if the folder holds a run with other settings; InputError if its manifest cannot be read;
    ModelError if there is no such model.
    """
    if format == "parquet":
        check_parquet()
        _check_text((*job.names.classes, *(source.place for source in sources)))
    folder = Folder(job.out)
    results = Results(folder)
    settle(job.model, job.preset, job.revision, **job.settings)  # before the model, which may have to be fetched
    checkpoint = find(job.model, job.revision)
    config = settle(job.model, job.preset, job.revision, **job.settings)  # the model's family is known by now
    # What the manifest tells is what every worker takes, whatever a branch or a preset's file holds by then.
    pinned = None if checkpoint.is_local else checkpoint.revision
    job = replace(job, preset="auto", settings=asdict(config), revision=pinned)
    settings = about_model(checkpoint.name, checkpoint.revision, job.device, job.dtype, config)
    settings |= {"names": _about(job.names), "format": format}
    shards = max(1, round(len(sources) / rows))
    before = _manifest(folder)
    loose = results.loose()
    if before is not None and (loose or results.shards()):
        check_same(folder.place, before["settings"], settings)
        shards = before["shards"]
        done = loose | (results.packed() if format == "parquet" else set())
    else:  # nothing was made yet with the settings that a manifest may tell: a mistyped command binds nobody
        done = set()
        told = {"manifest": FORMAT, "version": VERSION, "shards": shards, "settings": settings}
        folder.write(
            MANIFEST, (json.dumps(told, indent=1, ensure_ascii=False) + "\n").encode("utf-8", "backslashreplace")
        )
    todo = sorted((s for s in sources if s.key not in done), key=lambda s: (shard_of(s.key, shards), s.key))
    return Run(job, results, sources, todo, shards, format == "parquet")


def _check_text(texts: Iterable[str]) -> None:
    for text in texts:
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise InputError(f"{text!a} is no UTF-8, which Parquet wants; rename it, or take --format files") from error


def _manifest(folder: Folder) -> dict[str, Any] | None:
    if not folder.has(MANIFEST):
        return None
    try:
        manifest: dict[str, Any] = json.loads(folder.read(MANIFEST))
        if manifest["manifest"] != FORMAT or not manifest["shards"] or not manifest["settings"]:
            raise ValueError
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{folder.place} holds no run of batch that can be read; give another --out") from error
    return manifest


def _about(names: Names) -> dict[str, Any]:
    if names.classes:
        return {"classes": list(names.classes)}
    return {
        "namer": names.namer,
        "model": names.options.model,
        "source": names.options.source.name if names.options.source else None,
        "given": list(names.options.names),
        "vocabulary": digest(names.candidates) if names.candidates else None,
        "keep": names.keep,
    }
