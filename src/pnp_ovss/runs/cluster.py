"""Many workers, by Ray Data: photos are fetched wherever there is room, each worker holds a model and writes results.

Ray starts a worker anew that died and gives it the same photos again; those whose record is there are left alone.
Among those a photo that killed its worker is found out, and left alone as well.
"""

import logging
import os
import secrets
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from typing import Any

from pnp_ovss.errors import ConfigError, InputError, ModelError, PnpError
from pnp_ovss.models import MODELS
from pnp_ovss.models.captioner import CAPTIONERS
from pnp_ovss.models.clip import CLIPS
from pnp_ovss.runs.photos import Source, fetch
from pnp_ovss.runs.results import Results
from pnp_ovss.runs.work import Job, Outcome, Read, Worker
from pnp_ovss.store import Folder

BATCHES = 8
"""Batches of a block, the unit that Ray hands out and repeats: enough for reading, seeing and refining to overlap."""

RETRIES = 3
"""Of a block whose worker died."""


def work_on_ray(
    job: Job, sources: Sequence[Source], workers: int | None = None, cpus: int = 1, address: str | None = None
) -> Iterator[Outcome]:
    """Do the photos on a Ray cluster; yield each as soon as Ray has told that it is done.

    ``workers``: how many models; None: one per GPU, or per ``cpus`` cores where there is no GPU. ``address``: as
    ``ray.init`` takes it; "local" starts a cluster of this machine, which ends with the run. Photos and results must be
    within reach of every machine, by the same path or address.

    Raises: ConfigError if Ray is missing or cannot be reached; PnpError as ``Worker`` does.
    """
    ray = check_ray()
    job = _absolute(job)
    # A cluster of this machine's own has a place for each worker that was asked for, however few cores there are.
    cores = max(os.cpu_count() or 1, (workers or 1) * cpus) if address == "local" else None
    quiet = {"include_dashboard": False, "logging_level": logging.ERROR, "log_to_driver": False}
    try:
        ray.init(address=address, num_cpus=cores, **quiet)
    except Exception as error:  # Ray raises plain ones too, for what takes too long
        ray.shutdown()
        raise ConfigError(
            f"the Ray cluster {address or 'here'} cannot be reached ({_first_line(error)}); check --cluster"
        ) from error
    try:
        told = set()
        for row in _done(ray, job, sources, workers, cpus).iter_rows():
            if row["stop"]:
                raise _STOPS.get(row["stop"], PnpError)(row["fault"])
            told.add(row["key"])
            yield Outcome(row["key"], row["fault"])
        yield from _given_up(job, [source for source in sources if source.key not in told])
    finally:
        ray.shutdown()


def check_ray() -> Any:
    """Return Ray, told to be quiet and to send nothing home.

    Raises: ConfigError if it is not installed.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # Ray reads it on import
    try:
        import ray.data
    except ImportError as error:
        raise ConfigError(
            "--engine ray needs Ray Data, which is not installed; run pip install 'pnp-ovss[batch]', or take "
            "--engine local"
        ) from error
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = context.print_on_execution_start = False
    context.max_errored_blocks = -1  # however many: the run goes on, and tells in the end what was left
    return ray


def _absolute(job: Job) -> Job:
    """Return the job with whole paths: workers have another working folder. A preset's file was read before."""
    folder, options = Folder(job.out), job.names.options
    whole = replace(
        options,
        model=_whole(options.model) if options.model and job.names.namer != "openai" else options.model,
        source=options.source and options.source.absolute(),
        cache=options.cache and options.cache.absolute(),
    )
    return replace(
        job,
        out=folder.root if folder.is_local else job.out,
        model=_whole(job.model),
        names=replace(job.names, options=whole),
    )


def _whole(model: str) -> str:
    """Return the whole path of a model's folder; another name as it is."""
    folder = os.path.abspath(os.path.expanduser(model))
    short = model in MODELS or model in CLIPS or model in CAPTIONERS
    return folder if not short and os.path.isdir(folder) else model


def _done(ray: Any, job: Job, sources: Sequence[Source], workers: int | None, cpus: int) -> Any:
    """Return the data set of outcomes, which is made while it is read."""
    has = ray.cluster_resources()
    gpus = 0 if job.device == "cpu" else int(has.get("GPU", 0))
    count = workers or gpus or max(1, int(has.get("CPU", 1)) // cpus)
    blocks = max(1, -(-len(sources) // (BATCHES * job.batch)))
    rows = ray.data.from_items([asdict(source) for source in sources], override_num_blocks=blocks)
    # Fetching waits, it does not compute: it takes no core, or workers that hold all cores would starve for photos.
    fetched = rows.map(_fetch, num_cpus=0, compute=ray.data.TaskPoolStrategy(size=min(2 * count, blocks)))
    return fetched.map_batches(
        _Actor,
        fn_constructor_args=(job, None if gpus else cpus, secrets.token_hex(4)),
        batch_size=None,  # a block as it comes
        batch_format="pyarrow",
        compute=ray.data.ActorPoolStrategy(size=count),
        max_task_retries=RETRIES,
        **({"num_gpus": 1} if gpus else {"num_cpus": cpus}),
    )


def _given_up(job: Job, sources: Sequence[Source]) -> Iterator[Outcome]:
    """Yield the photos of blocks that Ray gave up, for worker after worker died: some are done all the same."""
    results = Results(Folder(job.out))
    for source in sources:
        fault = "" if results.has(source.key) else f"{source.key}: {RETRIES + 1} workers died over it or its neighbours"
        if fault:
            results.write_fault(source.key, source.place, fault)
        yield Outcome(source.key, fault)


def _fetch(row: dict[str, Any]) -> dict[str, Any]:
    try:
        return row | {"content": fetch(row["place"]), "fault": ""}
    except InputError as error:
        return row | {"content": b"", "fault": str(error)}


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")[:160]


class _Actor:
    """A worker of Ray's; the model stays loaded from block to block."""

    def __init__(self, job: Job, cores: int | None, run: str) -> None:
        import ray
        import torch

        if cores is not None:
            torch.set_num_threads(cores)
        self._worker = Worker(job)
        self._results = Results(Folder(job.out))
        self._run = run  # what an earlier run wrote down is no reason to leave a photo alone
        self._died = ray.get_runtime_context().was_current_actor_reconstructed

    def __call__(self, block: Any) -> dict[str, list[str]]:
        """Do the photos of a block that are not done yet; return key, fault and what stops the run."""
        rows = {row["key"]: row for row in block.to_pylist()}
        done = [key for key in rows if self._results.has(key)]
        outcomes = [Outcome(key) for key in done]
        photos = [(Source(key, row["place"]), _Given(row)) for key, row in rows.items() if key not in done]
        stop = ""
        try:
            outcomes += self._one_by_one(photos) if self._died else self._worker(photos)
        except PnpError as error:  # not for this photo: for all
            stop = next(name for name, kind in _STOPS.items() if isinstance(error, kind))
            outcomes.append(Outcome("", str(error)))
        except Exception:  # Ray would drop the block without a word
            stop = "bug"
            outcomes.append(Outcome("", traceback.format_exc()))
        return {
            "key": [outcome.key for outcome in outcomes],
            "fault": [outcome.fault for outcome in outcomes],
            "stop": ["" if outcome.key else stop for outcome in outcomes],
        }

    def _one_by_one(self, photos: Sequence[tuple[Source, Read]]) -> Iterator[Outcome]:
        """Do photos one of which may have killed the worker; who kills it alone is not tried again."""
        for source, read in photos:
            deadly = (
                f"{source.key}: its worker died while it was done (run {self._run}); see Ray's log, or leave it out"
            )
            if self._results.fault(source.key) == deadly:
                yield Outcome(source.key, deadly)
                continue
            self._results.write_fault(source.key, source.place, deadly)  # it stands if that is what happens
            yield from self._worker([(source, read)])
        self._died = False


class _Given:
    """Gives a file that Ray has fetched."""

    def __init__(self, row: dict[str, Any]) -> None:
        self._row = row

    def __call__(self) -> bytes:
        if self._row["fault"]:
            raise InputError(self._row["fault"])
        return bytes(self._row["content"])


_STOPS: dict[str, type[Exception]] = {
    "input": InputError,
    "config": ConfigError,
    "model": ModelError,
    "other": PnpError,
    "bug": RuntimeError,
}
"""Errors by a name that travels."""
