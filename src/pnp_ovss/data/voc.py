"""Pascal VOC 2012: 20 classes, with the background (voc21) or without (voc20)."""

from pathlib import Path

from pnp_ovss.data.dataset import IGNORE, Dataset, Sample, first_folder, from_file, pairs, read_split, table
from pnp_ovss.data.vocabulary import class_names

SOURCE = "fetch VOCtrainval_11-May-2012.tar from http://host.robots.ox.ac.uk/pascal/VOC/voc2012 and give its VOCdevkit"


def voc21(root: Path, split: str | None = None) -> Dataset:
    """Return VOC 2012 with its background as a class; the border value 255 is ignored.

    Raises: InputError if it is not there.
    """
    return _voc("voc21", root, split or "val", background=True)


def voc20(root: Path, split: str | None = None) -> Dataset:
    """Return VOC 2012 where only the pixels of the 20 classes are asked for.

    Raises: InputError if it is not there.
    """
    return _voc("voc20", root, split or "val", background=False)


def _voc(name: str, root: Path, split: str, background: bool) -> Dataset:
    classes = class_names("voc")
    (samples, faults), layout = pairs(root, SOURCE), "images/ and masks/"
    if not samples:
        base = first_folder(root, ("VOC2012", "VOCdevkit/VOC2012", "."), SOURCE)
        keys, faults = read_split(base / f"ImageSets/Segmentation/{split}.txt", SOURCE)
        layout = f"VOCdevkit, {split}"
        samples = tuple(
            Sample(key, base / f"JPEGImages/{key}.jpg", from_file(base / f"SegmentationClass/{key}.png"))
            for key in keys
        )
    values = {0: 0 if background else IGNORE, 255: IGNORE} | {number: number for number in range(1, len(classes) + 1)}
    title = f"Pascal VOC 2012, {len(classes)} classes" + (" and background" if background else "")
    return Dataset(name, title, classes, background, samples, table(values), "voc", layout, faults)
