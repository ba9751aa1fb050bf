"""Clean regions: exact answers on small label maps."""

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from hypothesis.extra.numpy import arrays

import pnp_ovss
from pnp_ovss import PRESETS, Config, ConfigError
from pnp_ovss.parts import find_parts
from pnp_ovss.refine.tidy import tidy

DUSTY = np.array(
    [
        [1, 1, 1, 0, 0, 0],
        [1, 0, 1, 0, 2, 0],
        [1, 1, 1, 0, 0, 0],
        [0, 0, 0, 0, 1, 1],
    ]
)


def test_a_small_part_goes_to_what_surrounds_it_and_a_small_hole_is_filled():
    cleaned = tidy(DUSTY, True, 3)
    assert cleaned.tolist() == [[1, 1, 1, 0, 0, 0], [1, 1, 1, 0, 0, 0], [1, 1, 1, 0, 0, 0], [0, 0, 0, 0, 0, 0]]
    assert tidy(DUSTY, True, 2).tolist() == [*cleaned[:3].tolist(), [0, 0, 0, 0, 1, 1]]


def test_a_float_is_a_share_of_the_photo():
    assert np.array_equal(tidy(DUSTY, True, 2.5 / 24), tidy(DUSTY, True, 3))
    assert np.array_equal(tidy(DUSTY, True, 0), DUSTY)


def test_of_each_class_the_largest_part_stays_and_the_background_whole():
    labels = np.array([[1, 1, 0, 1, 0, 2, 2], [1, 1, 0, 0, 2, 0, 2]])
    cleaned = tidy(labels, True, 0, largest_part=True)
    assert cleaned.tolist() == [[1, 1, 0, 0, 0, 2, 2], [1, 1, 0, 0, 0, 0, 2]]
    without = tidy(labels, False, 0, largest_part=True)
    assert len(find_parts(without).areas) == 3


def test_a_hole_of_any_size_is_filled_where_one_class_encloses_it():
    ring = np.ones((5, 9), int)
    ring[1:4, 1:4] = 0
    ring[1:4, 5:8] = 0
    ring[2, 8] = 0  # open to the photo's edge
    filled = tidy(ring, True, 0, fill_holes=True)
    assert (filled[:, :5] == 1).all()
    assert (filled[1:4, 5:8] == 0).all()
    assert np.array_equal(tidy(ring, False, 0, fill_holes=True), ring)
    ring[2, 2] = 2  # something else in the hole
    assert (tidy(ring, True, 0, fill_holes=True)[1:4, 1:4] == ring[1:4, 1:4]).all()


def test_where_every_part_is_too_small_the_largest_stays():
    assert tidy(np.array([[0, 1, 1], [2, 0, 1]]), True, 100).tolist() == [[1, 1, 1], [1, 1, 1]]


@settings(max_examples=60, deadline=None)
@given(labels=arrays(np.int32, (7, 8), elements=st.integers(0, 3)), least=st.integers(0, 12), background=st.booleans())
def test_after_it_no_part_is_smaller_and_twice_is_once(labels, least, background):
    cleaned = tidy(labels, background, least)
    areas = find_parts(cleaned).areas
    assert len(areas) == 1 or areas.min() >= least
    assert set(np.unique(cleaned)) <= set(np.unique(labels))
    assert np.array_equal(tidy(cleaned, background, least), cleaned)


def test_it_is_off_in_every_preset_and_a_setting_of_it_adds_it():
    assert not any(preset.tidies for preset in PRESETS.values())
    assert Config().override({"min_area": 50}).refiners == ("blur", "crf", "tidy")
    assert Config(refiners=("tidy",)).override({"fill_holes": True}).refiners == ("tidy",)
    assert Config().override({"min_area": Config().min_area}).refiners == ("blur", "crf")


def test_it_works_on_the_finished_labels_and_leaves_the_scores():
    maps = np.zeros((2, 20, 20), np.float32)
    maps[0, 2:12, 2:12], maps[1, 16, 16] = 1, 1
    photo, plain = np.full((20, 20, 3), 90, np.uint8), Config(refiners=())
    labels, scores = pnp_ovss.refine(maps, photo, plain)
    assert set(np.unique(labels)) == {0, 1, 2}
    cleaned, same = pnp_ovss.refine(maps, photo, plain.override({"min_area": 10}))
    assert np.array_equal(scores, same)
    assert np.array_equal(cleaned, np.where(labels == 2, 0, labels))


def test_a_share_above_1_is_reported():
    with pytest.raises(ConfigError, match=r"^expected min_area to be pixels \(50\) or a share of the photo up to 1"):
        Config(min_area=2.5, refiners=("tidy",))
