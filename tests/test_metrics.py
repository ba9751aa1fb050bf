import math

import numpy as np
import pytest

from pnp_ovss.evaluation.metrics import IGNORE, Confusion

TRUTH = np.array([[0, 0, 1, 1], [0, 2, 2, IGNORE]])
GUESS = np.array([[0, 1, 1, 1], [0, 1, 2, 1]])


def test_rows_are_truth_and_columns_guess_and_ignored_pixels_count_nowhere():
    confusion = Confusion.of(TRUTH, GUESS, classes=4)
    assert confusion.counts.tolist() == [[2, 1, 0, 0], [0, 2, 0, 0], [0, 1, 1, 0], [0, 0, 0, 0]]


def test_scores_by_hand():
    confusion = Confusion.of(TRUTH, GUESS, classes=4)
    assert confusion.iou()[:3].tolist() == [2 / 3, 2 / 4, 1 / 2]
    assert math.isnan(confusion.iou()[3])  # in neither truth nor guess
    assert confusion.miou() == pytest.approx((2 / 3 + 1 / 2 + 1 / 2) / 3)
    assert confusion.pixel_accuracy() == pytest.approx(5 / 7)


def test_a_class_only_guessed_counts_as_zero():
    confusion = Confusion.of(np.array([[0, 0]]), np.array([[0, 3]]), classes=4)
    assert confusion.miou() == pytest.approx((1 / 2 + 0) / 2)


def test_images_add():
    parts = [Confusion.of(TRUTH[row : row + 1], GUESS[row : row + 1], 4) for row in (0, 1)]
    assert (parts[0] + parts[1]).counts.tolist() == Confusion.of(TRUTH, GUESS, 4).counts.tolist()
    assert (parts[0] + Confusion.empty(4)).counts.tolist() == parts[0].counts.tolist()


def test_no_pixel_no_score():
    assert math.isnan(Confusion.empty(3).miou())
    assert math.isnan(Confusion.empty(3).pixel_accuracy())


@pytest.mark.parametrize(("truth", "guess", "message"), [
    ([[0, 1]], [[0, 1, 1]], "maps of one size are wanted"),
    ([[0, 9]], [[0, 1]], "truth holds labels 0 to 9; 0 to 2 are wanted"),
    ([[0, 1]], [[0, -1]], "guess holds labels -1 to 0; 0 to 2 are wanted"),
])  # fmt: skip
def test_maps_that_do_not_fit(truth, guess, message):
    with pytest.raises(ValueError, match=message):
        Confusion.of(np.array(truth), np.array(guess), classes=3)
