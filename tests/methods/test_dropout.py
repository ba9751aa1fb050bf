import pytest
import torch

from pnp_ovss.methods.pnp.dropout import Look, saliency_dropout, total

IMAGE = torch.tensor([[[[1.0, 7.0, 3.0], [5.0, 2.0, 4.0]]], [[[9.0, 1.0, 2.0], [3.0, 8.0, 1.0]]]])  # (b, cls, 2, 3)
ALL = torch.ones(2, 2, 3, dtype=torch.bool)


def stubborn(visible):
    """A model that sees hidden patches too."""
    return IMAGE, IMAGE.sum(1), visible.flatten(1).sum(1).float()


def hidden(looks: list[Look]) -> list[list[list[int]]]:
    """Per pass and image: flat indices of the hidden patches."""
    return [[(~image).flatten().nonzero().flatten().tolist() for image in look.visible] for look in looks]


def test_the_largest_visible_patches_are_hidden_after_each_pass():
    looks = list(saliency_dropout(stubborn, ALL, passes=3, drop=2))
    assert hidden(looks) == [[[], []], [[1, 3], [0, 4]], [[1, 2, 3, 5], [0, 2, 3, 4]]]
    assert [look.match.tolist() for look in looks] == [[6, 6], [4, 4], [2, 2]]


def test_hidden_patches_count_nothing():
    looks = list(saliency_dropout(stubborn, ALL, passes=3, drop=2))
    for look in looks:
        assert torch.equal(look.maps, IMAGE * look.visible[:, None])
    expected = torch.tensor(
        [[[[3.0, 7.0, 6.0], [5.0, 6.0, 8.0]]]]
    )  # the value of a patch times the passes that showed it
    assert torch.equal(total(looks, count_first_twice=False)[:1], expected)


def test_the_first_map_may_count_twice():
    looks = list(saliency_dropout(stubborn, ALL, passes=2, drop=2))
    assert torch.equal(total(looks, True), total(looks, False) + IMAGE)


def test_one_pass_is_the_plain_map():
    assert torch.equal(total(list(saliency_dropout(stubborn, ALL, passes=1, drop=4)), False), IMAGE)


@pytest.mark.parametrize(
    ("drop", "left"),
    [(0.5, [6, 3, 2, 1]), (0.4, [6, 4, 3, 2]), (1, [6, 5, 4, 3]), (5, [6, 1, 0, 0]), (0, [6, 6, 6, 6])],
)
def test_a_float_is_a_share_of_the_visible_patches_rounded_down_and_an_int_a_count(drop, left):
    looks = list(saliency_dropout(stubborn, ALL, passes=4, drop=drop))
    assert [int(look.visible[0].sum()) for look in looks] == left


def test_a_share_that_makes_a_whole_number_is_not_rounded_below_it():
    grid = torch.ones(1, 10, 10, dtype=torch.bool)

    def see(visible):
        flat = torch.zeros(1, 10, 10)
        return flat[:, None], flat, torch.zeros(1)

    for percent in range(1, 100):
        looks = list(saliency_dropout(see, grid, passes=2, drop=percent / 100))
        assert int((~looks[1].visible).sum()) == percent


def test_equal_patches_go_in_reading_order():
    def see(visible):
        return torch.ones(2, 1, 2, 3), torch.ones(2, 2, 3), torch.zeros(2)

    assert hidden(list(saliency_dropout(see, ALL, passes=2, drop=2))) == [[[], []], [[0, 1], [0, 1]]]


def test_the_choice_is_one_for_all_classes_and_follows_the_prominence_given():
    def see(visible):
        maps = torch.tensor([[[[9.0, 0.0, 0.0]], [[0.0, 6.0, 5.0]]]])
        return maps, torch.tensor([[[1.0, 2.0, 3.0]]]), torch.zeros(1)

    looks = list(saliency_dropout(see, torch.ones(1, 1, 3, dtype=torch.bool), passes=2, drop=1))
    assert hidden(looks)[1] == [[2]]
    assert torch.equal(looks[1].maps, torch.tensor([[[[9.0, 0.0, 0.0]], [[0.0, 6.0, 0.0]]]]))
