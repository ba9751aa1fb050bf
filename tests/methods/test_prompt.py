from inspect import unwrap

import pytest

from pnp_ovss import InputError, make_prompt


def test_names_are_joined_by_single_spaces_and_spans_cut_them_out_again():
    prompt = make_prompt(["dog", " traffic  light ", "cat"])
    assert prompt.text == "A picture of dog traffic light cat"
    assert prompt.classes == ("dog", "traffic light", "cat")
    assert [prompt.text[start:end] for start, end in prompt.spans] == ["dog", "traffic light", "cat"]
    assert prompt.spans == ((13, 16), (17, 30), (31, 34))


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        ([], "no class was named; name at least one, such as 'dog'"),
        (["dog", " "], "a class name is empty; leave it out or write the name"),
        (["Dog", "dog"], "class 'dog' is named twice; name each class once"),
        ("dog", "the classes came as one text, 'dog'; a list of names is wanted, such as ['dog', 'cat']"),
    ],
)
def test_names_that_cannot_be_used(classes, message):
    with pytest.raises(InputError) as caught:
        make_prompt(classes)
    assert str(caught.value) == message


A_TEXT = "a text is wanted, such as ['dog', 'cat'] for one photo, or a list of such lists for a list of photos"


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        ([["rocket"]], f"a class name came as list; {A_TEXT}"),
        (["dog", b"cat"], f"a class name came as bytes; {A_TEXT}"),
        ([1], f"a class name came as int; {A_TEXT}"),
        (b"dog", f"a class name came as int; {A_TEXT}"),
        (None, "the classes came as NoneType; a list of names is wanted, such as ['dog', 'cat']"),
        (7, "the classes came as int; a list of names is wanted, such as ['dog', 'cat']"),
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
