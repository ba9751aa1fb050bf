"""From records to all that a report says: scores, what cost most, which images were best and worst."""

import json
import math
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np

from pnp_ovss.errors import InputError
from pnp_ovss.evaluation import metrics, trust
from pnp_ovss.evaluation.metrics import PROTOCOLS, Confusion, Counts, Protocol
from pnp_ovss.evaluation.record import Record, load_records, read_manifest
from pnp_ovss.types import BACKGROUND

CONFUSIONS = 12
"""Pairs of classes in a report."""
RIGHT = 0.5
"""IoU above which a region is right."""
COVERAGES = range(10, 101, 10)
"""Percent of the regions, the surest first, of which a report says how many are wrong."""


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
    settings, size = manifest["settings"], len(manifest["settings"]["classes"]) + 1
    records = load_records([folder / "images" for folder in folders], manifest["keys"])
    scored = tuple(record for record in records if not record.fault)
    failed = [(record.key, record.fault) for record in records if record.fault]
    faults = (*map(tuple, manifest["faults"]), *failed)
    places = [path for folder in folders if (path := folder / "oracle").is_dir()]
    best = _oracle(places, records, size, oracle) if places else None
    return Result(settings, PROTOCOLS[protocol], scored, faults, _pooled(scored, size), best)


def report(result: Result) -> dict[str, Any]:
    """Return the report as strict JSON values: no NaN, None where there is no number. Times are under "seconds"."""
    counts, records, protocol = result.counts, result.records, result.protocol
    confusion, boundary = metrics.confusion_of(counts, protocol.void), metrics.boundary_iou(counts)
    first = protocol.first(result.background)
    stages = dict.fromkeys(stage for record in records for stage in record.seconds)
    score = {"miou": result.miou, "protocol": protocol.name, "meaning": protocol.meaning}
    found = {
        "score": score | {"images": len(records), "failed": len(result.faults)},
        "also": {
            "pixel_accuracy": confusion.pixel_accuracy(),
            "frequency_weighted_iou": confusion.frequency_weighted_iou(),
            "boundary_miou": metrics.mean_of_known(boundary[first:]),
            "miou_by_protocol": {name: one.miou(counts, result.background) for name, one in PROTOCOLS.items()},
            "miou_by_meaning": {over: confusion.miou(over, first) for over in get_args(metrics.Over)},
        },
        "classes": _per_class(result.labels, confusion, boundary)[first:],
        "confusions": confusions(result),
        "names": naming(result),
        "losses": losses(result),
        "confidence": confidence(result),
        "images": {record.key: result.image_miou(record) for record in records},
    }
    strict: dict[str, Any] = json.loads(json.dumps(found), parse_float=_rounded, parse_constant=lambda nan: None)
    failed = [{"image": key, "fault": fault} for key, fault in result.faults]
    seconds = {stage: round(sum(r.seconds.get(stage, 0.0) for r in records), 3) for stage in stages}
    made = {"settings": result.settings, "python": platform.python_version(), "seconds": seconds}
    return strict | {"failed": failed} | made


def confusions(result: Result) -> list[dict[str, Any]]:
    """Return the pairs of truth and prediction that cost most: what the mean would gain if those pixels were right."""
    protocol, counts = result.protocol, metrics.confusion_of(result.counts, result.protocol.void).counts
    wrong = counts * ~np.eye(len(counts), dtype=bool)
    # The gain can be large only where many pixels of a class are concerned: the rest is not tried.
    weight = wrong / np.maximum(counts.sum(1)[:, None], 1) + wrong / np.maximum(counts.sum(0), 1)
    pairs: list[dict[str, Any]] = []
    for pair in np.argsort(-weight, axis=None)[: 8 * CONFUSIONS]:
        truth, prediction = divmod(int(pair), len(wrong))
        pixels, mended = int(wrong[truth, prediction]), counts.copy()
        if not pixels:
            break
        mended[truth, truth] += pixels
        mended[truth, prediction] -= pixels
        gain = Confusion(mended).miou(protocol.over, protocol.first(result.background)) - result.miou
        truth_name, guess = result.labels[truth], result.labels[prediction]
        pairs.append({"truth": truth_name, "guess": guess, "miou_lost": gain, "pixels": pixels})
    pairs.sort(key=lambda pair: (-pair["miou_lost"], -pair["pixels"], pair["truth"], pair["guess"]))
    return [pair for pair in pairs[:CONFUSIONS] if pair["miou_lost"] > 0]


def naming(result: Result) -> dict[str, float | None]:
    """Return how good the names were: found / all of the truth's classes, and right / all named ones."""
    sizes = [(len(r.named), len(r.true), len({*r.named} & {*r.true})) for r in result.records]
    named, true, both = (sum(column) for column in zip(*sizes, strict=True))
    means = {"named_per_image": named / len(sizes), "true_per_image": true / len(sizes)}
    return {"recall": both / true if true else None, "precision": both / named if named else None} | means


def losses(result: Result) -> dict[str, float] | None:
    """Return what naming and what localisation lose of a perfect score; None without a run with the true names."""
    if result.oracle is None:
        return None
    best = result.protocol.miou(result.oracle, result.background)
    lost = best - result.miou
    return {"miou_with_true_names": best, "lost_to_naming": lost, "lost_to_localisation": 1 - best}


def confidence(result: Result) -> dict[str, Any] | None:
    """Return how well the confidences order the regions, and whether they mean what they say; None without any.

    A region is right if its IoU with the truth of its class in that image is above ``RIGHT``.
    """
    sure, right = list[float](), list[bool]()
    for record in result.records:
        if record.counts is not None and record.confidence:
            iou = dict(zip(result.labels, metrics.confusion_of(record.counts, result.protocol.void).iou(), strict=True))
            sure += record.confidence.values()
            right += [bool(iou[name] > RIGHT) for name in record.confidence]
    if not sure:
        return None
    both = np.array(sure), np.array(right)
    curve = list(trust.risk_coverage(*both))
    risks = {f"{part}": next(risk for covered, risk in curve if covered >= part / 100) for part in COVERAGES}
    numbers = {"regions": len(sure), "right": float(both[1].mean()), "risk_at_coverage": risks}
    scores = {"average_precision": trust.average_precision(*both), "calibration_error": trust.calibration_error(*both)}
    return numbers | scores


def best_and_worst(result: Result, each: int = 4) -> dict[str, list[Record]]:
    """Return the best, the middling and the worst images, each image once."""
    scores = {record.key: result.image_miou(record) for record in result.records}
    known = [record for record in result.records if not math.isnan(scores[record.key])]
    ranked = sorted(known, key=lambda record: (-scores[record.key], record.key))
    each = min(each, max(1, len(ranked) // 3))
    middle = max(each, (len(ranked) - each) // 2)
    worst = ranked[max(middle + each, len(ranked) - each) :]
    return {"best": ranked[:each], "median": ranked[middle : middle + each], "worst": worst}


def _oracle(folders: Sequence[Path], records: Sequence[Record], labels: int, asked: bool) -> Counts | None:
    try:
        best = load_records(folders, [record.key for record in records])
    except InputError:
        if asked:
            raise
        return None
    same = [record.truth for record in best] == [record.truth for record in records]
    return _pooled(best, labels) if asked or same else None


def _pooled(records: Sequence[Record], labels: int) -> Counts:
    counted = (record.counts for record in records if record.counts is not None)
    return sum(counted, metrics.no_counts(labels))


def _per_class(labels: Sequence[str], confusion: Confusion, boundary: np.ndarray) -> list[dict[str, Any]]:
    truth, prediction = (confusion.counts.sum(axis) / max(1, confusion.counts.sum()) for axis in (1, 0))
    names = ("class", "iou", "boundary_iou", "truth_share", "guess_share")
    rows = zip(labels, confusion.iou(), boundary, truth, prediction, strict=True)
    return [dict(zip(names, row, strict=True)) for row in rows]


def _rounded(number: str) -> float:
    return round(float(number), 12)
