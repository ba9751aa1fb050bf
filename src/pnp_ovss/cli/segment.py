"""``pnp-ovss segment``: photos and class names become label maps."""

import argparse
import sys
from collections.abc import Callable
from functools import cache, lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pnp_ovss.cli.classes import add_classes, named
from pnp_ovss.cli.command import PARTLY, PROG, STOPPED, Command, complain, positive
from pnp_ovss.cli.name import add_namer, check_namer, load_namer, load_vocabulary
from pnp_ovss.cli.options import add_model, add_settings, clip_name, settings
from pnp_ovss.errors import InputError

if TYPE_CHECKING:
    from pnp_ovss.runs.pipeline import Item, NamePhotos
    from pnp_ovss.segmentation import Segmentation
    from pnp_ovss.segmenter import Segmenter
    from pnp_ovss.types import Vocabulary


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of ``segment``."""
    parser.add_argument("photos", nargs="+", metavar="PHOTO", help="file, folder (the pictures right in it) or glob")
    add_classes(parser)
    parser.add_argument("--out", type=Path, default=Path("results"), metavar="DIR", help="folder (default: results)")
    parser.add_argument(
        "--batch-size", type=positive, default=1, metavar="N", help="photos the model sees at a time (default: 1)"
    )
    add_namer(parser, "itm")
    group = parser.add_argument_group("quality")
    group.add_argument(
        "--clip", metavar="NAME", help="dual encoder, such as clip-base, that rates each mask from 0 to 1 in the record"
    )
    group.add_argument(
        "--min-quality",
        type=float,
        metavar="X",
        help="drop the classes whose mask is rated lower; below 0.5 the reward of the paper rejects it",
    )
    add_model(parser)
    add_settings(parser)


def run(arguments: argparse.Namespace) -> int:
    """Segment the photos; return the exit code."""
    from pnp_ovss.files import check_folder
    from pnp_ovss.images import find_images
    from pnp_ovss.methods import resolve_config
    from pnp_ovss.runs.record import check_places

    # All that can be wrong without a model is found before one is loaded or even fetched.
    if arguments.min_quality is not None and not 0 <= arguments.min_quality <= 1:
        raise InputError(f"expected --min-quality from 0 to 1, got {arguments.min_quality:g}")
    classes = named(arguments)
    if classes is None:
        check_namer(arguments)
    photos = find_images(arguments.photos)
    resolve_config(arguments.model, arguments.preset, arguments.revision, **settings(arguments))
    check_folder(arguments.out)
    check_places(arguments.out, photos)
    return _segment(arguments, photos, classes)


def _segment(arguments: argparse.Namespace, photos: list[Path], classes: "Vocabulary | None") -> int:
    from tqdm import tqdm

    from pnp_ovss.runs.pipeline import run as run_pipeline
    from pnp_ovss.runs.record import write_result
    from pnp_ovss.segmenter import Segmenter

    chosen = (arguments.model, arguments.preset, arguments.device, arguments.dtype, arguments.revision)
    load = cache(
        lambda: Segmenter.from_pretrained(*chosen, **settings(arguments))
    )  # at the first photo it is needed for
    rate, out, alone = _rater(arguments), arguments.out, len(photos) == 1
    name = None if classes else _namer(arguments, load)
    done, bad = 0, 0
    bar = tqdm(total=len(photos), disable=alone, unit="photo", file=sys.stderr)
    try:
        outcomes = run_pipeline(load, _items(photos, classes), name, arguments.batch_size, alone or classes is not None)
        for path, outcome in zip(photos, outcomes, strict=True):
            if outcome.fault and alone:
                raise outcome.fault
            if outcome.fault:
                bad += 1
                with bar.external_write_mode(file=sys.stderr):
                    complain(str(outcome.fault) if outcome.photo is None else f"{path}: {outcome.fault}")
            elif outcome.photo is not None and outcome.result is not None:
                result = rate(outcome.result, outcome.photo)
                spent = outcome.seconds["segment"] + outcome.seconds["refine"]
                write_result(out, path, outcome.photo, result, spent)
                done += 1
                with bar.external_write_mode(file=sys.stdout):
                    print(f"{path}: {_shares(result.areas)}")
            else:
                with bar.external_write_mode(file=sys.stdout):
                    print(f"{path}: nothing was named, nothing is written")
            bar.update()
    except KeyboardInterrupt:
        bar.close()
        kept = f", their results are in {out}" if done else ""
        complain(f"stopped; {done} of {len(photos)} photos are done{kept}")
        return STOPPED
    finally:
        bar.close()
    if done:
        print(f"{done} photo{'s' * (done > 1)} in {out}: for each a label map .png, an .overlay.png and a .json record")
    if bad:
        complain(f"{bad} of {len(photos)} photos could not be read{' or named' if classes is None else ''}")
    return PARTLY if bad else 0


def _items(photos: list[Path], classes: "Vocabulary | None") -> "list[Item]":
    from pnp_ovss.images import read_image
    from pnp_ovss.runs.pipeline import Item

    return [Item(path.stem, partial(read_image, path), classes) for path in photos]


def _namer(arguments: argparse.Namespace, load: "Callable[[], Segmenter]") -> "NamePhotos":
    """Return what names the classes of photos, for all that the flags say."""
    from pnp_ovss.naming import photo_namer
    from pnp_ovss.runs.batch import vlm_of

    namer = load_namer(arguments, lambda: vlm_of(load()))
    calls = arguments.calls if arguments.namer == "openai" else 1
    return photo_namer(namer, load_vocabulary(arguments), arguments.keep, calls)


def _rater(arguments: argparse.Namespace) -> "Callable[[Segmentation, np.ndarray], Segmentation]":
    """Return what gives a segmentation its quality and drops what is too bad, where the flags ask for it."""
    least = arguments.min_quality
    if arguments.clip is None and least is None:
        return lambda result, photo: result
    from pnp_ovss.models.clip import load_clip
    from pnp_ovss.tuning.quality import drop_below, judge_for, masks_of, rate

    clip = load_clip(clip_name(arguments.clip, arguments.model), arguments.device, arguments.dtype)
    judge = lru_cache(maxsize=8)(lambda names: judge_for(clip, names))  # photos mostly share their classes

    def rated(result: "Segmentation", photo: np.ndarray) -> "Segmentation":
        found = rate(result, photo, judge(masks_of(result)[1]))
        return found if least is None else drop_below(found, least)

    return rated


def _shares(areas: dict[str, float]) -> str:
    """Return the shares of what was found, the largest first, the background last."""
    from pnp_ovss.pictures.text import share
    from pnp_ovss.types import BACKGROUND

    order = sorted(areas, key=lambda name: (name == BACKGROUND, -areas[name]))
    return ", ".join(f"{name} {share(areas[name])}" for name in order if areas[name] > 0)


COMMAND = Command(
    usage="PHOTO... --classes NAMES [options]",
    summary="segment photos into the classes you name",
    description="""Segment photos into the classes you name.

For each photo three files are written: <name>.png, a palette label map whose values index the classes;
<name>.overlay.png, the photo under the classes' colours with a legend; and <name>.json, the record: classes, area
shares, match score, settings, model and revision, version, seconds.

The default model is fetched once (1.8 GB). mini-blip comes along, but knows drawn scenes only, such as the demo's.""",
    example=f'{PROG} segment demo/scene-000.png --model mini-blip --classes "rocket, cactus"  (after {PROG} demo)',
    add_arguments=add_arguments,
    run=run,
)
