"""Work that runs ahead of the one who takes its results."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

Given = TypeVar("Given")
Made = TypeVar("Made")


def ahead(begin: Callable[[Given], Callable[[], Made]], given: Iterable[Given], most: int) -> Iterator[Made]:
    """Yield the results for everything given, in order, with at most so many begun and not yet taken.

    ``begin`` starts a task and returns what waits for its result. What ends ``given`` early is raised after the results
    of all that was begun.

    >>> list(ahead(lambda n: lambda: n * n, range(4), most=2))
    [0, 1, 4, 9]
    """
    waiting = deque[Callable[[], Made]]()
    stop: BaseException | None = None
    try:
        for one in given:
            waiting.append(begin(one))
            if len(waiting) == most:
                yield waiting.popleft()()
    except (Exception, KeyboardInterrupt) as error:
        stop = error
    while waiting:
        yield waiting.popleft()()
    if stop:
        raise stop
