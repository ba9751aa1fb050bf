"""``pnp-ovss batch``: as many photos as there are, on one machine or many; a stopped run goes on."""

from dataclasses import asdict, replace
from functools import partial
from typing import Annotated, Literal

import typer

from pnp_ovss.cli import PARTLY, complain, go_through, reduced, report, say, say_anew
from pnp_ovss.cli.flags import ClassFlags, Count, Memory, ModelFlags, value
from pnp_ovss.files import Folder
from pnp_ovss.lock import hold
from pnp_ovss.runs.batch import Done, Engine, Job, find_photos, open_run, work_here
from pnp_ovss.runs.record import FOLDERS

EXAMPLE = 'batch demo --model mini-blip --classes "rocket, cactus"  (after pnp-ovss demo)'


def command(
    photos: Annotated[list[str], typer.Argument(metavar="PHOTOS...")],
    classes: ClassFlags,
    model: ModelFlags,
    out: Annotated[str, value("PLACE")] = "results",
    format: Literal["files", "parquet"] = "files",
    rows: Count = 256,
    batch_size: Count | None = None,
    overlays: bool = False,
    instances: bool = False,
    memory: Memory | None = None,
    engine: Literal["local", "ray"] = "local",
    workers: Count | None = None,
    cpus: Count = 1,
    cluster: Annotated[str, value("ADDRESS")] | None = None,
) -> int:
    """Segment any number of photos into the classes you name, on one machine or many.

    Results go by key, a photo's path below PHOTOS without suffix: images/<key>.png, a palette label map, 0 the
    background and 1, 2, ... the classes, and images/<key>.json, the record. With --format parquet both become a row of
    shards/*.parquet.
    For what cannot be done, faults/<key>.json says why, and the run goes on (exit code 1).

    The same command goes on with a run that was stopped, whatever stopped it, and does photos anew whose files changed;
    one with other settings is refused.
    Memory does not grow with the number of photos. docs/scale.md has photos per hour, cost, and runs on a cluster.

    Args:
        photos: folder (with all folders below), file or glob, here or behind a URL such as s3://bucket/photos
        out: folder or URL
        format: files: a label map and a record per photo; parquet: the same packed
        rows: parquet: photos per file, about
        batch_size: photos the model sees at a time (default: 4 on a CPU, 16 on a GPU; 1 where photos have names of
            their own)
        overlays: write overlays/<key>.png too, the photo under its classes' colours with a legend
        instances: each object, not each class, has a region in the record, and an outline on the overlay
        memory: what a process may hold, such as 4GB (default: most of what the machine or its container has left); a
            photo that needs more is refined at fewer pixels
        engine: local: this process; ray: many workers
        workers: ray: models at a time (default: one per GPU, else per --cpus cores)
        cpus: ray: cores of a worker, where there is no GPU
        cluster: ray: the cluster; local: start one on this machine (default: RAY_ADDRESS, else the one running, else
            local)
    """
    # All that can be wrong without a model is found before one is loaded or even fetched.
    source, folder = classes.source(model), Folder(out)
    work: Engine = work_here
    if engine == "ray":
        from pnp_ovss.runs.cluster import load_ray, work_on_ray

        load_ray()
        source.palette.grows = False  # no worker knows which classes the others met
        work = partial(work_on_ray, workers=workers, cpus=cpus, address=cluster)
    sources = find_photos(photos, folder)
    how = asdict(replace(model, model=model.checkpoint))
    job = Job(out=out, classes=source, batch=batch_size, overlays=overlays, memory=memory, instances=instances, **how)
    with hold(out, below=FOLDERS):
        run = open_run(job, format, rows, sources)
        say_anew(len(run.changed), "photo")
        say_anew(len(run.damaged), "photo", "had a damaged record")
        faults, before = (_fault(one) for one in run(work)), len(run.places) - len(run.todo)
        done, failed = go_through(faults, len(run.places), "; the same command goes on", before)
    say(f"{done} of {len(run.places)} photos are done, in {out}")
    if failed:
        why = f"faults/ in {out} says why, and a next run tries again"
        complain(f"{failed} of {len(run.places)} photos could not be done; {why}")
    return PARTLY if failed else 0


def _fault(one: Done) -> str:
    report("", key=one.key, fault=one.fault)
    if one.reduced:
        say(f"{one.key}: {reduced(one.reduced)}")
    return one.fault
