"""When new settings are better, and when that is chance."""

import numpy as np
import pytest

from pnp_ovss.tuning.gain import Gain, gain


def rewards(seed: int, photos: int, mean: float) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [(rng.random(rng.integers(1, 4)) < mean).astype(float) for _ in range(photos)]


def test_the_gain_is_that_of_the_mean_over_masks():
    before, after = [np.array([0.0, 1.0]), np.array([0.5])], [np.array([1.0, 1.0]), np.array([0.25])]
    assert gain(before, after).mean == pytest.approx((1 - 0.25) / 3)


def test_the_same_settings_gain_nothing():
    same = rewards(0, 40, 0.7)
    found = gain(same, same)
    assert (found.mean, found.low, found.high, found.certain) == (0, 0, 0, False)


def test_a_large_gain_on_many_photos_is_certain_and_one_on_few_is_not():
    before = [np.zeros(2)] * 40
    after = [np.array([1.0, float(index % 2)]) for index in range(40)]
    assert gain(before, after, candidates=34).certain
    assert not gain(before[:9], after[:9], candidates=1).certain


def test_the_more_candidates_the_wider_the_interval():
    before, after = rewards(1, 40, 0.5), rewards(1, 40, 0.8)
    one, many = gain(before, after, 1), gain(before, after, 100)
    assert many.low < one.low < one.mean < one.high < many.high
    assert one.mean == many.mean


def test_the_best_of_many_equal_candidates_is_rarely_taken():
    """Rewards of pure chance: the best of 20 looks better than the start, and is not."""
    taken = 0
    for trial in range(20):
        rng = np.random.default_rng(trial)
        start, *others = [[(rng.random(2) < 0.7).astype(float) for _ in range(30)] for _ in range(21)]
        best = max(others, key=lambda one: np.concatenate(one).mean())
        found = gain(start, best, candidates=20)
        assert found.mean > -0.05
        taken += found.certain
    assert taken <= 1


def test_it_reads_as_a_number_with_its_interval():
    assert str(Gain(0.0312, -0.01, 0.07, 30)) == "+0.031 (-0.010 to +0.070)"
