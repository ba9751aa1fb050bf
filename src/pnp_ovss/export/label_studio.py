"""Label Studio: tasks with brush masks as predictions, and the labelling interface that shows them.

Masks are kept pixel by pixel, in the brush's own run lengths. The background is no label.
Source: Label Studio's task format; the run lengths are those of thi-ng's rle-pack, which it uses.
"""

from collections.abc import Iterator, Sequence
from typing import Any
from urllib.parse import quote
from xml.sax.saxutils import quoteattr

import numpy as np
from jaxtyping import Bool

from pnp_ovss.export.cvat import hex_colours, runs
from pnp_ovss.files import as_json
from pnp_ovss.types import LabelMap

FROM, TO, DATA = "label", "image", "image"
"""Names of the brush, of the picture, and of the task's entry with the photo's address, in the interface we write."""

LOCAL_FILES, PHOTOS = "/data/local-files/?d=", "images"
"""Where Label Studio serves the files below LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT, and the folder there that has the
photos: a storage of local files must be a folder below that root, not the root."""

SIZES = (4, 8, 12, 16)
"""Bits in which a run's length may be written."""


def label_studio(label_maps: Sequence[LabelMap], names: Sequence[str]) -> Iterator[tuple[str, bytes]]:
    """Yield ``tasks.json``, to be imported, and ``interface.xml``, to be put into the project's settings first."""
    tasks = []
    for label_map in label_maps:
        photo = LOCAL_FILES + quote(f"{PHOTOS}/{label_map.file_name}")
        tasks.append({"data": {DATA: photo}, "predictions": [prediction(label_map, names)]})
    yield "tasks.json", as_json(tasks)
    yield "interface.xml", interface(names).encode()


def interface(names: Sequence[str]) -> str:
    """Return the labelling interface with a brush for each name, in the colours of our own pictures."""
    lines = ["<View>", f'  <Image name="{TO}" value="${DATA}" zoom="true"/>']
    lines.append(f'  <BrushLabels name="{FROM}" toName="{TO}">')
    for name, colour in hex_colours(names).items():
        lines.append(f'    <Label value={quoteattr(name)} background="{colour}"/>')
    return "\n".join([*lines, "  </BrushLabels>", "</View>", ""])


def prediction(label_map: LabelMap, names: Sequence[str], from_name: str = FROM, to_name: str = TO) -> dict[str, Any]:
    """Return a prediction: a brush mask for each class that is there; its score is the mean of theirs, if known."""
    found: list[dict[str, Any]] = []
    size = {"original_width": label_map.width, "original_height": label_map.height}
    for number, region in enumerate(label_map.regions(names)):
        unique = f"{region.category}.{number}" if label_map.instances else f"{region.category}"
        part: dict[str, Any] = {"id": unique, "from_name": from_name, "to_name": to_name}
        part |= {"type": "brushlabels", **size, "image_rotation": 0}
        part["value"] = {"format": "rle", "rle": brush(region.mask), "brushlabels": [region.name]}
        found.append(part if region.confidence is None else part | {"score": region.confidence})
    whole = {"model_version": label_map.model or "pnp-ovss", "result": found}
    scores = [part["score"] for part in found if "score" in part]
    return whole | {"score": sum(scores) / len(scores)} if scores else whole


def brush(mask: Bool[np.ndarray, "h w"]) -> list[int]:
    """Return the mask as Label Studio's brush keeps it: run lengths of red, green, blue and opacity, as bytes.

    32 bits say how many values there are, 5 how wide one is, 4 times 4 the widths of a length; then for each run: a bit
    1, the width's index in 2 bits, the length less 1, and the value, 0 or 255. Each number is written less 1 but the
    first, the index and the value.
    """
    bits = [f"{4 * mask.size:032b}", f"{7:05b}", *(f"{size - 1:04b}" for size in SIZES)]
    longest = 1 << SIZES[-1]
    for number, length in enumerate(runs(mask)):
        value = "11111111" if number % 2 else "00000000"
        for part in [*[longest] * (4 * length // longest), 4 * length % longest]:
            if part:
                index = next(index for index, size in enumerate(SIZES) if part <= 1 << size)
                bits.append(f"1{index:02b}{part - 1:0{SIZES[index]}b}{value}")
    values = np.frombuffer("".join(bits).encode(), dtype=np.uint8) - ord("0")
    return list(np.packbits(values).tobytes())
