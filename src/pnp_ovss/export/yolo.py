"""YOLO segmentation labels: a text file per photo, a line per part of a class, with the class from 0 and its outline.

A line is ``class x1 y1 x2 y2 ...``, x as a share of the width, y of the height, as ultralytics reads them. Of several
parts each is a line of its own; a hole is joined to its outline by a seam of no width.
Source: the segmentation data set format of ultralytics' documentation.
"""

import json
from collections.abc import Iterator, Sequence

from pnp_ovss.export.outlines import outlines
from pnp_ovss.files import as_text
from pnp_ovss.types import LabelMap


def yolo(label_maps: Sequence[LabelMap], names: Sequence[str]) -> Iterator[tuple[str, bytes]]:
    """Yield ``labels/<key>.txt`` for each photo, empty where nothing is, and ``data.yaml``."""
    for label_map in label_maps:
        yield f"labels/{label_map.key}.txt", as_text(lines(label_map, names))
    yield "data.yaml", as_text(settings(names))


def lines(label_map: LabelMap, names: Sequence[str]) -> Iterator[str]:
    """Yield a line for each part of each class."""
    for region in label_map.regions(names):
        for polygon in outlines(region.mask):
            shares = (share for x, y in polygon for share in (x / label_map.width, y / label_map.height))
            yield " ".join([str(region.category - 1), *(f"{share:.9g}" for share in shares)])


def settings(names: Sequence[str]) -> list[str]:
    """Return the lines of ``data.yaml``: where the photos are to be, beside the file, and the name of each class."""
    head = ["train: images", "val: images", "names:" if names else "names: {}"]
    # JSON's text is YAML's too, but not its escapes of what needs two of them.
    quoted = [f"  {number}: {json.dumps(name, ensure_ascii=False)}" for number, name in enumerate(names)]
    return [*head, *quoted]
