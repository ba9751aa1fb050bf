"""Pascal VOC: palette pictures whose values are the classes, 0 the background; 255, void, never occurs.

``labelmap.txt`` names the classes with their colours, as CVAT and Datumaro read it.
Source: Everingham et al., VOC2012 development kit (the palette interleaves the bits of the value).
"""

import io
from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from pnp_ovss.errors import InputError
from pnp_ovss.export.results import Labelled
from pnp_ovss.types import BACKGROUND

MOST_NAMES = 254


def voc(results: Sequence[Labelled], names: Sequence[str]) -> Iterator[tuple[str, bytes]]:
    """Yield ``SegmentationClass/<key>.png`` for each photo, the list of keys, and the names with their colours.

    Raises: InputError if there are more classes than the values from 1 to 254, or ``labelmap.txt`` cannot name one.
    """
    check_count(names, "VOC")
    palette = colours()
    lines = label_map(names, palette)
    for result in results:
        yield f"SegmentationClass/{result.key}.png", as_png(result, names, palette)
    yield "ImageSets/Segmentation/default.txt", "".join(f"{result.key}\n" for result in results).encode()
    yield "labelmap.txt", ("\n".join(lines) + "\n").encode()


def label_map(names: Sequence[str], palette: UInt8[np.ndarray, "256 3"]) -> list[str]:
    """Return the lines of ``labelmap.txt``. A colon ends a name there: it becomes a space.

    Raises: InputError if a name would be a comment or that of another class.
    """
    told: dict[str, str] = {}
    for name, colour in zip((BACKGROUND, *names), palette.tolist(), strict=False):
        text = name.replace(":", " ").strip()
        if text in told or text.startswith("#") or not text:
            raise InputError(
                f"the class {name!r} would be a comment or another class's name in VOC's labelmap.txt; rename it and "
                "segment again, or take another format"
            )
        told[text] = f"{text}:{','.join(map(str, colour))}::"
    return ["# label:color_rgb:parts:actions", *told.values()]


def colours() -> UInt8[np.ndarray, "256 3"]:
    """Return VOC's colour per value: bits 0, 3, 6 of it are the top bits of red, 1, 4, 7 of green, 2, 5 of blue."""
    value, palette = np.arange(256), np.zeros((256, 3), dtype=np.uint8)
    for bit in range(8):
        palette[:, bit % 3] |= ((value >> bit & 1) << (7 - bit // 3)).astype(np.uint8)
    return palette


def as_png(result: Labelled, names: Sequence[str], palette: UInt8[np.ndarray, "256 3"] | None = None) -> bytes:
    """Return the label map as PNG of one byte per pixel, with a palette if one is given."""
    picture = Image.fromarray(result.values(names).astype(np.uint8))
    if palette is not None:
        picture.putpalette(palette.tobytes())
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG")
    return buffer.getvalue()


def check_count(names: Sequence[str], format_name: str) -> None:
    """Raise InputError if the classes do not fit the values from 1 to 254."""
    if len(names) > MOST_NAMES:
        raise InputError(
            f"the results have {len(names)} classes; {format_name} pictures hold {MOST_NAMES}: take another format, "
            "or export fewer results at a time"
        )
