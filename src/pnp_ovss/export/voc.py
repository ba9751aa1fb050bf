"""Pascal VOC and ADE20K: pictures whose values are the classes from 1; 0 is everything else, and 255 never occurs.

VOC's have a palette, and ``labelmap.txt`` names the classes with their colours, as CVAT and Datumaro read it.
ADE20K's are grey. Readers with ``reduce_zero_label`` count their classes from 0 and ignore the rest. Values of the
benchmark itself, 1 to 150, come from exporting in the order of its class list.
Sources: Everingham et al., VOC2012 development kit (the palette interleaves the bits of the value); Zhou et al., the
layout of the scene parsing benchmark.
"""

from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from pnp_ovss.errors import InputError
from pnp_ovss.files import as_png, as_text
from pnp_ovss.types import BACKGROUND, LabelMap

MOST_NAMES = 254


def voc(label_maps: Sequence[LabelMap], names: Sequence[str]) -> Iterator[tuple[str, bytes]]:
    """Yield ``SegmentationClass/<key>.png`` for each photo, the list of keys, and the names with their colours.

    Raises: InputError if there are more classes than the values from 1 to 254, or ``labelmap.txt`` cannot name one.
    """
    palette = colours()
    lines = name_lines(names, palette)
    yield from _pictures(label_maps, names, "SegmentationClass", palette.tobytes())
    yield "ImageSets/Segmentation/default.txt", as_text(label_map.key for label_map in label_maps)
    yield "labelmap.txt", as_text(lines)


def ade(label_maps: Sequence[LabelMap], names: Sequence[str]) -> Iterator[tuple[str, bytes]]:
    """Yield ``annotations/<key>.png`` for each photo, and ``objectInfo.txt``: value, tab, name.

    Raises: InputError if there are more classes than the values from 1 to 254.
    """
    yield from _pictures(label_maps, names, "annotations")
    yield "objectInfo.txt", as_text(["Idx\tName", *(f"{value}\t{name}" for value, name in enumerate(names, 1))])


def name_lines(names: Sequence[str], palette: UInt8[np.ndarray, "256 3"]) -> list[str]:
    """Return the lines of ``labelmap.txt``. A colon ends a name there: it becomes a space.

    Raises: InputError if a name would be a comment or that of another class.
    """
    lines: dict[str, str] = {}
    for name, colour in zip((BACKGROUND, *names), palette.tolist(), strict=False):
        text = name.replace(":", " ").strip()
        if text in lines or text.startswith("#") or not text:
            fault = "would be a comment or another class's name in VOC's labelmap.txt"
            raise InputError(f"the class {name!r} {fault}; rename it, or take another format")
        lines[text] = f"{text}:{','.join(map(str, colour))}::"
    return ["# label:color_rgb:parts:actions", *lines.values()]


def colours() -> UInt8[np.ndarray, "256 3"]:
    """Return VOC's colour per value: bits 0, 3, 6 of it are the top bits of red, 1, 4, 7 of green, 2, 5 of blue."""
    value, palette = np.arange(256), np.zeros((256, 3), dtype=np.uint8)
    for bit in range(8):
        palette[:, bit % 3] |= ((value >> bit & 1) << (7 - bit // 3)).astype(np.uint8)
    return palette


def _pictures(
    label_maps: Sequence[LabelMap], names: Sequence[str], folder: str, palette: bytes = b""
) -> Iterator[tuple[str, bytes]]:
    """Yield ``<folder>/<key>.png`` for each photo: the number of each pixel's class, one byte per pixel."""
    if len(names) > MOST_NAMES:
        fault = f"expected at most {MOST_NAMES} classes in pictures of one byte per pixel, got {len(names)}"
        raise InputError(f"{fault}; take another format, or export fewer results at a time")
    for label_map in label_maps:
        picture = Image.fromarray(label_map.values(names).astype(np.uint8))
        if palette:
            picture.putpalette(palette)
        yield f"{folder}/{label_map.key}.png", as_png(picture)
