"""How likely a region is right: the formula, its bounds, and models of random weights."""

import math

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from pnp_ovss import Segmenter
from pnp_ovss.methods.confidence import SURE, WEIGHTS, rate_regions, region_odds
from pnp_ovss.mini import HELD_OUT_SEED, draw
from tiny import tiny_blip, tiny_vilt

WEIGHED = {"bias": -2.0, "chance": 0.5, "focus": 3.0}


def test_it_is_the_weighted_sum_of_chance_and_focus():
    labels = np.array([[1, 1, 0, 2], [1, 1, 0, 2]])
    salience = np.array([[[5.0, 2.0]], [[1.0, 3.0]]])  # two columns of the grid, each of two columns of pixels
    # Above their least, the first has all salience in the left cell, which is its own; the second all in the right one,
    # of which half is.
    odds, focus, there = region_odds(labels, salience, [0.8, 0.5])
    assert there.all()
    assert odds.tolist() == pytest.approx([math.log(4), 0])
    assert focus.tolist() == pytest.approx([1.0, 0.5])
    expected = [1 / (1 + math.exp(-(-2 + 0.5 * math.log(4) + 3))), 1 / (1 + math.exp(-(-2 + 1.5)))]
    assert rate_regions(labels, salience, [0.8, 0.5], WEIGHED).tolist() == pytest.approx(expected)


def test_a_class_without_a_region_gets_0_and_labels_may_start_with_a_class():
    salience = np.ones((2, 2, 2)) * np.arange(2)[None, None]
    assert rate_regions(np.ones((4, 4), int), salience, [0.9, 0.9])[1] == 0
    bare = rate_regions(np.ones((4, 4), int), salience, [0.9, 0.9], first=0)
    assert bare[0] == 0
    assert bare[1] > 0.5


@pytest.mark.parametrize("shape", [(1, 1), (3, 50), (50, 3)])
def test_photos_smaller_than_the_grid(shape):
    sure = rate_regions(np.ones(shape, int), np.random.default_rng(0).random((1, 10, 10)), [0.9])
    assert 0 < sure[0] < 1


def test_certain_chances_stay_finite():
    salience = np.random.default_rng(0).random((2, 3, 3))
    odds, *_ = region_odds(np.ones((9, 9), int), salience, [0.0, 1.0])
    assert odds.tolist() == [-SURE, SURE]


def test_no_class_and_no_salience():
    assert rate_regions(np.zeros((3, 3), int), np.zeros((0, 1, 1)), []).shape == (0,)
    assert rate_regions(np.ones((3, 3), int), np.zeros((1, 2, 2)), [0.5])[0] < 0.5


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 4), st.floats(0, 1))
def test_the_likelier_the_class_the_surer_and_never_beyond_a_half_at_even_chances(seed, classes, chance):
    rng = np.random.default_rng(seed)
    labels, salience = rng.integers(0, classes + 1, (9, 8)), rng.random((classes, 3, 4))
    even = rate_regions(labels, salience, [0.5] * classes)
    assert (even <= 0.5).all()
    other = rate_regions(labels, salience, [chance] * classes)
    assert ((other >= even) if chance >= 0.5 else (other <= even)).all()
    assert ((other >= 0) & (other <= 1)).all()


@pytest.mark.parametrize("write", [tiny_blip, tiny_vilt])
@pytest.mark.parametrize("seed", range(3))
def test_random_weights_are_never_sure(tmp_path, write, seed):
    """Their scores after refinement are 0.99 nevertheless."""
    folder = write(tmp_path / "model", seed=seed)
    segmenter = Segmenter.from_pretrained(folder, device="cpu", preset="released", size=32, layer=0, head=1, drop=3)
    for index in range(3):
        result = segmenter(draw(HELD_OUT_SEED, index, 64).image, ["dog", "cat"])
        assert max(result.confidence) < 0.6
        coco = result.to_coco()["annotations"]
        assert [one["score"] for one in coco] == [score for score in result.confidence.tolist() if score]
        assert [one["score"] for one in result.to_hf()] == [one["score"] for one in coco]


def test_true_things_are_surer_than_absent_ones():
    segmenter = Segmenter.from_pretrained("mini-blip", device="cpu")
    scene = draw(HELD_OUT_SEED, 1)
    assert not {"rocket", "cactus"} & {*scene.things}
    result = segmenter(scene.image, [*scene.things, "rocket", "cactus"])
    *true, rocket, cactus = result.confidence
    assert max(rocket, cactus) < 0.1 < 0.5 < min(true)


def test_the_usual_weights_rate_a_whole_region_at_even_chances_a_half():
    assert WEIGHTS["bias"] + WEIGHTS["focus"] == 0
