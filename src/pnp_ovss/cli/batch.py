"""``pnp-ovss batch``: as many photos as there are, on one machine or many; a stopped run goes on."""

import argparse
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from pnp_ovss.cli.classes import add_classes, named
from pnp_ovss.cli.command import PARTLY, PROG, STOPPED, Command, complain, positive
from pnp_ovss.cli.name import add_namer, check_namer, load_vocabulary, namer_options
from pnp_ovss.cli.options import add_model, add_settings, settings

if TYPE_CHECKING:
    from pnp_ovss.runs.batch import ClassSource, Engine, Run

MOST_TOLD = 20
"""Faults that are told while a run goes on; all are in its folder."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of ``batch``."""
    parser.add_argument(
        "photos",
        nargs="+",
        metavar="PHOTOS",
        help="folder (with all folders below), file or glob, here or behind an address such as s3://bucket/photos",
    )
    add_classes(
        parser,
        also="; or a .json file with the names of each photo by its path below PHOTOS without suffix: "
        '{"2024/dog": ["dog", "sofa"]}',
    )
    parser.add_argument("--out", default="results", metavar="PLACE", help="folder or address (default: results)")
    parser.add_argument(
        "--format",
        default="files",
        choices=("files", "parquet"),
        help="files: a label map and a record per photo; parquet: the same packed (default: files)",
    )
    parser.add_argument(
        "--rows", type=positive, default=256, metavar="N", help="parquet: photos per file, about (default: 256)"
    )
    parser.add_argument(
        "--batch-size", type=positive, default=1, metavar="N", help="photos the model sees at a time (default: 1)"
    )
    group = parser.add_argument_group("many processes or machines")
    group.add_argument(
        "--engine", default="local", choices=("local", "ray"), help="ray: many workers (default: local, this process)"
    )
    group.add_argument(
        "--workers", type=positive, metavar="N", help="models at a time (default: one per GPU, else per --cpus cores)"
    )
    group.add_argument(
        "--cpus", type=positive, default=1, metavar="N", help="cores of a worker, where there is no GPU (default: 1)"
    )
    group.add_argument(
        "--cluster",
        metavar="ADDRESS",
        help="Ray cluster; local: start one on this machine (default: RAY_ADDRESS, else the one running, else local)",
    )
    add_namer(parser, "itm")
    add_model(parser)
    add_settings(parser)


def run(arguments: argparse.Namespace) -> int:
    """Segment the photos; return the exit code."""
    from pnp_ovss.files import Folder, check_folder
    from pnp_ovss.runs.batch import Job, open_run
    from pnp_ovss.runs.photos import find_photos

    # All that can be wrong without a model is found before one is loaded or even fetched.
    classes = _classes(arguments)
    engine = _engine(arguments)
    folder = Folder(arguments.out)
    if folder.is_local:
        check_folder(Path(folder.root))
    places = find_photos(arguments.photos, folder)
    job = Job(
        out=arguments.out,
        classes=classes,
        model=arguments.model,
        preset=arguments.preset,
        device=arguments.device,
        dtype=arguments.dtype,
        revision=arguments.revision,
        settings=settings(arguments),
        batch=arguments.batch_size,
    )
    return _follow(open_run(job, arguments.format, arguments.rows, places), engine, arguments.out)


def _follow(run: "Run", engine: "Engine", out: str) -> int:
    """Go through the run under a progress bar."""
    from tqdm import tqdm

    total, done, failed = run.total, run.total - len(run.todo), 0
    bar = tqdm(total=total, initial=done, unit="photo", file=sys.stderr)
    try:
        for outcome in run(engine):
            if outcome.fault:
                failed += 1
                if failed <= MOST_TOLD:
                    with bar.external_write_mode(file=sys.stderr):
                        complain(outcome.fault)
            else:
                done += 1
            bar.update()
    except KeyboardInterrupt:
        bar.close()
        complain(f"stopped; {done} of {total} photos are done; the same command goes on")
        return STOPPED
    finally:
        bar.close()
    print(f"{done} of {total} photos are done, in {out}")
    if failed:
        complain(f"{failed} of {total} photos could not be done; faults/ in {out} says why, and a next run tries again")
    return PARTLY if failed else 0


def _classes(arguments: argparse.Namespace) -> "ClassSource":
    from dataclasses import replace

    from pnp_ovss.naming import load_namer
    from pnp_ovss.runs.batch import ClassSource

    file = arguments.classes_file
    if file is not None and file.suffix == ".json":
        options = replace(namer_options(arguments), source=file)
        load_namer("cached", options)  # tells now what is wrong with the file
        return ClassSource(namer="cached", options=options, candidates=load_vocabulary(arguments), keep=arguments.keep)
    classes = named(arguments)
    if classes is None:
        check_namer(arguments)
        return ClassSource(
            namer=arguments.namer,
            options=namer_options(arguments),
            candidates=load_vocabulary(arguments),
            keep=arguments.keep,
            calls=arguments.calls if arguments.namer == "openai" else 1,
        )
    return ClassSource(classes)


def _engine(arguments: argparse.Namespace) -> "Engine":
    from pnp_ovss.runs.batch import work_here

    if arguments.engine == "local":
        return work_here
    from pnp_ovss.runs.cluster import load_ray, work_on_ray

    load_ray()
    return partial(work_on_ray, workers=arguments.workers, cpus=arguments.cpus, address=arguments.cluster)


COMMAND = Command(
    usage="PHOTOS... --classes NAMES [options]",
    summary="segment any number of photos; a stopped run goes on",
    description="""Segment any number of photos into the classes you name, on one machine or many.

Results go by key, a photo's path below PHOTOS without suffix: images/<key>.png, a palette label map whose values index
the classes, and images/<key>.json, the record, with each class's region as COCO run lengths. With --format parquet both
become a row of shards/*.parquet. What cannot be done is told in faults/<key>.json, and the run goes on (exit code 1).

The same command goes on with a run that was stopped, whatever stopped it; one with other settings is refused. Memory
does not grow with the number of photos. docs/scale.md has photos per hour, cost, and runs on a cluster.""",
    example=f'{PROG} batch demo --model mini-blip --classes "rocket, cactus"  (after {PROG} demo)',
    add_arguments=add_arguments,
    run=run,
)
