"""``pnp-ovss data``: the benchmarks' archives, where they come from, and into the layout that evaluate reads."""

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from tqdm import tqdm

from pnp_ovss.cli import OUTPUT, PROG, STOPPED, complain, say
from pnp_ovss.cli.flags import Dir
from pnp_ovss.data.archives import SOURCES, Archive, get, is_here
from pnp_ovss.errors import InputError

EXAMPLE = "data list"
KINDS = "|".join(SOURCES)


def command(
    action: Annotated[Literal["get", "list"], typer.Argument(metavar="get|list")],
    names: Annotated[list[str] | None, typer.Argument(metavar=f"[{KINDS}]...")] = None,
    to: Dir | None = None,
) -> int:
    """Fetch the benchmarks into the layout that evaluate reads, or list where they come from.

    get: fetches the archives from their official addresses, none of which asks for a login, checks size and checksum
    as far as they are known, and unpacks what the scoring needs. Start it again after any stop and it goes on; what is
    there is not fetched again. An archive that lies in DIR already is taken instead of a fetched one.

    list: says address, size, checksum and licence of each, and with --to whether it is in DIR.

    Args:
        action: what to do
        names: data sets; for list all of them by default
        to: folder of the data sets; several fit into one
    """
    if wrong := [name for name in names or () if name not in SOURCES]:
        raise InputError(f"no data set {wrong[0]!r}; expected {', '.join(SOURCES)}")
    if action == "list":
        for name in names or SOURCES:
            _list(name, to)
        return 0
    if not names or to is None:
        raise InputError(
            f"expected data sets and a folder: {PROG} data get voc --to DIR; they are {', '.join(SOURCES)}"
        )
    try:
        _get(names, to)
    except KeyboardInterrupt:
        complain("stopped; the same command goes on")
        raise typer.Exit(STOPPED) from None
    return 0


def _list(name: str, folder: Path | None) -> None:
    source = SOURCES[name]
    say(f"{name}: {source.title}, for {source.data_sets}; {source.page}")
    say(f"  licence: {source.licence}")
    for archive in source.archives:
        here = folder is not None and is_here(archive, folder)
        say(f"  {archive.name}: {_size(archive)}; {_digest(archive)}{'; in the folder' if here else ''}")
        for place in archive.places:
            say(f"    {place}")


def _get(names: Sequence[str], folder: Path) -> None:
    for name in names:
        _list(name, folder)
        for archive in SOURCES[name].archives:
            with _Progress(archive.name) as progress:
                new = get(archive, folder, progress)
            say(f"{archive.name}: {'unpacked' if new else 'all of it is there'}")
        say(f"{name} is in {folder}: {PROG} evaluate {SOURCES[name].data_sets.split(',')[0]} --root {folder}")


class _Progress(ExitStack):
    """A progress bar for each step of an archive."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name, self.step = name, ""

    def __call__(self, step: str, done: int, total: int) -> None:
        if step != self.step:
            self.close()
            unit: dict[str, Any] = {"unit": "B", "unit_scale": True} if step == "fetch" else {"unit": " files"}
            self.step, about = step, f"{step} {self.name}"
            self.bar = self.enter_context(tqdm(desc=about, total=total or None, disable=OUTPUT.quiet, **unit))
        self.bar.update(done - self.bar.n)


def _size(archive: Archive) -> str:
    if archive.size is None:
        return f"size not known{f' exactly: {archive.about}' if archive.about else ''}"
    return f"{archive.size / 1e9:.2f} GB ({archive.size} bytes)"


def _digest(archive: Archive) -> str:
    if not archive.digest:
        return "no checksum known: the archive's own ones alone are checked"
    return f"{archive.digest.replace(':', ' ')} by {archive.source}"
