"""``pnp-ovss evaluate``: a score that says what it is, and a report beside it."""

import math
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from pnp_ovss.cli import PARTLY, PROG, complain, follow, say, say_anew
from pnp_ovss.cli.flags import Count, Dir, Memory, ModelFlags, Name, Seed, value
from pnp_ovss.data import DATASETS, Dataset, benchmark_vocabulary, default_vocabulary, load_dataset
from pnp_ovss.data.dataset import Sample
from pnp_ovss.errors import InputError
from pnp_ovss.evaluation.metrics import PROTOCOLS, no_counts
from pnp_ovss.evaluation.record import Record, about_data, about_model, check_run, read_manifest, write_manifest
from pnp_ovss.evaluation.report import write_report
from pnp_ovss.evaluation.result import confidence, load_results, losses
from pnp_ovss.evaluation.run import Run, evaluate, load_choice, read_predictions, scenes, segment
from pnp_ovss.lock import LOCK, hold
from pnp_ovss.methods import method_info
from pnp_ovss.methods.presence import Present
from pnp_ovss.types import Vocabulary

EXAMPLE = "evaluate scenes --scenes 20"
SCENES, MERGE = "scenes", "merge"
SCENE_FLAGS = ("scenes", "seed", "scene_size")
LINES = 20
"""Faults on the terminal; the report lists all."""


def _part(text: str) -> tuple[int, int]:
    found = re.fullmatch(r"(\d+)/(\d+)", text)
    if not found or not 1 <= int(found[1]) <= int(found[2]):
        raise typer.BadParameter(f"expected a part such as 2/4, from 1/4 to 4/4, got {text!r}")
    return int(found[1]), int(found[2])


@dataclass(frozen=True)
class EvaluateFlags:
    """What is scored, and how.

    Args:
        root: folder that holds the data set
        split: another split than the one papers score
        out: results (default: evaluation/DATASET)
        names: which classes are named: truth, those of each image's truth; given, every class of the data set; or a
            file: .json with names per image, else one name a line for all (for scenes default: truth)
        oracle: score the true names too: what does naming cost?
        vocabulary: words for the classes: plain, the official names; english, good English for them; another one that
            ships, such as authors or synonyms; or a file (default: english where the data set has it, else plain)
        protocol: which pixels and classes count; authors: as in PnP-OVSS, whose truth and names are read as theirs too
        limit: only the first N images
        shard: the I-th of N parts; then merge
        batch_size: images the model sees at a time
        workers: images that are read at a time, and on a GPU refined
        memory: what the process may hold, such as 4GB (default: most of what the machine or its container has left); an
            image that needs more is refined at fewer pixels
        present: auto: of the named classes an image gets those that it seems to show
        predictions: score the label maps of any other system in this folder, <key>.png
        system: what made them, as the report names it
        values: what their values are: as in the data set's masks, the place in its list of classes, or as we write them
        scenes: scenes: how many
        seed: scenes: which series (2 is held out)
        scene_size: scenes: their side in pixels
    """

    root: Dir | None = None
    split: Name | None = None
    out: Dir | None = None
    names: Annotated[str, value("truth|given|FILE")] | None = None
    oracle: bool = False
    vocabulary: Annotated[str, value("NAME|FILE")] | None = None
    protocol: Literal["standard", "authors"] = "standard"
    limit: Count | None = None
    shard: Annotated[Any, value("I/N", parser=_part)] = None
    batch_size: Count = 1
    workers: Count = 1
    memory: Memory | None = None
    present: Present = "all"
    predictions: Dir | None = None
    system: Name | None = None
    values: Literal["file", "index", "own"] = "file"
    scenes: Count = 100
    seed: Seed = 2
    scene_size: Count = 224


def command(
    what: Annotated[str, typer.Argument(metavar="DATASET")],
    flags: EvaluateFlags,
    model: ModelFlags,
    folders: Annotated[list[Path] | None, typer.Argument(metavar="DIR...")] = None,
) -> int:
    """Score a model, or anybody's label maps, on a benchmark; write report.html, report.md and report.json.

    Data sets: voc20, voc21, context59, context60, object80, object81, stuff171, panoptic133, ade150, and folder (your
    own images/, masks/ and classes.txt). scenes are drawn and need no folder. docs/evaluation.md says where to get each
    one and what every number means.

    A result per image is kept in the folder of the results: a run that was stopped goes on where it stopped, and one
    over other settings is refused. Parts of a run, made with --shard, become one report with merge.

    A method on CLIP has the settings that were published for the data set, where there are such (the preset
    METHOD/DATASET), unless --preset names others.

    Args:
        what: a data set (above), scenes, or merge
        folders: merge: the shards' folders
    """
    if what == MERGE:
        return _merge(folders or [], flags)
    if folders:
        raise InputError(f"{folders[0]} came besides {what}; name the folder with --root")
    if what == SCENES:
        model = replace(model, model=model.model or method_info(model.method).mini)
    out, (index, parts) = flags.out or Path("evaluation") / what, flags.shard or (1, 1)
    # Shards may share a folder: each has images of its own.
    with hold(out, LOCK if parts == 1 else f".pnp-ovss-{index}-of-{parts}.lock", ("images", "oracle")):
        return score(what, out, flags, model)


def score(what: str, out: Path, flags: EvaluateFlags, model: ModelFlags) -> int:
    """Score a model on a data set, or label maps, into a folder that no other process writes into; say how it was.

    Returns: the exit code.
    """
    dataset = _dataset(what, flags.root, vars(flags))
    run, settings = _prepare(what, dataset, out / "images", flags, model)
    root, samples = str(flags.root.resolve()) if flags.root else None, dataset.samples[: flags.limit]
    write_manifest(out, settings, root=root, keys=[sample.key for sample in samples], faults=dataset.faults)
    index, parts = flags.shard or (1, 1)
    samples = samples[index - 1 :: parts]
    failed = _score(run, samples, flags.protocol, dataset.name)
    if flags.oracle and run.keep and settings["names"] != "truth":
        _, truly = load_choice("truth", dataset, Vocabulary({}))
        _score(replace(run, choose=truly, folder=out / "oracle"), samples, flags.protocol, "true names")
    if flags.shard is None:
        return finish([out], out, flags, dataset)
    for record in failed[:LINES]:
        complain(record.fault)
    scored = f"{len(samples) - len(failed)} of {len(samples)} images are scored in {out}"
    say(f"part {index} of {parts}: {scored}\nwhen all parts are there: {PROG} evaluate {MERGE} {out}")
    return PARTLY if failed else 0


def _dataset(what: str, root: Path | str | None, about: dict[str, Any]) -> Dataset:
    if what == SCENES:
        return scenes(*(about[name] for name in SCENE_FLAGS))
    if what in DATASETS and root is None:
        raise InputError(f"where {what} lies is not said; give its folder with --root")
    return load_dataset(what, root or "", about["split"], about["protocol"])


def _prepare(
    what: str, dataset: Dataset, folder: Path, flags: EvaluateFlags, model: ModelFlags
) -> tuple[Run, dict[str, Any]]:
    """Return the run, and the settings that its manifest holds."""
    name = flags.vocabulary or default_vocabulary(dataset.words)
    words = benchmark_vocabulary(name, dataset.classes, dataset.words)
    given = "truth" if flags.predictions or (what == SCENES and not flags.names) else flags.names
    if given is None:
        raise InputError("which classes are named is not said; give --names truth, given or a file")
    names, choose = load_choice(given, dataset, words, flags.protocol)
    if flags.system and not flags.predictions:
        raise InputError(f"--system {flags.system} says what made label maps; give their folder with --predictions")
    settings = about_data(dataset, what, flags.split)
    if what == SCENES:
        settings |= {name: getattr(flags, name) for name in SCENE_FLAGS}
    if place := flags.predictions:
        if not os.path.isdir(place):
            raise InputError(f"there is no folder {place}; give the one that holds the label maps")
        settings |= {"predictions": str(place.resolve()), "values": flags.values, "names": "unknown"}
        settings |= {"system": flags.system} if flags.system else {}
        read = partial(read_predictions, folder=place, dataset=dataset, values=flags.values)
        return Run(dataset, choose, read, folder, keep=False), settings
    model = published(what, model)
    # Where a data set scores no background, none is predicted, unless a setting says otherwise.
    if not dataset.background and hasattr(model.config(), "background"):
        own = "few" if flags.protocol == "authors" else "never"  # the authors: only where fewer than 3 are named
        model = replace(model, settings={"background": own} | model.settings)
    segmenter = model.load(flags.memory, flags.present)
    settings |= {} if flags.present == "all" else {"present": flags.present}  # as in manifests of earlier versions
    settings |= about_model(segmenter, model.dtype, names, words)
    settings |= {"preset": model.preset} if model.preset == f"{model.method}/{what}" else {}
    sizes: dict[str, Any] = {"batch": flags.batch_size, "workers": flags.workers}
    predict = partial(segment, segmenter=segmenter, dataset=dataset, words=words, **sizes)
    return Run(dataset, choose, predict, folder, batch=flags.batch_size), settings


def published(what: str, model: ModelFlags) -> ModelFlags:
    """Return the model with the method's settings for a benchmark, where there are such and no preset was named.

    A model that has settings of its own keeps them.
    """
    name, presets = f"{model.method}/{what}", method_info(model.method).presets
    if model.preset != "auto" or name not in presets:
        return model
    if model.config() != replace(model, preset=next(iter(presets))).config():
        return model
    say(f"settings: {name}, those that were published for it")
    return replace(model, preset=name)


def _score(run: Run, samples: Sequence[Sample], protocol: str, title: str) -> list[Record]:
    """Score the samples under a progress bar that shows the score so far; return the records of those that failed."""
    counts, failed = no_counts(len(run.dataset.labels)), list[Record]()
    records = evaluate(run, samples, partial(say_anew, unit="image"))
    bar = follow(records, len(samples), "image", desc=title)
    for record in bar:
        if record.counts is None:
            failed.append(record)
        else:
            counts = counts + record.counts
        score = PROTOCOLS[protocol].miou(counts, run.dataset.background)
        note = "" if math.isnan(score) else f"mIoU {100 * score:.1f}"
        bar.set_postfix_str(note + (f", {len(failed)} failed" if failed else ""), refresh=False)
    return failed


def _merge(folders: Sequence[Path], flags: EvaluateFlags) -> int:
    if not folders:
        raise InputError(f"no folder was given; name those of the shards: {PROG} evaluate {MERGE} DIR DIR")
    first, *others = [read_manifest(folder) for folder in folders]
    for manifest, folder in zip(others, folders[1:], strict=True):
        check_run(folders[0], manifest["settings"])
        if manifest["keys"] != first["keys"]:
            raise InputError(f"{folder} is a run over other images than {folders[0]}; merge parts of one run")
    settings, dataset = first["settings"], None
    try:
        dataset = _dataset(settings["dataset"], flags.root or first["root"], settings | {"protocol": flags.protocol})
    except InputError:
        complain("the data set is not here: the report has no photos; give its folder with --root to have them")
    with hold(flags.out or folders[0]):
        return finish(folders, flags.out or folders[0], flags, dataset)


def finish(folders: Sequence[Path], out: Path, flags: EvaluateFlags, dataset: Dataset | None) -> int:
    """Write the report of complete results, say what it comes to, and return the exit code."""
    result = load_results(folders, flags.protocol, flags.oracle)
    if result.oracle is None and any((folder / "oracle").is_dir() for folder in folders):
        complain("results with the true names are not there for these images: left out; run with --oracle to have them")
    for _, fault in result.faults[:LINES]:
        complain(fault)
    if not result.records:
        raise InputError(f"none of {len(result.faults)} images could be scored: {result.faults[0][1]}")
    write_report(out, result, folders, dataset)
    failed = f", {len(result.faults)} failed" if result.faults else ""
    say(f"mIoU {100 * result.miou:.1f} over {len(result.records)} images{failed}, protocol {result.protocol.name}")
    if lost := losses(result):
        best, names, place = (f"{100 * (number or 0):.1f}" for number in lost.values())
        say(f"with the true names {best}: naming costs {names}, localisation {place}")
    if sure := confidence(result):
        order = f"average precision {sure['average_precision']:.3f}, calibration error {sure['calibration_error']:.3f}"
        say(f"confidence of {sure['regions']} regions: {order}")
    say(f"report: {out / 'report.html'} (and .md, .json)")
    return PARTLY if result.faults else 0
