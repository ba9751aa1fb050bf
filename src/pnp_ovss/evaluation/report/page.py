"""The report as one HTML page: no script, no network; light and dark; readable on a phone."""

from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

from pnp_ovss.evaluation.report.charts import classes, confusions, losses, scale, steps, times
from pnp_ovss.evaluation.report.markdown import MEANINGS, made_by, percent, settings_rows
from pnp_ovss.evaluation.report.panels import Panel

STYLE = Path(__file__).parent / "style.css"
TOLD_OF = {
    "best": "Best",
    "median": "In the middle",
    "worst": "Worst",
}


def page(told: dict[str, Any], panels: dict[str, list[Panel]]) -> str:
    """Return the report, as ``result.report`` tells it, as a page; ``panels`` by their place."""
    title = escape(f"{told['settings']['title']}: mIoU {percent(told['score']['miou'])} %")
    parts = [
        _head(told),
        _lost(told),
        _photos(panels),
        _steps(told),
        _classes(told),
        _confusions(told),
        _published(told),
        _failed(told),
        _made(told),
    ]
    return document(title, parts, told["settings"]["version"])


def document(title: str, parts: Sequence[str], version: str) -> str:
    """Return a whole page of these parts, in the report's style; ``title`` in HTML."""
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
{STYLE.read_text(encoding="utf-8")}</style>
</head>
<body>
<main>
{"".join(parts)}
<footer>pnp-ovss {escape(version)}</footer>
</main>
</body>
</html>
"""


def _head(told: dict[str, Any]) -> str:
    score, also, settings, names = told["score"], told["also"], told["settings"], told["names"]
    tiles = [
        (percent(also["pixel_accuracy"]) + " %", "pixel accuracy", ""),
        (percent(also["frequency_weighted_iou"]) + " %", "frequency-weighted IoU", ""),
        (percent(also["boundary_miou"]) + " %", "boundary mIoU", ""),
        (
            str(score["images"]),
            f"images scored, {score['failed'] or 'none'} failed",
            " bad" if score["failed"] else "",
        ),
    ]
    if settings["names"] not in ("truth", "unknown"):
        tiles[3:3] = [
            (percent(names["recall"], 0) + " %", "of the classes were named", ""),
            (percent(names["precision"], 0) + " %", "of the names were right", ""),
        ]
    drawn = (
        '<p class="note small">Drawn scenes and a small model trained on such scenes: a test bench for the method. '
        "These numbers say nothing about photos.</p>"
        if settings["dataset"] == "scenes"
        else ""
    )
    return f"""
<header>
<h1>{escape(settings["title"])}</h1>
<p class="soft">{escape(made_by(settings))}</p>
<div class="hero">
<div class="score">{percent(score["miou"])}<small>% mIoU</small></div>
<div>
<p>Protocol <b>{score["protocol"]}</b>: {escape(score["meaning"])}.</p>
{_other_numbers(told)}
</div>
</div>
{drawn}
<div class="tiles">{"".join(map(_tile, tiles))}</div>
</header>"""


def _tile(tile: tuple[str, str, str]) -> str:
    value, name, kind = tile
    return f'<div class="tile{kind}"><b>{value}</b><span>{name}</span></div>'


def _other_numbers(told: dict[str, Any]) -> str:
    also, own = told["also"], told["score"]["protocol"]
    numbers = [(f"protocol {name}", value) for name, value in also["miou_by_protocol"].items() if name != own]
    numbers += [(f"mean over {MEANINGS[name]}", value) for name, value in also["miou_by_meaning"].items()]
    told_of = "".join(f"<span><b>{percent(value)}</b> {name}</span>" for name, value in numbers)
    return f'<p class="soft small">The same label maps by other rules:</p><div class="keys soft">{told_of}</div>'


def _lost(told: dict[str, Any]) -> str:
    if not told["losses"]:
        return ""
    return section(
        "What is lost where",
        "The same images with the true names: what is gained there is lost to naming, the rest to localisation.",
        losses(told["score"]["miou"], told["losses"]),
    )


def _photos(panels: dict[str, list[Panel]]) -> str:
    groups = [
        f'<h3>{TOLD_OF[name]}</h3><div class="panels">{"".join(map(figure, group))}</div>'
        for name, group in panels.items()
    ]
    note = "Photo, truth, label map, and where the model looked, all classes together."
    return section("Photos", note, "".join(groups), card=False) if groups else ""


def figure(panel: Panel) -> str:
    """Return the pictures of a panel side by side, with score, legend and key below."""
    pictures = "".join(
        f'<div><img src="{url}" alt="{escape(name)} of {escape(panel.key)}" loading="lazy"><span>{name}</span></div>'
        for name, url in panel.pictures.items()
    )
    legend = "".join(
        f'<span><i class="chip" style="background:{colour}"></i>{escape(name)}</span>' for name, colour in panel.legend
    )
    return (
        f'<figure><div class="pictures" style="--count:{len(panel.pictures)}">{pictures}</div><figcaption>'
        f'<b>{percent(panel.score)}</b><span class="legend">{legend}</span><span class="key">{escape(panel.key)}</span>'
        "</figcaption></figure>"
    )


def _steps(told: dict[str, Any]) -> str:
    return "".join(section(t["title"], t["note"], steps(t["head"], t["rows"])) for t in told["tables"])


def _classes(told: dict[str, Any]) -> str:
    note = "IoU in percent; the dark mark is the boundary IoU. Classes in neither truth nor label maps have a dash."
    return section("Classes", note, classes(told["classes"], told["settings"]["classes"]))


def _confusions(told: dict[str, Any]) -> str:
    if not told["confusions"]:
        return ""
    note = "Points of mIoU that would be gained if the pixels of one class that were taken for another were right."
    return section("Confusions that cost most", note, confusions(told["confusions"]))


def _published(told: dict[str, Any]) -> str:
    if not told["published"]:
        return ""
    rows = "".join(
        f'<tr><td>{escape(row["method"])}</td><td class="number">{row["miou"]:.1f}</td><td>{escape(row["source"])}</td>'
        f'<td class="soft">{escape(row["caveat"])}</td></tr>'
        for row in told["published"]
    )
    table = (
        '<details><summary>Where each was read, and what to know before comparing</summary><div class="scroll"><table>'
        f'<tr><th>method</th><th class="number">mIoU</th><th>read in</th><th>before comparing</th></tr>{rows}</table>'
        "</div></details>"
    )
    note = "Scores as published. They differ in image size, names and rule; the table says how."
    return section("Published scores", note, scale(told["score"]["miou"], told["published"]) + table)


def _failed(told: dict[str, Any]) -> str:
    if not told["failed"]:
        return ""
    lines = "".join(f"<li>{escape(entry['fault'])}</li>" for entry in told["failed"])
    return section("Failed", "These images are not in the score.", f'<ul class="small">{lines}</ul>')


def _made(told: dict[str, Any]) -> str:
    rows = [*settings_rows(told["settings"]), ("python", told["python"])]
    table = "".join(f"<tr><td>{escape(n)}</td><td><code>{escape(v)}</code></td></tr>" for n, v in rows)
    settings = (
        f'<details><summary>Every setting</summary><div class="scroll settings"><table>{table}</table></div></details>'
    )
    return section(
        "How it was made", "Time per image and stage.", times(told["seconds"], told["score"]["images"]) + settings
    )


def section(title: str, note: str, content: str, card: bool = True) -> str:
    """Return a part of the page: a heading, a note and the content, in HTML, on a card or not."""
    inside = f'<div class="card">{content}</div>' if card else content
    return f'\n<section><h2>{escape(title)}</h2><p class="soft small">{escape(note)}</p>{inside}</section>'
