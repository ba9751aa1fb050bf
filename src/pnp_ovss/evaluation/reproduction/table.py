"""Ours beside what was published: a table, what to look at where they differ, and the page that says all of it."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pnp_ovss._version import VERSION
from pnp_ovss.errors import InputError
from pnp_ovss.evaluation.metrics import PROTOCOLS
from pnp_ovss.evaluation.report import templates
from pnp_ovss.evaluation.reproduction.plan import FOLDER, TABLES, Cell, columns_of, plan
from pnp_ovss.files import as_json, read_json, read_text, write_bytes, write_text

TOLERANCE = 0.5
"""Points of mIoU by which ours may differ from what was published."""
CELLS = "cells"
"""Folder of the cells' own results, below that of the table."""
STATE = "cell.json"
"""What is known of a cell's run, in its folder."""
SCORES = {"published": "", "ours": "", "difference": "+"}
"""Numbers of a cell, and whether their sign is shown."""
SHOWN = 5
"""Classes that a line names."""


@dataclass(frozen=True)
class Outcome:
    """A cell, and what is known of it."""

    cell: Cell
    report: Mapping[str, Any] | None = None
    """Of its evaluation; None where it is not measured."""
    differs: tuple[str, ...] = ()
    """In what the run was not the published one."""
    why: str = ""
    """Why it is not measured, where that is known."""

    @property
    def ours(self) -> float | None:
        """Our mIoU in percent."""
        score = self.report["score"]["miou"] if self.report else None
        return None if score is None else 100 * score

    @property
    def difference(self) -> float | None:
        """Points by which ours is above the published score."""
        both = self.ours is not None and self.cell.published is not None
        return round(self.ours - self.cell.published, 6) if both else None  # type: ignore[operator]

    @property
    def is_marked(self) -> bool:
        """Whether ours is farther from the published score than ``TOLERANCE``."""
        return self.difference is not None and abs(self.difference) > TOLERANCE


def read_state(folder: Path) -> dict[str, Any]:
    """Return what is known of the run of a cell; of one that has not begun, nothing.

    Raises: InputError if it cannot be read.
    """
    path = folder / STATE
    return read_json(path) if path.is_file() else {}


def outcomes(table: str, out: Path, faults: Mapping[str, str]) -> list[Outcome]:
    """Return what is known of all cells of a table from the results in ``out``; ``faults``: why some have none."""
    return [_outcome(cell, out / CELLS / cell.name, faults) for cell in plan(table)]


def _outcome(cell: Cell, folder: Path, faults: Mapping[str, str]) -> Outcome:
    state = {} if cell.lacks else read_state(folder)
    if not state.get("done"):
        return Outcome(cell, why=cell.lacks or faults.get(cell.name, ""))
    return Outcome(cell, read_json(folder / "report.json"), tuple(state["differs"]), faults.get(cell.name, ""))


def look_at(outcome: Outcome) -> list[str]:
    """Return what may make ours differ from the published score, the likeliest first, each in one line."""
    return [] if outcome.report is None else [*outcome.differs, *_looks(outcome, outcome.report)]


def _looks(outcome: Outcome, report: Mapping[str, Any]) -> Iterator[str]:
    cell = outcome.cell
    if report["score"]["failed"]:
        yield f"{report['score']['failed']} images could not be scored"
    yield from _protocol(outcome, report)
    yield from _naming(cell, report)
    yield from _classes(cell, report)
    if cell.row.note:
        yield cell.row.note
    yield f"as published: {cell.caveat}"


def _protocol(outcome: Outcome, report: Mapping[str, Any]) -> Iterator[str]:
    """Yield which other rule would bring the same label maps nearer to the published score."""
    other = {f"protocol {name}": value for name, value in report["also"]["miou_by_protocol"].items()}
    other |= {f"the mean over {over}": value for over, value in report["also"]["miou_by_meaning"].items()}
    published, found = outcome.cell.published, {name: 100 * value for name, value in other.items() if value is not None}
    if published is None or outcome.difference is None:
        return
    nearest = min(found, key=lambda name: abs(found[name] - published))
    if abs(found[nearest] - published) < abs(outcome.difference) - TOLERANCE / 5:
        yield f"protocol: by {nearest} it would be {found[nearest]:.1f}, nearer to {published:.1f}"


def _naming(cell: Cell, report: Mapping[str, Any]) -> Iterator[str]:
    if cell.row.names != "replies":
        return
    names, losses = report["names"], report["losses"]
    if cell.named is not None:
        yield f"naming: {names['named_per_image']:.2f} classes per image; the authors' names keep {cell.named:.2f}"
    if losses:
        best, naming, place = (f"{100 * (number or 0):.1f}" for number in losses.values())
        yield f"naming costs {naming} points, localisation {place}; with the true names it is {best}"
    else:
        yield "naming against localisation: with --oracle the same images are scored with the true names as well"


def _classes(cell: Cell, report: Mapping[str, Any]) -> Iterator[str]:
    """Yield the classes that differ most from published ones; where there are none, those with the lowest scores."""
    ours = {one["class"]: 100 * one["iou"] for one in report["classes"] if one["iou"] is not None}
    theirs = cell.classes
    both = sorted(set(ours) & set(theirs), key=lambda name: -abs(ours[name] - theirs[name]))[:SHOWN]
    if both:
        listed = ", ".join(f"{name} {ours[name]:.1f} ({theirs[name]:.1f})" for name in both)
        yield f"classes, ours (as published by {cell.classes_source}): {listed}"
    elif ours:
        lowest = ", ".join(f"{name} {ours[name]:.1f}" for name in sorted(ours, key=lambda name: ours[name])[:SHOWN])
        yield f"classes: no published scores are known; the lowest of ours are {lowest}"


def facts(outcome: Outcome) -> dict[str, Any]:
    """Return all that is known of a cell, as JSON values."""
    cell, report = outcome.cell, outcome.report
    found: dict[str, Any] = {
        "cell": cell.name,
        "row": cell.row.name,
        "column": cell.column,
        "data": cell.dataset,
        "published": cell.published,
        "source": cell.source,
        "caveat": cell.caveat,
        "ours": outcome.ours,
        "difference": outcome.difference,
        "marked": outcome.is_marked,
        "state": "measured" if report else "cannot be run" if cell.lacks else "not measured",
        "why": outcome.why,
        "protocol": cell.row.protocol,
        "vocabulary": cell.vocabulary or "the usual one",
        "names": cell.row.names,
        "differs": list(outcome.differs),
        "look_at": look_at(outcome) if outcome.is_marked else [],
    }
    if report:
        settings, images = report["settings"], report["score"]["images"]
        made = {name: settings[name] for name in ("method", "model", "revision", "device", "dtype", "version")}
        spent = sum(report["seconds"].values()) / images
        found |= {"images": images, "failed": report["score"]["failed"], "seconds_per_image": round(spent, 4)} | made
        found |= {"vocabulary": settings["vocabulary"], "names": settings["names"]}
    return found


def write_table(out: Path, table: str, found: Sequence[Outcome]) -> None:
    """Write report.html, report.md and report.json into ``out``. Raises: InputError if one cannot be written."""
    content = {"table": table, "title": TABLES[table], "version": VERSION, "tolerance": TOLERANCE}
    content |= {"cells": [facts(one) for one in found]}
    write_bytes(out / "report.json", as_json(content, indent=1))
    values = content | {"columns": columns_of(table), "matrix": _matrix(found), "protocols": PROTOCOLS}
    write_text(out / "report.html", templates(FOLDER).get_template("reproduction.html").render(values))
    write_text(out / "report.md", f"# {TABLES[table]}\n\n{results(table, found)}{_marked(found)}")


def results(table: str, found: Sequence[Outcome]) -> str:
    """Return the table in Markdown: published and ours, and of what is measured how it was made."""
    columns = columns_of(table)
    lines = ["published / ours | " + " | ".join(columns.values()) + " | not run because", "---|" * (len(columns) + 2)]
    for title, (cells, why) in _matrix(found).items():
        texts = [_text(cells[name]) if name in cells else "" for name in columns]
        lines.append(" | ".join((title, *texts, why)))
    made = [_made(one) for one in found if one.report]
    if made:
        head = "cell | published | ours | difference | protocol | words | names | images | revision | s per image"
        made = ["", f"{head} | other than published", "---|" * 11, *made]
    tables = [f"| {line} |" if line and "---|" not in line else line and f"|{line}" for line in (*lines, *made)]
    return "\n".join([*tables, ""])


def write_results(path: Path, table: str, found: Sequence[Outcome]) -> None:
    """Put the table between its marks in a text file, such as docs/results.md.

    Raises: InputError if the file cannot be read or written, or has no such marks.
    """
    text = read_text(path)
    begin, end = marks(table)
    if text.count(begin) != 1 or text.count(end) != 1:
        raise InputError(f"{path} has no place for {table}; write {begin!r} and {end!r} into it, each on its line")
    head, _, rest = text.partition(begin)
    write_text(path, f"{head}{begin}\n\n{results(table, found)}\n{end}{rest.partition(end)[2]}")


def marks(table: str) -> tuple[str, str]:
    """Return the lines around a table in a text file."""
    return f"<!-- pnp-ovss reproduce {table} writes this -->", f"<!-- the end of {table} -->"


def _matrix(found: Sequence[Outcome]) -> dict[str, tuple[dict[str, Outcome], str]]:
    """Return by title of each row its outcomes by column, and why some of them cannot be had."""
    rows: dict[str, dict[str, Outcome]] = {}
    for one in found:
        rows.setdefault(one.cell.title, {})[one.cell.column] = one
    reasons = {}
    for title, cells in rows.items():
        why = dict.fromkeys(one.cell.lacks for one in cells.values() if one.cell.lacks)
        of = {text: [name for name, one in cells.items() if one.cell.lacks == text] for text in why}
        reasons[title] = "; ".join(
            text if len(names) == len(cells) else f"{', '.join(names)}: {text}" for text, names in of.items()
        )
    return {title: (cells, reasons[title]) for title, cells in rows.items()}


def _text(one: Outcome) -> str:
    published = "?" if one.cell.published is None else f"{one.cell.published:.1f}"
    if one.cell.lacks:
        return f"{published} / -"
    if one.ours is None:
        return f"{published} / not measured"
    return f"{published} / **{one.ours:.1f}**" if one.is_marked else f"{published} / {one.ours:.1f}"


def _made(one: Outcome) -> str:
    about = facts(one)
    scores = [f"{number:{sign}.1f}" if (number := about[name]) is not None else "?" for name, sign in SCORES.items()]
    values = [about[name] for name in ("protocol", "vocabulary", "names", "images", "revision", "seconds_per_image")]
    texts = [about["cell"], *scores, *map(str, values), "; ".join(one.differs)]
    return " | ".join(text.replace("|", "\\|") for text in texts)


def _marked(found: Sequence[Outcome]) -> str:
    lines = [f"\n## More than {TOLERANCE} points from what was published\n"] if any(o.is_marked for o in found) else []
    for one in found:
        if one.is_marked:
            lines.append(f"\n{one.cell.title}, {one.cell.column}: {one.ours:.1f}, published {one.cell.published:.1f}\n")
            lines += [f"- {line}" for line in look_at(one)]
    return "\n".join([*lines, ""])
