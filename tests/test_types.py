"""Vocabulary: classes and the words that stand for each."""

from inspect import unwrap

import pytest

from pnp_ovss import InputError, Vocabulary


def test_a_list_names_each_class_by_its_own_word():
    vocabulary = Vocabulary.of(["dog", " traffic  light "])
    assert vocabulary.classes == vocabulary.flat == ("dog", "traffic light")
    assert vocabulary.numbered() == {1: "dog", 2: "traffic light"}


def test_a_mapping_gives_each_class_its_words_in_order():
    vocabulary = Vocabulary.of({"person": ["person", "child"], "dog": ["dog"], "sky": []})
    assert vocabulary.words == {"person": ("person", "child"), "dog": ("dog",), "sky": ("sky",)}
    assert vocabulary.flat == ("person", "child", "dog", "sky")


def test_a_vocabulary_stays_what_it_is():
    vocabulary = Vocabulary({"dog": ("dog",)}, "mine", (7,))
    assert Vocabulary.of(vocabulary) is vocabulary
    assert vocabulary.numbered() == {7: "dog"}


def test_a_class_is_found_by_its_name_or_a_word_whatever_the_case_and_spaces():
    vocabulary = Vocabulary.of({"tv": ["TV monitor", "screen"], "dog": ["dog"]})
    assert [vocabulary.find(text) for text in ("tvmonitor", " Screen ", "TV", "DOG", "cat")] == [
        *("tv", "tv", "tv", "dog"),
        None,
    ]


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        ({"a": ["dog"], "b": ["Dog"]}, "^class 'Dog' is named twice; name each class once$"),
        ({"a": "dog"}, "^expected a list of words for class 'a', got 'dog'$"),
        ({"a": [1]}, "^expected class names as texts.*; got a int$"),
        ({}, "^expected at least one class name such as 'dog', got none$"),
        ({" ": ["dog"]}, "^a class name is empty; leave it out or write the name$"),
    ],
)
def test_words_that_cannot_be_used(classes, message):
    with pytest.raises(InputError, match=message):
        unwrap(Vocabulary.of.__func__)(Vocabulary, classes)
