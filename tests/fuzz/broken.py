"""Targets that do what none may do: the harness has to find each."""

import os
import sys
import threading
from pathlib import Path
from random import Random

from pnp_ovss.errors import InputError

HELD: list[bytes] = []


def raises(rng: Random, place: object) -> None:
    raise KeyError(rng.random())


def leaves(rng: Random, place: object) -> None:
    sys.exit(2)


def many_lines(rng: Random, place: object) -> None:
    error = InputError("one")
    error.args = ("one\ntwo",)
    raise error


def says_nothing(rng: Random, place: object) -> None:
    raise InputError("")


def hangs(rng: Random, place: object) -> None:
    while True:
        pass


def dies(rng: Random, place: object) -> None:
    os._exit(3)


def fills(rng: Random, place: object) -> None:
    b"x" * (300 << 20)


def dies_in_a_thread(rng: Random, place: object) -> None:
    thread = threading.Thread(target=lambda: 1 // 0)
    thread.start()
    thread.join()


def works(rng: Random, place: object) -> None:
    assert Path.cwd().is_dir()


def refuses(rng: Random, place: object) -> None:
    raise InputError(f"expected better than {rng.random()}")


TARGETS = {
    function.__name__: (function, 1)
    for function in (raises, leaves, many_lines, says_nothing, hangs, dies, fills, dies_in_a_thread, works, refuses)
}
