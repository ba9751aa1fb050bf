"""The line before the page's models: turns in order, and out of it at any time."""

import asyncio
import threading
from concurrent.futures import CancelledError

import pytest

from pnp_ovss import InputError
from pnp_ovss.apps import page_work
from pnp_ovss.apps.page_work import WaitingLine


class Work:
    """Takes ``steps`` steps, each when ``gate`` is open, and returns "done"; ``taken`` holds the steps taken."""

    def __init__(self, steps: int = 1, gate: threading.Event | None = None) -> None:
        self.taken: list[int] = []
        self.started = threading.Event()
        self._steps, self._gate = steps, gate

    def __call__(self, on_step) -> str:
        for step in range(self._steps):
            on_step("step", step, self._steps)
            self.started.set()
            assert self._gate is None or self._gate.wait(20)
            self.taken.append(step)
        return "done"


async def heard(line: WaitingLine, visitor: str, work) -> list[str]:
    """Return all that a visitor hears."""
    messages = []
    try:
        async for message in line.run(visitor, work):
            messages.append(message)
    except CancelledError:
        messages.append("cancelled")
    return messages


async def start(line: WaitingLine, works: dict[str, Work]) -> list[asyncio.Task]:
    """Return the visitors' tasks, in the line in this order, the first one at work."""
    tasks = [asyncio.create_task(heard(line, visitor, work)) for visitor, work in works.items()]
    first = next(iter(works.values()))
    await asyncio.to_thread(first.started.wait, 20)
    return tasks


def test_visitors_take_turns_in_the_order_they_came():
    async def main():
        gate = threading.Event()
        tasks = await start(WaitingLine(), {"a": Work(1, gate), "b": Work(1, gate), "c": Work()})
        await asyncio.sleep(0.1)
        gate.set()
        return await asyncio.gather(*tasks)

    first, second, third = asyncio.run(main())
    assert first == ["step 1 of 1", "done"]
    assert (second[0], second[-1]) == ("waiting, 1 before you", "done")
    assert (third[0], third[-1]) == ("waiting, 2 before you", "done")


def test_a_visitor_who_cancels_is_free_at_once_and_the_work_stops_at_its_next_step():
    async def main():
        gate, first, second = threading.Event(), Work(3), Work()
        first._gate = gate
        line = WaitingLine()
        tasks = await start(line, {"a": first, "b": second})
        line.cancel("a")
        messages = await tasks[0]
        before = list(first.taken), list(second.taken)
        gate.set()
        return messages, before, await tasks[1], first

    messages, before, other, first = asyncio.run(main())
    assert messages[-1] == "cancelled"
    assert before == ([], [])  # neither its step nor the other's work had to end for that
    assert other[-1] == "done"
    assert first.taken == [0]


def test_a_visitor_who_waits_can_leave_the_line_and_the_others_move_up():
    async def main():
        gate = threading.Event()
        line, works = WaitingLine(), {"a": Work(1, gate), "b": Work(), "c": Work()}
        tasks = await start(line, works)
        await asyncio.sleep(0.1)
        line.cancel("b")
        left = await tasks[1]
        await asyncio.sleep(0.1)
        gate.set()
        return left, await tasks[2], works["b"]

    left, behind, work = asyncio.run(main())
    assert left == ["waiting, 1 before you", "cancelled"]
    assert behind[:2] == ["waiting, 2 before you", "waiting, 1 before you"]
    assert work.taken == []


def test_cancelling_concerns_nobody_else_and_nothing_that_comes_later():
    async def main():
        line, gate = WaitingLine(), threading.Event()
        line.cancel("a")
        first = await heard(line, "a", Work())
        (task,) = await start(line, {"a": Work(1, gate)})
        line.cancel("b")
        gate.set()
        return first[-1], (await task)[-1]

    assert asyncio.run(main()) == ("done", "done")


def test_a_long_line_is_refused_and_an_error_lets_the_next_one_in(monkeypatch):
    monkeypatch.setattr(page_work, "MOST_WAITING", 1)

    def broken(on_step):
        raise InputError("no picture")

    async def main():
        gate = threading.Event()
        line = WaitingLine()
        tasks = await start(line, {"a": Work(1, gate), "b": Work(1, gate)})
        with pytest.raises(InputError, match="^too many at once: 1 are waiting already; try again in a minute$"):
            await anext(line.run("c", Work()))
        gate.set()
        await asyncio.gather(*tasks)
        with pytest.raises(InputError, match="no picture"):
            await heard(line, "c", broken)
        return await heard(line, "d", Work())

    assert asyncio.run(main())[-1] == "done"


def test_a_page_that_lets_go_of_a_turn_frees_the_line():
    async def main():
        gate, line = threading.Event(), WaitingLine()
        work = Work(3, gate)
        turn = line.run("a", work)
        assert await anext(turn) == "step 1 of 3"
        await turn.aclose()
        gate.set()
        return await heard(line, "b", Work()), work

    messages, work = asyncio.run(main())
    assert messages[-1] == "done"
    assert work.taken == [0]


def test_a_visitor_has_two_places_and_leaves_room_for_others():
    async def main():
        gate, line = threading.Event(), WaitingLine()
        tasks = await start(line, {"a": Work(1, gate)})
        tasks.append(asyncio.create_task(heard(line, "a", Work(1, gate))))
        await asyncio.sleep(0.05)
        with pytest.raises(InputError, match="^2 of your requests are not done yet; wait for them, or cancel them$"):
            await anext(line.run("a", Work()))
        tasks.append(asyncio.create_task(heard(line, "b", Work())))
        gate.set()
        return await asyncio.gather(*tasks)

    assert [messages[-1] for messages in asyncio.run(main())] == ["done", "done", "done"]
