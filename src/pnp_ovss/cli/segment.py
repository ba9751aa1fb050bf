"""``pnp-ovss segment``: photos and class names become label maps."""

from collections.abc import Iterator
from dataclasses import replace
from functools import cache, partial
from pathlib import Path

from pnp_ovss.cli import complain, conclude, detail, go_through, reduced, report, say
from pnp_ovss.cli.flags import ClassFlags, Count, Dir, Memory, ModelFlags, Name, Photos, Share
from pnp_ovss.images import Place, find_images, read_photo
from pnp_ovss.lock import hold
from pnp_ovss.models.clip import Clip
from pnp_ovss.pictures.figures import share
from pnp_ovss.pictures.palette import Palette
from pnp_ovss.runs.pipeline import Item, Outcome, run
from pnp_ovss.runs.record import check_places, numbers_in, write_result
from pnp_ovss.segmentation import Segmentation
from pnp_ovss.tuning.reward import drop_below, rate

EXAMPLE = 'segment demo/scene-000.png --model mini-blip --classes "rocket, cactus"  (after pnp-ovss demo)'


def command(
    photos: Photos,
    classes: ClassFlags,
    model: ModelFlags,
    out: Dir = Path("results"),
    batch_size: Count = 1,
    memory: Memory | None = None,
    clip: Name | None = None,
    min_quality: Share | None = None,
    instances: bool = False,
) -> int:
    """Segment photos into the classes you name.

    Classes that a photo does not seem to show get no mask in it (--present all: each gets one). For each photo three
    files are written: <name>.png, a palette label map, 0 the background and 1, 2, ... the classes;
    <name>.overlay.png, the photo under the classes' colours with a legend; and <name>.json, the record: classes, area
    shares, regions, match score, settings, model and revision, version, seconds.

    The default model is fetched once (1.8 GB). mini-blip comes along, but knows drawn scenes only, such as the demo's.

    Args:
        photos: file, folder (the pictures right in it), glob or web address
        out: folder
        batch_size: photos the model sees at a time
        memory: what the process may hold, such as 4GB (default: most of what the machine or its container has left); a
            photo that needs more is refined at fewer pixels
        clip: dual encoder, such as clip-base, that rates each mask from 0 to 1 in the record
        min_quality: drop the classes whose mask is rated lower; below 0.5 the reward of the paper rejects it
        instances: each object, not each class, has a region in the record, and an outline on the overlay
    """
    # All that can be wrong without a model is found before one is loaded or even fetched.
    source = classes.source(model)
    paths = find_images(photos)
    model.config()
    check_places(out, paths)
    with hold(out):
        encoder = model.load_clip(clip) if clip or min_quality is not None else None
        load, shared = cache(partial(model.load, memory, source.present)), source.classes is not None
        total = len(paths)
        items = [Item(path.stem, partial(read_photo, path), source.classes) for path in paths]
        outcomes = run(load, items, source.name_photos(load), batch_size, strict=shared or total == 1)
        if not classes.values:  # what lies in the folder keeps its values
            source.palette.begin_with(numbers_in(out, paths))
        faults = _write(paths, outcomes, out, source.palette, encoder, min_quality, instances)
        done, failed = go_through(faults, total, f", their results are in {out}")
    if done:
        say(f"{done} photo{'s' * (done > 1)} in {out}: for each a label map .png, an .overlay.png and a .json record")
    return conclude(failed, total, "could not be read" if shared else "could not be read or named")


def _write(
    paths: list[Place],
    outcomes: Iterator[Outcome],
    out: Path,
    palette: Palette,
    clip: Clip | None,
    least: float | None,
    instances: bool,
) -> Iterator[str | None]:
    """Write the results, rated by CLIP and without what is rated too low; yield faults as ``go_through`` takes them."""
    for path, outcome in zip(paths, outcomes, strict=True):
        photo, result = outcome.photo, outcome.result
        if outcome.fault:
            yield str(outcome.fault) if photo is None else f"{path}: {outcome.fault}"
        elif photo is None or result is None:
            say(f"{path}: nothing was named, nothing is written")
            yield None
        else:
            result = rate(result, photo, clip) if clip else result
            result = result if least is None else drop_below(result, least)
            result, seconds = replace(result, palette=palette), outcome.seconds["segment"] + outcome.seconds["refine"]
            write_result(out, path, photo, result, seconds, outcome.source, instances)
            about = {"areas": result.areas, "match": result.match, "doubts": result.doubts}
            about |= {"absent": result.presence.absent if result.presence else ()}
            record = str(out / f"{path.stem}.json")
            report(f"{path}: {_summary(result)}", photo=str(path), record=record, **about)
            for doubt in result.doubts:
                complain(f"{path}: {doubt}")
            spent = ", ".join(f"{name} {seconds:.2f} s" for name, seconds in outcome.seconds.items())
            detail(f"{path}: {spent}; {result.method} on {result.model}, {result.revision}")
            if result.reduced:
                say(f"{path}: {reduced(result.refined)}")
            yield ""


def _summary(result: Segmentation) -> str:
    """Return the area of every class that is there, the match, and what is absent."""
    line = ", ".join(f"{name} {share(area)}" for name, area in result.largest_first() if area > 0)
    line += "" if result.match is None else f"; match {result.match:.1f}"
    absent = result.presence.absent if result.presence else ()
    return line + (f"; absent: {', '.join(absent)}" if absent else "")
