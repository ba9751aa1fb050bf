"""One thread for all that the models do. Visitors wait in a line for it, and leave it when they like."""

import asyncio
from collections.abc import AsyncIterator, Generator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, TypeVar

from pnp_ovss.errors import InputError

Step = TypeVar("Step")
END: Any = object()
MOST_OF_ONE = 2
"""Places in the line that one visitor may have."""


class Cancelled(Exception):
    """Whoever asked for the work does not want it any more."""


@dataclass(eq=False)
class _Place:
    """A place in the line."""

    visitor: str
    moved: asyncio.Event = field(default_factory=asyncio.Event)
    left: asyncio.Event = field(default_factory=asyncio.Event)


class Worker:
    """The thread and the line before it. To be used from one event loop."""

    def __init__(self, most_waiting: int) -> None:
        self._most_waiting = most_waiting
        self._line: list[_Place] = []  # the first one's work is going on
        self._thread = ThreadPoolExecutor(1, "model")

    async def turn(self, visitor: str, work: Generator[Step, None, None]) -> AsyncIterator[int | Step]:
        """Yield how many are before the visitor whenever that changes, then what the work yields, a step at a time.

        Raises: InputError if too many wait already, or this visitor does; Cancelled after ``cancel``: a step
        under way is finished then, and the next visitor's work begins after it.
        """
        if sum(place.visitor == visitor for place in self._line) >= MOST_OF_ONE:
            raise InputError(f"{MOST_OF_ONE} of your requests are not done yet; wait for them, or cancel them")
        waiting = len(self._line) - 1
        if waiting >= self._most_waiting:
            raise InputError(f"too many at once: {waiting} are waiting already; try again in a minute")
        place = _Place(visitor)
        self._line.append(place)
        loop = asyncio.get_running_loop()
        try:
            while before := self._line.index(place):
                yield before
                place.moved.clear()
                await _unless(place.left, asyncio.ensure_future(place.moved.wait()))
            while True:
                step = await _unless(place.left, loop.run_in_executor(self._thread, next, work, END))
                if step is END:
                    return
                yield step
        finally:
            self._line.remove(place)
            for other in self._line:
                other.moved.set()
            self._thread.submit(work.close)

    def cancel(self, visitor: str) -> None:
        """End all that a visitor is waiting for."""
        for place in self._line:
            if place.visitor == visitor:
                place.left.set()


async def _unless(left: asyncio.Event, work: asyncio.Future[Any]) -> Any:
    """Return what the work comes to, or raise Cancelled if ``left`` is set first."""
    leaving = asyncio.ensure_future(left.wait())
    try:
        await asyncio.wait([work, leaving], return_when=asyncio.FIRST_COMPLETED)
        if left.is_set():
            raise Cancelled
        return work.result()
    finally:
        leaving.cancel()
        work.cancel()
