"""Int8 linear layers: exact where nothing is rounded, near float32 elsewhere; on the CPU, for image towers alone."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from pnp_ovss import ConfigError, ModelError, Segmenter, load_vlm
from pnp_ovss.cli import main
from pnp_ovss.mini import TUNE_SEED, draw
from pnp_ovss.models.int8 import Int8Linear
from tiny import tiny_blip2

pytestmark = pytest.mark.skipif("onednn" not in torch.backends.quantized.supported_engines, reason="no oneDNN")


def test_whole_numbers_that_need_no_rounding_give_the_exact_products():
    generator = torch.Generator().manual_seed(0)
    layer = nn.Linear(64, 8).requires_grad_(False)
    layer.weight.copy_(torch.randint(-127, 128, (8, 64), generator=generator))
    layer.weight[:, 0] = 127  # the largest: a step of the weights is 1
    x = torch.randint(0, 2, (2, 5, 64), generator=generator) * 127.0  # and inputs are ends of their range, 7 bits or 8
    wanted = x.double() @ layer.weight.double().T + layer.bias.double()
    torch.testing.assert_close(Int8Linear(layer)(x).double(), wanted, atol=0, rtol=1e-5)


def test_it_is_close_to_float32():
    layer = nn.Linear(96, 64).requires_grad_(False)
    x = torch.randn(2, 50, 96, generator=torch.Generator().manual_seed(0))
    wanted = layer(x)
    assert float((Int8Linear(layer)(x) - wanted).norm() / wanted.norm()) < 0.03


def test_inputs_are_rounded_to_the_nearest_step_so_that_errors_cancel():
    layer = nn.Linear(96, 1).requires_grad_(False)
    layer.weight.fill_(1)
    x = torch.randn(1, 50, 96, generator=torch.Generator().manual_seed(0))
    step = (x.max() - x.min()) / 127
    assert float((Int8Linear(layer)(x) - layer(x)).abs().max()) < 12 * step  # rounded down: 96 halves of a step


def test_an_image_does_not_change_the_result_of_another():
    layer, x = Int8Linear(nn.Linear(32, 16)), torch.randn(2, 7, 32, generator=torch.Generator().manual_seed(0))
    x[0] *= 100
    torch.testing.assert_close(layer(x)[1:], layer(x[1:]), atol=0, rtol=0)


def test_an_output_whose_weights_are_all_0_is_its_bias():
    layer = nn.Linear(32, 16).requires_grad_(False)
    layer.weight[3] = 0
    torch.testing.assert_close(Int8Linear(layer)(torch.randn(1, 7, 32))[0, :, 3], layer.bias[3].expand(7))


def test_what_is_no_number_stays_none():
    x = torch.zeros(2, 7, 32)
    x[0, 3, 5] = torch.nan
    assert Int8Linear(nn.Linear(32, 16))(x).isnan().flatten(1).all(1).tolist() == [True, False]


@pytest.mark.parametrize(("model", "method"), [("mini-blip", "pnp"), ("mini-clip", "sclip")])
def test_labels_are_those_of_float32(model, method):
    dtypes = "float32", "int8"
    full, small = (Segmenter.from_pretrained(model, device="cpu", dtype=dtype, method=method) for dtype in dtypes)
    scenes = [draw(TUNE_SEED, index, 224) for index in range(3)]
    shares = [np.mean(full(one.image, one.things).labels == small(one.image, one.things).labels) for one in scenes]
    assert 0.99 <= np.mean(shares) < 1  # equal throughout: nothing would be int8


def test_the_image_tower_is_int8_and_the_rest_float32(tiny_blip_folder, tmp_path):
    for folder in (tiny_blip_folder, tiny_blip2(tmp_path)):
        model = load_vlm(folder, "cpu", "int8")._model
        layers = [name for name, layer in model.named_modules() if isinstance(layer, Int8Linear)]
        left = [name for name, layer in model.named_modules() if isinstance(layer, nn.Linear)]
        assert layers
        assert all(name.startswith("vision_model.encoder.") for name in layers)
        assert not any(name.startswith("vision_model.encoder.") for name in left)
        assert {weight.dtype for weight in model.parameters()} == {torch.float32}


def test_another_device_is_refused(tiny_blip_folder):
    with pytest.raises(ModelError, match="int8 is for CPUs with oneDNN; on meta give --dtype float32 or bfloat16$"):
        load_vlm(tiny_blip_folder, device="meta", dtype="int8")


def test_a_model_without_such_a_tower_is_refused():
    with pytest.raises(ModelError, match="^mini-bridgetower: only BLIP, BLIP-2 and CLIP can be int8; give --dtype "):
        load_vlm("mini-bridgetower", "cpu", "int8")


def test_it_is_not_compiled(tiny_blip_folder):
    with pytest.raises(ConfigError, match="int8 cannot be compiled; leave compile out, or give --dtype float32$"):
        load_vlm(tiny_blip_folder, "cpu", "int8").compile_tower()


def test_the_record_of_a_run_says_it(tmp_path, monkeypatch, tiny_blip_folder):
    monkeypatch.chdir(tmp_path)
    Path("photos").mkdir()
    Image.fromarray(np.zeros((20, 30, 3), np.uint8)).save("photos/a.png")
    small = ("--size", "32", "--layer", "0", "--head", "1", "--drop", "2", "--refine", "blur", "--device", "cpu")
    assert (
        main(["batch", "photos", "--classes", "dog", "--model", str(tiny_blip_folder), "--dtype", "int8", *small]) == 0
    )
    assert '"dtype": "int8"' in Path("results/manifest.json").read_text()
