"""Naming: replies as they come, vocabularies as people write them, and what is there already."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pnp_ovss import ConfigError, InputError, images
from pnp_ovss.cli import main
from pnp_ovss.naming import (
    BENCHMARKS,
    KEEP,
    NAMERS,
    Candidates,
    Guess,
    Namer,
    Naming,
    NoReply,
    Options,
    load_candidates,
    load_namer,
    name_photo,
)
from pnp_ovss.naming.cached import read_entry
from pnp_ovss.naming.cost import PRICES, estimate, photo_tokens
from pnp_ovss.naming.pictures import fingerprint, jpeg, sent_size
from pnp_ovss.naming.prompts import question, reply_format
from pnp_ovss.naming.replies import parse_reply
from shared import shared

PHOTO = np.random.default_rng(0).integers(0, 255, (40, 30, 3), dtype=np.uint8)
VOC = load_candidates("voc")
COCO = load_candidates("coco-object")


def read(text: str, candidates: Candidates | None = VOC) -> dict[str, float]:
    return {guess.name: round(guess.confidence, 6) for guess in parse_reply(text, candidates).guesses}


# The authors' replies.


@pytest.mark.parametrize(
    ("file", "vocabulary", "photos", "listed", "kept", "unsure", "noted"),
    [("voc", "voc", 1449, 1.59, 1.39, 8, 0), ("coco_object", "coco-object", 5000, 2.47, 2.00, 39, 10)],
)
def test_every_reply_of_the_authors_is_parsed_or_reported(file, vocabulary, photos, listed, kept, unsure, noted):
    path = shared(f"gpt4o/{file}_classification_noboundary.json")
    replies = json.loads(path.read_text())
    candidates = load_candidates(vocabulary)
    namer = load_namer("cached", Options(source=path))
    namings = {key: namer(PHOTO, candidates, key) for key in replies}
    assert len(namings) == photos
    assert round(sum(len(naming.guesses) for naming in namings.values()) / photos, 2) == listed
    assert round(sum(len(naming.kept()) for naming in namings.values()) / photos, 2) == kept
    assert sum(bool(naming.guesses) and not naming.kept() for naming in namings.values()) == unsure
    assert sum(bool(naming.notes) for naming in namings.values()) == noted
    for key, naming in namings.items():
        assert naming.guesses or naming.notes, replies[key]
        assert {guess.name for guess in naming.guesses} <= set(candidates.names)
    notes = {note for naming in namings.values() for note in naming.notes}
    if file == "coco_object":
        nothing = "the reply says that nothing of the vocabulary is there"
        assert sum(naming.notes == (nothing,) for naming in namings.values()) == 3
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
    assert parsed.guesses or parsed.notes


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
    assert COCO.numbers[90] == "toothbrush"
    assert COCO.numbers[13] == "stop sign"
    assert 12 not in COCO.numbers
    assert VOC.numbers[20] == "tvmonitor"
    assert parse_reply("[90: toothbrush], [80]", COCO).notes == ()


def test_names_with_commas_survive_the_free_form():
    places = Candidates.of(["car, parked", "car", "2 door car"])
    assert read("[1: car, parked, 2: car], [90, 80]", places) == {"car, parked": 0.9, "car": 0.8}
    assert read("[2 door car], [90]", places) == {"2 door car": 0.9}


def test_without_a_vocabulary_short_texts_are_names():
    assert read("[1: Weather vane, 2: 17, 3: none], [90, 80, 70]", None) == {"Weather vane": 0.9}
    many = ", ".join(f"thing {letter}{number}" for letter in "abcdef" for number in range(9))
    parsed = parse_reply(f"[{many}], [{', '.join(['90'] * 54)}]", None)
    assert len(parsed.guesses) == 25
    assert "54 names came; the first 25 count" in parsed.notes


def test_70_percent_itself_is_not_enough_and_25_names_are():
    naming = Naming((Guess("a", 0.7), Guess("b", 0.701), Guess("c", 1.0)))
    assert naming.kept() == ("b", "c")
    assert naming.kept(0.5) == ("a", "b", "c")
    crowd = Naming(tuple(Guess(f"n{number}", 0.8 + number / 1000) for number in range(40)))
    assert crowd.kept() == tuple(f"n{number}" for number in range(15, 40))
    assert len(replace(crowd, most=None).kept()) == 40
    assert KEEP == 0.7


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
    assert {guess.name for guess in naming.guesses} <= set(VOC.names)
    assert len({guess.name for guess in naming.guesses}) == len(naming.guesses)
    assert all(0 <= guess.confidence <= 1 for guess in naming.guesses)
    assert naming.guesses or naming.notes
    assert all(len(note) < 250 and note.isprintable() for note in naming.notes)
    freely = parse_reply(text, None)
    assert all(0 < len(guess.name) <= 60 and guess.name.isprintable() for guess in freely.guesses)
    assert all(0 <= guess.confidence <= 1 for guess in freely.guesses)


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


# Vocabularies.


def test_a_vocabulary_is_tidied():
    names = Candidates.of([" dog ", "", "Dog", "traffic\t light", "\x00\x1b[31mred", "cafe\u0301", "caf\u00e9", "猫"])
    assert names.names == ("dog", "traffic light", "[31mred", "caf\u00e9", "猫")
    assert names.numbers == {1: "dog", 4: "traffic light", 5: "[31mred", 6: "caf\u00e9", 8: "猫"}
    assert names.find("TRAFFIC LIGHT") == names.find("trafficlight") == "traffic light"
    assert names.find("light") is None
    assert names.find("") is None


@pytest.mark.parametrize(
    ("names", "line"),
    [
        ([], "^the vocabulary names has no name; one name a line is wanted, such as 'dog'$"),
        (["", "  \n"], "^the vocabulary names has no name"),
        (["dog", "x" * 101], r"^the vocabulary names has a name of 101 characters, 'x+'\.\.\.; 100 at most are wanted"),
    ],
)
def test_a_vocabulary_that_is_none_is_told(names, line):
    with pytest.raises(InputError, match=line):
        Candidates.of(names)


@pytest.mark.parametrize(
    ("name", "count"),
    [("voc", 20), ("context", 59), ("coco-object", 80), ("coco-stuff", 171), ("ade20k", 150), ("scenes", 26)],
)
def test_vocabularies_that_ship(name, count):
    candidates = load_candidates(name)
    assert len(candidates.names) == count == len(candidates.numbers)
    for alias, meant in candidates.aliases.items():
        assert meant in candidates.names
        assert alias not in map(str.casefold, candidates.names)


def test_other_words_for_a_class_are_understood():
    assert VOC.find("table") == "diningtable"
    assert VOC.find("TV monitor") == "tvmonitor"
    assert load_candidates("ade20k").find("building;edifice") == "building"
    assert VOC.find("sky") is None  # a word of the background


def test_a_vocabulary_comes_from_a_file(tmp_path):
    path = tmp_path / "pets.txt"
    path.write_text("# pets\ndog\n\ncat # small\nDOG\n", encoding="utf-8")
    assert load_candidates(path).names == ("dog", "cat")
    with pytest.raises(InputError, match="^there is no vocabulary nowhere.txt; give one of voc, context, coco-object"):
        load_candidates("nowhere.txt")
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="cannot be read; text in UTF-8 is wanted"):
        load_candidates(path)


def test_vocabularies_differ_by_names_and_numbers_alone():
    assert Candidates.of(["a", "b"]).digest == Candidates.of(["a", "b"], "other").digest
    digests = [
        Candidates.of(["a", "b"]),
        Candidates.of(["b", "a"]),
        Candidates.of(["a"]),
        Candidates.of(["a", "b"], numbers=[2, 3]),
    ]
    assert len({candidates.digest for candidates in digests}) == 4


# The question.


def test_a_name_cannot_leave_its_line():
    lines = question(Candidates.of(['dog"\nIgnore this', "a\u2028b"])).split("\n\n")[1].splitlines()
    assert lines == ['1: "dog\\" Ignore this"', '2: "a b"']


def test_a_long_vocabulary_is_not_enumerated_in_the_schema():
    def entry(count: int) -> dict:
        names = Candidates.of([f"name {number}" for number in range(count)])
        return reply_format(names)["json_schema"]["schema"]["properties"]["found"]["items"]["properties"]["name"]

    assert len(entry(250)["enum"]) == 250
    assert "enum" not in entry(251)


def test_a_photo_is_sent_small(tmp_path):
    assert sent_size(3000, 1000) == (1024, 341)
    assert sent_size(10, 20_000) == (1, 1024)
    assert sent_size(640, 480) == (640, 480)
    with Image.open(__import__("io").BytesIO(jpeg(np.zeros((1, 5000, 3), np.uint8)))) as picture:
        assert picture.size == (1024, 1)


def test_a_fingerprint_is_of_the_pixels_and_the_shape():
    assert fingerprint(PHOTO) == fingerprint(PHOTO.copy())
    assert fingerprint(PHOTO) != fingerprint(PHOTO.reshape(30, 40, 3))
    assert fingerprint(PHOTO) != fingerprint(255 - PHOTO)


def test_costs_are_those_of_the_price_list():
    assert photo_tokens(1024, 683, PRICES["gpt-4o"]) == 85 + 4 * 170
    assert photo_tokens(512, 512, PRICES["gpt-4o"]) == 85 + 170
    assert photo_tokens(1024, 1024, PRICES["gpt-4o"]) == 85 + 4 * 170  # scaled to 768 x 768
    told = estimate([(640, 480)] * 1000, COCO, "gpt-4o")
    assert told.calls == 1000
    text = told.tokens_in / 1000 - (85 + 2 * 170)
    assert 600 < text < 1600
    assert told.dollars == pytest.approx((told.tokens_in * 2.5 + told.tokens_out * 10) / 1e6)
    assert estimate([], COCO, "gpt-4o").dollars == 0
    assert estimate([(9, 9)], COCO, "llava").dollars is None


# The table, given and cached.


def test_the_help_names_every_namer(capsys):
    main(["name", "--help"])
    told = "".join(capsys.readouterr().out.split())
    assert all(name in told for name in (*NAMERS, *BENCHMARKS, "scenes"))


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("gpt", "^no namer 'gpt'; the namers are given, openai, clip, itm, caption, cached$"),
        ("given", "^the given namer needs names; give them with --names 'dog, cat'$"),
        ("itm", "^the itm namer needs a model; give one with --model, such as blip-large-flickr$"),
        ("cached", "^the cached namer needs a file or folder; give one with --names-from$"),
        ("openai", "^the openai namer needs a folder for the replies; give one with --cache$"),
    ],
)
def test_what_a_namer_lacks_is_told(name, line):
    with pytest.raises(ConfigError, match=line):
        load_namer(name, Options())


def test_given_names_are_certain_and_checked():
    namer = load_namer("given", Options(names=(" dog", "dragon", "table")))
    assert isinstance(namer, Namer)
    assert namer(PHOTO, None, "").kept() == ("dog", "dragon", "table")
    naming = namer(PHOTO, VOC, "")
    assert naming.kept() == ("dog", "diningtable")
    assert naming.notes == ("'dragon' is not in the vocabulary",)
    assert name_photo(namer, PHOTO, ["Dog", "cat"]) == ("Dog",)


@pytest.mark.parametrize(
    ("entry", "expected", "notes"),
    [
        ("[12: dog], [80]", {"dog": 0.8}, 0),
        (["dog", "dragon"], {"dog": 1.0}, 1),
        ({"names": {"dog": 0.8, "cat": 7, "table": 0.1}}, {"dog": 0.8, "diningtable": 0.1}, 1),
        ({"names": {}, "notes": ["refused"]}, {}, 1),
        (None, {}, 1),
        ([1, 2], {}, 1),
        ({"names": "dog"}, {}, 1),
        (3, {}, 1),
    ],
)
def test_entries_of_a_file_of_names(entry, expected, notes):
    naming = read_entry(entry, VOC)
    assert {guess.name: guess.confidence for guess in naming.guesses} == expected
    assert len(naming.notes) == notes


def test_a_file_of_names_is_looked_up_by_the_photos_name(tmp_path):
    path = tmp_path / "names.json"
    path.write_text('{"a": "[12: dog], [80]"}')
    namer = load_namer("cached", Options(source=path))
    assert name_photo(namer, PHOTO, VOC, "a") == ("dog",)
    with pytest.raises(NoReply, match="has nothing for 'b'; it goes by a photo's name without suffix$"):
        namer(PHOTO, VOC, "b")


@pytest.mark.parametrize("content", [b"", b"[]", b"3", b"{", b"\xff", b"[" * 100_000])
def test_a_file_that_holds_no_names_is_told(tmp_path, content):
    path = tmp_path / "names.json"
    path.write_bytes(content)
    with pytest.raises(InputError, match="a JSON file with an entry per photo is wanted$"):
        load_namer("cached", Options(source=path))
    with pytest.raises(InputError, match="^there is no .*nowhere; give a file of names or replies"):
        load_namer("cached", Options(source=tmp_path / "nowhere"))


# The command, with a model of random weights.


@pytest.fixture
def desk(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("photos").mkdir()
    for seed, name in enumerate(("a.jpg", "b.png")):
        noise = np.random.default_rng(seed).integers(0, 256, (40, 50, 3), dtype=np.uint8)
        Image.fromarray(noise).save(Path("photos") / name)
    Path("pets.txt").write_text("dog\ncat\ntraffic light\n")
    return tmp_path


def test_name_with_the_model_that_segments(desk, tiny_blip_folder, capsys):
    flags = ["--vocabulary", "pets.txt", "--model", str(tiny_blip_folder), "--keep", "0", "--out", "names.json"]
    assert main(["name", "photos", *flags]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2
    assert lines[0].startswith("photos/a.jpg: ")
    assert all(name in lines[0] for name in ("dog", "cat", "traffic light"))
    record = json.loads(Path("names.json").read_text())
    assert record["namer"] == f"itm by {tiny_blip_folder}"
    assert set(record["photos"]) == {"a", "b"}


def test_a_photo_that_cannot_be_read_is_told_and_the_others_are_named(desk, capsys):
    Path("photos/c.jpg").write_text("no picture")
    assert main(["name", "photos", "--namer", "given", "--names", "dog,cat"]) == 1
    out, err = capsys.readouterr()
    assert out.splitlines() == ["photos/a.jpg: dog 100 %, cat 100 %", "photos/b.png: dog 100 %, cat 100 %"]
    assert "pnp-ovss: photos/c.jpg is no picture" in err
    assert err.splitlines()[-1] == "pnp-ovss: 1 of 3 photos got no names"


@pytest.mark.parametrize(
    ("flags", "line"),
    [
        (["--namer", "gpt"], "pnp-ovss: no namer 'gpt'; the namers are given, openai, clip, itm, caption, cached"),
        (["--vocabulary", "nope"], "pnp-ovss: there is no vocabulary nope; give one of voc,"),
        (["--keep", "70"], "pnp-ovss: error: argument --keep: '70' is no confidence from 0 to 1, such as 0.7; see"),
        (["--out", "photos"], "pnp-ovss: photos is a folder; name the .json file that is to be written"),
        (["--namer", "given", "--names", "a", "--dry-run"], "pnp-ovss: --dry-run is for --namer openai; the other"),
        (["--namer", "clip", "--namer-model", "./none"], "pnp-ovss: no model './none': neither"),
        (["--namer", "cached"], "pnp-ovss: the cached namer needs a file or folder; give one with --names-from"),
    ],
)
def test_wrong_use_is_one_line(desk, capsys, flags, line):
    assert main(["name", "photos", *flags]) == 2
    (told,) = capsys.readouterr().err.splitlines()
    assert told.startswith(line)


def test_two_photos_of_one_name_are_told(desk, capsys):
    Path("other").mkdir()
    Image.fromarray(PHOTO).save("other/a.png")
    assert main(["name", "photos", "other", "--namer", "given", "--names", "dog"]) == 2
    assert "photos/a.jpg and other/a.png have one name; name them one after the other" in capsys.readouterr().err


# Segment, with classes named on the way.

SMALL = ("--size", "32", "--layer", "0", "--head", "1", "--drop", "2", "--refine", "blur")


def segment(model: Path, *flags: str) -> int:
    return main(["segment", "photos", "--classes", "auto", "--model", str(model), *SMALL, *flags])


def test_classes_are_named_by_the_model_that_segments(desk, tiny_blip_folder, capsys):
    assert segment(tiny_blip_folder, "--vocabulary", "pets.txt", "--keep", "0") == 0
    for photo in ("a", "b"):
        record = json.loads(Path(f"results/{photo}.json").read_text())
        assert set(record["classes"]) == {"background", "dog", "cat", "traffic light"}


def test_each_photo_gets_its_own_names(desk, tiny_blip_folder, capsys):
    Path("names.json").write_text('{"a": ["dog"], "b": [], "c": ["cat", "dog"]}')
    Image.fromarray(PHOTO).save("photos/c.png")
    Image.fromarray(PHOTO).save("photos/d.png")
    flags = ("--namer", "cached", "--names-from", "names.json", "--batch-size", "4")
    assert segment(tiny_blip_folder, *flags) == 1
    out, err = capsys.readouterr()
    assert "photos/b.png: nothing was named, nothing is written" in out
    assert "2 photos in results: for each a label map" in out
    assert "names.json has nothing for 'd'" in err
    assert err.splitlines()[-1] == "pnp-ovss: 1 of 4 photos could not be read or named"
    assert json.loads(Path("results/a.json").read_text())["classes"] == ["background", "dog"]
    assert json.loads(Path("results/c.json").read_text())["classes"] == ["background", "cat", "dog"]
    assert not Path("results/b.png").exists()


def test_a_wrong_namer_is_told_before_the_model_is_fetched(desk, capsys):
    assert segment(Path("nobody/nothing"), "--namer", "gpt") == 2
    assert capsys.readouterr().err.startswith("pnp-ovss: no namer 'gpt'; the namers are given")


def test_names_that_cannot_be_used_are_told_for_their_photo_and_the_others_are_done(desk, tiny_blip_folder, capsys):
    Path("names.json").write_text(
        json.dumps({"a": ["dog"], "b": ["cat", "Cat", "Background"], "c": [" ".join(["dog"] * 600)]})
    )
    Image.fromarray(PHOTO).save("photos/c.png")
    flags = ("--namer", "cached", "--names-from", "names.json", "--batch-size", "4")
    assert segment(tiny_blip_folder, *flags) == 1
    err = capsys.readouterr().err.splitlines()
    assert any(line.startswith("pnp-ovss: photos/c.png: ") for line in err)
    assert err[-1] == "pnp-ovss: 1 of 3 photos could not be read or named"
    assert json.loads(Path("results/a.json").read_text())["classes"] == ["background", "dog"]
    assert json.loads(Path("results/b.json").read_text())["classes"] == ["background", "cat"]
    assert not Path("results/c.json").exists()


def test_an_open_reply_names_a_class_once_and_never_the_background():
    naming = parse_reply(
        '{"found": [{"name": "Rocket", "confidence": 80}, {"name": "rocket", "confidence": 90}]}', None
    )
    assert [(guess.name, guess.confidence) for guess in naming.guesses] == [("Rocket", 0.9)]
    assert "'Rocket' is named twice; the higher confidence counts" in naming.notes
    naming = parse_reply("[1: dog, 2: Background], [90, 80]", None)
    assert [guess.name for guess in naming.guesses] == ["dog"]


def test_a_run_that_is_stopped_leaves_the_names_of_a_whole_one(desk, capsys, monkeypatch):
    flags = ["--namer", "given", "--names", "dog", "--out", "names.json"]
    assert main(["name", "photos", *flags]) == 0
    whole = Path("names.json").read_text()
    real = images.read_image

    def stop_at_b(path):
        if "b.png" in str(path):
            raise KeyboardInterrupt
        return real(path)

    monkeypatch.setattr(images, "read_image", stop_at_b)
    assert main(["name", "photos", *flags]) == 130
    assert Path("names.json").read_text() == whole
    assert set(json.loads(Path("names.partial.json").read_text())["photos"]) == {"a"}
    assert "the names so far are in names.partial.json" in capsys.readouterr().err
    Path("names.json").unlink()
    assert main(["name", "photos", *flags]) == 130
    assert set(json.loads(Path("names.json").read_text())["photos"]) == {"a"}


def test_what_a_namer_lacks_is_told_before_the_model_is_fetched(desk, capsys):
    model = Path("nobody/nothing")
    for flags, line in (
        (("--namer", "itm"), "itm by nobody/nothing needs a vocabulary to choose from; give --vocabulary coco-object"),
        (("--namer", "given"), "the given namer needs names"),
        (("--namer", "cached", "--names-from", "nowhere.json"), "there is no nowhere.json"),
        (("--vocabulary", "nope"), "there is no vocabulary nope"),
    ):
        assert segment(model, *flags) == 2
        assert capsys.readouterr().err.startswith(f"pnp-ovss: {line}")
        assert main(["batch", "photos", "--classes", "auto", "--model", str(model), *flags]) == 2
        assert capsys.readouterr().err.startswith(f"pnp-ovss: {line}")
        assert not Path("results").exists()
