"""The photo as the methods on CLIP see it."""

import numpy as np
import pytest

from peers import golden
from pnp_ovss.methods.resize import fitted, resize


@pytest.mark.parametrize(
    ("size", "short", "long", "expected"),
    [
        ((90, 126), 96, 2048, (96, 134)),
        ((126, 90), 112, 2048, (157, 112)),
        ((480, 640), 336, 2048, (336, 448)),
        ((100, 4000), 336, 2048, (51, 2048)),
        ((375, 500), 520, 520, (390, 520)),
    ],
)
def test_the_shorter_side_is_as_given_unless_the_longer_would_be_too_long(size, short, long, expected):
    assert fitted(size, short, long) == expected


def test_no_side_is_shorter_than_a_patch():
    assert fitted((1, 4000), 336, 2048, least=16) == (16, 2048)


@pytest.mark.parametrize(
    ("system", "key"), [("sclip", "resized"), ("proxyclip", "resized"), ("proxyclip", "padded_resized")]
)
def test_pixels_are_those_of_opencv(system, key):
    arrays, _ = golden(system)
    expected = arrays[key]
    np.testing.assert_array_equal(resize(arrays["photo"], expected.shape[:2]), expected)


def test_nothing_changes_at_the_same_size_or_in_one_colour():
    photo = np.random.default_rng(0).integers(0, 256, (7, 9, 3), dtype=np.uint8)
    np.testing.assert_array_equal(resize(photo, (7, 9)), photo)
    plain = np.full((1, 5, 3), 201, np.uint8)
    np.testing.assert_array_equal(resize(plain, (16, 40)), np.full((16, 40, 3), 201, np.uint8))
