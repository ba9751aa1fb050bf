"""How much memory there is for the work on a photo: what the machine and its container have left, or a budget."""

import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path

from pnp_ovss.errors import ConfigError

UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "KI": 2**10, "MI": 2**20, "GI": 2**30, "TI": 2**40}
SHARE = 0.9
"""Of what is left that may be used: the rest is for what else runs."""

PROC, CGROUP = Path("/proc"), Path("/sys/fs/cgroup")
LIMITS = {
    CGROUP: ("memory.max", "memory.current", "inactive_file"),
    CGROUP / "memory": ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
}
"""Where control groups of version 2 and 1 are, their files of the limit and of what is in use, and the entry of
``memory.stat`` for the part of it that is given up when memory is short."""


def parse_bytes(text: str | int) -> int:
    """Return the number of bytes that a text such as "4GB", "512 MiB" or "4e9" means.

    Raises: ConfigError if it is no such text, or not above 0.

    >>> parse_bytes("4GB"), parse_bytes("1.5GiB")
    (4000000000, 1610612736)
    """
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?(?:e\d{1,2})?)\s*([KMGT]?I?)B?\s*", str(text), re.IGNORECASE)
    if not found or not 1 <= float(found[1]) * UNITS.get(found[2].upper(), 0) < 2**63:
        raise ConfigError(f"expected an amount of memory such as 4GB or 512MiB, got {str(text)!r:.40}")
    return int(float(found[1]) * UNITS[found[2].upper()])


def room(budget: int | None) -> int:
    """Return the bytes that this process may still take: of a budget for all of it, or of what is left.

    Never more than is left; a number that is 0 or less says that a budget is used up.
    """
    left = int(SHARE * available())
    return left if budget is None else min(left, budget - in_use())


def in_use() -> int:
    """Return the bytes of memory that this process holds; 0 where the system does not say."""
    status = _number(PROC / "self" / "status", "VmRSS:")
    return 0 if status is None else 1024 * status


def available() -> int:
    """Return the bytes that are left on the machine and in each control group that this process is in.

    Where the system does not say what is left, this is all that the machine has.
    """
    kilobytes = _number(PROC / "meminfo", "MemAvailable:")
    machine = _whole_machine() if kilobytes is None else 1024 * kilobytes
    return min([machine, *_left_in_groups()])


def _whole_machine() -> int:
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):  # Windows has no sysconf
        return sys.maxsize


def control_groups(resource: str) -> Iterator[tuple[Path, Path]]:
    """Yield the folders of the control group of this process and of those above it, as far as they can be seen.

    Before each comes the root of its hierarchy: version 1 has one for each resource, such as "memory" or "cpu".
    """
    for line in text_of(PROC / "self" / "cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        root = CGROUP / resource if resource in controllers.split(",") else CGROUP
        if controllers and root == CGROUP:
            continue  # version 1, another resource
        own = root / path.lstrip("/")
        yield from ((root, group) for group in (own, *own.parents) if group.is_relative_to(root))


def _left_in_groups() -> Iterator[int]:
    """Yield what is left in each control group that says so."""
    for root, group in control_groups("memory"):
        limit, current, file = LIMITS[root]
        most, used = _number(group / limit), _number(group / current)
        if most is not None and used is not None:
            yield most - used + (_number(group / "memory.stat", file) or 0)


def _number(path: Path, name: str = "") -> int | None:
    """Return the whole number in a file, or in its line that begins with ``name``; None where there is none."""
    lines = (line.split() for line in text_of(path).splitlines())
    words = next((words for words in lines if words and words[0] == name), []) if name else next(lines, [])
    number = words[bool(name)] if len(words) > bool(name) else ""
    return int(number) if number.isdecimal() else None


def text_of(path: Path) -> str:
    """Return what a file of the system says, nothing where it is not there."""
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError):
        return ""
