"""A chat model's reply becomes names with confidences. It is data from outside: nothing in it can do harm.

Two forms are understood: JSON, as ``naming.prompts`` asks for it, and the free form of PnP-OVSS's authors,
``[15: person, 5: 'bottle'], [95%, 60]``, with all that GPT-4o makes of it: quotes or none, ``%`` or none, the
confidences on a line of their own or labelled with the names, remarks in brackets, lists of unequal length.
"""

import json
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pnp_ovss.naming.base import Guess, Naming
from pnp_ovss.naming.candidates import Candidates, fold, tidy
from pnp_ovss.types import BACKGROUND

LONGEST_REPLY = 20_000
"""Characters that are looked at."""
MOST_OPEN, LONGEST_OPEN = 25, 60
"""Names, and characters of a name, where there is no vocabulary to check them against."""
DIGITS = "0123456789"
NOTHING = ("none", "null", "nothing", "n/a", "unknown", BACKGROUND)
NAMES_OF_NAME, NAMES_OF_CONFIDENCE = ("name", "class", "category", "label"), ("confidence", "probability", "score")


@dataclass(frozen=True)
class Claim:
    """What a reply says: a name, perhaps with its number in the list, and perhaps a confidence in percent."""

    text: str
    number: int | None = None
    percent: float | None = None


def parse_reply(text: str, candidates: Candidates | None) -> Naming:
    """Return the names of a reply, in its order, and a note for everything in it that is odd.

    With ``candidates`` no other name comes out, without them any short text does. A name without a confidence has 0. A
    name and a number that disagree: the name counts. Never raises.
    """
    text = " ".join(text[:LONGEST_REPLY].split())
    if not text:
        return Naming((), ("the reply is empty",))
    claims, notes = _from_json(text) or _from_lists(text, candidates)
    return _checked(claims, notes, candidates)


def _checked(claims: Sequence[Claim], notes: list[str], candidates: Candidates | None) -> Naming:
    found: dict[str, float] = {}
    written: dict[str, str] = {}
    for claim in claims:
        name, remark = _name(claim, candidates)
        if remark:
            notes.append(remark)
        if name is None:
            continue
        name = written.setdefault(fold(name), name)  # "Dog" and "dog" are one class
        if claim.percent is None:
            notes.append(f"{name!r} has no confidence")
        if name in found:
            notes.append(f"{name!r} is named twice; the higher confidence counts")
        found[name] = max(found.get(name, 0.0), min(claim.percent or 0.0, 100.0) / 100)
    if not claims and not notes:
        notes.append("the reply names nothing")
    if candidates is None and len(found) > MOST_OPEN:
        notes.append(f"{len(found)} names came; the first {MOST_OPEN} count")
        found = dict(list(found.items())[:MOST_OPEN])
    return Naming(tuple(Guess(name, confidence) for name, confidence in found.items()), tuple(dict.fromkeys(notes)))


def _name(claim: Claim, candidates: Candidates | None) -> tuple[str | None, str]:
    """Return the name that a claim means, if any, and a note on what is odd about it."""
    text = tidy(claim.text)
    if candidates is None:
        text = tidy(re.sub(r"\([^()]*\)\s*$", "", text))
        usable = len(text) <= LONGEST_OPEN and any(character.isalpha() for character in text)
        if not usable or text.casefold() in NOTHING:
            return None, f"{_short(text)} is no name"
        return text, ""
    name = candidates.find(text)
    if name is None:
        said = "the reply says that nothing of the vocabulary is there"
        return None, said if text.casefold() in NOTHING else f"{_short(text)} is not in the vocabulary"
    if claim.number is None or candidates.numbers.get(claim.number) == name:
        return name, ""
    listed = candidates.numbers.get(claim.number)
    return name, f"number {claim.number} is {repr(listed) if listed else 'not'} in the list; {name!r} counts"


def _from_json(text: str) -> tuple[list[Claim], list[str]] | None:
    """Return what a JSON reply says, alone or among other words; None if there is no such thing in it."""
    ends = [(text.find(first), text.rfind(last) + 1) for first, last in ("{}", "[]")]
    for part in (text, *(text[start:end] for start, end in ends if 0 <= start < end)):
        try:
            content = json.loads(part)
        except (ValueError, RecursionError):
            continue
        claims = _claims(content)
        if claims is not None:
            return _in_percent(claims), []
    return None


def _claims(content: Any) -> list[Claim] | None:
    if isinstance(content, dict) and any(isinstance(content.get(key), str) for key in NAMES_OF_NAME):
        return [_claim(content)]
    if isinstance(content, dict):
        lists = [value for value in content.values() if isinstance(value, list)]
        if lists:
            return _claims(lists[0])
        shares = {name: _number(value) for name, value in content.items()}
        named = all(share is not None for share in shares.values())
        return [Claim(str(name), percent=share) for name, share in shares.items()] if named else None
    if not isinstance(content, list) or not all(isinstance(item, dict | str) for item in content):
        return None
    return [Claim(item) if isinstance(item, str) else _claim(item) for item in content]


def _claim(item: dict[str, Any]) -> Claim:
    name = next((item[key] for key in NAMES_OF_NAME if isinstance(item.get(key), str)), "")
    percent = next((_number(item[key]) for key in NAMES_OF_CONFIDENCE if key in item), None)
    return Claim(name, percent=percent)


def _number(value: Any) -> float | None:
    if isinstance(value, str):
        return _last_number(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:
        return math.inf
    return max(number, 0.0) if number == number else None


def _from_lists(text: str, candidates: Candidates | None) -> tuple[list[Claim], list[str]]:
    """Return what a reply in the free form says: its first list holds names, later ones confidences or more names."""
    groups = re.findall(r"\[([^\[\]]*)(?:\]|$)", text)
    if not groups:
        return [], ["the reply has neither JSON nor a list in brackets"]
    split = _splitter(candidates)
    claims: list[Claim] = []
    shares: list[tuple[str, float]] = []
    for place, group in enumerate(groups):
        entries = [entry.strip() for entry in split(group) if entry.strip()]
        if place > 0 and entries and all(entry.rstrip(" %'\"")[-1:] in DIGITS for entry in entries):
            shares += [(entry, _last_number(entry) or 0.0) for entry in entries]
        else:
            claims += [_entry(entry, candidates) for entry in entries]
    return _paired(claims, shares)


def _splitter(candidates: Candidates | None) -> Callable[[str], list[str]]:
    if candidates and any("," in name for name in candidates.names):  # then a comma ends an entry before a number only
        return lambda group: re.split(r",\s*(?=['\"]?[0-9]{1,6}\s*(?:[:%,]|$))", group)
    return lambda group: group.split(",")


def _entry(entry: str, candidates: Candidates | None) -> Claim:
    """Return an entry such as ``15: 'person'``; a confidence behind it, ``15: person 90%``, counts."""
    text, percent = entry.strip(), None
    behind = re.search(r"[\s:(=-]([0-9]{1,3}(?:\.[0-9]{1,6})?)\s?%\)?$", text)
    if behind:
        text, percent = text[: behind.start()].strip(" :(=-"), float(behind[1])
    numbered = re.match(r"['\"]?([0-9]{1,6})\s*['\"]?\s*[:.)]?\s*(?=\D)", text)
    if numbered and not (candidates and candidates.find(text)):
        return Claim(text[numbered.end() :].strip(" '\"`"), int(numbered[1]), percent)
    return Claim(text.strip(" '\"`"), None, percent)


def _paired(claims: list[Claim], shares: list[tuple[str, float]]) -> tuple[list[Claim], list[str]]:
    """Give each name its confidence: by the label where every confidence has one, else by its place."""
    if not shares:
        return claims, []
    scale = _scale([share for _, share in shares])
    labels = [entry.rstrip(" %'\"").rstrip(DIGITS + ".").strip(" '\":=").casefold() for entry, _ in shares]
    if set(labels) <= {claim.text.casefold() for claim in claims} and len(set(labels)) == len(labels):
        of_label = {label: share * scale for label, (_, share) in zip(labels, shares, strict=True)}
        return [replace(claim, percent=of_label.get(claim.text.casefold())) for claim in claims], []
    values = [share * scale for _, share in shares]
    notes = []
    if len(claims) != len(values):
        notes.append(f"{len(claims)} names came with {len(values)} confidences; they are paired from the first on")
    padded: list[float | None] = [*values, *[None] * len(claims)]
    return [replace(claim, percent=value) for claim, value in zip(claims, padded, strict=False)], notes


def _in_percent(claims: list[Claim]) -> list[Claim]:
    scale = _scale([claim.percent for claim in claims if claim.percent is not None])
    return [replace(claim, percent=None if claim.percent is None else claim.percent * scale) for claim in claims]


def _scale(values: Sequence[float]) -> float:
    """Return what makes percent of these numbers: 100 where all are shares such as 0.9, with a fraction among them."""
    return 100.0 if values and max(values) <= 1 and any(value % 1 for value in values) else 1.0


def _last_number(text: str) -> float | None:
    numbers = re.findall(r"[0-9]+(?:\.[0-9]+)?", text)
    return float(numbers[-1]) if numbers else None


def _short(text: str) -> str:
    return repr(text if len(text) <= 40 else text[:37] + "...")
