"""From records to all that a report says: scores, what cost most, which images were best and worst."""

import math
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pnp_ovss.errors import InputError
from pnp_ovss.evaluation.metrics import PROTOCOLS, Boundary, Confusion, Counts, Protocol
from pnp_ovss.evaluation.record import Record, load_records, read_manifest
from pnp_ovss.types import BACKGROUND

CONFUSIONS = 12
"""Pairs of classes in a report."""


@dataclass(frozen=True)
class Result:
    """The records of a run, added up."""

    settings: dict[str, Any]
    """The manifest's."""
    protocol: Protocol
    records: tuple[Record, ...]
    """Of the images that were scored, in order."""
    faults: tuple[tuple[str, str], ...]
    """Key and cause of the images that were not."""
    counts: Counts
    boundary: Boundary
    oracle: Counts | None = None
    """Of the same images with the true names."""

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

    def image_miou(self, record: Record) -> float:
        """Return the score of one image."""
        return math.nan if record.counts is None else self.protocol.miou(record.counts, self.background)


def load_results(folders: Sequence[Path], protocol: str, oracle: bool) -> Result:
    """Return the result of a run from its folders, whose first one holds the manifest.

    Results with the true names are left out where they lack an image or had another truth, unless ``oracle`` asks for
    them.

    Raises: InputError if an image has no result.
    """
    manifest = read_manifest(folders[0])
    records = load_records([folder / "images" for folder in folders], manifest["keys"])
    best = _oracle([path for folder in folders if (path := folder / "oracle").is_dir()], records, oracle)
    scored = tuple(record for record in records if not record.fault)
    faults = [(key, fault) for key, fault in manifest["faults"]]
    faults += [(record.key, record.fault) for record in records if record.fault]
    size = len(manifest["settings"]["classes"]) + 1
    boundary = sum((r.boundary for r in scored if r.boundary is not None), Boundary.empty(size))
    named_truly = _pooled(best, size) if best else None
    chosen = PROTOCOLS[protocol]
    return Result(manifest["settings"], chosen, scored, tuple(faults), _pooled(scored, size), boundary, named_truly)


def report(result: Result) -> dict[str, Any]:
    """Return the report as strict JSON values: no NaN, None where there is no number. Times are under "seconds"."""
    confusion, first = result.protocol.confusion(result.counts), result.protocol.first(result.background)
    counts, background = result.counts, result.background
    stages = dict.fromkeys(stage for record in result.records for stage in record.seconds)
    by_meaning = {over: confusion.miou(over, first) for over in ("truth", "either", "one", "zero")}
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
            "miou_by_protocol": {name: _number(p.miou(counts, background)) for name, p in PROTOCOLS.items()},
            "miou_by_meaning": {over: _number(miou) for over, miou in by_meaning.items()},
        },
        "classes": _per_class(result, confusion, first),
        "confusions": confusions(result),
        "names": naming(result),
        "losses": losses(result),
        "images": {record.key: _number(result.image_miou(record)) for record in result.records},
        "failed": [{"image": key, "fault": fault} for key, fault in result.faults],
        "settings": result.settings,
        "python": platform.python_version(),
        "seconds": {stage: round(sum(r.seconds.get(stage, 0.0) for r in result.records), 3) for stage in stages},
    }


def confusions(result: Result) -> list[dict[str, Any]]:
    """Return the pairs of truth and prediction that cost most: what the mean would gain if those pixels were right."""
    confusion, first = result.protocol.confusion(result.counts), result.protocol.first(result.background)
    wrong = confusion.counts.copy()
    np.fill_diagonal(wrong, 0)
    # The gain can be large only where many pixels of a class are concerned: the rest is not tried.
    size = np.maximum(confusion.counts.sum(1)[:, None], 1)
    weight = wrong / size + wrong / np.maximum(confusion.counts.sum(0), 1)
    pairs = []
    for pair in np.argsort(-weight, axis=None)[: 8 * CONFUSIONS]:
        truth, prediction = divmod(int(pair), len(wrong))
        mended = confusion.counts.copy()
        mended[truth, truth] += wrong[truth, prediction]
        mended[truth, prediction] -= wrong[truth, prediction]
        gain = Confusion(mended).miou(result.protocol.over, first) - result.miou
        pairs.append((gain, int(wrong[truth, prediction]), result.labels[truth], result.labels[prediction]))
    ranked = sorted(pairs, key=lambda pair: (-pair[0], -pair[1], pair[2], pair[3]))[:CONFUSIONS]
    return [
        {"truth": truth, "guess": prediction, "miou_lost": _number(gain), "pixels": pixels}
        for gain, pixels, truth, prediction in ranked
        if gain > 0
    ]


def naming(result: Result) -> dict[str, float | None]:
    """Return how good the names were: found / all of the truth's classes, and right / all named ones."""
    sizes = [(len(r.named), len(r.true), len({*r.named} & {*r.true})) for r in result.records]
    named, true, both = (sum(column) for column in zip(*sizes, strict=True))
    images = len(sizes)
    return {
        "recall": _number(both / true if true else math.nan),
        "precision": _number(both / named if named else math.nan),
        "named_per_image": _number(named / images),
        "true_per_image": _number(true / images),
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


def best_and_worst(result: Result, each: int = 4) -> dict[str, list[Record]]:
    """Return the best, the middling and the worst images, each image once."""
    scores = {record.key: result.image_miou(record) for record in result.records}
    ranked = sorted((r for r in result.records if not math.isnan(scores[r.key])), key=lambda r: (-scores[r.key], r.key))
    each = min(each, max(1, len(ranked) // 3))
    middle = max(each, (len(ranked) - each) // 2)
    return {
        "best": ranked[:each],
        "median": ranked[middle : middle + each] if len(ranked) > each else [],
        "worst": ranked[max(middle + each, len(ranked) - each) :],
    }


def _oracle(folders: Sequence[Path], records: Sequence[Record], asked: bool) -> list[Record]:
    if not folders:
        return []
    try:
        best = load_records(folders, [record.key for record in records])
    except InputError:
        if asked:
            raise
        return []
    pairs = zip(records, best, strict=True)
    same = all(one.truth == other.truth for one, other in pairs if not (one.fault or other.fault))
    return best if asked or same else []


def _pooled(records: Sequence[Record], labels: int) -> Counts:
    return sum((record.counts for record in records if record.counts is not None), Counts.empty(labels))


def _per_class(result: Result, confusion: Confusion, first: int) -> list[dict[str, Any]]:
    iou, boundary = confusion.iou(), result.boundary.iou()
    shares = [confusion.counts.sum(axis) / max(1, confusion.counts.sum()) for axis in (1, 0)]
    return [
        {
            "class": result.labels[label],
            "iou": _number(iou[label]),
            "boundary_iou": _number(boundary[label]),
            "truth_share": _number(shares[0][label]),
            "guess_share": _number(shares[1][label]),
        }
        for label in range(first, len(result.labels))
    ]


def _number(value: float) -> float | None:
    return round(float(value), 12) if math.isfinite(value) else None
