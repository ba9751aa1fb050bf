"""Plain CLIP, MaskCLIP, SCLIP, ClearCLIP and NACLIP against the official code, and what holds for each of them."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from peers import CLASSES, differing, error, golden, method_on, segment, slide, unit
from pnp_ovss import ConfigError, ModelError, Segmenter, Vocabulary, load_method
from pnp_ovss.methods import METHODS, resolve_config
from pnp_ovss.methods.dense_clip import NaclipConfig
from pnp_ovss.mini import TUNE_SEED, draw
from pnp_ovss.models import loading
from shared import shared
from tiny import tiny_clip

CLOSE = 1e-5
FEW_PIXELS = 0.001
OFFICIAL = {
    "sclip": {"crop": 64, "stride": 32, "short_side": 96, "logit_scale": 25.0, "prob_threshold": 0.45}
    | {"area_threshold": 0.2},
    "clearclip": {"crop": 60, "stride": 30, "short_side": 96, "logit_scale": 50.0, "prob_threshold": 0.65},
    "naclip": {"crop": 64, "stride": 32, "short_side": 96, "logit_scale": 40.0, "prob_threshold": 0.5},
}
"""The settings of the golden cases."""
SLICE = Path(__file__).parents[1] / "data" / "golden" / "clip"
"""The last block alone: tests/data/golden/README.md."""
PLAIN = Vocabulary.of(list("vwxyz"))
DENSE = ("clip", "maskclip", "sclip", "clearclip", "naclip")


ON_MINI = (*DENSE, "resclip", "scclip", "corrclip")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tiny_clip(tmp_path_factory.mktemp("clip"))


def photo(h: int, w: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (h, w, 3), dtype=np.uint8)


@pytest.mark.parametrize("name", OFFICIAL)
@pytest.mark.parametrize("shape", ["square", "wide"])
def test_features_and_logits_are_the_official_ones(name, shape):
    arrays, _ = golden(name)
    method, pixels = method_on(name, "clip-tiny"), torch.from_numpy(arrays[f"{shape}_pixels"])
    features = method.features(pixels).flatten(0, 2)
    assert error(features, unit(arrays[f"{shape}_features"]).numpy()) < CLOSE
    assert error(method.logits(pixels, torch.from_numpy(arrays["text"]))[0], arrays[f"{shape}_logits"]) < CLOSE


@pytest.mark.parametrize("name", OFFICIAL)
def test_sliding_windows_are_the_official_ones(name):
    arrays, case = golden(name)
    method = method_on(name, "clip-tiny", **OFFICIAL[name])
    pixels = method.prepare(arrays["photo"])
    mean, std = (torch.tensor(case[key])[:, None, None] for key in ("mean", "std"))
    assert torch.equal(pixels, (torch.from_numpy(arrays["resized"]).permute(2, 0, 1) - mean) / std)
    assert error(slide(method, arrays), arrays["slide_logits"]) < CLOSE


@pytest.mark.parametrize(
    ("name", "labels", "changes"),
    [
        ("sclip", "labels", {}),
        ("sclip", "noarea_labels", {"area_threshold": 0.0}),
        ("sclip", "whole_labels", {"area_threshold": 0.0, "crop": 0}),
        ("clearclip", "labels", {}),
        ("naclip", "labels", {}),
        ("naclip", "nopamr_labels", {"refiners": ()}),
        ("naclip", "nopamr_labels", {"pamr_iterations": 0}),
        ("naclip", "whole_labels", {"crop": 0}),
    ],
)
def test_label_maps_are_the_official_ones(name, labels, changes):
    arrays, _ = golden(name)
    method = method_on(name, "clip-tiny", **OFFICIAL[name] | changes)
    result = segment(method, arrays["photo"], arrays["text"], CLASSES)
    assert result.classes == ("background", "one", "two", "three", "four")
    assert differing(result, arrays[labels]) <= FEW_PIXELS


@pytest.mark.parametrize("name", OFFICIAL)
def test_label_maps_without_a_background_are_the_official_ones(name):
    arrays, _ = golden(name)
    method = method_on(name, "clip-tiny", **OFFICIAL[name] | {"background": "never", "area_threshold": 0.0})
    result = segment(method, arrays["photo"], arrays["text"][:5], PLAIN)
    assert result.classes == PLAIN.classes
    assert differing(result, arrays["plain_labels"]) <= FEW_PIXELS


def test_pamr_is_the_official_one():
    arrays, _ = golden("naclip")
    method = method_on("naclip", "clip-tiny", **OFFICIAL["naclip"], background="never")
    scores = segment(method, arrays["photo"], arrays["text"], Vocabulary.of(list("abcdefgh"))).scores
    official = (40 * torch.from_numpy(arrays["pamr_logits"])).softmax(0)
    assert error(scores, official.numpy()) < 10 * CLOSE  # 40 times the error of the cosines


MODES = [
    ("sclip", "", "sclip", True),
    ("clearclip", "_vanilla_residual", "clip", True),
    ("clearclip", "_vanilla_noresidual", "clip", False),
    ("clearclip", "_MaskCLIP_residual", "maskclip", True),
    ("clearclip", "_MaskCLIP_noresidual", "maskclip", False),
    ("clearclip", "_SCLIP_residual", "sclip", True),
    ("clearclip", "_SCLIP_noresidual", "sclip", False),
    ("clearclip", "_ClearCLIP_residual", "clearclip", True),
    ("clearclip", "_ClearCLIP_noresidual", "clearclip", False),
    ("naclip", "_reduced_naclip", "naclip", False),
    ("naclip", "_vanilla_naclip", "naclip", True),
    ("naclip", "_reduced_vanilla", "clip", False),
    ("naclip", "_vanilla_vanilla", "clip", True),
    ("naclip", "_vanilla_csa", "sclip", True),
]
"""Repository, the mode it names, and the method and residual connection that are that mode here."""


@pytest.mark.parametrize(("golden_name", "key", "name", "residual"), MODES)
def test_the_modes_of_other_repositories_are_ours(monkeypatch, golden_name, key, name, residual):
    arrays, _ = golden(golden_name)
    method = method_on(name, "clip-tiny", residual=residual)
    monkeypatch.setattr(type(method), "by_size", False)  # their MaskCLIP has the positions of the others
    logits = method.logits(torch.from_numpy(arrays["wide_pixels"]), torch.from_numpy(arrays["text"]))
    assert error(logits[0], arrays[f"wide_logits{key}"]) < CLOSE


@pytest.mark.parametrize(("golden_name", "key", "name", "residual"), MODES)
def test_the_last_block_gives_the_official_logits(golden_name, key, name, residual):
    with np.load(SLICE / "official.npz") as stored:
        arrays = {part: torch.from_numpy(stored[f"{golden_name}_{part}"]) for part in ("tokens", "text", "features")}
        official = stored[f"{golden_name}{key or '_logits'}"]
    method, pixels = method_on(name, SLICE, residual=residual, crop=0), torch.empty(1, 3, 6, 8)  # a patch is a pixel
    method.clip.embed = lambda pixels, by_size: arrays["tokens"][None]
    assert error(method.logits(pixels, arrays["text"])[0], official) < CLOSE
    if name == golden_name and residual == (name == "sclip"):
        assert error(method.features(pixels).flatten(0, 2), unit(arrays["features"].numpy()).numpy()) < CLOSE


@pytest.fixture(params=["official", "quickgelu", "gelu"])
def maskclip(request, tmp_path) -> tuple[str, Path, dict[str, bool]]:
    """The golden model with the activation and epsilon of a variant: the official code has others than its weights.

    They are in its configuration, or in the setting "gelu".
    """
    source = shared("golden/peers/clip-tiny")
    settings = json.loads((source / "config.json").read_text())
    if request.param == "official":
        settings["vision_config"] |= {"hidden_act": "gelu", "layer_norm_eps": 1e-6}
    shutil.copyfile(source / "model.safetensors", tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(settings))
    gelu = request.param == "gelu"
    return "official" if gelu else request.param, tmp_path, {"gelu": gelu}


@pytest.mark.parametrize(
    ("suffix", "settings"),
    [
        ("", {}),
        ("_ks", {"key_smoothing": 0.8}),
        ("_pd", {"prompt_denoising": 0.9}),
        ("_kspd", {"key_smoothing": 0.8, "prompt_denoising": 0.9}),
    ],
)
def test_maskclip_is_the_official_one(maskclip, suffix, settings):
    (variant, folder, more), (arrays, _) = maskclip, golden("maskclip")
    method = method_on("maskclip", folder, short_side=96, background="never", **settings, **more)
    text = torch.from_numpy(arrays["text"])
    logits = method.logits(torch.from_numpy(arrays["wide_pixels"]), text)[0]
    assert error(logits, arrays[f"{variant}_wide_logits{suffix}"]) < CLOSE
    result = segment(method, arrays["photo"], arrays["text"], Vocabulary.of(list("abcdef")))
    assert differing(result, arrays[f"{variant}_labels{suffix}"]) <= FEW_PIXELS
    if not suffix:
        pixels = torch.from_numpy(arrays["square_pixels"])
        assert error(method.features(pixels).flatten(0, 2), unit(arrays[f"{variant}_square_features"]).numpy()) < CLOSE
        assert error(method.logits(pixels, text)[0], arrays[f"{variant}_square_logits"]) < CLOSE
    if (variant, suffix) == ("official", ""):
        picture = method.slide(method.prepare(arrays["photo"])[None], text)
        at_photo = torch.nn.functional.interpolate(picture, size=arrays["photo"].shape[:2], mode="bilinear")
        assert error(at_photo[0], arrays["official_whole_logits"]) < CLOSE


@pytest.mark.parametrize("name", DENSE)
def test_a_batch_is_as_its_photos_one_by_one(folder, name):
    photos, names = [photo(40, 70), photo(50, 45, 1), photo(40, 70, 2)], [["dog"], ["cat", "tree"], ["sky", "dog"]]
    method = load_method(name, folder, device="cpu", short_side=48, crop=32, stride=16)
    segmenter = Segmenter(method)
    for single, one in zip(map(segmenter, photos, names), segmenter(photos, names), strict=True):
        assert single.classes == one.classes
        np.testing.assert_allclose(one.scores, single.scores, atol=1e-5)
        np.testing.assert_allclose(one.salience, single.salience, atol=1e-5)


@pytest.mark.parametrize("name", DENSE)
def test_presets_have_the_published_settings(name):
    assert METHODS[name].presets[f"{name}/voc20"] == resolve_config("clip-base", f"{name}/voc20", method=name)
    assert resolve_config("clip-base", "voc20", method=name).background == "never"
    assert resolve_config(None, method=name) == METHODS[name].presets[f"{name}/voc21"]
    assert resolve_config("mini-clip", method=name) == METHODS[name].presets[f"{name}/mini"]
    if name in ("sclip", "clearclip", "naclip"):  # Context60's class file has the word itself
        assert resolve_config("clip-base", "context60", method=name).background_words == ("background",)
    words = resolve_config("clip-base", "voc21", method=name).background_words
    assert len(words) == (1 if name == "clearclip" else 26)
    with pytest.raises(ConfigError, match=f"no preset 'released'; the presets are {name}/voc21, "):
        resolve_config("clip-base", "released", method=name)


def test_the_published_settings_of_sclip():
    config = resolve_config("clip-base", "sclip/voc21", method="sclip")
    sizes = config.short_side, config.long_side, config.crop, config.stride
    assert sizes == (336, 2048, 224, 112)
    assert (config.logit_scale, config.prob_threshold, config.area_threshold) == (65, 0.1, 0.1)
    assert (config.templates, config.refiners, len(config.background_words)) == (("imagenet",), (), 26)


@pytest.mark.parametrize("name", ["sclip", "maskclip"])
def test_a_checkpoint_without_a_tokenizer_serves_where_vectors_of_words_are_given(folder, tmp_path, name):
    for file in ("config.json", "model.safetensors"):
        shutil.copyfile(folder / file, tmp_path / file)
    method = load_method(name, tmp_path, device="cpu")
    logits = method.logits(torch.zeros(1, 3, 32, 40), torch.eye(8)[:2])
    assert logits.shape == (1, 2, 4, 5)
    with pytest.raises(ModelError, match="expected a tokenizer.json"):
        Segmenter(method)(photo(9, 9), ["dog"])


def test_pamr_on_a_large_photo_is_at_max_pixels(folder, monkeypatch):
    sizes = []
    method = load_method("naclip", folder, device="cpu", short_side=32, max_pixels=800)
    monkeypatch.setattr(method, "scores", lambda maps, size, own=method.scores: sizes.append(size) or own(maps, size))
    assert Segmenter(method)(photo(40, 80), ["dog"]).labels.shape == (40, 80)
    assert sizes == [(20, 40)]


@pytest.mark.parametrize("name", ON_MINI)
def test_bfloat16_leaves_nearly_all_labels_of_drawn_scenes(name):
    exact, half = (Segmenter(load_method(name, "mini-clip", "cpu", dtype)) for dtype in ("float32", "bfloat16"))
    scenes = [draw(TUNE_SEED, index, 224) for index in range(2)]
    equal = [exact(scene.image, scene.things).labels == half(scene.image, scene.things).labels for scene in scenes]
    assert np.mean(equal) > 0.995


@pytest.mark.parametrize(
    ("name", "settings", "dtype"),
    [
        *((name, {}, torch.bfloat16) for name in ("clip", "maskclip", "sclip")),
        *((name, {}, torch.float32) for name in ("clearclip", "naclip")),
        ("sclip", {"residual": False}, torch.float32),
        ("naclip", {"residual": True}, torch.bfloat16),
        ("resclip", {"rcs_start_idx": 0, "rcs_end_idx": 1}, torch.float32),
    ],
)
def test_a_cpu_takes_bfloat16_by_itself_where_labels_were_seen_to_stay(folder, monkeypatch, name, settings, dtype):
    monkeypatch.setattr(loading, "LARGE", 0)
    monkeypatch.setattr(loading, "has_bfloat16", lambda: True)
    assert load_method(name, folder, "cpu", **settings).clip.dtype == dtype
    assert load_method(name, folder, "cpu", "bfloat16", **settings).clip.dtype == torch.bfloat16
    monkeypatch.setattr(loading, "has_bfloat16", lambda: False)
    assert load_method(name, folder, "cpu", **settings).clip.dtype == torch.float32


def test_float32_is_asked_for_a_cpu_alone():
    careful, sure = NaclipConfig(residual=False), NaclipConfig()
    assert [careful.dtype_for("cpu", dtype) for dtype in ("auto", "bfloat16")] == ["float32", "bfloat16"]
    assert sure.dtype_for("cpu", "auto") == careful.dtype_for("meta", "auto") == "auto"
