"""``pnp-ovss demo``: the whole method on drawn scenes, with the model in the box."""

from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from PIL import Image

from pnp_ovss.cli.flags import ModelFlags, count, expand
from pnp_ovss.evaluation.metrics import Confusion
from pnp_ovss.files import check_folder, save_png
from pnp_ovss.mini import CLASSES, draw
from pnp_ovss.pictures import class_colours, label_png
from pnp_ovss.pictures.figures import SheetRow, contact_sheet

EXAMPLE = "demo --scenes 4"
MINI = ModelFlags(model="mini-blip")


@expand
def command(
    out: Annotated[Path, typer.Option(metavar="DIR", help="folder")] = Path("demo"),
    scenes: Annotated[int, count("how many")] = 8,
    seed: Annotated[int, count("which series of scenes", 0)] = 2,
    scene_size: Annotated[int, count("side of a scene in pixels")] = 336,
    model: ModelFlags = MINI,
) -> int:
    """Segment drawn scenes with the small model that comes along, and score the label maps.

    Works without a network. Everything lands in one folder: each scene, its target and its labels, and
    contact-sheet.png, which shows them side by side with the salience of each class.
    """
    check_folder(out)
    segmenter = model.load()
    print(f"{_scenes(scenes)} of series {seed}, segmented with {model.checkpoint}, which is given the names")
    colours = class_colours(CLASSES)
    pooled, rows = Confusion.empty(len(CLASSES)), []
    for index in range(scenes):
        scene = draw(seed, index, scene_size)
        result = segmenter(scene.image, scene.things)
        prediction = np.array([CLASSES.index(name) for name in result.classes])[result.labels]
        target = scene.things_mask().astype(np.int64)
        confusion = Confusion.of(target, prediction, len(CLASSES))
        pooled += confusion
        score, salience = f"mIoU {confusion.miou():.2f}", dict(zip(scene.things, result.salience, strict=True))
        rows.append(SheetRow(scene.image, target, prediction, salience, scene.caption, score))
        print(f"scene {index:2}  {score}  {scene.caption}", flush=True)
        save_png(out / f"scene-{index:03}.png", Image.fromarray(scene.image))
        save_png(out / f"scene-{index:03}.truth.png", label_png(target, colours))
        save_png(out / f"scene-{index:03}.labels.png", label_png(prediction, colours))
    score = f"mIoU {pooled.miou():.3f} over {_scenes(scenes)}, things and background"
    sheet, subtitle = out / "contact-sheet.png", f"{model.checkpoint}, given the names: {score}"
    save_png(sheet, contact_sheet(rows, CLASSES, "Masks from words alone", subtitle))
    print(score)
    print("drawn scenes and a mini model show how the method works; they say nothing about real photos")
    print(f"contact sheet: {sheet}")
    return 0


def _scenes(count: int) -> str:
    return f"{count} drawn scene{'s' * (count > 1)}"
