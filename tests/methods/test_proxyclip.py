"""ProxyCLIP and DINO against the official code."""

from pathlib import Path

import pytest
import torch
from transformers import Dinov2Config, Dinov2Model, ViTConfig, ViTModel

from peers import CLASSES, differing, error, golden, method_on, segment, slide, unit
from pnp_ovss import ConfigError, ModelError, Vocabulary, load_method
from pnp_ovss.methods.proxyclip import proxy_attention
from pnp_ovss.models.dino import load_dino
from shared import shared
from tiny import tiny_clip, write_random

OFFICIAL = {"crop": 112, "stride": 56, "short_side": 112, "logit_scale": 40.0, "prob_threshold": 0.6}
SIZES = {"hidden_size": 12, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 32, "patch_size": 8}


def on_goldens(**changes):
    return method_on("proxyclip", "clip-tiny", proxy=shared("golden/peers/dino-tiny"), **OFFICIAL | changes)


def test_proxies_features_and_logits_are_the_official_ones():
    arrays, _ = golden("proxyclip")
    method, pixels = on_goldens(), torch.from_numpy(arrays["square_pixels"])
    proxies = method.proxy.encode_patches(method._renormalised(pixels))[0].permute(2, 0, 1)
    assert error(proxies, arrays["square_proxy"]) < 1e-5
    assert error(method.features(pixels).flatten(0, 2), unit(arrays["square_features"]).numpy()) < 1e-5
    assert error(method.logits(pixels, torch.from_numpy(arrays["text"]))[0], arrays["square_logits"]) < 1e-5


@pytest.mark.parametrize(("prefix", "side"), [("", 112), ("padded_", 100)])
def test_windows_and_label_maps_are_the_official_ones(prefix, side):
    arrays, _ = golden("proxyclip")
    method = on_goldens(short_side=side)
    assert error(slide(method, arrays), arrays[f"{prefix}slide_logits"]) < 1e-5
    assert differing(segment(method, arrays["photo"], arrays["text"], CLASSES), arrays[f"{prefix}labels"]) <= 0.001


def test_without_a_background_label_maps_are_the_official_ones():
    arrays, _ = golden("proxyclip")
    result = segment(on_goldens(background="never"), arrays["photo"], arrays["text"][:5], Vocabulary.of(list("vwxyz")))
    assert differing(result, arrays["plain_labels"]) <= 0.001


def test_each_window_has_a_mean_of_its_own():
    features = torch.randn(3, 20, 4, generator=torch.Generator().manual_seed(0)) + 1
    alone = torch.cat([proxy_attention(one[None], 1.2, 3.0) for one in features])
    torch.testing.assert_close(proxy_attention(features, 1.2, 3.0), alone)


def test_the_grid_is_dinos_and_windows_may_have_any_shape(tmp_path):
    tiny_clip(tmp_path / "clip")
    write_random(tmp_path / "dino", Dinov2Model(Dinov2Config(**SIZES | {"patch_size": 14, "image_size": 28})))
    method = load_method("proxyclip", tmp_path / "clip", device="cpu", proxy=tmp_path / "dino", short_side=64, crop=0)
    assert method.logits(torch.randn(1, 3, 56, 112), torch.eye(8)[:2]).shape == (1, 2, 4, 8)
    assert method.revision.count("local-") == 2


@pytest.mark.parametrize("family", ["vit", "dinov2"])
def test_patches_are_those_of_transformers_at_its_own_size(tmp_path, family):
    config = ViTConfig(**SIZES, intermediate_size=16) if family == "vit" else Dinov2Config(**SIZES)
    model = ViTModel(config, add_pooling_layer=False) if family == "vit" else Dinov2Model(config)
    dino = load_dino(write_random(tmp_path, model.eval()), device="cpu")
    pixels = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        expected = model(pixel_values=pixels).last_hidden_state[:, 1:].view(2, 4, 4, -1)
    torch.testing.assert_close(dino.encode_patches(pixels), expected, rtol=1e-4, atol=1e-4)
    assert dino.encode_patches(torch.randn(1, 3, 43, 25)).shape == (1, 5, 3, 12)


def test_what_cannot_be_a_proxy_is_refused(tmp_path):
    tiny_clip(tmp_path)
    with pytest.raises(ModelError, match="expected a DINO checkpoint such as dino-base, got 'clip'"):
        load_dino(tmp_path, device="cpu")
    with pytest.raises(ConfigError, match="expected proxy to be a text, got 3"):
        load_method("proxyclip", tmp_path, proxy=3)
    with pytest.raises(ModelError, match="^no-such"):
        load_method("proxyclip", Path(tmp_path), device="cpu", proxy="no-such/dino")
