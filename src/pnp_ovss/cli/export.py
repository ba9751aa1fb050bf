"""``pnp-ovss export``: results become what annotation and training tools read."""

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from pnp_ovss.cli import say
from pnp_ovss.cli.flags import Dir, Share, number, value
from pnp_ovss.data.vocabulary import BENCHMARKS, load_vocabulary
from pnp_ovss.errors import InputError
from pnp_ovss.export import FORMATS, cleaned, export, with_subsets
from pnp_ovss.files import fetch_from
from pnp_ovss.refine.tidy import LEAST, Tidy
from pnp_ovss.runs.record import load_results

EXAMPLE = "export results --to coco  (after pnp-ovss segment)"


def command(
    results: Annotated[Path, typer.Argument(metavar="RESULTS")],
    to: Annotated[str, value("|".join(FORMATS))],
    out: Dir | None = None,
    order: Annotated[str, value("|".join((*BENCHMARKS, "FILE")))] | None = None,
    photos: Annotated[list[str] | None, value("PLACE")] = None,
    min_area: Annotated[Any, value("N", parser=number)] = None,
    fill_holes: bool = False,
    largest_part: bool = False,
    instances: Annotated[bool, typer.Option("--instances", "--split")] = False,
    val: Share | None = None,
) -> int:
    """Write what segment or batch found in a format that annotation and training tools read.

    Classes are numbered the same in all files, in the order in which they first appear or in that of --order. The
    background is no class. docs/formats.md says for each format what its files are, how it counts, and how to load it.

    Where people see each region as an object (all formats but voc and ade), parts below 0.05 % of the photo go to what
    surrounds them, and the output says how many; --min-area 0 keeps every pixel as it was segmented.

    All files are written or none; a folder that is there already is never touched.

    Args:
        results: folder that segment or batch wrote
        to: the format
        out: a new folder (default: export/FORMAT)
        order: the classes in the order that numbers them; a file has one name a line (default: as they first appear)
        photos: copy the photos that lie in this folder or URL to where the format's layout has them; several times for
            several folders
        min_area: smallest part that stays: 50 is pixels, 0.001 a share of the photo, 0 keeps all (default: 0.0005; for
            voc and ade 0)
        fill_holes: background within a class becomes that class, however large it is
        largest_part: of each class in a photo the largest part alone stays
        instances: each object is a region with a box of its own: the objects that segment or batch wrote with
            --instances, else the connected parts of each class
        val: yolo, coco: this share of the photos is for validation, the others for training; which ones depends on
            their names alone
    """
    if instances and to in FORMATS and not FORMATS[to].objects:
        known = ", ".join(name for name, form in FORMATS.items() if form.objects)
        raise InputError(f"{to} has no objects; take {known}, or leave --instances out")
    names = load_vocabulary(order).classes if order else ()
    found, out, parts = load_results(results), out or Path("export") / to, Counter[str]()
    if min_area is None:
        min_area = LEAST if to in FORMATS and FORMATS[to].objects else 0
    if min_area or fill_holes or largest_part:
        tidy = Tidy(min_area, fill_holes, largest_part)
        found = [cleaned(one, tidy, parts) for one in found]
    found = [replace(one, instances=instances) for one in found]
    found = with_subsets(found, val) if val else found
    written = export(found, to, out, names, fetch_from(photos) if photos else None)
    listed = ", ".join(written) if len(written) <= 3 else f"{len(written)} files"
    say(f"{len(found)} photo{'s' * (len(found) > 1)} in {out}: {listed}")
    if parts["before"] != parts["after"]:
        say(f"clean regions: {parts['before']} parts became {parts['after']}; --min-area 0 keeps every pixel")
    return 0
