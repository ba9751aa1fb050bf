"""``pnp-ovss demo``: the whole method on drawn scenes, with the bundled model."""

from pathlib import Path

import numpy as np
from PIL import Image

from pnp_ovss.cli import say
from pnp_ovss.cli.flags import Count, Dir, ModelFlags, Seed
from pnp_ovss.evaluation.metrics import Confusion
from pnp_ovss.files import save_png
from pnp_ovss.lock import hold
from pnp_ovss.mini import CLASSES, draw
from pnp_ovss.pictures import class_colours, label_png
from pnp_ovss.pictures.figures import SheetRow, contact_sheet

EXAMPLE = "demo --scenes 4"
MINI = ModelFlags(model="mini-blip")


def command(
    out: Dir = Path("demo"), scenes: Count = 8, seed: Seed = 2, scene_size: Count = 336, model: ModelFlags = MINI
) -> int:
    """Segment drawn scenes with the small model that comes along, and score the label maps.

    Works without a network. Everything lands in one folder: each scene, its target and its labels, and
    contact-sheet.png, which shows them side by side with the salience of each class.

    Args:
        out: folder
        scenes: how many
        seed: which series of scenes
        scene_size: side of a scene in pixels
    """
    with hold(out):
        return _demo(out, scenes, seed, scene_size, model)


def _demo(out: Path, scenes: int, seed: int, scene_size: int, model: ModelFlags) -> int:
    segmenter, number = model.load(), f"{scenes} drawn scene{'s' * (scenes > 1)}"
    print(f"{number} of series {seed}, segmented with {model.checkpoint}, which is given the names")
    colours = class_colours(CLASSES)
    pooled, rows = Confusion.empty(len(CLASSES)), []
    for index in range(scenes):
        scene = draw(seed, index, scene_size)
        result = segmenter(scene.image, scene.things)
        prediction = result.label_map().values(CLASSES[1:])
        target = scene.things_mask().astype(np.int64)
        confusion = Confusion.of(target, prediction, len(CLASSES))
        pooled += confusion
        score, salience = f"mIoU {confusion.miou():.2f}", dict(zip(scene.things, result.salience, strict=True))
        rows.append(SheetRow(scene.image, target, prediction, salience, scene.caption, score))
        say(f"scene {index:2}  {score}  {scene.caption}")
        pictures = Image.fromarray(scene.image), label_png(target, colours), label_png(prediction, colours)
        for kind, picture in zip(("", ".truth", ".labels"), pictures, strict=True):
            save_png(out / f"scene-{index:03}{kind}.png", picture)
    score = f"mIoU {pooled.miou():.3f} over {number}, things and background"
    sheet, subtitle = out / "contact-sheet.png", f"{model.checkpoint}, given the names: {score}"
    save_png(sheet, contact_sheet(rows, CLASSES, "Masks from words alone", subtitle))
    print(score)
    print("drawn scenes and a mini model show how the method works; they say nothing about real photos")
    print(f"contact sheet: {sheet}")
    return 0
