"""``pnp-ovss segment``: photos and class names become label maps."""

import argparse
import sys
from functools import cache
from pathlib import Path
from time import perf_counter

import numpy as np

from pnp_ovss.cli.command import PARTLY, PROG, STOPPED, Command, complain, positive
from pnp_ovss.cli.options import add_model, add_settings, settings
from pnp_ovss.config import Config
from pnp_ovss.errors import InputError, ModelError

MODEL = "blip-large-flickr"
MOST_CLASSES = 255
"""Values of a palette picture, less the background's."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of ``segment``."""
    parser.add_argument("photos", nargs="+", metavar="PHOTO", help="file, folder (the pictures right in it) or glob")
    classes = parser.add_mutually_exclusive_group(required=True)
    classes.add_argument("--classes", metavar="NAMES", help="what to look for, with commas: 'dog, traffic light'")
    classes.add_argument(
        "--classes-file", type=Path, metavar="FILE", help="the same from a file, one name a line; # starts a comment"
    )
    parser.add_argument("--out", type=Path, default=Path("results"), metavar="DIR", help="folder (default: results)")
    parser.add_argument(
        "--batch-size", type=positive, default=1, metavar="N", help="photos the model sees at a time (default: 1)"
    )
    add_model(parser, MODEL)
    add_settings(parser)


def run(arguments: argparse.Namespace) -> int:
    """Segment the photos; return the exit code."""
    from pnp_ovss.images import find_images
    from pnp_ovss.prompt import make_prompt
    from pnp_ovss.results import check_places
    from pnp_ovss.store import check_folder

    # All that can be wrong without a model is found before one is loaded or even fetched.
    classes = make_prompt(_classes(arguments)).classes
    if len(classes) > MOST_CLASSES:
        raise InputError(f"{len(classes)} classes were named; a label map holds {MOST_CLASSES} at most: name fewer")
    photos = find_images(arguments.photos)
    Config.from_preset("released" if arguments.preset == "auto" else arguments.preset, **settings(arguments))
    check_folder(arguments.out)
    check_places(arguments.out, photos)
    return _segment(arguments, photos, classes)


def _segment(arguments: argparse.Namespace, photos: list[Path], classes: tuple[str, ...]) -> int:
    import torch
    from tqdm import tqdm

    from pnp_ovss.images import shown
    from pnp_ovss.results import write_result
    from pnp_ovss.segmenter import Segmenter

    given, out = settings(arguments), arguments.out
    chosen = (arguments.model, arguments.preset, arguments.device, arguments.dtype, arguments.revision)
    load = cache(lambda: Segmenter.from_pretrained(*chosen, **given))  # at the first photo that can be read
    done, bad, alone = 0, 0, len(photos) == 1
    bar = tqdm(total=len(photos), disable=alone, unit="photo", file=sys.stderr)
    try:
        for start in range(0, len(photos), arguments.batch_size):
            batch = photos[start : start + arguments.batch_size]
            readable, faults = _read(batch)
            for fault in faults:
                if alone:
                    raise fault
                with bar.external_write_mode(file=sys.stderr):
                    complain(str(fault))
            bad += len(faults)
            if readable:
                segmenter, begin = load(), perf_counter()
                results = segmenter(list(readable.values()), [classes] * len(readable))
                seconds = (perf_counter() - begin) / len(readable)
                for (path, photo), result in zip(readable.items(), results, strict=True):
                    write_result(out, path, photo, result, seconds)
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
        complain(f"{bad} of {len(photos)} photos could not be read")
    return PARTLY if bad else 0


def _read(paths: list[Path]) -> tuple[dict[Path, np.ndarray], list[InputError]]:
    """Return the photos that can be read, and what is wrong with the others."""
    from pnp_ovss.images import read_image

    readable, faults = {}, []
    for path in paths:
        try:
            readable[path] = read_image(path)
        except InputError as error:
            faults.append(error)
    return readable, faults


def _classes(arguments: argparse.Namespace) -> list[str]:
    if arguments.classes is not None:
        return [name.strip() for name in arguments.classes.split(",")]
    file = arguments.classes_file
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = (error.strerror or "").lower() if isinstance(error, OSError) else "it is no text in UTF-8"
        raise InputError(f"the classes file {file} cannot be read ({reason}); one name a line is wanted") from error
    return [name for line in lines if (name := line.split("#")[0].strip())]


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
    example=f'{PROG} segment demo/scene-000.png --model mini-blip --classes "cat, umbrella"  (after {PROG} demo)',
    add_arguments=add_arguments,
    run=run,
)
