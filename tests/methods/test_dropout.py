import pytest
import torch

from pnp_ovss.methods.pnp.dropout import saliency_dropout, total
from pnp_ovss.types import Pass

IMAGE = torch.tensor([[[[1.0, 7.0, 3.0], [5.0, 2.0, 4.0]]], [[[9.0, 1.0, 2.0], [3.0, 8.0, 1.0]]]])  # (b, cls, 2, 3)
ALL = torch.ones(2, 2, 3, dtype=torch.bool)


def stubborn(visible):
    """A model that sees hidden patches too."""
    return IMAGE, IMAGE.sum(1), visible.flatten(1).sum(1).float()


def hidden(passes: list[Pass]) -> list[list[list[int]]]:
    """Per pass and image: flat indices of the hidden patches."""
    return [[(~image).flatten().nonzero().flatten().tolist() for image in one.visible] for one in passes]


def test_the_largest_visible_patches_are_hidden_after_each_pass():
    passes = saliency_dropout(stubborn, ALL, passes=3, drop=2)
    assert hidden(passes) == [[[], []], [[1, 3], [0, 4]], [[1, 2, 3, 5], [0, 2, 3, 4]]]
    assert [one.match.tolist() for one in passes] == [[6, 6], [4, 4], [2, 2]]


def test_hidden_patches_count_nothing():
    passes = saliency_dropout(stubborn, ALL, passes=3, drop=2)
    for one in passes:
        assert torch.equal(one.maps, IMAGE * one.visible[:, None])
    expected = torch.tensor(
        [[[[3.0, 7.0, 6.0], [5.0, 6.0, 8.0]]]]
    )  # the value of a patch times the passes that showed it
    assert torch.equal(total(passes, count_first_twice=False)[:1], expected)


def test_the_first_map_may_count_twice():
    passes = saliency_dropout(stubborn, ALL, passes=2, drop=2)
    assert torch.equal(total(passes, True), total(passes, False) + IMAGE)


def test_each_pass_is_announced_and_an_error_raised_there_stops_the_rest():
    steps = []

    def cancel_at_2(name, done, total):
        steps.append((name, done, total))
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        saliency_dropout(stubborn, ALL, passes=4, drop=1, on_step=cancel_at_2)
    assert steps == [("pass", 0, 4), ("pass", 1, 4), ("pass", 2, 4)]


def test_one_pass_is_the_plain_map():
    assert torch.equal(total(saliency_dropout(stubborn, ALL, passes=1, drop=4), False), IMAGE)


@pytest.mark.parametrize(
    ("drop", "left"),
    [(0.5, [6, 3, 2, 1]), (0.4, [6, 4, 3, 2]), (1, [6, 5, 4, 3]), (5, [6, 1, 0, 0]), (0, [6, 6, 6, 6])],
)
def test_a_float_is_a_share_of_the_visible_patches_rounded_down_and_an_int_a_count(drop, left):
    passes = saliency_dropout(stubborn, ALL, passes=4, drop=drop)
    assert [int(one.visible[0].sum()) for one in passes] == left


def test_a_share_that_makes_a_whole_number_is_not_rounded_below_it():
    grid = torch.ones(1, 10, 10, dtype=torch.bool)

    def locate(visible):
        flat = torch.zeros(1, 10, 10)
        return flat[:, None], flat, torch.zeros(1)

    for percent in range(1, 100):
        passes = saliency_dropout(locate, grid, passes=2, drop=percent / 100)
        assert int((~passes[1].visible).sum()) == percent


def test_equal_patches_go_in_reading_order():
    def locate(visible):
        return torch.ones(2, 1, 2, 3), torch.ones(2, 2, 3), torch.zeros(2)

    assert hidden(saliency_dropout(locate, ALL, passes=2, drop=2)) == [[[], []], [[0, 1], [0, 1]]]


def test_the_choice_is_one_for_all_classes_and_follows_the_patch_salience_given():
    def locate(visible):
        maps = torch.tensor([[[[9.0, 0.0, 0.0]], [[0.0, 6.0, 5.0]]]])
        return maps, torch.tensor([[[1.0, 2.0, 3.0]]]), torch.zeros(1)

    passes = list(saliency_dropout(locate, torch.ones(1, 1, 3, dtype=torch.bool), passes=2, drop=1))
    assert hidden(passes)[1] == [[2]]
    assert torch.equal(passes[1].maps, torch.tensor([[[[9.0, 0.0, 0.0]], [[0.0, 6.0, 0.0]]]]))
