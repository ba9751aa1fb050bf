"""``pnp-ovss demo``: the whole method on drawn scenes, with the model in the box."""

import argparse
from pathlib import Path

from PIL import Image

from pnp_ovss.cli.command import PROG, Command, natural, positive
from pnp_ovss.cli.options import add_model, add_settings, settings

MODEL = "mini-blip"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of ``demo``."""
    parser.add_argument("--out", type=Path, default=Path("demo"), metavar="DIR", help="folder (default: demo)")
    parser.add_argument("--scenes", type=positive, default=8, metavar="N", help="how many (default: 8)")
    parser.add_argument("--seed", type=natural, default=2, metavar="N", help="which series of scenes (default: 2)")
    parser.add_argument(
        "--scene-size", type=positive, default=336, metavar="N", help="side of a scene in pixels (default: 336)"
    )
    add_model(parser, MODEL)
    add_settings(parser)


def run(arguments: argparse.Namespace) -> int:
    """Draw scenes, segment and score them, and write the contact sheet; return the exit code."""
    import numpy as np

    from pnp_ovss.evaluation.metrics import Confusion
    from pnp_ovss.mini import CLASSES, draw
    from pnp_ovss.pictures import class_colours, label_png
    from pnp_ovss.pictures.sheet import SheetRow, contact_sheet
    from pnp_ovss.segmenter import Segmenter
    from pnp_ovss.store import check_folder, save_png

    out, count = arguments.out, arguments.scenes
    check_folder(out)
    segmenter = Segmenter.from_pretrained(
        arguments.model, arguments.preset, arguments.device, arguments.dtype, arguments.revision, **settings(arguments)
    )
    print(f"{_scenes(count)} of series {arguments.seed}, segmented with {arguments.model}, which is given the names")
    colours = class_colours(CLASSES)
    pooled, rows = Confusion.empty(len(CLASSES)), []
    for index in range(count):
        scene = draw(arguments.seed, index, arguments.scene_size)
        result = segmenter(scene.image, scene.things)
        guess = np.array([CLASSES.index(name) for name in result.classes])[result.labels]
        truth = scene.things_mask().astype(np.int64)
        confusion = Confusion.of(truth, guess, len(CLASSES))
        pooled += confusion
        score, salience = f"mIoU {confusion.miou():.2f}", dict(zip(scene.things, result.salience, strict=True))
        rows.append(SheetRow(scene.image, truth, guess, salience, scene.caption, score))
        print(f"scene {index:2}  {score}  {scene.caption}", flush=True)
        save_png(out / f"scene-{index:03}.png", Image.fromarray(scene.image))
        save_png(out / f"scene-{index:03}.truth.png", label_png(truth, colours))
        save_png(out / f"scene-{index:03}.labels.png", label_png(guess, colours))
    score = f"mIoU {pooled.miou():.3f} over {_scenes(count)}, things and background"
    sheet, subtitle = out / "contact-sheet.png", f"{arguments.model}, given the names: {score}"
    save_png(sheet, contact_sheet(rows, CLASSES, "Masks from words alone", subtitle))
    print(score)
    print("drawn scenes and a mini model show how the method works; they tell nothing about real photos")
    print(f"contact sheet: {sheet}")
    return 0


def _scenes(count: int) -> str:
    return f"{count} drawn scene{'s' * (count > 1)}"


COMMAND = Command(
    usage="[options]",
    summary="segment drawn scenes with the model in the box",
    description="""Draw scenes, segment them with the small model that comes along, and score the label maps against the
truth. Works without a network. Everything lands in one folder: each scene, its truth and its labels, and
contact-sheet.png, which shows them side by side with the salience of each class.""",
    example=f"{PROG} demo --scenes 4",
    add_arguments=add_arguments,
    run=run,
)
