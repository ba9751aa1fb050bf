"""Namers by name, names that are given or stored, and many photos."""

import json
from pathlib import Path

import numpy as np
import pytest

from pnp_ovss import ConfigError, InputError, ModelError
from pnp_ovss.data.vocabulary import load_vocabulary
from pnp_ovss.naming import (
    NamedClass,
    Namer,
    Naming,
    NoReply,
    Options,
    load_namer,
    name_photo,
    name_photos,
    photo_namer,
)
from pnp_ovss.naming.cached import Reply, load_reply, read_entry, reply_file, save_reply
from pnp_ovss.types import Vocabulary

PHOTO = np.random.default_rng(0).integers(0, 255, (40, 30, 3), dtype=np.uint8)
VOC = load_vocabulary("voc")


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
def test_what_a_namer_lacks_is_reported(name, line):
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
        ({"names": {"dog": 0.8, "cat": 7, "table": 0.1}}, {"dog": 0.8, "cat": 0.0, "diningtable": 0.1}, 1),
        ({"names": {}, "notes": ["refused"]}, {}, 1),
        (None, {}, 1),
        ([1, 2], {}, 2),
        ({"names": "dog"}, {}, 1),
        (3, {}, 1),
    ],
)
def test_entries_of_a_file_of_names(entry, expected, notes):
    naming = read_entry(entry, VOC)
    assert {named.name: named.confidence for named in naming.classes} == expected
    assert len(naming.notes) == notes


def test_a_file_of_names_is_looked_up_by_the_photos_name(tmp_path):
    path = tmp_path / "names.json"
    path.write_text('{"a": "[12: dog], [80]"}')
    namer = load_namer("cached", Options(source=path))
    assert name_photo(namer, PHOTO, VOC, "a") == ("dog",)
    with pytest.raises(NoReply, match="has nothing for 'b'; it goes by a photo's name without suffix$"):
        namer(PHOTO, VOC, "b")


@pytest.mark.parametrize("content", [b"", b"[]", b"3", b"{", b"\xff", b"[" * 100_000])
def test_a_file_that_holds_no_names_is_reported(tmp_path, content):
    path = tmp_path / "names.json"
    path.write_bytes(content)
    with pytest.raises(InputError, match="JSON.*; check the file$"):
        load_namer("cached", Options(source=path))
    with pytest.raises(InputError, match="^there is no .*nowhere; give a file of names or replies"):
        load_namer("cached", Options(source=tmp_path / "nowhere"))


def test_many_photos_get_vocabularies_or_the_reason_why_not(tmp_path):
    path = tmp_path / "names.json"
    path.write_text('{"a": ["dog", "table"], "b": [], "d": ["dragon"]}')
    namer = load_namer("cached", Options(source=path))
    name = photo_namer(namer, VOC)
    found = dict(name((key, PHOTO) for key in "abcd"))
    assert found["a"].words == {"dog": ("dog",), "diningtable": ("dining table",)}  # the words of the vocabulary
    assert found["b"] is found["d"] is None
    assert isinstance(found["c"], NoReply)


def test_a_name_that_no_model_can_read_is_a_fault_of_its_photo(tmp_path):
    path = tmp_path / "names.json"
    path.write_text(r'{"a": ["dog"], "b": ["c\ud800at"], "c": ["cat"]}')
    found = dict(photo_namer(load_namer("cached", Options(source=path)))((key, PHOTO) for key in "abc"))
    assert found["a"] == Vocabulary.of(["dog"])
    assert "is no Unicode" in str(found["b"])
    assert found["c"] == Vocabulary.of(["cat"])


@pytest.mark.parametrize("notes", [5, "text", {"a": 1}, None, True])
def test_notes_of_another_kind_are_none(notes):
    assert read_entry({"names": {"dog": 0.9}, "notes": notes}, None).notes == ()


@pytest.mark.parametrize(
    "text", ['{"question": ' * 3000, '{"question": [], "reply": {}}', "\xff", '{"reply": {"text": 5}}']
)
def test_a_stored_reply_that_is_damaged_counts_as_absent(tmp_path, text):
    question = dict.fromkeys(("photo", "vocabulary", "model", "prompt"), "x")
    path = reply_file(tmp_path, question)
    save_reply(path, question, Reply("dog"))
    assert load_reply(path) == (question, Reply("dog"))
    path.write_bytes(text.replace('{"reply"', f'{{"question": {json.dumps(question)}, "reply"').encode("latin-1"))
    assert load_reply(path) is None


class Silent:
    """Replies to photos whose key is given alone."""

    source = "silent"

    def __init__(self, answers: str) -> None:
        self.answers, self.asked = answers, []

    def __call__(self, image, candidates, key):
        self.asked.append(key)
        if key not in self.answers:
            raise NoReply(f"nobody answers for {key}")
        return Naming((NamedClass("dog", 1.0),))


@pytest.mark.parametrize("calls", [1, 3])
def test_five_photos_in_a_row_without_a_reply_stop_the_run(calls):
    namer = Silent("af")
    found = []
    with pytest.raises(ModelError, match="^5 photos in a row got no reply, the last: nobody answers for k; run it aga"):
        found.extend(key for key, _ in name_photos(namer, ((key, PHOTO) for key in "abcdefghijkabc"), None, calls))
    assert "".join(found) == "abcdefghij"


def test_names_that_are_not_stored_never_stop_a_run(tmp_path: Path):
    path = tmp_path / "names.json"
    path.write_text("{}")
    namer = load_namer("cached", Options(source=path))
    assert len(list(name_photos(namer, ((str(index), PHOTO) for index in range(9))))) == 9


@pytest.mark.parametrize("calls", [1, 3])
def test_photos_are_read_as_they_are_needed(calls):
    read = []

    def photos():
        for index in range(50):
            read.append(index)
            yield str(index), PHOTO

    named = name_photos(Silent("".join(map(str, range(50)))), photos(), None, calls)
    assert next(named)[0] == "0"
    assert len(read) <= 2 * calls
    named.close()
    assert len(read) <= 2 * calls
