"""ADE20K: grey pictures whose values are the classes from 1; 0 is everything else.

Readers with ``reduce_zero_label`` then count the classes from 0 and ignore the rest. Values of the benchmark itself, 1
to 150, come from exporting in the order of its class list.
Source: Zhou et al., the layout of the scene parsing benchmark.
"""

from collections.abc import Iterator, Sequence

from pnp_ovss.export.results import Labelled
from pnp_ovss.export.voc import as_png, check_count


def ade(results: Sequence[Labelled], names: Sequence[str]) -> Iterator[tuple[str, bytes]]:
    """Yield ``annotations/<key>.png`` for each photo, and ``objectInfo.txt``: value, tab, name.

    Raises: InputError if there are more classes than the values from 1 to 254.
    """
    check_count(names, "ADE")
    for result in results:
        yield f"annotations/{result.key}.png", as_png(result, names)
    lines = ["Idx\tName", *(f"{value}\t{name}" for value, name in enumerate(names, start=1))]
    yield "objectInfo.txt", ("\n".join(lines) + "\n").encode()
