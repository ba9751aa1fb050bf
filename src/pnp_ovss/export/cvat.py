"""CVAT: ``annotations.xml`` in the format "CVAT for images 1.1", a mask per photo and class, and ``labels.json``.

A mask is its box, and within it the lengths of the runs along the rows, the first one outside the mask, if only of
length 0. Labels are matched by name; the background is none. Several parts and holes are kept.
Source: CVAT's documentation of its XML format.
"""

from collections.abc import Iterator, Sequence
from xml.sax.saxutils import quoteattr

import numpy as np
from jaxtyping import Bool

from pnp_ovss.files import as_json
from pnp_ovss.pictures import class_colours
from pnp_ovss.types import LabelMap, Region


def cvat(label_maps: Sequence[LabelMap], names: Sequence[str]) -> Iterator[tuple[str, bytes]]:
    """Yield the annotations, to be uploaded to a task, and the labels, to be pasted into its constructor ("Raw")."""
    lines = ['<?xml version="1.0" encoding="utf-8"?>', "<annotations>", "  <version>1.1</version>"]
    for number, label_map in enumerate(label_maps):
        size = f'width="{label_map.width}" height="{label_map.height}"'
        lines.append(f'  <image id="{number}" name={quoteattr(label_map.file_name)} {size}>')
        lines += [f"    {_mask(region)}" for region in label_map.regions(names)]
        lines.append("  </image>")
    text = "\n".join([*lines, "</annotations>"]) + "\n"
    yield "annotations.xml", text.encode("utf-8", errors="xmlcharrefreplace")
    colours = hex_colours(names).items()
    labels = [{"name": name, "type": "mask", "color": colour, "attributes": []} for name, colour in colours]
    yield "labels.json", as_json(labels)


def hex_colours(names: Sequence[str]) -> dict[str, str]:
    """Return each name's colour in our own pictures, such as ``#ff8000``."""
    return {name: f"#{bytes(colour).hex()}" for name, colour in zip(names, class_colours(names), strict=True)}


def runs(mask: Bool[np.ndarray, "h w"]) -> list[int]:
    """Return the lengths of the runs along the rows, the first one outside the mask, if only of length 0."""
    pixels = np.concatenate([[False], mask.ravel()])
    ends = np.flatnonzero(pixels[1:] != pixels[:-1])
    return list(map(int, np.diff([0, *ends, mask.size])))


def _mask(region: Region) -> str:
    left, top, right, bottom = region.box
    lengths = ", ".join(map(str, runs(region.mask[top:bottom, left:right])))
    box = f'left="{left}" top="{top}" width="{right - left}" height="{bottom - top}"'
    return f'<mask label={quoteattr(region.name)} source="auto" occluded="0" rle="{lengths}" {box} z_order="0"></mask>'
