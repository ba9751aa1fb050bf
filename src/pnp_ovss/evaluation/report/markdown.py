"""The report as Markdown."""

from collections.abc import Sequence
from typing import Any


def markdown(told: dict[str, Any]) -> str:
    """Return the report, as ``result.report`` tells it, as Markdown."""
    score, also, settings = told["score"], told["also"], told["settings"]
    parts = [
        f"# {settings['title']}: mIoU {percent(score['miou'])} %",
        f"Protocol `{score['protocol']}`: {score['meaning']}.",
        f"{score['images']} images scored, {score['failed']} failed. {made_by(settings)}",
        "## The same pixels, other numbers",
        table(
            ("number", "percent"),
            [
                ("pixel accuracy", percent(also["pixel_accuracy"])),
                ("frequency-weighted IoU", percent(also["frequency_weighted_iou"])),
                ("boundary mIoU", percent(also["boundary_miou"])),
                *((f"mIoU, protocol {name}", percent(value)) for name, value in also["miou_by_protocol"].items()),
                *((f"mIoU over {MEANINGS[name]}", percent(value)) for name, value in also["miou_by_meaning"].items()),
            ],
        ),
    ]
    if told["losses"]:
        parts += ["## What is lost where", losses(told["losses"])]
    for extra in told["tables"]:
        parts += [f"## {extra['title']}", extra["note"], table(extra["head"], extra["rows"])]
    parts += [
        "## Classes",
        table(
            ("class", "IoU", "boundary IoU", "share of the truth"),
            [
                (c["class"], percent(c["iou"]), percent(c["boundary_iou"]), percent(c["truth_share"]))
                for c in sorted(told["classes"], key=lambda c: (-(-1 if c["iou"] is None else c["iou"]), c["class"]))
            ],
        ),
    ]
    if told["confusions"]:
        rows = [(c["truth"], c["guess"], percent(c["miou_lost"], 2), str(c["pixels"])) for c in told["confusions"]]
        parts += ["## Confusions that cost most", table(("truth", "taken for", "mIoU lost", "pixels"), rows)]
    if told["published"]:
        rows = [(r["method"], f"{r['miou']:.1f}", r["source"], r["caveat"]) for r in told["published"]]
        parts += ["## Published", table(("method", "mIoU", "read in", "before comparing"), rows)]
    if told["failed"]:
        parts += ["## Failed", "\n".join(f"- {entry['fault']}" for entry in told["failed"])]
    parts += ["## Settings", table(("setting", "value"), settings_rows(settings))]
    return "\n\n".join(parts) + "\n"


MEANINGS = {
    "truth": "classes in the truth",
    "either": "classes in truth or guess",
    "one": "all classes, absent ones as 1",
    "zero": "all classes, absent ones as 0",
}


def percent(share: float | None, digits: int = 1) -> str:
    """Return a share as percent; a dash where there is none."""
    return "-" if share is None else f"{100 * share:.{digits}f}"


def made_by(settings: dict[str, Any]) -> str:
    """Return who made the label maps, in a sentence."""
    if "model" in settings:
        return f"Model {settings['model']}, names: {settings['names']}, vocabulary: {settings['vocabulary']}."
    return f"Label maps from {settings['predictions']}."


def losses(lost: dict[str, float | None]) -> str:
    """Return what naming and localisation cost, in a sentence."""
    return (
        f"With the true names the score is {percent(lost['miou_with_true_names'])} %: naming costs "
        f"{percent(lost['lost_to_naming'])}, localisation {percent(lost['lost_to_localisation'])} points."
    )


def settings_rows(settings: dict[str, Any]) -> list[tuple[str, str]]:
    """Return every setting as text, those of the method behind the others."""
    flat = {name: value for name, value in settings.items() if name not in ("config", "classes", "words")}
    flat |= {"words": "; ".join(f"{cls}: {', '.join(words)}" for cls, words in settings.get("words", {}).items())}
    flat |= settings.get("config", {})
    return [
        (name, ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value))
        for name, value in flat.items()
        if value not in (None, "")
    ]


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
