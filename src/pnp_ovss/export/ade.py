"""ADE20K: grey pictures whose values are the classes from 1; 0 is everything else.

Readers with ``reduce_zero_label`` then count the classes from 0 and ignore the rest. Values of the benchmark itself, 1
to 150, come from exporting in the order of its class list.
Source: Zhou et al., the layout of the scene parsing benchmark.
"""

from collections.abc import Iterator, Sequence

from pnp_ovss.export.voc import check_count, value_png
from pnp_ovss.files import as_text
from pnp_ovss.types import LabelMap


def ade(label_maps: Sequence[LabelMap], names: Sequence[str]) -> Iterator[tuple[str, bytes]]:
    """Yield ``annotations/<key>.png`` for each photo, and ``objectInfo.txt``: value, tab, name.

    Raises: InputError if there are more classes than the values from 1 to 254.
    """
    check_count(names, "ADE")
    for label_map in label_maps:
        yield f"annotations/{label_map.key}.png", value_png(label_map, names)
    lines = ["Idx\tName", *(f"{value}\t{name}" for value, name in enumerate(names, start=1))]
    yield "objectInfo.txt", as_text(lines)
