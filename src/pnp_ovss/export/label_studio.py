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

from pnp_ovss.export.cvat import runs
from pnp_ovss.files import as_json
from pnp_ovss.pictures import class_colours
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
    tasks = [
        {
            "data": {DATA: LOCAL_FILES + quote(f"{PHOTOS}/{label_map.file_name}")},
            "predictions": [prediction(label_map, names)],
        }
        for label_map in label_maps
    ]
    yield "tasks.json", as_json(tasks)
    yield "interface.xml", interface(names).encode()


def interface(names: Sequence[str]) -> str:
    """Return the labelling interface with a brush for each name, in the colours of our own pictures."""
    brushes = "".join(
        f'    <Label value={quoteattr(name)} background="#{bytes(colour).hex()}"/>\n'
        for name, colour in zip(names, class_colours(names), strict=True)
    )
    picture = f'  <Image name="{TO}" value="${DATA}" zoom="true"/>\n'
    return f'<View>\n{picture}  <BrushLabels name="{FROM}" toName="{TO}">\n{brushes}  </BrushLabels>\n</View>\n'


def prediction(label_map: LabelMap, names: Sequence[str], from_name: str = FROM, to_name: str = TO) -> dict[str, Any]:
    """Return a prediction: a brush mask for each class that is there; its score is the mean of theirs, if known."""
    regions = list(label_map.regions(names))
    found = [
        {
            "id": f"{region.category}",
            "from_name": from_name,
            "to_name": to_name,
            "type": "brushlabels",
            "original_width": label_map.width,
            "original_height": label_map.height,
            "image_rotation": 0,
            "value": {"format": "rle", "rle": brush(region.mask), "brushlabels": [region.name]},
            **({} if region.score is None else {"score": region.score}),
        }
        for region in regions
    ]
    scores = [region.score for region in regions if region.score is not None]
    whole = {"model_version": label_map.model or "pnp-ovss", "result": found}
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
    packed: list[int] = np.packbits(values).tolist()
    return packed
