"""``pnp-ovss export``: results become what annotation and training tools read."""

import argparse
import os
from pathlib import Path

from pnp_ovss.cli.command import PROG, Command

FEW = 3
"""Files that are told by name."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of ``export``."""
    parser.add_argument("results", type=Path, metavar="RESULTS", help="folder that segment or batch wrote")
    parser.add_argument(
        "--to", required=True, metavar="FORMAT", help="coco, yolo, voc, ade, label-studio, cvat or supervision"
    )
    parser.add_argument("--out", type=Path, metavar="DIR", help="a new folder (default: export/FORMAT)")
    parser.add_argument(
        "--order",
        metavar="LIST",
        help="the classes in the order that numbers them: a file with one name a line, or voc, context, coco-objects, "
        "coco-stuff, ade20k (default: as they first appear)",
    )
    parser.add_argument("--photos", action="store_true", help="copy the photos to where the format's layout has them")


def run(arguments: argparse.Namespace) -> int:
    """Export the results; return the exit code."""
    from pnp_ovss.export import export
    from pnp_ovss.runs.photos import fetch
    from pnp_ovss.runs.record import load_results

    order = _order(arguments.order) if arguments.order else ()
    results = load_results(arguments.results)
    out = arguments.out or Path("export") / arguments.to
    written = export(results, arguments.to, out, order, fetch if arguments.photos else None)
    listed = ", ".join(written) if len(written) <= FEW else f"{len(written)} files"
    print(f"{len(results)} photo{'s' * (len(results) > 1)} in {out}: {listed}")
    return 0


def _order(chosen: str) -> tuple[str, ...]:
    from pnp_ovss.data.vocabulary import CLASSES, class_names, read_lines
    from pnp_ovss.errors import InputError

    names = [path.stem for path in CLASSES.glob("*.txt") if "." not in path.stem]
    if chosen in names:
        return class_names(chosen)
    if not os.path.isfile(chosen):
        raise InputError(f"there is no list of classes {chosen!r}; give a file, or one of {', '.join(sorted(names))}")
    order = tuple(read_lines(Path(chosen)))
    double = next((name for index, name in enumerate(order) if name in order[:index]), None)
    if double or not order:
        raise InputError(f"{chosen} lists {f'{double!r} twice' if double else 'no class'}; each class once is wanted")
    return order


COMMAND = Command(
    usage="RESULTS --to FORMAT [options]",
    summary="write results as COCO, YOLO, VOC, ADE, Label Studio, CVAT or supervision files",
    description="""Write what segment or batch found in a format that annotation and training tools read.

Classes are numbered the same in all files, in the order in which they first appear or in that of --order. The
background is no class. docs/formats.md says for each format what its files are, how it counts, and how to load it.

All files are written or none; a folder that is there already is never touched.""",
    example=f"{PROG} export results --to coco  (after {PROG} segment)",
    add_arguments=add_arguments,
    run=run,
)
