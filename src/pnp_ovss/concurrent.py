"""Work that runs ahead of its results being taken."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import TypeVar

Given = TypeVar("Given")
Made = TypeVar("Made")


def ahead(begin: Callable[[Given], Callable[[], Made]], given: Iterable[Given], most: int) -> Iterator[Made]:
    """Yield the results for everything given, in order, with at most so many begun and not yet taken.

    ``begin`` starts a task and returns what waits for its result.

    >>> list(ahead(lambda n: lambda: n * n, range(4), most=2))
    [0, 1, 4, 9]
    """
    rest = iter(given)
    waiting = deque(map(begin, islice(rest, most)))
    while waiting:
        yield waiting.popleft()()
        waiting.extend(map(begin, islice(rest, 1)))
