"""``pnp-ovss segment``: photos and class names become label maps."""

from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from pnp_ovss.cli.classes import CLASSES, ClassFlags
from pnp_ovss.cli.command import PARTLY, STOPPED, Progress, complain
from pnp_ovss.cli.flags import MODEL, ModelFlags, clip_name, count, expand
from pnp_ovss.cli.name import NAMER, NamerFlags
from pnp_ovss.files import check_folder
from pnp_ovss.images import find_images, read_image
from pnp_ovss.models.clip import load_clip
from pnp_ovss.pictures.text import share
from pnp_ovss.runs import pipeline
from pnp_ovss.runs.batch import ClassSource
from pnp_ovss.runs.record import check_places, write_result
from pnp_ovss.segmentation import Segmentation
from pnp_ovss.segmenter import Segmenter
from pnp_ovss.tuning.reward import drop_below, rate
from pnp_ovss.types import BACKGROUND

EXAMPLE = 'segment demo/scene-000.png --model mini-blip --classes "rocket, cactus"  (after pnp-ovss demo)'
Rate = Callable[[Segmentation, np.ndarray], Segmentation]


@expand
def command(
    photos: Annotated[
        list[str], typer.Argument(metavar="PHOTO...", help="file, folder (the pictures right in it) or glob")
    ],
    classes: ClassFlags = CLASSES,
    out: Annotated[Path, typer.Option(metavar="DIR", help="folder")] = Path("results"),
    batch_size: Annotated[int, count("photos the model sees at a time")] = 1,
    namer: NamerFlags = NAMER,
    clip: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="dual encoder, such as clip-base, that rates each mask from 0 to 1 in the record"
        ),
    ] = None,
    min_quality: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=1,
            metavar="X",
            help="drop the classes whose mask is rated lower; below 0.5 the reward of the paper rejects it",
        ),
    ] = None,
    model: ModelFlags = MODEL,
) -> int:
    """Segment photos into the classes you name.

    For each photo three files are written: <name>.png, a palette label map whose values index the classes;
    <name>.overlay.png, the photo under the classes' colours with a legend; and <name>.json, the record: classes, area
    shares, regions, match score, settings, model and revision, version, seconds.

    The default model is fetched once (1.8 GB). mini-blip comes along, but knows drawn scenes only, such as the demo's.
    """
    # All that can be wrong without a model is found before one is loaded or even fetched.
    source = classes.source(namer, model)
    paths = find_images(photos)
    model.config()
    check_folder(out)
    check_places(out, paths)
    rate = _rater(clip, min_quality, model)
    return _segment(paths, source, cache(model.load), batch_size, partial(_write, out, rate), out)


def _segment(
    paths: list[Path],
    source: ClassSource,
    load: Callable[[], Segmenter],
    batch_size: int,
    write: Callable[[Path, pipeline.Outcome], str],
    out: Path,
) -> int:
    """Segment the photos under a progress bar; return the exit code."""
    items = [pipeline.Item(path.stem, partial(read_image, path), source.classes) for path in paths]
    alone, done, bad = len(paths) == 1, 0, 0
    strict = alone or source.classes is not None
    places, found = {path.stem: path for path in paths}, dict[str, str]()

    def finish(outcome: pipeline.Outcome) -> None:
        if not outcome.fault:
            found[outcome.key] = write(places[outcome.key], outcome)

    try:
        with Progress(len(paths), "photo", hidden=alone) as progress:
            outcomes = pipeline.run(load, items, source.name_photos(load), batch_size, strict, finish=finish)
            for path, outcome in zip(paths, outcomes, strict=True):
                if outcome.fault and alone:
                    raise outcome.fault
                if outcome.fault:
                    bad += 1
                    progress.complain(str(outcome.fault) if outcome.photo is None else f"{path}: {outcome.fault}")
                else:
                    progress.say(f"{path}: {found.pop(outcome.key)}")
                    done += outcome.result is not None
                progress.advance()
    except KeyboardInterrupt:
        kept = f", their results are in {out}" if done else ""
        complain(f"stopped; {done} of {len(paths)} photos are done{kept}")
        return STOPPED
    if done:
        print(f"{done} photo{'s' * (done > 1)} in {out}: for each a label map .png, an .overlay.png and a .json record")
    if bad:
        complain(f"{bad} of {len(paths)} photos could not be read{' or named' if source.classes is None else ''}")
    return PARTLY if bad else 0


def _write(out: Path, rate: Rate, path: Path, outcome: pipeline.Outcome) -> str:
    """Write the result of a photo; return what was found."""
    if outcome.photo is None or outcome.result is None:
        return "nothing was named, nothing is written"
    result = rate(outcome.result, outcome.photo)
    write_result(out, path, outcome.photo, result, outcome.seconds["segment"] + outcome.seconds["refine"])
    areas = result.areas
    order = sorted(areas, key=lambda name: (name == BACKGROUND, -areas[name]))
    return ", ".join(f"{name} {share(areas[name])}" for name in order if areas[name] > 0)


def _rater(clip: str | None, least: float | None, model: ModelFlags) -> Rate:
    """Return what gives a segmentation its quality and drops what is too bad, where the flags ask for it."""
    if clip is None and least is None:
        return lambda result, photo: result
    encoder = load_clip(clip_name(clip, model.checkpoint), model.device, model.dtype)

    def rated(result: Segmentation, photo: np.ndarray) -> Segmentation:
        found = rate(result, photo, encoder)
        return found if least is None else drop_below(found, least)

    return rated
