"""Replies of chat models, as they come."""

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from pnp_ovss.data.vocabulary import load_vocabulary
from pnp_ovss.naming import KEEP, NamedClass, Naming, Options, load_namer
from pnp_ovss.naming.replies import find, parse_reply
from pnp_ovss.types import Vocabulary
from shared import shared

PHOTO = np.random.default_rng(0).integers(0, 255, (40, 30, 3), dtype=np.uint8)
VOC = load_vocabulary("voc")
COCO = load_vocabulary("coco-object")


def read(text: str, candidates: Vocabulary | None = VOC) -> dict[str, float]:
    return {named.name: round(named.confidence, 6) for named in parse_reply(text, candidates).classes}


@pytest.mark.parametrize(
    ("file", "vocabulary", "photos", "listed", "kept", "unsure", "noted"),
    [
        ("voc", "voc", 1449, 1.59, 1.39, 8, 0),
        pytest.param("coco_object", "coco-object", 5000, 2.47, 2.00, 39, 10, marks=pytest.mark.slow),
    ],
)
def test_every_reply_of_the_authors_is_parsed_or_reported(file, vocabulary, photos, listed, kept, unsure, noted):
    path = shared(f"gpt4o/{file}_classification_noboundary.json")
    replies = json.loads(path.read_text())
    candidates = load_vocabulary(vocabulary)
    namer = load_namer("cached", Options(source=path))
    namings = {key: namer(PHOTO, candidates, key) for key in replies}
    assert len(namings) == photos
    assert round(sum(len(naming.classes) for naming in namings.values()) / photos, 2) == listed
    assert round(sum(len(naming.kept()) for naming in namings.values()) / photos, 2) == kept
    assert sum(bool(naming.classes) and not naming.kept() for naming in namings.values()) == unsure
    assert sum(bool(naming.notes) for naming in namings.values()) == noted
    for key, naming in namings.items():
        assert naming.classes or naming.notes, replies[key]
        assert {named.name for named in naming.classes} <= set(candidates.classes)
    notes = {note for naming in namings.values() for note in naming.notes}
    if file == "coco_object":
        assert sum(naming.notes == ("'None' is not in the vocabulary",) for naming in namings.values()) == 3
        assert "number 49 is 'knife' in the list; 'fork' counts" in notes
        assert "17 names came with 18 confidences; they are paired from the first on" in notes


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        ("[15: person, 5: bottle], [95%, 60%]", {"person": 0.95, "bottle": 0.6}),
        ("[15: 'person', 5: \"bottle\"], [95, 60]", {"person": 0.95, "bottle": 0.6}),
        ("[15: person, 5: bottle]\n\n[95, 60%]", {"person": 0.95, "bottle": 0.6}),
        ("[15: person]\n[5: bottle]\n[95]\n[60]", {"person": 0.95, "bottle": 0.6}),
        ("[13: 'horse', 15: 'person'], [person: 60%, horse: 95%]", {"horse": 0.95, "person": 0.6}),
        ("[12: dog], [95: 100]", {"dog": 1.0}),
        ("[12: dog], [probability of class1 in percentage: 95]", {"dog": 0.95}),
        ("[12: dog (unsure)], [20]", {"dog": 0.2}),
        ("[11: table, 20: tv monitor], [80, 70]", {"diningtable": 0.8, "tvmonitor": 0.7}),
        ("[dog, Cat], [0.9, 1]", {"dog": 0.9, "cat": 1.0}),
        ("[dog, cat], [1, 1]", {"dog": 0.01, "cat": 0.01}),
        ("[12: dog 90%, 8: cat (80%)]", {"dog": 0.9, "cat": 0.8}),
        ("Sure: [12: dog], [90]. Anything else?", {"dog": 0.9}),
        ("[12: dog, 8: cat], [90", {"dog": 0.9, "cat": 0.0}),
        ("[12: dog, 8: cat], [90, 80, 70]", {"dog": 0.9, "cat": 0.8}),
        ("[12: dog, 12: dog], [20, 90]", {"dog": 0.9}),
        ("[12: dog, 12: dog], [90, 20]", {"dog": 0.9}),
        ("[12: dog], [400%]", {"dog": 1.0}),
        ("[12: dragon, 8: cat], [90, 80]", {"cat": 0.8}),
        ('{"found": [{"name": "dog", "confidence": 95}]}', {"dog": 0.95}),
        (
            '{"found": [{"name": "dog", "confidence": 0.95}, {"name": "cat", "confidence": 0.5}]}',
            {"dog": 0.95, "cat": 0.5},
        ),
        ('```json\n[{"class": "dog", "probability": "95 %"}]\n```', {"dog": 0.95}),
        ('{"dog": 95, "cat": 20}', {"dog": 0.95, "cat": 0.2}),
        ('{"found": []}', {}),
        ('{"name": "dog", "confidence": 95}', {"dog": 0.95}),
        ("[], []", {}),
        ("[0: None], [100]", {}),
        ("", {}),
    ],
)
def test_replies_in_all_their_forms(reply, expected):
    assert read(reply) == expected
    parsed = parse_reply(reply, VOC)
    assert parsed.classes or parsed.notes


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        ("[79: arcade;machine], [90]", {"arcade machine": 0.9}),
        ("['arcade;machine', 1: wall;], [90, 80]", {"arcade machine": 0.9, "wall": 0.8}),
        ("[67: flower], [95% probability of flower]", {"flower": 0.95}),
        ("[1: wall, 67: flower], [95% probability of flower, 80 % confidence in wall]", {"wall": 0.8, "flower": 0.95}),
        ("[1: wall, 67: flower], ['95% probability', '80% certainty']", {"wall": 0.95, "flower": 0.8}),
        ("[95% probability of flower, 7.5% chance of wall]", {"flower": 0.95, "wall": 0.075}),
        ("[screen;door], [90]", {"screen": 0.9}),  # as before: what follows a semicolon is a synonym
    ],
)
def test_semicolons_for_spaces_and_confidences_in_words(reply, expected):
    assert read(reply, load_vocabulary("ade20k")) == expected


def test_a_number_that_agrees_is_no_note():
    assert parse_reply("[79: arcade;machine], [90]", load_vocabulary("ade20k")).notes == ()


def test_what_comes_after_twenty_thousand_characters_is_not_read():
    assert read("[12: dog], [90]" + "x" * 20_000) == {"dog": 0.9}
    assert read("x" * 20_000 + "[12: dog], [90]") == {}


def test_the_name_counts_where_the_number_is_another():
    parsed = parse_reply("[12: cat, 99: dog], [90, 80]", VOC)
    assert parsed.kept() == ("cat", "dog")
    assert parsed.notes == (
        "number 12 is 'dog' in the list; 'cat' counts",
        "number 99 is not in the list; 'dog' counts",
    )


def test_numbers_are_those_of_the_data_set():
    assert COCO.numbered()[90] == "toothbrush"
    assert COCO.numbered()[13] == "stop sign"
    assert 12 not in COCO.numbered()
    assert VOC.numbered()[20] == "tvmonitor"
    assert parse_reply("[90: toothbrush], [80]", COCO).notes == ()


def test_names_with_commas_survive_the_free_form():
    places = Vocabulary.of(["car, parked", "car", "2 door car"])
    assert read("[1: car, parked, 2: car], [90, 80]", places) == {"car, parked": 0.9, "car": 0.8}
    assert read("[2 door car], [90]", places) == {"2 door car": 0.9}


def test_remarks_and_synonyms_behind_a_name_are_passed_over():
    assert find("Traffic  light (red)", COCO) == "traffic light"
    assert find("building;edifice", load_vocabulary("ade20k")) == "building"
    assert find("light", COCO) is None
    assert find("", COCO) is None


def test_without_a_vocabulary_short_texts_are_names():
    assert read("[1: Weather vane, 2: 17, 3: none], [90, 80, 70]", None) == {"Weather vane": 0.9}
    many = ", ".join(f"thing {letter}{number}" for letter in "abcdef" for number in range(9))
    parsed = parse_reply(f"[{many}], [{', '.join(['90'] * 54)}]", None)
    assert len(parsed.classes) == 54
    assert len(parsed.kept()) == 25


REPLIES = [
    "[15: person, 5: 'bottle'], [95%, 60%]",
    '{"found": [{"name": "dog", "confidence": 95}, {"name": "cat", "confidence": 40}]}',
    "[horse, person]\n[horse: 95%, person: 70]",
    "[1: aeroplane (unsure), 2: bicycle 90%], []",
]
JUNK = [
    "[",
    "]",
    "{",
    "}",
    ",",
    ":",
    "%",
    "'",
    '"',
    "\n",
    "\\u0000",
    "9" * 400,
    "dog",
    "0.9",
    "(",
    "null",
    "NaN",
    "1e999",
    "²",
]


@settings(deadline=None, max_examples=300)
@given(st.data())
def test_a_mutilated_reply_never_fails_and_never_names_a_stranger(data):
    text = data.draw(st.sampled_from(REPLIES) | st.text(max_size=200))
    for _ in range(data.draw(st.integers(0, 8))):
        start = data.draw(st.integers(0, len(text)))
        end = data.draw(st.integers(start, min(len(text), start + 10)))
        text = text[:start] + data.draw(st.sampled_from(["", *JUNK]) | st.text(max_size=5)) + text[end:]
    naming = parse_reply(text, VOC)
    assert {named.name for named in naming.classes} <= set(VOC.classes)
    assert len({named.name for named in naming.classes}) == len(naming.classes)
    assert all(0 <= named.confidence <= 1 for named in naming.classes)
    assert naming.classes or naming.notes
    assert all(len(note) < 250 and note.isprintable() for note in naming.notes)
    freely = parse_reply(text, None)
    assert all(0 < len(named.name) <= 60 and named.name.isprintable() for named in freely.classes)
    assert all(0 <= named.confidence <= 1 for named in freely.classes)


@pytest.mark.parametrize(
    "text",
    [
        "[" * 200_000,
        "[{" * 50_000,
        "9" * 200_000,
        "[1: " + " " * 200_000 + "]",
        "(" * 100_000,
        "[a, " * 50_000,
        "[1:a],[" + "1" * 99_999,
    ],
    ids=lambda text: text[:6],
)
def test_a_huge_reply_takes_no_time(text):
    from time import perf_counter

    started = perf_counter()
    parse_reply(text, VOC)
    parse_reply('{"a": ' + text, VOC)
    assert perf_counter() - started < 3


def test_70_percent_itself_is_not_enough_and_25_names_are():
    naming = Naming((NamedClass("a", 0.7), NamedClass("b", 0.701), NamedClass("c", 1.0)))
    assert naming.kept() == ("b", "c")
    assert naming.kept(0.5) == ("a", "b", "c")
    crowd = Naming(tuple(NamedClass(f"n{number}", 0.8 + number / 1000) for number in range(40)))
    assert crowd.kept() == tuple(f"n{number}" for number in range(15, 40))
    assert len(replace(crowd, most=None).kept()) == 40
    assert KEEP == 0.7


def test_an_open_reply_names_a_class_once_and_never_the_background():
    naming = parse_reply(
        '{"found": [{"name": "Rocket", "confidence": 80}, {"name": "rocket", "confidence": 90}]}', None
    )
    assert [(named.name, named.confidence) for named in naming.classes] == [("Rocket", 0.9)]
    assert "'Rocket' is named twice; the higher confidence counts" in naming.notes
    naming = parse_reply("[1: dog, 2: Background], [90, 80]", None)
    assert [named.name for named in naming.classes] == ["dog"]
