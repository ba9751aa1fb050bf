"""ADE20K as in MIT's scene parsing benchmark: 150 classes."""

from pathlib import Path

from pnp_ovss.data.dataset import IGNORE, Dataset, Sample, first_folder, from_file, pairs, table
from pnp_ovss.data.vocabulary import class_names
from pnp_ovss.errors import InputError

SOURCE = "fetch ADEChallengeData2016.zip from http://sceneparsing.csail.mit.edu and give the folder it unpacks to"


def ade150(root: Path, split: str | None = None) -> Dataset:
    """Return ADE20K; 0, 'other', is ignored.

    Raises: InputError if it is not there.
    """
    split = split or "validation"
    classes = class_names("ade20k")
    (samples, faults), layout = pairs(root, SOURCE), "images/ and masks/"
    if not samples:
        base = first_folder(root, ("ADEChallengeData2016", "."), SOURCE)
        photos = first_folder(base, (f"images/{split}",), SOURCE)
        masks = first_folder(base, (f"annotations/{split}",), SOURCE)
        found = sorted(masks.glob("*.png"))
        if not found:
            raise InputError(f"{masks} holds no mask; {SOURCE}")
        samples = tuple(Sample(path.stem, photos / f"{path.stem}.jpg", from_file(path)) for path in found)
        layout = f"ADEChallengeData2016, {split}"
    values = {0: IGNORE, 255: IGNORE} | {number: number for number in range(1, len(classes) + 1)}
    return Dataset("ade150", "ADE20K, 150 classes", classes, False, samples, table(values), "ade20k", layout, faults)
