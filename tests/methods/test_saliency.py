import pytest
import torch

from pnp_ovss.methods.pnp.saliency import class_maps, patch_salience
from pnp_ovss.types import Attention

# One image, 2 layers, 2 heads, 4 tokens ([CLS] a b [SEP]), a 1 x 2 grid. Only layer 5, head 1 is filled in.
WEIGHTS = torch.zeros(1, 2, 2, 4, 1, 2)
WEIGHTS[0, 1, 1] = torch.tensor([[0.9, 0.9], [0.1, 0.2], [0.3, 0.5], [0.4, 0.6]])[:, None]
GRADIENT = torch.zeros_like(WEIGHTS)
GRADIENT[0, 1, 1] = torch.tensor([[9.0, 9.0], [2.0, -1.0], [1.0, 4.0], [-3.0, 10.0]])[:, None]


def attention(membership: list[list[float]]) -> Attention:
    return Attention(WEIGHTS, GRADIENT, torch.tensor([membership], dtype=torch.float32), torch.zeros(1), layers=(2, 5))


TWO_NAMES = attention([[0, 1, 0, 0], [0, 0, 1, 0]])
ONE_NAME = attention([[0, 0.5, 0.5, 0]])


def test_a_class_map_is_attention_times_positive_gradient():
    maps = class_maps(TWO_NAMES, layer=5, head=1)
    torch.testing.assert_close(maps, torch.tensor([[[[0.2, 0.0]], [[0.3, 2.0]]]]))


def test_a_name_of_two_tokens_has_their_mean():
    torch.testing.assert_close(class_maps(ONE_NAME, 5, 1), torch.tensor([[[[0.25, 1.0]]]]))


def test_without_the_gradient_the_attention_itself_is_averaged():
    torch.testing.assert_close(class_maps(ONE_NAME, 5, 1, gradient=False), torch.tensor([[[[0.2, 0.35]]]]))


def test_the_released_code_adds_up_the_tokens_of_the_last_name_only():
    both = Attention(
        WEIGHTS.expand(2, -1, -1, -1, -1, -1),
        GRADIENT.expand(2, -1, -1, -1, -1, -1),
        torch.tensor([[[0, 0.5, 0.5, 0], [0, 0, 0, 1.0]], [[0, 0.5, 0.5, 0], [0, 0, 0, 0.0]]]),
        torch.zeros(2),
        layers=(2, 5),
    )
    maps = class_maps(both, 5, 1, sum_last_name=True)
    torch.testing.assert_close(maps[0], torch.tensor([[[0.25, 1.0]], [[0.0, 6.0]]]))
    torch.testing.assert_close(maps[1], torch.tensor([[[0.5, 2.0]], [[0.0, 0.0]]]))


def test_patch_salience_sums_every_token_from_the_first_name_to_the_end():
    torch.testing.assert_close(patch_salience(TWO_NAMES, 5, 1), torch.tensor([[[0.5, 8.0]]]))
    only_the_second = attention([[0, 0, 1, 0]])
    torch.testing.assert_close(patch_salience(only_the_second, 5, 1), torch.tensor([[[0.3, 8.0]]]))


def test_other_layers_and_heads_are_left_alone():
    assert class_maps(TWO_NAMES, layer=2, head=1).abs().sum() == 0
    assert class_maps(TWO_NAMES, layer=5, head=0).abs().sum() == 0


def test_a_layer_that_was_not_attended_is_a_mistake():
    with pytest.raises(ValueError, match=r"layer 3 is not among the layers attended, \(2, 5\)"):
        class_maps(TWO_NAMES, layer=3, head=0)
