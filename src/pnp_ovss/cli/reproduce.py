"""``pnp-ovss reproduce``: a published table once more, by one command that checks all it can before it begins."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from pnp_ovss.cli import FAILED, OUTPUT, PARTLY, align, complain, follow, say
from pnp_ovss.cli.evaluate import EvaluateFlags, finish, score
from pnp_ovss.cli.flags import Count, Dir, File, Memory, ModelFlags, Name, value
from pnp_ovss.errors import ConfigError, PnpError
from pnp_ovss.evaluation.reproduction.checks import Checks, Finding, Places, parts_of, preset_of, replies_of, troubles
from pnp_ovss.evaluation.reproduction.plan import TABLES, Cell, chosen, plan
from pnp_ovss.evaluation.reproduction.table import (
    CELLS,
    STATE,
    TOLERANCE,
    Outcome,
    outcomes,
    read_state,
    write_results,
    write_table,
)
from pnp_ovss.files import as_json, read_json, write_bytes
from pnp_ovss.lock import hold

EXAMPLE = "reproduce table3 --data DATA --rows pnp-blip-336 --columns voc,context"
FIRST = 10
"""Images of a cell by which its time is told beforehand."""
PART = 500
"""Images of a cell that a worker of Ray does at a time."""
SIGNS = {"ok": "ok", "differs": "DIFFERS", "lacks": "LACKS"}

Call = Callable[[], str]
"""Scores images of a cell; returns why that failed. It can be sent to another machine."""
Engine = Callable[[Sequence[Call]], Iterable[tuple[int, str]]]
"""Makes calls, and yields the number of each and what it returned."""


@dataclass(frozen=True)
class ReproduceFlags:
    """What of a table is run, and where.

    Args:
        data: folder that holds the data sets; COCO may be in its folder coco
        rows: only these rows, with commas
        columns: only these columns, with commas
        check: look whether data, names, weights, disk, memory and device are there, and stop
        out: results (default: reproduction/TABLE)
        replies: folder of the names per image, under the authors' file names or COLUMN.json (default: that of --data)
        weights: folder whose files and folders stand for models: blip-large-flickr/, tcl.pth, ...; else the hub
        anyway: run although something is not as published; the report says what
        limit: only the first N images of each data set
        oracle: with names from files, score the true names too: what does naming cost?
        results: also write the table into this file, between its marks, as in docs/results.md
        device: auto, cpu, cuda, cuda:1, mps, ...
        dtype: auto, float32, bfloat16, float16, or int8 for the image tower on a CPU
        batch_size: images the model sees at a time
        workers: images that are read at a time, and on a GPU refined
        memory: what a process may hold, such as 4GB (default: most of what is left)
        engine: local: this process; ray: many at a time, one per GPU, on one machine or many
        models: ray: models at a time (default: one per GPU, else per --cpus cores)
        cpus: ray: cores of a model, where there is no GPU
        cluster: ray: the cluster; local: start one on this machine (default: RAY_ADDRESS, else the one running)
    """

    data: Dir
    rows: Annotated[str, value("ROW,...")] | None = None
    columns: Annotated[str, value("COLUMN,...")] | None = None
    check: bool = False
    out: Dir | None = None
    replies: Dir | None = None
    weights: Dir | None = None
    anyway: bool = False
    limit: Count | None = None
    oracle: bool = False
    results: File | None = None
    device: Name = "auto"
    dtype: Name = "auto"
    batch_size: Count = 1
    workers: Count = 1
    memory: Memory | None = None
    engine: Literal["local", "ray"] = "local"
    models: Count | None = None
    cpus: Count = 1
    cluster: Annotated[str, value("ADDRESS")] | None = None


def command(table: Annotated[str, typer.Argument(metavar="|".join(TABLES))], flags: ReproduceFlags) -> int:
    """Reproduce a published table and compare: table3 of the PnP-OVSS poster, field or ablation.

    Checks come first: data found, whole and as published, names found, weights reachable and of the expected size,
    disk, memory, device. What is not as it should be is one line each, and nothing is run unless --anyway is given.
    Then ten images of each cell tell how long all of it will take, and it runs. The same command goes on after any
    stop.

    report.html (and .md, .json) has published scores and ours, and for each difference of more than half a point what
    to look at. Rows that nobody can run stand there with their published score.

    Args:
        table: which table
    """
    cells = chosen(plan(table), _listed(flags.rows), _listed(flags.columns))
    able = [cell for cell in cells if not cell.lacks]
    for reason in dict.fromkeys(cell.lacks for cell in cells if cell.lacks):
        say(f"not run: {', '.join(cell.name for cell in cells if cell.lacks == reason)}: {reason}")
    if not able:
        raise ConfigError("none of these cells can be run; ask for other --rows or --columns")
    out = flags.out or Path("reproduction") / table
    places = Places(flags.data, out, flags.replies, flags.weights, flags.device, flags.limit)
    checks = Checks(able, places, lambda images, total, title: follow(images, total, "image", desc=title))
    with nullcontext() if flags.check else hold(out, below=(CELLS,)):
        findings = [*_told(checks())]
        wrong = sum(finding.state != "ok" for finding in findings)
        advice = "; mend this, or run all the same with --anyway" if wrong and not flags.anyway else ""
        say(f"{len(findings)} checks, {wrong} not as they should be{advice}")
        if flags.check or (wrong and not flags.anyway):
            return FAILED if wrong else 0
        return _reproduce(table, able, checks, findings, flags)


def _listed(text: str | None) -> list[str]:
    return [name.strip() for name in text.split(",")] if text else []


def _told(findings: Iterator[Finding]) -> Iterator[Finding]:
    """Yield each finding after it was printed."""
    for finding in findings:
        tell = say if finding.state == "ok" else complain
        tell(f"{SIGNS[finding.state]}: {finding.what}: {finding.text}")
        yield finding


def _reproduce(
    table: str, cells: Sequence[Cell], checks: Checks, findings: Sequence[Finding], flags: ReproduceFlags
) -> int:
    out, differs = checks.places.out, troubles(findings, "differs")
    faults = {name: "; ".join(lines) for name, lines in troubles(findings, "lacks").items()}
    runs = [CellRun(cell, checks, flags, differs.get(cell.name, [])) for cell in cells if cell.name not in faults]
    runs = [replace(run, differs=[*run.differs, *run.left_out()]) for run in runs]
    todo = [run for run in runs if not run.state.get("done")]
    say(f"{len(runs) - len(todo)} of {len(runs)} cells are done before, {len(todo)} are to do")
    engine = _engine(flags)
    faults |= _go_through(engine, [run for run in todo if "seconds" not in run.state], "first images", first=True)
    _foretell([run for run in todo if run.cell.name not in faults], flags.models or 1)
    todo = [run for run in todo if run.cell.name not in faults and not run.state.get("done")]
    faults |= _go_through(engine, todo, "cells", first=False)
    found = outcomes(table, out, faults)
    write_table(out, table, found)
    if flags.results:
        write_results(flags.results, table, found)
    return _conclude(found, faults, out)


@dataclass(frozen=True)
class CellRun:
    """A cell that is to be run."""

    cell: Cell
    checks: Checks
    flags: ReproduceFlags
    differs: Sequence[str]
    """In what it will not be the published run."""

    @property
    def folder(self) -> Path:
        """Where its results go."""
        return self.checks.places.out / CELLS / self.cell.name

    @property
    def images(self) -> int:
        """How many are to be scored."""
        return self.checks.images(self.cell)

    def left_out(self) -> list[str]:
        """Return a line for images that are not asked for."""
        total = len(self.checks.datasets[self.cell.truth][0].samples)
        return [f"only the first {self.images} of {total} images"] if self.images < total else []

    @property
    def state(self) -> dict[str, Any]:
        """What is known of it, if it was asked for in the same way before and its results are there."""
        state = read_state(self.folder)
        lost = state.get("done") and not self._is_whole()
        return {} if lost or state.get("asked") != self._asked else state

    def _is_whole(self) -> bool:
        """Return whether the report is there, a record of each image, and a label map of each that was scored."""
        reports = [self.folder / f"report.{end}" for end in ("json", "html")]
        if not all(path.is_file() for path in reports):
            return False
        records, maps = (sum(1 for _ in self.folder.glob(f"images/*.{end}")) for end in ("json", "png"))
        return records >= self.images and maps >= int(read_json(reports[0])["score"]["images"])

    def calls(self, first: bool) -> list[Call]:
        """Return the calls that do the first images, or all of them: one here, for Ray one for each part."""
        parts = -(-self.images // PART) if self.flags.engine == "ray" and not first else 1
        shards = [(number, parts) for number in range(1, parts + 1)] if parts > 1 else [None]
        limit = min(FIRST, self.images) if first else self.flags.limit
        asked = [replace(self.how, shard=shard, limit=limit) for shard in shards]
        return [partial(_score, self.cell.dataset, self.folder, one, self.model, first) for one in asked]

    def conclude(self, first: bool) -> None:
        """Note what is known after the first images, or after all: their parts become one report."""
        if len(self.calls(first)) > 1:
            finish([self.folder], self.folder, self.how, self.checks.datasets[self.cell.truth][0])
        state = self.state | {"asked": self._asked, "differs": self.differs}
        if first:
            report = read_json(self.folder / "report.json")
            state["seconds"] = sum(report["seconds"].values()) / report["score"]["images"]
        state["done"] = not first or self.images <= FIRST
        write_bytes(self.folder / STATE, as_json(state))

    @property
    def _asked(self) -> dict[str, Any]:
        return self.checks.asked(self.cell) | {"oracle": self.how.oracle, "dtype": self.flags.dtype}

    @property
    def how(self) -> EvaluateFlags:
        """How it is scored."""
        cell, flags = self.cell, self.flags
        given = cell.row.names == "given"
        return EvaluateFlags(
            root=self.checks.datasets[cell.truth][1],
            names="given" if given else str(replies_of(cell, self.checks.places)),
            oracle=flags.oracle and not given,
            vocabulary=cell.vocabulary,
            protocol="authors" if cell.row.protocol == "authors" else "standard",
            limit=flags.limit,
            batch_size=flags.batch_size,
            workers=flags.workers,
            memory=flags.memory,
        )

    @property
    def model(self) -> ModelFlags:
        """What is scored."""
        row, where = self.cell.row, (self.flags.device, self.flags.dtype)
        places = {part.setting: part.place for part in parts_of(self.cell, self.checks.places)}
        model = places.pop("model")
        return ModelFlags(row.method, model, None, preset_of(self.cell), *where, settings=dict(row.settings) | places)


def _score(what: str, out: Path, flags: EvaluateFlags, model: ModelFlags, quiet: bool) -> str:
    before, OUTPUT.quiet = OUTPUT.quiet, OUTPUT.quiet or quiet
    try:
        score(what, out, flags, model)
    except PnpError as error:  # other cells may be well
        return str(error)
    finally:
        OUTPUT.quiet = before
    return ""


def _engine(flags: ReproduceFlags) -> Engine:
    if flags.engine == "local":
        return lambda calls: ((number, call()) for number, call in enumerate(calls))
    from pnp_ovss.runs.cluster import call_on_ray

    return partial(call_on_ray, workers=flags.models, cpus=flags.cpus, address=flags.cluster, device=flags.device)


def _go_through(engine: Engine, runs: Sequence[CellRun], title: str, first: bool) -> dict[str, str]:
    """Score the images of cells; return why some failed."""
    calls = [(run, call) for run in runs for call in run.calls(first)]
    left, faults = Counter(run.cell.name for run, _ in calls), dict[str, str]()
    for number, fault in follow(engine([call for _, call in calls]), len(calls), "part", desc=title) if calls else ():
        run = calls[number][0]
        left[run.cell.name] -= 1
        if fault:
            faults[run.cell.name] = fault
            complain(f"{run.cell.name}: {fault}")
        elif not left[run.cell.name] and run.cell.name not in faults:
            run.conclude(first)
    return faults


def _foretell(runs: Sequence[CellRun], models: int) -> None:
    """Say how long the cells will take, by their first images."""
    if not runs:
        return
    rows, total = [("cell", "images", "s per image", "minutes")], 0.0
    for run in runs:
        seconds = run.state["seconds"]
        total += seconds * run.images / 60
        rows.append((run.cell.name, str(run.images), f"{seconds:.2f}", f"{seconds * run.images / 60:.1f}"))
    for line in align(rows):
        say(line)
    say(f"about {total / models:.0f} minutes with {models} model{'s' * (models > 1)} at a time")


def _conclude(found: Sequence[Outcome], faults: Mapping[str, str], out: Path) -> int:
    rows = [("cell", "published", "ours", "difference", "")]
    for one in found:
        if one.ours is not None:
            published = "?" if one.cell.published is None else f"{one.cell.published:.1f}"
            difference = "" if one.difference is None else f"{one.difference:+.1f}"
            mark = f"more than {TOLERANCE}" if one.is_marked else ""
            rows.append((one.cell.name, published, f"{one.ours:.1f}", difference, mark))
    for line in align(rows):
        say(line)
    say(f"report: {out / 'report.html'} (and .md, .json)")
    if faults:
        complain(f"{len(faults)} cells could not be run; {out / 'report.html'} says why, the same command tries again")
    return PARTLY if faults else 0
