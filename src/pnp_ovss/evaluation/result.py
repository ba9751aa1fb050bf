"""From records to all that a report tells: scores, what cost most, which images were best and worst."""

import math
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pnp_ovss.evaluation.metrics import Boundary
from pnp_ovss.evaluation.protocol import PROTOCOLS, Counts, Protocol
from pnp_ovss.evaluation.published import COLUMNS, SOURCES, published
from pnp_ovss.evaluation.record import Record
from pnp_ovss.types import BACKGROUND


@dataclass(frozen=True)
class Table:
    """A table that a data set adds to its report."""

    title: str
    note: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Result:
    """The records of a run, added up."""

    settings: dict[str, Any]
    """The manifest's."""
    protocol: Protocol
    records: tuple[Record, ...]
    """Of the images that were scored, in order."""
    faults: tuple[tuple[str, str], ...]
    counts: Counts
    boundary: Boundary
    oracle: Counts | None = None
    """Of the same images with the true names."""
    tables: tuple[Table, ...] = ()

    @property
    def labels(self) -> list[str]:
        """Name of every label; 0 is the background or no class."""
        return [self.settings["nothing"], *self.settings["classes"]]

    @property
    def background(self) -> bool:
        """Whether the data set scores a background."""
        return bool(self.settings["nothing"] == BACKGROUND)

    @property
    def miou(self) -> float:
        """The score, in [0, 1]; NaN where nothing counts."""
        return self.protocol.miou(self.counts, self.background)

    def of(self, record: Record) -> float:
        """Return the score of one image."""
        return float("nan") if record.counts is None else self.protocol.miou(record.counts, self.background)


def add_up(
    settings: dict[str, Any],
    records: Sequence[Record],
    faults: Sequence[tuple[str, str]],
    protocol: Protocol,
    oracle: Sequence[Record] = (),
    tables: Sequence[Table] = (),
) -> Result:
    """Return the result of a run; ``faults`` are those of the data set, before any image was opened."""
    scored = tuple(record for record in records if not record.fault)
    failed = (*faults, *((record.key, record.fault) for record in records if record.fault))
    size = len(settings["classes"]) + 1
    counts, edge = Counts.empty(size), Boundary.empty(size)
    for record in scored:
        if record.counts is not None and record.boundary is not None:
            counts, edge = counts + record.counts, edge + record.boundary
    better = sum((r.counts for r in oracle if r.counts is not None), Counts.empty(size)) if oracle else None
    return Result(settings, protocol, scored, tuple(failed), counts, edge, better, tuple(tables))


def report(result: Result) -> dict[str, Any]:
    """Return the report as strict JSON values: no NaN, None where there is no number. Times are under "seconds"."""
    confusion = result.protocol.confusion(result.counts)
    first = result.protocol.first(result.background)
    iou, edge = confusion.iou(), result.boundary.iou()
    truth, guess = confusion.counts.sum(1), confusion.counts.sum(0)
    per_class = [
        {
            "class": name,
            "iou": _number(iou[label]),
            "boundary_iou": _number(edge[label]),
            "truth_share": _number(truth[label] / max(1, truth.sum())),
            "guess_share": _number(guess[label] / max(1, guess.sum())),
        }
        for label, name in enumerate(result.labels)
        if label >= first
    ]
    return {
        "score": {
            "miou": _number(result.miou),
            "protocol": result.protocol.name,
            "meaning": result.protocol.meaning,
            "images": len(result.records),
            "failed": len(result.faults),
        },
        "also": {
            "pixel_accuracy": _number(confusion.pixel_accuracy()),
            "frequency_weighted_iou": _number(confusion.frequency_weighted_iou()),
            "boundary_miou": _number(result.boundary.miou(first)),
            "miou_by_protocol": {n: _number(p.miou(result.counts, result.background)) for n, p in PROTOCOLS.items()},
            "miou_by_meaning": {
                over: _number(confusion.miou(over, first)) for over in ("truth", "either", "one", "zero")
            },
        },
        "classes": per_class,
        "confusions": confusions(result),
        "names": naming(result),
        "losses": losses(result),
        "images": {record.key: _number(result.of(record)) for record in result.records},
        "failed": [{"image": key, "fault": fault} for key, fault in result.faults],
        "published": [
            {"method": r.method, "miou": r.scores[name], "source": SOURCES[r.source], "caveat": r.caveat}
            for name in [result.settings["dataset"]]
            if name in COLUMNS
            for r in published(name)
        ],
        "tables": [
            {"title": t.title, "note": t.note, "head": list(t.head), "rows": [list(row) for row in t.rows]}
            for t in result.tables
        ],
        "settings": result.settings,
        "python": platform.python_version(),
        "seconds": {stage: round(spent, 3) for stage, spent in seconds(result).items()},
    }


def confusions(result: Result, most: int = 12) -> list[dict[str, Any]]:
    """Return the pairs of truth and guess that cost most: what the mean would gain if those pixels were right."""
    confusion = result.protocol.confusion(result.counts)
    before, wrong = result.miou, confusion.counts.copy()
    np.fill_diagonal(wrong, 0)
    # The gain can be large only where many pixels of a class are concerned: the rest is not tried.
    size = np.maximum(confusion.counts.sum(1)[:, None], 1)
    tried = np.argsort(-(wrong / size + wrong / np.maximum(confusion.counts.sum(0), 1)), axis=None)[: 8 * most]
    pairs = []
    for truth, guess in zip(*(axis.tolist() for axis in np.unravel_index(tried, wrong.shape)), strict=True):
        if wrong[truth, guess]:
            mended = confusion.counts.copy()
            mended[truth, truth] += mended[truth, guess]
            mended[truth, guess] = 0
            first = result.protocol.first(result.background)
            after = type(confusion)(mended).miou(result.protocol.over, first)
            pairs.append((after - before, int(wrong[truth, guess]), result.labels[truth], result.labels[guess]))
    told = sorted(pairs, key=lambda pair: (-pair[0], -pair[1], pair[2], pair[3]))[:most]
    return [
        {"truth": truth, "guess": guess, "miou_lost": _number(gain), "pixels": pixels}
        for gain, pixels, truth, guess in told
        if gain > 0
    ]


def naming(result: Result) -> dict[str, float | None]:
    """Return how good the names were: found / all of the truth's classes, and right / all named ones."""
    named = sum(len(record.named) for record in result.records)
    true = sum(len(record.true) for record in result.records)
    both = sum(len(set(record.named) & set(record.true)) for record in result.records)
    images = len(result.records)
    return {
        "recall": _number(both / true if true else math.nan),
        "precision": _number(both / named if named else math.nan),
        "named_per_image": _number(named / images if images else math.nan),
        "true_per_image": _number(true / images if images else math.nan),
    }


def losses(result: Result) -> dict[str, float | None] | None:
    """Return what naming and what localisation lose of a perfect score; None without a run with the true names."""
    if result.oracle is None:
        return None
    best = result.protocol.miou(result.oracle, result.background)
    return {
        "miou_with_true_names": _number(best),
        "lost_to_naming": _number(best - result.miou),
        "lost_to_localisation": _number(1 - best),
    }


def seconds(result: Result) -> dict[str, float]:
    """Return the time spent per stage, over all images."""
    total: dict[str, float] = {}
    for record in result.records:
        for stage, spent in record.seconds.items():
            total[stage] = total.get(stage, 0.0) + spent
    return total


def chosen(result: Result, each: int = 4) -> dict[str, list[Record]]:
    """Return the best, the middling and the worst images, each image once."""
    ranked = sorted((r for r in result.records if not math.isnan(result.of(r))), key=lambda r: (-result.of(r), r.key))
    each = min(each, max(1, len(ranked) // 3))
    middle = max(each, (len(ranked) - each) // 2)
    return {
        "best": ranked[:each],
        "median": ranked[middle : middle + each] if len(ranked) > each else [],
        "worst": ranked[max(middle + each, len(ranked) - each) :],
    }


def _number(value: float) -> float | None:
    return round(float(value), 12) if math.isfinite(value) else None
