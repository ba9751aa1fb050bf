"""Connected parts of label maps."""

import numpy as np

from pnp_ovss.parts import find_parts


def test_parts_are_those_that_share_a_side():
    labels = np.array([[5, 0, 5, 5], [0, 5, 0, 0], [0, 0, 0, 2]])
    parts = find_parts(labels)
    assert np.array_equal(parts.labels[parts.index], labels)
    assert parts.labels.tolist() == [0, 0, 2, 5, 5, 5]
    assert parts.areas.tolist() == [1, 6, 1, 1, 2, 1]


def test_a_map_of_one_label_is_one_part():
    parts = find_parts(np.full((3, 4), 7, np.uint8))
    assert (parts.labels.tolist(), parts.areas.tolist()) == ([7], [12])
