"""How many cores this process may keep busy."""

import os
from collections.abc import Iterator
from math import ceil

from pnp_ovss.memory import control_groups, text_of


def usable_cores() -> int:
    """Return the cores that this process may run on, and no more than the CPU quota of its container pays for.

    A thread more than that has to wait while the others need it, and all of them with it.
    """
    own = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min([own, *_quotas()])


def _quotas() -> Iterator[int]:
    for _, group in control_groups("cpu"):
        words = text_of(group / "cpu.max").split()  # version 2: "max 100000" or "150000 100000"
        words = words or [text_of(group / f"cpu.cfs_{name}_us").strip() for name in ("quota", "period")]
        if all(word.isdecimal() and int(word) for word in words):  # "max" and -1 are none
            yield ceil(int(words[0]) / int(words[1]))
