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


def test_a_mapping_goes_from_class_to_words_or_from_prompt_to_class():
    given = {"a tall giraffe": "giraffe", "man": "person", "dog": ["dog", "puppy"], "woman": "Person", "cat": []}
    assert Vocabulary.of(given).words == {
        "giraffe": ("a tall giraffe",),
        "person": ("man", "woman"),
        "dog": ("dog", "puppy"),
        "cat": ("cat",),
    }


def test_a_class_is_called_by_its_only_word_in_a_question_and_aliases_find_it():
    vocabulary = Vocabulary({"tree-merged": ("tree",), "person": ("man", "woman")}, aliases={"people": "person"})
    assert vocabulary.terms == ("tree", "person")
    assert [vocabulary.find(word) for word in ("Tree", "tree-merged", "people", "dog")] == [
        "tree-merged",
        "tree-merged",
        "person",
        None,
    ]


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        ({"a": ["dog"], "b": ["Dog"]}, "^class 'Dog' is named twice; name each class once$"),
        ({"a": None}, "^expected the words of class 'a', or the class of a prompt, got None$"),
        ({"dog": "a", "Dog": "b"}, "^class 'Dog' is named twice; name each class once$"),
        ({"a": [1]}, "^expected class names as texts.*; got a int$"),
        ({}, "^expected at least one class name such as 'dog', got none$"),
        ({" ": ["dog"]}, "^a class name is empty; leave it out or write the name$"),
        (["dog", "c\ud800at"], r"^the class name 'c.ud800at' is no Unicode, which no model can read; write it anew$"),
        ({"a": ["\udcff"]}, "is no Unicode"),  # a byte of a command line that is no UTF-8
    ],
)
def test_words_that_cannot_be_used(classes, message):
    with pytest.raises(InputError, match=message):
        unwrap(Vocabulary.of.__func__)(Vocabulary, classes)
