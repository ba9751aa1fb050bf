"""Connected parts of label maps."""

import numpy as np

from pnp_ovss.parts import find_objects, find_parts


def test_parts_are_those_that_share_a_side():
    labels = np.array([[5, 0, 5, 5], [0, 5, 0, 0], [0, 0, 0, 2]])
    parts = find_parts(labels)
    assert np.array_equal(parts.labels[parts.index], labels)
    assert parts.labels.tolist() == [0, 0, 2, 5, 5, 5]
    assert parts.areas.tolist() == [1, 6, 1, 1, 2, 1]


def test_a_map_of_one_label_is_one_part():
    parts = find_parts(np.full((3, 4), 7, np.uint8))
    assert (parts.labels.tolist(), parts.areas.tolist()) == ([7], [12])


ROW = np.array([[1, 1, 1, 1, 0, 2, 2, 1, 1]])


def mask(*columns: int) -> np.ndarray:
    found = np.zeros(ROW.shape, bool)
    found[0, list(columns)] = True
    return found


def test_objects_are_parts_but_of_the_background_and_of_less_than_so_many_pixels():
    assert find_objects(ROW, True).index.tolist() == [[1, 1, 1, 1, 0, 3, 3, 2, 2]]
    assert find_objects(ROW, True).labels.tolist() == [1, 1, 2]
    assert find_objects(ROW, False).labels.tolist() == [0, 1, 1, 2]
    few = find_objects(ROW, True, 3)
    assert (few.index.tolist(), few.labels.tolist()) == ([[1, 1, 1, 1, 0, 0, 0, 0, 0]], [1])


def test_masks_of_things_divide_a_part_and_hold_parts_together():
    found = find_objects(ROW, True, masks=[mask(0), mask(3, 7, 8)])
    assert found.index.tolist() == [[1, 1, 2, 2, 0, 3, 3, 2, 2]]  # what no mask has goes to the nearest object
    assert found.labels.tolist() == [1, 1, 2]


def test_a_mask_belongs_to_the_label_that_most_of_its_pixels_have():
    crossing = find_objects(ROW, True, masks=[mask(5, 6, 7)])
    assert crossing.index.tolist() == [[1, 1, 1, 1, 0, 3, 3, 2, 2]]  # no more than its own label
    undecided = find_objects(ROW, True, masks=[mask(2, 3, 5, 6)])  # half of it
    assert undecided.index.tolist() == [[1, 1, 1, 1, 0, 3, 3, 2, 2]]
    for nothing in (mask(4), mask()):  # background, and no pixel
        assert find_objects(ROW, True, masks=[nothing]).labels.tolist() == [1, 1, 2]


def test_a_mask_mostly_within_a_larger_one_is_a_part_of_its_object():
    for masks in ([mask(0, 1), mask(0, 1, 2, 3)], [mask(0, 1, 2), mask(1, 2, 3)]):
        assert find_objects(ROW, True, masks=masks).index.tolist() == [[1, 1, 1, 1, 0, 3, 3, 2, 2]]


def test_a_part_that_no_mask_meets_is_an_object_of_its_own():
    assert find_objects(ROW, True, masks=[mask(7)]).index.tolist() == [[1, 1, 1, 1, 0, 3, 3, 2, 2]]
