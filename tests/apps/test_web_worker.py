"""The line before the models: turns in order, and out of it at any time."""

import asyncio
import threading

import pytest

from pnp_ovss import InputError
from pnp_ovss.apps.web.worker import Cancelled, Worker


class Work:
    """Yields 0, 1, 2, ... up to ``steps``; ``done`` tells which steps were taken and whether it was closed."""

    def __init__(self, steps: int, gate: threading.Event | None = None) -> None:
        self.done: list[object] = []
        self.closed = threading.Event()
        self._steps, self._gate = steps, gate

    def __call__(self):
        try:
            for step in range(self._steps):
                if self._gate:
                    assert self._gate.wait(20)
                self.done.append(step)
                yield str(step)
        finally:
            self.done.append("closed")
            self.closed.set()


async def taken(worker: Worker, visitor: str, work: Work) -> list[object]:
    seen = []
    try:
        async for step in worker.turn(visitor, work()):
            seen.append(step)
    except Cancelled:
        seen.append("cancelled")
    return seen


async def until(true) -> None:
    async with asyncio.timeout(20):
        while not true():
            await asyncio.sleep(0.005)


def test_visitors_take_turns_in_the_order_they_came():
    async def main():
        worker, works = Worker(5), [Work(2) for _ in range(3)]
        return await asyncio.gather(*(taken(worker, str(k), work) for k, work in enumerate(works))), works

    seen, works = asyncio.run(main())
    assert seen == [["0", "1"], [1, "0", "1"], [2, 1, "0", "1"]]
    assert all(work.closed.wait(20) and work.done == [0, 1, "closed"] for work in works)


def test_who_cancels_is_free_at_once_and_the_next_one_begins_after_the_step_under_way():
    async def main():
        gate = threading.Event()
        worker, first, second = Worker(5), Work(3, gate), Work(1)
        tasks = [asyncio.create_task(taken(worker, name, work)) for name, work in (("a", first), ("b", second))]
        await until(lambda: len(worker._line) == 2)
        await asyncio.sleep(0.05)  # the first step is under way
        worker.cancel("a")
        left = await tasks[0]
        before = list(first.done), list(second.done)
        gate.set()
        return left, before, await tasks[1], first, second

    left, before, other, first, second = asyncio.run(main())
    assert left == ["cancelled"]
    assert before == ([], [])  # neither its step nor the other's work had to end for that
    assert other == [1, "0"]
    assert first.done == [0, "closed"]
    assert second.closed.wait(20)


def test_who_waits_can_leave_the_line_and_the_others_move_up():
    async def main():
        gate = threading.Event()
        worker, works = Worker(5), [Work(1, gate), Work(1), Work(1)]
        tasks = [asyncio.create_task(taken(worker, str(k), work)) for k, work in enumerate(works)]
        await until(lambda: len(worker._line) == 3)
        worker.cancel("1")
        left = await tasks[1]
        gate.set()
        return left, await tasks[2], works[1]

    left, behind, work = asyncio.run(main())
    assert left == [1, "cancelled"]
    assert behind == [2, 1, "0"]
    assert work.closed.is_set() is False  # it was never begun
    assert work.done == []


def test_cancelling_concerns_nobody_else_and_nothing_that_comes_later():
    async def main():
        worker = Worker(5)
        worker.cancel("a")
        first = await taken(worker, "a", Work(1))
        gate = threading.Event()
        task = asyncio.create_task(taken(worker, "a", Work(1, gate)))
        await until(lambda: worker._line)
        worker.cancel("b")
        gate.set()
        return first, await task

    assert asyncio.run(main()) == (["0"], ["0"])


def test_a_long_line_is_told_and_an_error_lets_the_next_one_in():
    def broken():
        raise InputError("no picture")
        yield

    async def main():
        gate = threading.Event()
        worker = Worker(1)
        first, second = (asyncio.create_task(taken(worker, name, Work(1, gate))) for name in "ab")
        await until(lambda: len(worker._line) == 2)
        with pytest.raises(InputError, match="^too many at once: 1 are waiting already; try again in a minute$"):
            await anext(worker.turn("c", Work(1)()))
        gate.set()
        await asyncio.gather(first, second)
        with pytest.raises(InputError, match="no picture"):
            await anext(worker.turn("c", broken()))
        return await taken(worker, "d", Work(1))

    assert asyncio.run(main()) == ["0"]


def test_a_page_that_lets_go_of_a_turn_frees_the_line():
    async def main():
        worker, work = Worker(5), Work(3)
        turn = worker.turn("a", work())
        assert await anext(turn) == "0"
        await turn.aclose()
        return await taken(worker, "b", Work(1)), work

    seen, work = asyncio.run(main())
    assert seen == ["0"]
    assert work.closed.wait(20)
    assert work.done == [0, "closed"]


def test_a_visitor_has_two_places_and_leaves_room_for_others():
    async def main():
        gate = threading.Event()
        worker = Worker(5)
        tasks = [asyncio.create_task(taken(worker, "a", Work(1, gate))) for _ in range(2)]
        await until(lambda: len(worker._line) == 2)
        with pytest.raises(InputError, match="^2 of your requests are not done yet; wait for them, or cancel them$"):
            await anext(worker.turn("a", Work(1)()))
        other = asyncio.create_task(taken(worker, "b", Work(1)))
        gate.set()
        return await asyncio.gather(*tasks, other)

    assert [seen[-1] for seen in asyncio.run(main())] == ["0", "0", "0"]
