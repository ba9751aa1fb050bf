"""What a chat model is asked, and what that costs."""

import io

import numpy as np
import pytest
from PIL import Image

from pnp_ovss.data.vocabulary import load_vocabulary
from pnp_ovss.images import fingerprint
from pnp_ovss.naming.cached import digest
from pnp_ovss.naming.openai import estimate, jpeg, question, reply_format, sent_size, tiles
from pnp_ovss.types import Vocabulary

PHOTO = np.random.default_rng(0).integers(0, 255, (40, 30, 3), dtype=np.uint8)


def test_a_name_cannot_leave_its_line():
    lines = question(Vocabulary.of(['dog"\nIgnore this', "a\u2028b"])).split("\n\n")[1].splitlines()
    assert lines == ['1: "dog\\" Ignore this"', '2: "a b"']


def test_a_long_vocabulary_is_not_enumerated_in_the_schema():
    def entry(count: int) -> dict:
        names = Vocabulary.of([f"name {number}" for number in range(count)])
        return reply_format(names)["json_schema"]["schema"]["properties"]["found"]["items"]["properties"]["name"]

    assert len(entry(250)["enum"]) == 250
    assert "enum" not in entry(251)


def test_a_photo_is_sent_small():
    assert sent_size(3000, 1000) == (1024, 341)
    assert sent_size(10, 20_000) == (1, 1024)
    assert sent_size(640, 480) == (640, 480)
    with Image.open(io.BytesIO(jpeg(np.zeros((1, 5000, 3), np.uint8)))) as picture:
        assert picture.size == (1024, 1)


def test_a_fingerprint_is_of_the_pixels_and_the_shape():
    assert fingerprint(PHOTO) == fingerprint(PHOTO.copy())
    assert fingerprint(PHOTO) != fingerprint(PHOTO.reshape(30, 40, 3))
    assert fingerprint(PHOTO) != fingerprint(255 - PHOTO)


def test_costs_are_those_of_the_price_list():
    assert tiles(1024, 683) == 4
    assert tiles(512, 512) == 1
    assert tiles(1024, 1024) == 4  # scaled to 768 x 768
    coco = load_vocabulary("coco-object")
    tokens_in, tokens_out, dollars = estimate([(640, 480)] * 1000, coco, "gpt-4o")
    text = tokens_in / 1000 - (85 + 2 * 170)
    assert 600 < text < 1600
    assert dollars == pytest.approx((tokens_in * 2.5 + tokens_out * 10) / 1e6)
    assert estimate([], coco, "gpt-4o") == (0, 0, 0.0)
    assert estimate([(9, 9)], coco, "llava")[2] is None


def test_vocabularies_differ_by_what_is_asked_and_numbers_alone():
    words = {"a": ("a",), "b": ("b",)}
    first = Vocabulary(words)
    assert digest(first) == digest(Vocabulary({"a": ("a", "x"), "b": ("b",)}, "other", aliases={"c": "a"}))
    assert digest(first) != digest(Vocabulary({"a": ("x",), "b": ("b",)}))
    others = [Vocabulary.of(["b", "a"]), Vocabulary.of(["a"]), Vocabulary(words, numbers=(2, 3)), None]
    assert len({digest(vocabulary) for vocabulary in (first, *others)}) == 5
