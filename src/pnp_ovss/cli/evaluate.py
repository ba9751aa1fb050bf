"""``pnp-ovss evaluate``: a score that says what it is, and a report beside it."""

import argparse
import math
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pnp_ovss.cli.command import PARTLY, PROG, Command, complain, natural, positive
from pnp_ovss.cli.options import add_model, add_settings, settings
from pnp_ovss.config import DEFAULT_MODEL
from pnp_ovss.errors import InputError

if TYPE_CHECKING:
    from pnp_ovss.data import Dataset
    from pnp_ovss.evaluation.record import Record
    from pnp_ovss.evaluation.result import Result
    from pnp_ovss.evaluation.run import Run
    from pnp_ovss.segmenter import Segmenter

SCENES, MERGE = "scenes", "merge"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of ``evaluate``."""
    parser.add_argument("what", metavar="DATASET", help=f"a data set (below), {SCENES}, or {MERGE}")
    parser.add_argument("folders", nargs="*", type=Path, metavar="DIR", help=f"{MERGE}: folders of the shards' results")
    parser.add_argument("--root", type=Path, metavar="DIR", help="folder that holds the data set")
    parser.add_argument("--split", metavar="NAME", help="another split than the one papers score")
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder of the results (default: evaluation/DATASET)")
    parser.add_argument(
        "--names",
        metavar="truth|given|FILE",
        help="who names the classes: truth, the classes of each image's truth; given, every class of the data set; or "
        f"a file: .json with names per image, else one name a line for all (for {SCENES} default: truth)",
    )
    parser.add_argument(
        "--oracle", action="store_true", help="score with the true names too, and tell naming from localisation"
    )
    parser.add_argument(
        "--vocabulary", default="plain", metavar="NAME|FILE", help="words for the classes (default: plain)"
    )
    parser.add_argument(
        "--protocol", default="standard", choices=("standard", "authors"), help="what counts (default: standard)"
    )
    parser.add_argument("--limit", type=positive, metavar="N", help="only the first N images")
    parser.add_argument("--shard", type=_part, metavar="I/N", help="only the I-th of N parts, from 1; then merge")
    parser.add_argument("--batch-size", type=positive, default=1, metavar="N", help="images at a time (default: 1)")
    parser.add_argument("--workers", type=positive, default=1, metavar="N", help="batches at a time (default: 1)")
    parser.add_argument(
        "--predictions", type=Path, metavar="DIR", help="score these label maps, <key>.png, of any other system"
    )
    parser.add_argument(
        "--values",
        default="file",
        choices=("file", "index", "own"),
        help="what their values are: file, as in the data set's masks; index, the place in its list of classes; own, "
        "as this package writes them (default: file)",
    )
    group = parser.add_argument_group(SCENES)
    group.add_argument("--scenes", type=positive, default=100, metavar="N", help="how many (default: 100)")
    group.add_argument("--seed", type=natural, default=2, metavar="N", help="which series (default: 2, held out)")
    group.add_argument("--scene-size", type=positive, default=224, metavar="N", help="their side (default: 224)")
    group.add_argument("--no-steps", action="store_true", help="leave out the table of what each step earns")
    add_model(parser)
    parser.set_defaults(model=None)
    add_settings(parser)


def run(arguments: argparse.Namespace) -> int:
    """Score a data set; return the exit code."""
    if arguments.what == MERGE:
        return _merge(arguments)
    if arguments.folders:
        raise InputError(f"{arguments.folders[0]} came besides {arguments.what}; name the folder with --root")
    if arguments.what == SCENES:
        arguments.names = arguments.names or "truth"
        arguments.model = arguments.model or "mini-blip"
    arguments.out = arguments.out or Path("evaluation") / arguments.what
    from pnp_ovss.store import check_folder

    check_folder(arguments.out)
    dataset = _dataset(arguments)
    return _evaluate(arguments, dataset)


def _evaluate(arguments: argparse.Namespace, dataset: "Dataset") -> int:
    from dataclasses import replace
    from functools import partial

    from pnp_ovss.evaluation.classes import load_choice
    from pnp_ovss.evaluation.record import write_manifest
    from pnp_ovss.evaluation.run import Run, read_predictions, segment

    vocabulary = _vocabulary(arguments, dataset)
    names, choose = load_choice("truth" if arguments.predictions else arguments.names, dataset, vocabulary)
    settings = _about_data(arguments, dataset)
    if arguments.predictions:
        folder = arguments.predictions
        if not folder.is_dir():
            raise InputError(f"there is no folder {folder}; give the one that holds the label maps")
        settings |= {"predictions": str(folder.resolve()), "values": arguments.values, "names": "unknown"}
        predict = partial(read_predictions, folder=folder, dataset=dataset, values=arguments.values)
    else:
        segmenter = _segmenter(arguments, dataset)
        settings |= _about_model(segmenter, arguments.dtype, names, vocabulary)
        sizes = {"batch": arguments.batch_size, "workers": arguments.workers}
        predict = partial(segment, segmenter=segmenter, dataset=dataset, vocabulary=vocabulary, **sizes)
    samples = dataset.samples[: arguments.limit]
    root = str(arguments.root.resolve()) if arguments.root else None
    write_manifest(arguments.out, settings, [sample.key for sample in samples], dataset.faults, root)
    run = Run(dataset, choose, predict, arguments.out / "images", keep=not arguments.predictions)
    index, count = arguments.shard or (1, 1)
    part = samples[index - 1 :: count]
    failed = _progress(arguments, run, part, dataset.name)
    if arguments.oracle and not arguments.predictions and arguments.names != "truth":
        truly = replace(run, choose=load_choice("truth", dataset, vocabulary)[1], folder=arguments.out / "oracle")
        _progress(arguments, truly, part, "true names")
    if arguments.shard:
        _complain_of([(record.key, record.fault) for record in failed])
        print(f"part {index} of {count}: {len(part) - len(failed)} of {len(part)} images are scored in {arguments.out}")
        print(f"when all parts are there: {PROG} evaluate {MERGE} {arguments.out}")
        return PARTLY if failed else 0
    return _finish(arguments, [arguments.out], dataset)


def _vocabulary(arguments: argparse.Namespace, dataset: "Dataset") -> Any:
    from pnp_ovss.data import load_vocabulary
    from pnp_ovss.types import Vocabulary

    old = load_vocabulary(arguments.vocabulary, dataset.classes, dataset.words)
    return Vocabulary(old.words, old.name)


def _about_data(arguments: argparse.Namespace, dataset: "Dataset") -> dict[str, Any]:
    from pnp_ovss._version import VERSION

    about = {
        "dataset": arguments.what,
        "title": dataset.title,
        "split": arguments.split,
        "layout": dataset.layout,
        "classes": list(dataset.classes),
        "nothing": dataset.labels[0],
        "version": VERSION,
    }
    if arguments.what == SCENES:
        about |= {"scenes": arguments.scenes, "seed": arguments.seed, "scene_size": arguments.scene_size}
    return about


def _about_model(segmenter: "Segmenter", dtype: str, names: str, vocabulary: Any) -> dict[str, Any]:
    from pnp_ovss.runs.manifest import about_model

    vlm = segmenter.method.vlm
    return about_model(vlm.name, vlm.revision, vlm.device.type, dtype, segmenter.config) | {
        "names": names,
        "vocabulary": vocabulary.name,
        "words": {cls: list(words) for cls, words in vocabulary.words.items() if words != (cls,)},
    }


def _finish(arguments: argparse.Namespace, folders: Sequence[Path], dataset: "Dataset | None") -> int:
    """Write the report of complete results into ``arguments.out``."""
    from pnp_ovss.evaluation.report import write_report
    from pnp_ovss.evaluation.result import load_results

    result = load_results(folders, arguments.protocol, arguments.oracle)
    if result.oracle is None and any((folder / "oracle").is_dir() for folder in folders):
        complain("results with the true names are not there for these images: left out; run with --oracle to have them")
    _complain_of(result.faults)
    if not result.records:
        raise InputError(f"none of {len(result.faults)} images could be scored: {result.faults[0][1]}")
    write_report(arguments.out, result, folders, dataset)
    _tell(result, arguments.out)
    return PARTLY if result.faults else 0


def _merge(arguments: argparse.Namespace) -> int:
    from pnp_ovss.data import load_dataset
    from pnp_ovss.evaluation.record import check_run, read_manifest

    if not arguments.folders:
        raise InputError(f"no folder was given; name those of the shards: {PROG} evaluate {MERGE} DIR DIR")
    manifests = [read_manifest(folder) for folder in arguments.folders]
    arguments.out = arguments.out or arguments.folders[0]
    told = manifests[0]["settings"]
    for manifest, folder in zip(manifests[1:], arguments.folders[1:], strict=True):
        check_run(arguments.folders[0], manifest["settings"])
        if manifest["keys"] != manifests[0]["keys"]:
            raise InputError(f"{folder} is a run over other images than {arguments.folders[0]}; merge parts of one run")
    try:
        if told["dataset"] == SCENES:
            dataset: Dataset | None = _scenes(told)
        else:
            dataset = load_dataset(told["dataset"], arguments.root or manifests[0]["root"], told["split"])
    except InputError:
        complain("the data set is not here: the report has no photos; give its folder with --root to have them")
        dataset = None
    return _finish(arguments, arguments.folders, dataset)


def _dataset(arguments: argparse.Namespace) -> "Dataset":
    from pnp_ovss.data import DATASETS, load_dataset

    if arguments.what == SCENES:
        return _scenes({"scenes": arguments.scenes, "seed": arguments.seed, "scene_size": arguments.scene_size})
    if arguments.what not in DATASETS:
        raise InputError(f"no data set {arguments.what!r}; the data sets are {', '.join(DATASETS)} and {SCENES}")
    if arguments.root is None:
        raise InputError(f"where {arguments.what} lies is not said; give its folder with --root")
    if arguments.names is None and arguments.predictions is None:
        raise InputError("who names the classes is not said; give --names truth, given or a file")
    return load_dataset(arguments.what, arguments.root, arguments.split)


def _scenes(told: dict[str, Any]) -> "Dataset":
    from pnp_ovss.evaluation.scenes import scenes

    return scenes(told["scenes"], told["seed"], told["scene_size"])


def _segmenter(arguments: argparse.Namespace, dataset: "Dataset") -> "Segmenter":
    """Load the model. Where a data set scores no background, none is guessed, unless a setting says otherwise."""
    from pnp_ovss.segmenter import Segmenter

    given = settings(arguments)
    if not dataset.background:  # the authors' code: a background only where fewer than 3 classes are named
        given = {"background": "few" if arguments.protocol == "authors" else "never"} | given
    chosen = (arguments.model or DEFAULT_MODEL, arguments.preset, arguments.device, arguments.dtype, arguments.revision)
    return Segmenter.from_pretrained(*chosen, **given)


def _progress(arguments: argparse.Namespace, run: "Run", samples: Sequence[Any], title: str) -> list["Record"]:
    """Score the samples under a progress bar that shows the score so far; return the records of those that failed."""
    from tqdm import tqdm

    from pnp_ovss.evaluation.metrics import PROTOCOLS, Counts
    from pnp_ovss.evaluation.run import evaluate

    protocol, counts, failed = PROTOCOLS[arguments.protocol], Counts.empty(len(run.dataset.labels)), []
    with tqdm(total=len(samples), unit="image", desc=title, file=sys.stderr) as bar:
        for record in evaluate(run, samples):
            if record.counts is None:
                failed.append(record)
            else:
                counts = counts + record.counts
            score = protocol.miou(counts, run.dataset.background)
            note = "" if math.isnan(score) else f"mIoU {100 * score:.1f}"
            bar.set_postfix_str(note + (f", {len(failed)} failed" if failed else ""), refresh=False)
            bar.update()
    return failed


def _tell(result: "Result", out: Path) -> None:
    from pnp_ovss.evaluation.result import losses

    failed = f", {len(result.faults)} failed" if result.faults else ""
    print(f"mIoU {100 * result.miou:.1f} over {len(result.records)} images{failed}, protocol {result.protocol.name}")
    lost = losses(result)
    if lost:
        parts = {name: f"{100 * value:.1f}" for name, value in lost.items() if value is not None}
        print(
            f"with the true names {parts['miou_with_true_names']}: naming costs {parts['lost_to_naming']}, "
            f"localisation {parts['lost_to_localisation']}"
        )
    print(f"report: {out / 'report.html'} (and .md, .json)")


def _complain_of(faults: Sequence[tuple[str, str]], most: int = 20) -> None:
    for _, fault in faults[:most]:
        complain(fault)
    if len(faults) > most:
        complain(f"and {len(faults) - most} more; the report lists them")


def _part(text: str) -> tuple[int, int]:
    found = re.fullmatch(r"(\d+)/(\d+)", text)
    if not found or not 1 <= int(found[1]) <= int(found[2]):
        raise argparse.ArgumentTypeError(f"{text!r} is no part such as 2/4, from 1/4 to 4/4")
    return int(found[1]), int(found[2])


COMMAND = Command(
    usage="DATASET --root DIR [options] | scenes [options] | merge DIR... [options]",
    summary="score a model, or anybody's label maps, on a benchmark",
    description="""Score a model, or anybody's label maps, on a benchmark; write report.html, report.md and report.json.

Data sets: voc20, voc21, context59, context60, object80, object81, stuff171, panoptic133, ade150, and folder (your own
images/, masks/ and classes.txt). scenes are drawn and need no folder. docs/evaluation.md says where to get each one and
what every number means.

A result per image is kept in the folder of the results: a run that was stopped goes on where it stopped, and one over
other settings is refused. Parts of a run, made with --shard, become one report with merge.""",
    example=f"{PROG} evaluate scenes --scenes 20",
    add_arguments=add_arguments,
    run=run,
)
