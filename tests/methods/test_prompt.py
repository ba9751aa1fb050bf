from inspect import unwrap

import pytest

from pnp_ovss import InputError, make_prompt


def test_names_are_joined_by_single_spaces_and_spans_cut_them_out_again():
    prompt = make_prompt(["dog", " traffic  light ", "cat"])
    assert prompt.text == "A picture of dog traffic light cat"
    assert prompt.classes == ("dog", "traffic light", "cat")
    assert [prompt.text[start:end] for start, end in prompt.spans] == ["dog", "traffic light", "cat"]
    assert prompt.spans == ((13, 16), (17, 30), (31, 34))


LIST = "expected a list of names such as ['dog', 'cat'], or {'person': ['person', 'child']}"
TEXT = (
    "expected class names as texts, such as ['dog', 'cat'] for one photo, or a list of such lists for a list of "
    "photos; got a"
)


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        ([], "expected at least one class name such as 'dog', got none"),
        (["dog", " "], "a class name is empty; leave it out or write the name"),
        (["Dog", "dog"], "class 'dog' is named twice; name each class once"),
        ("dog", f"{LIST}; got one text, 'dog'"),
    ],
)
def test_names_that_cannot_be_used(classes, message):
    with pytest.raises(InputError) as caught:
        make_prompt(classes)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        ([["rocket"]], f"{TEXT} list"),
        (["dog", b"cat"], f"{TEXT} bytes"),
        ([1], f"{TEXT} int"),
        (b"dog", f"{TEXT} int"),
        (None, f"{LIST}; got NoneType"),
        (7, f"{LIST}; got int"),
    ],
)
def test_names_of_another_type(classes, message):
    with pytest.raises(InputError) as caught:
        unwrap(make_prompt)(classes)  # unwrapped: in tests the types are checked before
    assert str(caught.value) == message


def test_names_may_come_one_by_one():
    assert unwrap(make_prompt)(name for name in ["dog", "cat"]).classes == ("dog", "cat")


def test_a_very_long_name_is_cut_in_the_message_but_not_in_the_prompt():
    name = "x" * 500
    assert name in make_prompt([name]).text
    with pytest.raises(InputError, match="^class 'x{37}\\.\\.\\.' is named twice"):
        make_prompt([name, name])


def test_every_word_of_a_class_has_its_place():
    prompt = make_prompt({"person": ["person", "child"], "dog": ["dog"]})
    assert prompt.text == "A picture of person child dog"
    assert prompt.classes == ("person", "child", "dog")
