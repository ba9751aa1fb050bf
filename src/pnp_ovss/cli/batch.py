"""``pnp-ovss batch``: as many photos as there are, on one machine or many; a stopped run goes on."""

from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import typer

from pnp_ovss.cli.classes import CLASSES, ClassFlags
from pnp_ovss.cli.command import PARTLY, STOPPED, Progress, complain
from pnp_ovss.cli.flags import MODEL, ModelFlags, count, expand
from pnp_ovss.cli.name import NAMER, NamerFlags
from pnp_ovss.files import Folder, check_folder
from pnp_ovss.runs.batch import Engine, Job, Run, open_run, work_here
from pnp_ovss.runs.photos import find_photos

EXAMPLE = 'batch demo --model mini-blip --classes "rocket, cactus"  (after pnp-ovss demo)'
MOST_REPORTED = 20
"""Faults that are printed while a run goes on; all are in its folder."""


@expand
def command(
    photos: Annotated[
        list[str],
        typer.Argument(
            metavar="PHOTOS...",
            help="folder (with all folders below), file or glob, here or behind a URL such as s3://bucket/photos",
        ),
    ],
    classes: ClassFlags = CLASSES,
    out: Annotated[str, typer.Option(metavar="PLACE", help="folder or URL")] = "results",
    format: Annotated[
        Literal["files", "parquet"],
        typer.Option(help="files: a label map and a record per photo; parquet: the same packed"),
    ] = "files",
    rows: Annotated[int, count("parquet: photos per file, about")] = 256,
    batch_size: Annotated[int, count("photos the model sees at a time")] = 1,
    engine: Annotated[Literal["local", "ray"], typer.Option(help="local: this process; ray: many workers")] = "local",
    workers: Annotated[int | None, count("ray: models at a time (default: one per GPU, else per --cpus cores)")] = None,
    cpus: Annotated[int, count("ray: cores of a worker, where there is no GPU")] = 1,
    cluster: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS",
            help="ray: the cluster; local: start one on this machine (default: RAY_ADDRESS, else the one running, else "
            "local)",
        ),
    ] = None,
    namer: NamerFlags = NAMER,
    model: ModelFlags = MODEL,
) -> int:
    """Segment any number of photos into the classes you name, on one machine or many.

    Results go by key, a photo's path below PHOTOS without suffix: images/<key>.png, a palette label map whose values
    index the classes, and images/<key>.json, the record. With --format parquet both become a row of shards/*.parquet.
    For what cannot be done, faults/<key>.json says why, and the run goes on (exit code 1).

    The same command goes on with a run that was stopped, whatever stopped it; one with other settings is refused.
    Memory does not grow with the number of photos. docs/scale.md has photos per hour, cost, and runs on a cluster.
    """
    # All that can be wrong without a model is found before one is loaded or even fetched.
    source = classes.source(namer, model)
    chosen = _engine(engine, workers, cpus, cluster)
    folder = Folder(out)
    if folder.is_local:
        check_folder(Path(folder.root))
    places = find_photos(photos, folder)
    job = Job(out=out, classes=source, batch=batch_size, **asdict(replace(model, model=model.checkpoint)))
    return _follow(open_run(job, format, rows, places), chosen, out)


def _engine(engine: str, workers: int | None, cpus: int, cluster: str | None) -> Engine:
    if engine == "local":
        return work_here
    from pnp_ovss.runs.cluster import load_ray, work_on_ray

    load_ray()
    return partial(work_on_ray, workers=workers, cpus=cpus, address=cluster)


def _follow(run: Run, engine: Engine, out: str) -> int:
    """Go through the run under a progress bar; return the exit code."""
    done, failed = run.total - len(run.todo), 0
    try:
        with Progress(run.total, "photo", done) as progress:
            for one in run(engine):
                failed += bool(one.fault)
                done += not one.fault
                if one.fault and failed <= MOST_REPORTED:
                    progress.complain(one.fault)
                progress.advance()
    except KeyboardInterrupt:
        complain(f"stopped; {done} of {run.total} photos are done; the same command goes on")
        return STOPPED
    print(f"{done} of {run.total} photos are done, in {out}")
    if failed:
        why = f"faults/ in {out} says why, and a next run tries again"
        complain(f"{failed} of {run.total} photos could not be done; {why}")
    return PARTLY if failed else 0
