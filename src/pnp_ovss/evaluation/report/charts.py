"""The figures of a report, as pieces of HTML."""

from collections.abc import Sequence
from html import escape
from typing import Any

from pnp_ovss.evaluation.report.markdown import percent
from pnp_ovss.pictures import class_colours
from pnp_ovss.types import BACKGROUND

STAGES = {
    "read": ("reading", "var(--other)"),
    "look": ("looking: the model, every pass", "var(--accent)"),
    "refine": ("refining", "var(--warm)"),
    "score": ("scoring and writing", "var(--accent-soft)"),
}


def classes(rows: Sequence[dict[str, Any]], names: Sequence[str]) -> str:
    """Return a bar per class, the best first; those that occur nowhere last."""
    colours = class_colours((BACKGROUND, *names))
    colour = {name: f"#{bytes(colours[label].tolist()).hex()}" for label, name in enumerate((BACKGROUND, *names))}
    order = sorted(rows, key=lambda row: (row["iou"] is None, -(row["iou"] or 0), row["class"]))
    lines = "".join(_class(row, colour.get(row["class"], colour[BACKGROUND])) for row in order)
    return f'<div class="{"three" if len(rows) > 36 else "two"}">{lines}</div>'


def confusions(pairs: Sequence[dict[str, Any]]) -> str:
    """Return a bar per pair, as long as what it costs."""
    most = max(pair["miou_lost"] for pair in pairs)
    lines = "".join(
        f'<span class="name"><b>{escape(pair["truth"])}</b> <span class="soft">taken for</span> '
        f"{escape(pair['guess'])}</span>"
        + bar(pair["miou_lost"] / most, "var(--warm)")
        + f'<span class="value">{percent(pair["miou_lost"], 2)}</span>'
        for pair in pairs
    )
    return f'<div class="rows">{lines}</div>'


def losses(score: float | None, lost: dict[str, float | None]) -> str:
    """Return one bar of 100 points: scored, lost to naming, lost to localisation."""
    got, naming, rest = score or 0.0, lost["lost_to_naming"] or 0.0, lost["lost_to_localisation"] or 0.0
    if naming < 0:  # the true names did not help
        got, naming = got + naming, -naming
    parts = [
        ("scored", got, score, "var(--accent)"),
        ("lost to naming", naming, lost["lost_to_naming"], "var(--warm)"),
        ("lost to localisation", rest, lost["lost_to_localisation"], "var(--other)"),
    ]
    keys = "".join(f"<span>{_chip(colour)}{name} <b>{percent(value)}</b></span>" for name, _, value, colour in parts)
    best = f'<span class="soft">with the true names {percent(lost["miou_with_true_names"])}</span>'
    return _stack([(width, colour) for _, width, _, colour in parts]) + f'<div class="keys">{keys}{best}</div>'


def scale(score: float | None, rows: Sequence[dict[str, Any]]) -> str:
    """Return a bar per published score and one for this run, the best first."""
    ours = [("this run", 100 * score, " ours")] if score is not None else []
    told = sorted([*((row["method"], row["miou"], "") for row in rows), *ours], key=lambda row: -row[1])
    lines = "".join(
        f'<span class="name{kind}">{escape(name)}</span>'
        + bar(value / 100, "var(--accent)" if kind else "var(--other)")
        + f'<span class="value{kind}">{value:.1f}</span>'
        for name, value, kind in told
    )
    return f'<div class="rows">{lines}</div>'


def steps(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table whose numbers have bars below them; the best of each column stands out."""
    best = [max(float(row[column]) for row in rows) for column in range(1, len(head))]
    title = "".join(f"<th>{escape(name)}</th>" for name in head)
    lines = []
    for row in rows:
        cells = "".join(
            f"<td{' class=strong' if float(value) == most else ''}>{value}"
            f'<div class="bar thin"><i style="width:{float(value):.1f}%"></i></div></td>'
            for value, most in zip(row[1:], best, strict=True)
        )
        lines.append(f"<tr><td>{escape(row[0])}</td>{cells}</tr>")
    return f'<div class="scroll"><table><tr>{title}</tr>{"".join(lines)}</table></div>'


def times(seconds: dict[str, float], images: int) -> str:
    """Return one bar of the time per image, by stage."""
    whole = sum(seconds.values())
    if not (whole and images):
        return ""
    parts = [(*STAGES.get(stage, (stage, "var(--other)")), spent) for stage, spent in seconds.items()]
    keys = "".join(
        f"<span>{_chip(colour)}{name} <b>{1000 * spent / images:.0f} ms</b></span>" for name, colour, spent in parts
    )
    return _stack([(spent / whole, colour) for _, colour, spent in parts]) + f'<div class="keys">{keys}</div>'


def _class(row: dict[str, Any], colour: str) -> str:
    drawn = "<span></span>" if row["iou"] is None else bar(row["iou"], colour, row["boundary_iou"])
    return (
        f'<div class="line">{_chip(colour)}<span>{escape(row["class"])}</span>{drawn}'
        f'<span class="value">{percent(row["iou"])}</span></div>'
    )


def bar(share: float, colour: str = "var(--accent)", mark: float | None = None) -> str:
    """Return a bar of the share, with a mark at another share."""
    line = "" if mark is None else f'<u style="left:{100 * mark:.2f}%"></u>'
    return f'<div class="bar"><i style="width:{100 * share:.2f}%;background:{colour}"></i>{line}</div>'


def _stack(parts: Sequence[tuple[float, str]]) -> str:
    pieces = "".join(f'<div style="width:{100 * share:.2f}%;background:{colour}"></div>' for share, colour in parts)
    return f'<div class="stack">{pieces}</div>'


def _chip(colour: str) -> str:
    return f'<i class="chip" style="background:{colour}"></i>'
