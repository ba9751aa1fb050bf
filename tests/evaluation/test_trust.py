"""How well confidences order regions, and whether they mean what they say: exact answers."""

import numpy as np
import pytest

from pnp_ovss.evaluation.trust import average_precision, calibration_error, reliability, risk_coverage

SURE = np.array([0.9, 0.8, 0.8, 0.3])
RIGHT = np.array([True, True, False, True])


def test_average_precision_takes_equals_together():
    # Right regions at 0.9 (1 of 1), 0.8 (2 of 3) and 0.3 (3 of 4).
    assert average_precision(SURE, RIGHT) == pytest.approx((1 + 2 / 3 + 3 / 4) / 3)
    assert average_precision(SURE, SURE > 0.5) == 1
    assert np.isnan(average_precision(SURE, np.zeros(4, bool)))


def test_average_precision_depends_on_the_order_alone():
    assert average_precision(SURE**3, RIGHT) == average_precision(SURE, RIGHT)
    assert average_precision(SURE[::-1].copy(), RIGHT[::-1].copy()) == average_precision(SURE, RIGHT)


def test_the_calibration_error_is_the_mean_gap_of_the_bins():
    assert [row[2:] for row in reliability(SURE, RIGHT)] == [(1, 0.3, 1.0), (2, 0.8, 0.5), (1, 0.9, 1.0)]
    assert calibration_error(SURE, RIGHT) == pytest.approx((0.7 + 2 * 0.3 + 0.1) / 4)
    assert calibration_error(np.array([1.0, 0.0]), np.array([True, False])) == 0
    assert np.isnan(calibration_error(np.zeros(0), np.zeros(0, bool)))


def test_the_risk_is_the_share_of_wrong_ones_among_the_surest():
    assert list(risk_coverage(SURE, RIGHT)) == [(0.25, 0.0), (0.75, pytest.approx(1 / 3)), (1.0, 0.25)]
