"""The page of a tuning run: what the search found where, and the masks that its choice draws."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape

import numpy as np

from pnp_ovss._version import VERSION
from pnp_ovss.evaluation.report.charts import bar
from pnp_ovss.evaluation.report.page import document, figure, section
from pnp_ovss.evaluation.report.panels import Panel, jpeg, painted, small
from pnp_ovss.pictures import class_colours
from pnp_ovss.pictures.sheet import heat
from pnp_ovss.tuning.objective import Example, Objective
from pnp_ovss.tuning.search import Finished, Search
from pnp_ovss.tuning.space import Candidate
from pnp_ovss.types import BACKGROUND

__all__ = ["Shown", "examples_of", "page"]

SHOWN = 6
"""Photos of the best and of the worst masks."""
FORMS = {
    "black": "the share of masks whose class is likelier in the mask than in a black picture",
    "rest": "the share of masks whose class is likelier in the mask than in the rest of the photo",
    "graded": "how likely the class is in the mask against a black picture, 0.5 where they are equal; mean over masks",
}


@dataclass(frozen=True)
class Shown:
    """A photo under the choice of the search, and what its masks are worth on average."""

    example: Example
    reward: float


def examples_of(objective: Objective, candidate: Candidate) -> list[Shown]:
    """Return every photo with its reward under a candidate, the best first."""
    rewards = [float(values.mean()) for values in objective(candidate)]
    shown = [Shown(example, reward) for example, reward in zip(objective.examples, rewards, strict=True)]
    return sorted(shown, key=lambda one: -one.reward)


def page(search: Search, objective: Objective, best: Finished, shown: Sequence[Shown], form: str) -> str:
    """Return the page as HTML; ``shown`` as ``examples_of`` returns them."""
    tried = search.finished()
    chosen = best.candidate
    head = f"""
<header>
<h1>Settings for {escape(objective.maps.vlm.name)}</h1>
<p class="soft">Chosen without a mask: {escape(objective.judge.clip.name)} says how well each mask shows its class.</p>
<div class="hero"><div class="score">{best.reward:.3f}<small>reward</small></div>
<div><p>Layer <b>{chosen.layer}</b>, head <b>{chosen.head}</b>, threshold <b>{chosen.threshold}</b>, blur
<b>{chosen.blur}</b>.</p><p class="soft small">Reward <b>{form}</b>: {FORMS[form]}.</p></div></div>
<div class="tiles">{_tile(len(shown), "photos")}{_tile(best.classes, "masks")}{_tile(len(tried), "candidates tried")}
{_tile(sum(one.dropped for one in tried), "of them dropped early")}</div>
</header>"""
    note = "Best reward of the candidates tried; empty where none was. Layers and heads count from 0."
    parts = [head, section("Layer and head", note, _grid(search, tried))]
    for name, title in (("threshold", "Threshold"), ("blur", "Blur")):
        note = "Best reward of the candidates with this value; the dark mark is their mean."
        parts.append(section(title, note, _bars(name, vars(search.space)[f"{name}s"], tried)))
    for title, some in (("Best masks", shown[:SHOWN]), ("Worst masks", shown[SHOWN:][::-1][:SHOWN])):
        if some:
            panels = "".join(figure(_panel(objective, one, chosen)) for one in some)
            note = "Photo, masks, and where the model looked; the number is the mean reward of the masks in percent."
            parts.append(section(title, note, f'<div class="panels">{panels}</div>', card=False))
    parts.append(section("Every candidate", "In the order they were begun.", _table(tried, best)))
    return document(escape(f"Tuning {objective.maps.vlm.name}"), parts, VERSION)


def _tile(value: int, name: str) -> str:
    return f'<div class="tile"><b>{value}</b><span>{name}</span></div>'


def _grid(search: Search, tried: Sequence[Finished]) -> str:
    best: dict[tuple[int, int], float] = {}
    for one in tried:
        place = one.candidate.layer, one.candidate.head
        best[place] = max(best.get(place, 0.0), one.reward)
    low, high = min(best.values()), max(best.values())
    title = "".join(f"<th>head {head}</th>" for head in search.space.heads)
    rows = []
    for layer in search.space.layers:
        cells = "".join(_cell(best.get((layer, head)), low, high) for head in search.space.heads)
        rows.append(f"<tr><th>layer {layer}</th>{cells}</tr>")
    return f'<div class="scroll"><table><tr><th></th>{title}</tr>{"".join(rows)}</table></div>'


def _cell(reward: float | None, low: float, high: float) -> str:
    if reward is None:
        return '<td class="soft">-</td>'
    strength = 100 * (reward - low) / (high - low) if high > low else 100.0
    kind = ' class="strong"' if reward == high else ""
    colour = f"background:color-mix(in srgb, var(--accent-soft) {strength:.0f}%, transparent)"
    return f'<td{kind} style="padding-left:8px;{colour}">{reward:.3f}</td>'


def _bars(name: str, values: Iterable[float], tried: Sequence[Finished]) -> str:
    lines = []
    for value in values:
        rewards = [one.reward for one in tried if vars(one.candidate)[name] == value]
        told = f"{max(rewards):.3f} of {len(rewards)}" if rewards else "not tried"
        drawn = bar(max(rewards), mark=float(np.mean(rewards))) if rewards else "<span></span>"
        lines.append(f'<span class="name">{value}</span>{drawn}<span class="value">{told}</span>')
    return f'<div class="rows">{"".join(lines)}</div>'


def _panel(objective: Objective, shown: Shown, candidate: Candidate) -> Panel:
    example = shown.example
    photo = example.photo()
    masks = objective.masks(photo, example, candidate)
    labels = np.where(masks.any(0), 1 + masks.argmax(0), 0).astype(np.uint8)
    colours = class_colours((BACKGROUND, *example.classes))
    found = objective.maps(photo, example.classes).at(candidate.layer, candidate.head).sum(0).numpy()
    pictures = {
        "photo": jpeg(photo),
        "masks": jpeg(painted(photo, labels, colours)),
        "salience": jpeg(heat(small(photo), found)),
    }
    chips = [f"#{bytes(colour.tolist()).hex()}" for colour in colours[1:]]
    return Panel(example.key, shown.reward, pictures, tuple(zip(example.classes, chips, strict=True))[:6])


def _table(tried: Sequence[Finished], best: Finished) -> str:
    head = "".join(f"<th>{name}</th>" for name in ("layer", "head", "threshold", "blur", "reward", "masks", ""))
    rows = []
    for one in tried:
        cells = "".join(f"<td>{value}</td>" for value in vars(one.candidate).values())
        kind = ' class="strong"' if one.candidate == best.candidate else ""
        dropped = "dropped early" if one.dropped else ""
        rows.append(
            f'<tr>{cells}<td{kind}>{one.reward:.3f}</td><td>{one.classes}</td><td class="soft">{dropped}</td></tr>'
        )
    table = f'<div class="scroll"><table><tr>{head}</tr>{"".join(rows)}</table></div>'
    return f"<details><summary>Show</summary>{table}</details>"
