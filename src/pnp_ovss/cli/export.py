"""``pnp-ovss export``: results become what annotation and training tools read."""

from pathlib import Path
from typing import Annotated

import typer

from pnp_ovss.cli import say
from pnp_ovss.cli.flags import Dir, value
from pnp_ovss.data.vocabulary import BENCHMARKS, load_vocabulary
from pnp_ovss.export import FORMATS, export
from pnp_ovss.files import fetch_from
from pnp_ovss.runs.record import load_results

EXAMPLE = "export results --to coco  (after pnp-ovss segment)"


def command(
    results: Annotated[Path, typer.Argument(metavar="RESULTS")],
    to: Annotated[str, value("|".join(FORMATS))],
    out: Dir | None = None,
    order: Annotated[str, value("|".join((*BENCHMARKS, "FILE")))] | None = None,
    photos: Annotated[list[str] | None, value("PLACE")] = None,
) -> int:
    """Write what segment or batch found in a format that annotation and training tools read.

    Classes are numbered the same in all files, in the order in which they first appear or in that of --order. The
    background is no class. docs/formats.md says for each format what its files are, how it counts, and how to load it.

    All files are written or none; a folder that is there already is never touched.

    Args:
        results: folder that segment or batch wrote
        to: the format
        out: a new folder (default: export/FORMAT)
        order: the classes in the order that numbers them; a file has one name a line (default: as they first appear)
        photos: copy the photos that lie in this folder or URL to where the format's layout has them; several times for
            several folders
    """
    names = load_vocabulary(order).classes if order else ()
    found, out = load_results(results), out or Path("export") / to
    written = export(found, to, out, names, fetch_from(photos) if photos else None)
    listed = ", ".join(written) if len(written) <= 3 else f"{len(written)} files"
    say(f"{len(found)} photo{'s' * (len(found) > 1)} in {out}: {listed}")
    return 0
