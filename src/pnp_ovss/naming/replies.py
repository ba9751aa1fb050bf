"""A chat model's reply becomes classes with confidences. It is data from outside: nothing in it can do harm.

Two forms are understood: JSON, as ``naming.openai`` asks for it, and the free form of PnP-OVSS's authors,
``[15: person, 5: 'bottle'], [95%, 60]``, with all that GPT-4o makes of it: quotes or none, ``%`` or none, the
confidences on a line of their own, labelled with the names or in words, ``;`` for a space, remarks in brackets, lists
of unequal length.
"""

import json
import re
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from pnp_ovss.naming import NamedClass, Naming
from pnp_ovss.types import BACKGROUND, Vocabulary, fold, tidy

LONGEST_REPLY = 20_000
"""Characters that are read."""
LONGEST_OPEN = 60
"""Characters of a name where there is no vocabulary to check it against."""
NOTHING = ("none", "null", "nothing", "n/a", "unknown", BACKGROUND)
NAME_KEYS, CONFIDENCE_KEYS = ("name", "class", "category", "label"), ("confidence", "probability", "score")
REMARK = re.compile(r"\([^()]*\)\s*$")
WORDED = re.compile(
    r"['\"]?([0-9]{1,3}(?:\.[0-9]{1,6})?)\s?%? (?:probability|confidence|certainty|likelihood|chance)"
    r"(?: (?:of|for|in|that))?(?: (.*))?['\"]?"
)
"""A confidence in words, and the name that it may end in: "95% probability of flower"."""


@dataclass(frozen=True)
class Claim:
    """What a reply says: a name, perhaps with its number in the list, and perhaps a confidence."""

    text: str
    number: int | None = None
    confidence: float | None = None


def parse_reply(text: str, candidates: Vocabulary | None, by_number: bool = False) -> Naming:
    """Return the classes of a reply, in its order, and a note for everything in it that is odd.

    With ``candidates`` no other name comes out, without them any short text does. A name without a confidence has 0. A
    name and a number that disagree: the name counts, or with ``by_number`` the number. Never raises.
    """
    text = " ".join(text[:LONGEST_REPLY].split())
    notes: list[str] = []
    claims = _from_json(text) or _from_lists(text, candidates, notes)
    if not claims and not notes:
        notes.append("the reply names nothing")
    claims = _with_shares(claims)
    if candidates and by_number:
        listed = candidates.numbered()
        claims = [
            claim if claim.number is None else replace(claim, text=listed.get(claim.number, "")) for claim in claims
        ]
    if candidates is None:
        claims = [replace(claim, text=tidy(REMARK.sub("", claim.text))) for claim in claims]
        notes += [f"{claim.text[:40]!r} is no name" for claim in claims if not _is_name(claim.text)]
        claims = [claim for claim in claims if _is_name(claim.text)]
    return named(claims, notes, candidates)


def named(claims: list[Claim], notes: list[str], candidates: Vocabulary | None) -> Naming:
    """Return the classes that claims mean, each once, with the higher confidence, and without the background.

    What is odd is added to ``notes``.
    """
    found: dict[str, NamedClass] = {}
    for claim in claims:
        name = find(claim.text, candidates) if candidates else claim.text
        if name is None or fold(name) == BACKGROUND:
            notes.append(f"{claim.text[:40]!r} is not in the vocabulary")
            continue
        earlier = found.get(fold(name), NamedClass(name, 0.0))  # "Dog" and "dog" are one class
        name = earlier.name
        listed = candidates.numbered().get(claim.number) if candidates and claim.number is not None else name
        if listed != name:
            there = repr(listed) if listed else "not"
            notes.append(f"number {claim.number} is {there} in the list; {name!r} counts")
        if claim.confidence is None:
            notes.append(f"{name!r} has no confidence")
        if fold(name) in found:
            notes.append(f"{name!r} is named twice; the higher confidence counts")
        found[fold(name)] = NamedClass(name, max(earlier.confidence, claim.confidence or 0.0))
    return Naming(tuple(found.values()), tuple(dict.fromkeys(notes)))


def find(text: str, candidates: Vocabulary) -> str | None:
    """Return the class that a text means, or None.

    What stands in brackets behind a name, and what follows a semicolon, is passed over where it does not belong to it;
    where nothing else is meant, a semicolon may stand for a space.
    """
    forms = (text, REMARK.sub("", text), text.split(";")[0], text.replace(";", " "))
    return next((name for form in forms if (name := candidates.find(form))), None)


def _is_name(text: str) -> bool:
    return len(text) <= LONGEST_OPEN and any(map(str.isalpha, text)) and text.casefold() not in NOTHING


def _from_json(text: str) -> list[Claim]:
    """Return what the objects of a JSON reply say, alone or among other words."""
    claims: list[Claim] = []
    for span in re.findall(r"\{[^{}]*\}", text):  # the innermost ones
        with suppress(ValueError, RecursionError):
            claims += _claims(json.loads(span))
    return claims


def _claims(item: dict[str, Any]) -> list[Claim]:
    """Return what an object says: a name and its confidence, or confidences by name."""
    name = next((item[key] for key in NAME_KEYS if key in item), None)
    if name is not None:
        item = {str(name): next((item[key] for key in CONFIDENCE_KEYS if key in item), None)}
    return [Claim(name, confidence=_number(value)) for name, value in item.items() if not isinstance(value, list)]


def _from_lists(text: str, candidates: Vocabulary | None, notes: list[str]) -> list[Claim]:
    """Return what a reply in the free form says: its first list holds names, later ones confidences or more names."""
    groups = re.findall(r"\[([^\[\]]*)(?:\]|$)", text)
    if not groups:
        notes.append("the reply has neither JSON nor a list in brackets")
    names_have_commas = candidates is not None and any("," in name for name in candidates.classes)
    # One before a number.
    comma = r",\s*(?=['\"]?[0-9]{1,6}\s*(?:[:%,]|$))" if names_have_commas else ","
    claims: list[Claim] = []
    labelled: list[tuple[str, float]] = []
    for place, group in enumerate(groups):
        entries = [entry.strip() for entry in re.split(comma, group) if entry.strip()]
        confidences = [found for entry in entries if (found := _confidence(entry))]
        if place > 0 and len(confidences) == len(entries):
            labelled += confidences
        else:
            claims += [_entry(entry, candidates) for entry in entries]
    return _paired(claims, labelled, notes) if labelled else claims


def _confidence(entry: str) -> tuple[str, float] | None:
    """Return the label and the number of an entry that ends in one: ``horse: 95%``, or without a label ``95``; and of
    one in words: ``95% probability of horse``."""
    if worded := WORDED.fullmatch(entry):
        return (worded[2] or "").strip(" '\"").casefold(), float(worded[1])
    text = entry.rstrip(" %'\"")
    label = text.rstrip("0123456789.")
    number = _number(text[len(label) :])
    return None if number is None else (label.strip(" '\":=").casefold(), number)


def _entry(entry: str, candidates: Vocabulary | None) -> Claim:
    """Return an entry such as ``15: 'person'``; a confidence behind it, ``15: person 90%``, counts."""
    text, confidence = entry, None
    if (worded := WORDED.fullmatch(entry)) and worded[2]:
        return Claim(worded[2].strip(" '\"`"), None, float(worded[1]))
    behind = re.search(r"[\s:(=-]([0-9]{1,3}(?:\.[0-9]{1,6})?)\s?%\)?$", text)
    if behind:
        text, confidence = text[: behind.start()].strip(" :(=-"), float(behind[1])
    numbered = re.match(r"['\"]?([0-9]{1,6})\s*['\"]?\s*[:.)]?\s*(?=\D)", text)
    if numbered and not (candidates and find(text, candidates)):
        return Claim(text[numbered.end() :].strip(" '\"`"), int(numbered[1]), confidence)
    return Claim(text.strip(" '\"`"), None, confidence)


def _paired(claims: list[Claim], labelled: list[tuple[str, float]], notes: list[str]) -> list[Claim]:
    """Give each name its confidence: by the label where every confidence has one, else by its place."""
    by_label = dict(labelled)
    names = [claim.text.casefold() for claim in claims]
    if len(by_label) == len(labelled) and by_label.keys() <= set(names):
        return [replace(claim, confidence=by_label.get(name)) for claim, name in zip(claims, names, strict=True)]
    if len(claims) != len(labelled):
        notes.append(f"{len(claims)} names came with {len(labelled)} confidences; they are paired from the first on")
    numbers = [*(number for _, number in labelled), *[None] * len(claims)]
    return [replace(claim, confidence=number) for claim, number in zip(claims, numbers, strict=False)]


def _with_shares(claims: list[Claim]) -> list[Claim]:
    """Turn percentages into shares; numbers all up to 1, with a fraction among them, are shares already."""
    known = [claim.confidence for claim in claims if claim.confidence is not None]
    whole = 1 if known and max(known) <= 1 and any(number % 1 for number in known) else 100
    return [replace(one, confidence=one.confidence and min(one.confidence / whole, 1.0)) for one in claims]


def _number(value: Any) -> float | None:
    """Return the last number of a text, or a number, without its sign; None where there is none."""
    numbers = re.findall(r"[0-9]+(?:\.[0-9]+)?(?:e[+-]?[0-9]+)?", str(value))
    return float(numbers[-1]) if numbers else None
