"""Many workers, by Ray Data: each holds a model, reads its photos and writes their results.

Ray starts a worker anew that died and gives it the same batches again; photos whose record is there are left alone.
Among the others a photo that killed its worker is found out, and left alone as well.
"""

import logging
import os
import pickle
import secrets
import traceback
from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from pnp_ovss.cores import usable_cores
from pnp_ovss.errors import PnpError, import_extra
from pnp_ovss.files import Folder, reachable
from pnp_ovss.redaction import keep_url
from pnp_ovss.runs.batch import Done, Job, Places, Worker, in_batches
from pnp_ovss.runs.record import Results

BATCHES = 8
"""Batches of a block, the unit that Ray hands out and repeats: enough for all stages to overlap."""

RETRIES = 3
"""Of a block whose worker died."""


def work_on_ray(
    job: Job, todo: Places, places: Places, workers: int | None = None, cpus: int = 1, address: str | None = None
) -> Iterator[Done]:
    """Do the first photos, of the second ones, on a Ray cluster; yield each as soon as Ray says that it is done.

    ``workers``: how many models; None: one per GPU, or per ``cpus`` cores where there is no GPU. ``address``: as
    ``ray.init`` takes it; "local" starts a cluster of this machine, which ends with the run. Photos and results must be
    within reach of every machine, by the same path or URL.

    Raises: ConfigError if Ray is missing; InputError if it cannot be reached; PnpError as ``Worker`` does.
    """
    folder = Folder(job.out)
    job = replace(job, out=folder.root) if folder.is_local else job
    left = dict(todo)
    with _connected(workers, cpus, address) as ray:
        for row in _blocks(ray, job, todo, places, workers, cpus).iter_rows():
            if row["stop"]:
                raise pickle.loads(row["stop"])
            del left[row["key"]]
            yield Done(row["key"], row["fault"], pickle.loads(row["entry"]))
        yield from _given_up(job, left)


def call_on_ray(
    calls: Sequence[Callable[[], Any]],
    workers: int | None = None,
    cpus: int = 1,
    address: str | None = None,
    device: str = "auto",
) -> Iterator[tuple[int, Any]]:
    """Yield the number of each call and what it returned, as soon as it has ended; ``workers`` run at a time.

    Each has a GPU to itself where there is one and ``device`` is not "cpu", else ``cpus`` cores. One whose process or
    machine died is made again.

    Raises: ConfigError if Ray is missing; InputError if it cannot be reached; what a call raises.
    """
    with _connected(workers, cpus, address) as ray:
        gpus = _gpus(ray, device)
        each = {"num_gpus": 1} if gpus else {"num_cpus": cpus}
        task = ray.remote(_call).options(max_retries=RETRIES, **each)
        waiting, running = deque(enumerate(calls)), dict[Any, int]()
        while waiting or running:
            while waiting and len(running) < (workers or len(calls)):
                number, call = waiting.popleft()
                running[task.remote(call, os.getcwd(), None if gpus else cpus)] = number
            [done], _ = ray.wait(list(running))
            yield running.pop(done), ray.get(done)


def _call(call: Callable[[], Any], working_folder: str, cores: int | None) -> Any:
    _settle(working_folder, cores)
    return call()


@contextmanager
def _connected(workers: int | None, cpus: int, address: str | None) -> Iterator[Any]:
    """Give Ray, connected to a cluster, or to one of this machine's own, which ends with the block."""
    keep_url(address)
    ray = load_ray()
    # A cluster of this machine's own has a place for each worker that was asked for, however few cores there are.
    cores = max(usable_cores(), (workers or 1) * cpus) if address == "local" else None
    quiet = {"include_dashboard": False, "logging_level": logging.ERROR, "log_to_driver": False}
    try:
        with reachable(f"the Ray cluster {address or 'here'}", advice="check --cluster"):
            ray.init(address=address, num_cpus=cores, **quiet)
        yield ray
    finally:
        ray.shutdown()


def load_ray() -> Any:
    """Return Ray, set to be quiet and to send nothing home.

    Raises: ConfigError if it is not installed.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # Ray reads it on import
    ray = import_extra("ray", "batch", "--engine ray")
    data = import_extra("ray.data", "batch", "--engine ray")
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    context = data.DataContext.get_current()
    context.enable_progress_bars = context.print_on_execution_start = False
    context.max_errored_blocks = -1  # however many: the run goes on, and reports in the end what was left
    return ray


def _blocks(ray: Any, job: Job, todo: Places, places: Places, workers: int | None, cpus: int) -> Any:
    """Return the data set of photos that are done, which is made while it is read."""
    gpus = _gpus(ray, job.device)
    workers = workers or gpus or max(1, int(ray.cluster_resources().get("CPU", 1)) // cpus)
    job = job.sized(gpus > 0)
    batches = in_batches(places, todo, job.batch or 1)
    rows = [
        {"keys": [*some], "places": [*some.values()], "todo": [key for key in some if key in todo]} for some in batches
    ]
    blocks = max(1, -(-len(rows) // BATCHES))
    return ray.data.from_items(rows, override_num_blocks=blocks).map_batches(
        _Actor,
        fn_constructor_args=(job, os.getcwd(), None if gpus else cpus, secrets.token_hex(4)),
        batch_size=None,  # a block as it comes
        batch_format="pyarrow",
        compute=ray.data.ActorPoolStrategy(size=workers),
        max_task_retries=RETRIES,
        **({"num_gpus": 1} if gpus else {"num_cpus": cpus}),
    )


def _gpus(ray: Any, device: str) -> int:
    """Return how many GPUs of the cluster are for work on this device."""
    return 0 if device == "cpu" else int(ray.cluster_resources().get("GPU", 0))


def _settle(working_folder: str, cores: int | None) -> None:
    """Work where the run was started, on so many cores."""
    import torch

    if os.path.isdir(working_folder):  # relative paths of models and files count from there
        os.chdir(working_folder)
    if cores is not None:
        torch.set_num_threads(cores)


class _Actor:
    """A worker of Ray's; the model stays loaded from block to block."""

    def __init__(self, job: Job, working_folder: str, cores: int | None, run: str) -> None:
        import ray

        _settle(working_folder, cores)
        self._worker = Worker(job)
        self._run = run  # a fault of an earlier run is no reason to leave a photo alone
        self._died = ray.get_runtime_context().was_current_actor_reconstructed

    def __call__(self, block: Any) -> dict[str, list[Any]]:
        """Do the photos of a block that are to be done; return key, fault, entry and what stops the run, pickled."""
        rows = block.to_pylist()
        places = {key: place for row in rows for key, place in zip(row["keys"], row["places"], strict=True)}
        todo = [key for row in rows for key in row["todo"]]
        try:
            done = [*(self._again(places, todo) if self._died else self._worker(places, todo=todo))]
        except Exception as error:  # Ray would drop the block without a word
            stop = error if isinstance(error, PnpError) else RuntimeError(traceback.format_exc())
            return {"key": [""], "fault": [""], "entry": [b""], "stop": [pickle.dumps(stop)]}
        self._died = False
        keys, faults = [one.key for one in done], [one.fault for one in done]
        entries = [pickle.dumps(one.entry) for one in done]
        return {"key": keys, "fault": faults, "entry": entries, "stop": [b""] * len(done)}

    def _again(self, places: Places, todo: Collection[str]) -> Iterator[Done]:
        """Do photos one of which may have killed the worker; one that kills it alone is not tried again."""
        results, job = self._worker.results, self._worker.job
        there, left = results.written(), set[str]()
        for key in todo:
            deadly = f"{key}: its worker died while it was done (run {self._run}); see Ray's log, or leave it out"
            if key in there:
                yield Done(key)
            elif results.fault(key) == deadly:
                places[key] = ""
                yield Done(key, deadly)
            else:
                results.write_fault(key, places[key], deadly)  # it stands if that is what happens
                if job.is_cut:
                    self._worker.try_out(key, places[key])
                    results.forget_fault(key)
                    left.add(key)
                else:
                    yield from self._worker({key: places[key]})
        yield from self._worker(places, todo=left)


def _given_up(job: Job, places: Places) -> Iterator[Done]:
    """Yield the photos of blocks that Ray gave up, for worker after worker died: some are done all the same."""
    results = Results(Folder(job.out))
    there = results.written() if places else set()
    for key, place in places.items():
        fault = "" if key in there else f"{key}: {RETRIES + 1} workers died over it or its neighbours"
        if fault:
            results.write_fault(key, place, fault)
        yield Done(key, fault)
