"""Seeded damage: to bytes, to texts, and to values as JSON and Python have them."""

import json
import struct
from collections.abc import Callable, Sequence
from copy import deepcopy
from random import Random
from typing import Any

SPLITS = (0, 1, 2, 3, 7, 8, 127, 128, 255, 256, 32767, 32768, 65535, 65536, 1 << 20, 150_000_000, (1 << 31) - 1)
WHOLE = (*SPLITS, 1 << 31, (1 << 32) - 1, 1 << 53, (1 << 63) - 1, 1 << 64, 10**30, 10**400)
NUMBERS = (*WHOLE, -1, -2, -(1 << 31), -(10**30), 0.5, -0.0, 1e-320, 1e308, float("inf"), -float("inf"), float("nan"))
TEXTS = (
    *(
        "",
        " ",
        "\n",
        "\0",
        "\ud800",
        "\udc80a",
        "\ufeff",
        "\u202e",
        "\u2028",
        "e\u0301",
        "\U0010ffff",
        "#",
        ":",
        "=",
        "|",
    ),
    *(
        "dog",
        "Dog ",
        "dog, cat",
        "background",
        "../../x",
        "/etc/passwd",
        "~",
        ".",
        "..",
        "%s{0}",
        "<b>",
        "*",
        "[",
        "\\",
    ),
    *("NaN", "1e999", "-1", "null", "[PAD]", "[MASK]", "[SEP]", "dog " * 60, "x" * 300, "ü" * 200, "a" * 70_000),
)
DEEP = (90, 900, 980, 100_000)
"""Levels of nesting; Python's own limit is near 1000."""


def odd_text(rng: Random) -> str:
    """Return a text that somebody should have thought of, or any characters at all."""
    if rng.random() < 0.6:
        return rng.choice(TEXTS)
    ranges = (
        (32, 126),
        (0, 255),
        (0x300, 0x36F),
        (0x4E00, 0x4FFF),
        (0xD800, 0xDFFF),
        (0x1F300, 0x1F5FF),
        (0, 0x10FFFF),
    )
    low, high = rng.choice(ranges)
    return "".join(chr(rng.randint(low, high)) for _ in range(rng.randint(1, 20)))


def odd_value(rng: Random) -> Any:
    """Return a value that JSON can hold, mostly one that makes no sense where it comes."""
    makers: tuple[Callable[[], Any], ...] = (
        lambda: rng.choice(NUMBERS),
        lambda: odd_text(rng),
        lambda: rng.choice((None, True, False, [], {}, [[]], [None], {"": None}, [[[]]], "", 0)),
        lambda: [odd_value(rng) for _ in range(rng.randint(1, 4))],
        lambda: {odd_text(rng): odd_value(rng) for _ in range(rng.randint(1, 3))},
        lambda: nested(rng.choice(DEEP[:3])),
    )
    return rng.choices(makers, (4, 4, 4, 1, 1, 0.3))[0]()


def odd_object(rng: Random) -> Any:
    """Return a value of Python's that JSON cannot hold, or one that it can."""
    objects = (b"dog", (1, 2), {"dog"}, 1j, object(), int, range(3), iter(["dog"]), Exception("no"), lambda: 0, ...)
    return rng.choice(objects) if rng.random() < 0.3 else odd_value(rng)


def nested(levels: int) -> Any:
    """Return lists in lists."""
    value: list[Any] = []
    for _ in range(levels):
        value = [value]
    return value


def places(value: Any) -> list[tuple[Any, Any]]:
    """Return container and key of everything in a value that JSON can hold."""
    found, open_ones = list[tuple[Any, Any]](), [value]
    while open_ones:
        one = open_ones.pop()
        keys = list(one) if isinstance(one, dict) else range(len(one)) if isinstance(one, list) else ()
        found += [(one, key) for key in keys]
        open_ones += [one[key] for key in keys]
    return found


def damaged_value(rng: Random, value: Any, odd: Callable[[Random], Any] = odd_value) -> Any:
    """Return a copy in which one to three parts are odd, gone, doubled or elsewhere."""
    value = deepcopy(value)
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        if not (spots := places(value)) or rng.random() < 0.02:
            return odd(rng)
        holder, key = rng.choice(spots)
        kind = rng.random()
        if kind < 0.7:
            holder[key] = odd(rng)
        elif kind < 0.85:
            del holder[key]
        elif isinstance(holder, list):
            holder.insert(key, holder[key])
        else:
            other, place = rng.choice(spots)
            moved = other.get(place) if isinstance(other, dict) else other[min(place, len(other) - 1)]
            holder[odd_text(rng)] = deepcopy(moved)
    return value


def as_json(rng: Random, value: Any) -> bytes:
    """Return a value as a JSON file, now and then one that no reader should take."""
    if rng.random() < 0.03:
        return b"[" * rng.choice(DEEP) + rng.choice((b"", b"]" * 100_000))
    if rng.random() < 0.03:
        return b'{"a":' * rng.choice(DEEP) + b"1" + rng.choice((b"", b"}" * 100_000))
    try:
        text = json.dumps(value, ensure_ascii=rng.random() < 0.8)
    except (ValueError, RecursionError):
        text = "9" * 5000
    content = text.encode(
        rng.choice(("utf-8", "utf-8-sig", "utf-16", "latin-1")) if rng.random() < 0.1 else "utf-8", "replace"
    )
    return damaged(rng, content) if rng.random() < 0.25 else content


def damaged(rng: Random, content: bytes) -> bytes:
    """Return the bytes with one to five faults: flipped, cut, put in, doubled, moved, or numbers that are no more."""
    data = bytearray(content)
    for _ in range(rng.choice((1, 1, 2, 3, 5))):
        at, length = rng.randrange(len(data) + 1), rng.choice((1, 1, 2, 4, 8, 64, 1000))
        # What decides most stands at the beginning.
        at = min(at, rng.randrange(1, 200)) if rng.random() < 0.5 else at
        match rng.randrange(8):
            case 0 if data:
                data[at % len(data)] ^= 1 << rng.randrange(8)
            case 1:
                del data[at:]
            case 2:
                del data[at : at + length]
            case 3:
                data[at:at] = rng.randbytes(length)
            case 4:
                data[at:at] = data[at : at + length] * rng.choice((1, 2, 50))
            case 5:
                number = rng.choice(WHOLE[:-4]) & 0xFFFFFFFF
                width = rng.choice(("<H", ">H", "<I", ">I"))
                packed = struct.pack(width, number & (0xFFFF if width[1] == "H" else 0xFFFFFFFF))
                data[at : at + len(packed)] = packed
            case 6:
                data[at : at + length] = bytes(min(length, len(data) - at))
            case 7:
                data[at:at] = rng.choice(
                    (b"\xff", b"\0", b"\xed\xa0\x80", b"\xef\xbb\xbf", b"\r", b'"', b"[", b"1e999")
                )
    return bytes(data)


def shuffled(rng: Random, values: Sequence[Any]) -> list[Any]:
    """Return the values in another order."""
    return rng.sample(list(values), len(values))
