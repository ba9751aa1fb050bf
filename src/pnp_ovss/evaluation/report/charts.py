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
    lines = []
    for row in order:
        bar = ""
        if row["iou"] is not None:
            mark = "" if row["boundary_iou"] is None else f'<u style="left:{100 * row["boundary_iou"]:.2f}%"></u>'
            fill = colour.get(row["class"], colour[BACKGROUND])
            bar = f'<div class="bar thin"><i style="width:{100 * row["iou"]:.2f}%;background:{fill}"></i>{mark}</div>'
        lines.append(
            f'<div class="line"><i class="chip" style="background:{colour.get(row["class"], colour[BACKGROUND])}"></i>'
            f'<span>{escape(row["class"])}</span>{bar or "<span></span>"}<span class="value">{percent(row["iou"])}</span></div>'
        )
    return f'<div class="{"three" if len(rows) > 36 else "two"}">{"".join(lines)}</div>'


def confusions(pairs: Sequence[dict[str, Any]]) -> str:
    """Return a bar per pair, as long as what it costs."""
    most = max(pair["miou_lost"] for pair in pairs)
    lines = "".join(
        f'<span class="name"><b>{escape(pair["truth"])}</b> <span class="soft">taken for</span> {escape(pair["guess"])}</span>'
        f'<div class="bar thin"><i style="width:{100 * pair["miou_lost"] / most:.1f}%;background:var(--warm)"></i></div>'
        f'<span class="value">{percent(pair["miou_lost"], 2)}</span>'
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
    stack = "".join(f'<div style="width:{100 * w:.2f}%;background:{colour}"></div>' for _, w, _, colour in parts)
    keys = "".join(
        f'<span><i class="chip" style="background:{colour}"></i>{name} <b>{percent(value)}</b></span>'
        for name, _, value, colour in parts
    )
    best = f'<span class="soft">with the true names {percent(lost["miou_with_true_names"])}</span>'
    return f'<div class="stack">{stack}</div><div class="keys">{keys}{best}</div>'


def scale(score: float | None, rows: Sequence[dict[str, Any]]) -> str:
    """Return a bar per published score and one for this run, the best first."""
    ours = [("this run", 100 * score, "ours")] if score is not None else []
    told = sorted([*((row["method"], row["miou"], "") for row in rows), *ours], key=lambda row: -row[1])
    lines = "".join(
        f'<span class="name"{_strong(kind)}>{escape(name)}</span><div class="bar"><i style="width:{value:.1f}%;background:'
        f'var({"--accent" if kind else "--other"})"></i></div><span class="value"{_strong(kind)}>{value:.1f}</span>'
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
    stack = "".join(f'<div style="width:{100 * s / whole:.2f}%;background:{colour}"></div>' for _, colour, s in parts)
    keys = "".join(
        f'<span><i class="chip" style="background:{colour}"></i>{name} <b>{1000 * spent / images:.0f} ms</b></span>'
        for name, colour, spent in parts
    )
    return f'<div class="stack">{stack}</div><div class="keys">{keys}</div>'


def _strong(kind: str) -> str:
    return ' style="font-weight:650;color:var(--accent)"' if kind else ""
