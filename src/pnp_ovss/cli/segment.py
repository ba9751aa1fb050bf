"""``pnp-ovss segment``: photos and class names become label maps."""

import argparse
import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING

import numpy as np

from pnp_ovss.cli.classes import add_classes, named
from pnp_ovss.cli.command import PARTLY, PROG, STOPPED, Command, complain, positive
from pnp_ovss.cli.name import add_namer, check_namer, load_namer, load_vocabulary
from pnp_ovss.cli.options import add_model, add_settings, clip_name, settings
from pnp_ovss.errors import InputError, ModelError, PnpError

if TYPE_CHECKING:
    from pnp_ovss.naming import NoReply
    from pnp_ovss.segmentation import Segmentation
    from pnp_ovss.segmenter import Segmenter


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
    from pnp_ovss.images import find_images
    from pnp_ovss.runs.record import check_places
    from pnp_ovss.segmenter import settle
    from pnp_ovss.store import check_folder

    # All that can be wrong without a model is found before one is loaded or even fetched.
    if arguments.min_quality is not None and not 0 <= arguments.min_quality <= 1:
        raise InputError(f"--min-quality is {arguments.min_quality:g}; a number from 0 to 1 is wanted")
    classes = named(arguments)
    if not classes:
        check_namer(arguments)
    photos = find_images(arguments.photos)
    settle(arguments.model, arguments.preset, arguments.revision, **settings(arguments))
    check_folder(arguments.out)
    check_places(arguments.out, photos)
    return _segment(arguments, photos, classes)


def _segment(arguments: argparse.Namespace, photos: list[Path], classes: tuple[str, ...]) -> int:
    import torch
    from tqdm import tqdm

    from pnp_ovss.images import shown
    from pnp_ovss.runs.record import write_result
    from pnp_ovss.segmenter import Segmenter

    given, out = settings(arguments), arguments.out
    chosen = (arguments.model, arguments.preset, arguments.device, arguments.dtype, arguments.revision)
    load = cache(lambda: Segmenter.from_pretrained(*chosen, **given))  # at the first photo that can be read
    rated = _rater(arguments)
    choose = _chooser(arguments, classes, load)
    done, bad, alone = 0, 0, len(photos) == 1
    bar = tqdm(total=len(photos), disable=alone, unit="photo", file=sys.stderr)
    try:
        for start in range(0, len(photos), arguments.batch_size):
            batch = photos[start : start + arguments.batch_size]
            readable, faults = _read(batch)
            named = dict(choose(readable))
            asked = {path: names for path, names in named.items() if isinstance(names, tuple) and names}
            if asked:
                load()  # which is no part of what a photo takes
            begin = perf_counter()
            found = _found(load, readable, asked, alone or bool(classes))
            seconds = (perf_counter() - begin) / max(1, len(asked))
            faults += [fault for fault in (*named.values(), *found.values()) if isinstance(fault, PnpError)]
            for fault in faults:
                if alone:
                    raise fault
                with bar.external_write_mode(file=sys.stderr):
                    complain(str(fault))
            bad += len(faults)
            for path in (path for path, names in named.items() if names == ()):
                with bar.external_write_mode(file=sys.stdout):
                    print(f"{shown(path)}: nothing was named, nothing is written")
            for path, result in found.items():
                if isinstance(result, PnpError):
                    continue
                result = rated(result, readable[path])
                write_result(out, path, readable[path], result, seconds)
                done += 1
                with bar.external_write_mode(file=sys.stdout):
                    print(f"{shown(path)}: {_told(result.areas)}")
            bar.update(len(batch))
    except KeyboardInterrupt:
        bar.close()
        complain(
            f"stopped; {done} of {len(photos)} photos are done" + (f", their results are in {out}" if done else "")
        )
        return STOPPED
    except torch.OutOfMemoryError as error:
        raise ModelError("the GPU is full; use a smaller --batch-size, --dtype bfloat16 or --device cpu") from error
    finally:
        bar.close()
    if done:
        print(f"{done} photo{'s' * (done > 1)} in {out}: for each a label map .png, an .overlay.png and a .json record")
    if bad:
        complain(f"{bad} of {len(photos)} photos could not be read{' or named' if not classes else ''}")
    return PARTLY if bad else 0


def _found(
    load: "Callable[[], Segmenter]",
    photos: "dict[Path, np.ndarray]",
    named: dict[Path, tuple[str, ...]],
    strict: bool,
) -> "dict[Path, Segmentation | InputError]":
    """Return the segmentation of each photo that was named, or what is wrong with its names; ``strict``: raise that."""
    from pnp_ovss.images import shown
    from pnp_ovss.pictures import check_count

    if not named:
        return {}
    try:
        for names in named.values():
            check_count(names)
        results = load()([photos[path] for path in named], list(named.values()))
    except InputError as error:
        if strict:
            raise
        if len(named) == 1:
            return {path: InputError(f"{shown(path)}: {error}") for path in named}
        alone = (_found(load, photos, {path: names}, strict) for path, names in named.items())
        return {path: found for one in alone for path, found in one.items()}
    return dict(zip(named, results, strict=True))


def _rater(arguments: argparse.Namespace) -> "Callable[[Segmentation, np.ndarray], Segmentation]":
    """Return what gives a segmentation its quality and drops what is too bad, where the flags ask for it."""
    least = arguments.min_quality
    if arguments.clip is None and least is None:
        return lambda result, photo: result
    from pnp_ovss.models.clip import load_clip
    from pnp_ovss.tuning.reward import drop_below, rate

    clip = load_clip(clip_name(arguments.clip, arguments.model), arguments.device, arguments.dtype)

    def rated(result: "Segmentation", photo: np.ndarray) -> "Segmentation":
        found = rate(result, photo, clip)
        return found if least is None else drop_below(found, least)

    return rated


def _chooser(
    arguments: argparse.Namespace, classes: tuple[str, ...], load: "Callable[[], Segmenter]"
) -> "Callable[[dict[Path, np.ndarray]], Iterator[tuple[Path, tuple[str, ...] | NoReply]]]":
    """Return what chooses the classes of photos: the user once for all, or a namer for each."""
    from pnp_ovss.naming import Naming, name_photos

    if classes:
        return lambda photos: ((path, classes) for path in photos)
    candidates = load_vocabulary(arguments)
    namer = load_namer(arguments, lambda: load().vlm)
    calls = arguments.calls if arguments.namer == "openai" else 1

    def choose(photos: dict[Path, np.ndarray]) -> "Iterator[tuple[Path, tuple[str, ...] | NoReply]]":
        keyed = ((path.stem, photo) for path, photo in photos.items())
        for path, (_, naming) in zip(photos, name_photos(namer, keyed, candidates, calls), strict=True):
            yield path, naming.kept(arguments.keep) if isinstance(naming, Naming) else naming

    return choose


def _read(paths: list[Path]) -> tuple[dict[Path, np.ndarray], list[PnpError]]:
    """Return the photos that can be read, and what is wrong with the others."""
    from pnp_ovss.images import read_image

    readable: dict[Path, np.ndarray] = {}
    faults: list[PnpError] = []
    for path in paths:
        try:
            readable[path] = read_image(path)
        except InputError as error:
            faults.append(error)
    return readable, faults


def _told(areas: dict[str, float]) -> str:
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
