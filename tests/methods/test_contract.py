"""What every entry of METHODS has to keep, whatever it is: a new one is tested here by its line in the table."""

from dataclasses import fields
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import ViTConfig, ViTModel

from pnp_ovss import ConfigError, InputError, ModelError, Segmenter, load_method
from pnp_ovss.methods import METHODS
from released import write_released
from tiny import tiny_blip, tiny_clip, tiny_groupvit, write_random

NAMES = ["dog", "traffic light", "cat"]
OWN: dict[str, dict[str, Any]] = {
    "scclip": {"pre_adjust_idx": 0, "post_adjust_idx": 0, "multi_start_idx": 0, "multi_end_idx": 1, "n_neighbors": 3},
    "resclip": {"rcs_start_idx": 0, "rcs_end_idx": 1, "long_side": 256},  # PAMR in every window takes its time
    "proxyclip": {"beta": 1.0, "gamma": 100.0},  # random patches are much alike
    "corrclip": {"num_spatial": 0, "regions": "watershed", "regions_size": 0.3},
    "reco": {"retrieved": 3, "photo_side": 64, "context": ("tree", "sky")},
}
"""Settings of a method that fit the tiny models."""
PARTS = {"proxy": "dino", "masker": "masker", "archive": "archive", "dense": "dense", "encoder": "encoder"}
"""Settings that name what a method needs beside its model."""


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, Path]:
    """A tiny checkpoint of random weights for each model that a method may take from the box."""
    root = tmp_path_factory.mktemp("models")
    sizes = {"hidden_size": 12, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 32, "patch_size": 8}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        dino = write_random(root / "dino", ViTModel(ViTConfig(**sizes), add_pooling_layer=False))
    return {
        "mini-blip": tiny_blip(root / "blip"),
        "mini-clip": tiny_clip(root / "clip"),
        "dino": dino,
        "groupvit-yfcc": tiny_groupvit(root / "groupvit"),
        "clip-base": tiny_clip(root / "other-clip", seed=3),
        "clip-large-336": root / "clip",
        "archive": write_archive(root / "archive"),
        **write_released(root),
    }


def write_archive(folder: Path) -> Path:
    """Write a few photos to a folder, and return it."""
    folder.mkdir()
    for seed in range(6):
        Image.fromarray(photo(40 + seed, 50, seed)).save(folder / f"{seed}.png")
    return folder


def checkpoint(name: str, folders: dict[str, Path]) -> Path:
    """Return the tiny model that a method gets in place of its own."""
    return folders[METHODS[name].mini or METHODS[name].checkpoint]


@pytest.fixture(params=list(METHODS))
def name(request) -> str:
    return request.param


def make(name: str, folders: dict[str, Path], dtype: str = "float32", **settings: Any) -> Segmenter:
    """Return a segmenter by this method: no refinement, small windows, no class left out for its size."""
    known = {entry.name for entry in fields(METHODS[name].config)}
    small = {"refiners": (), "short_side": 48, "crop": 32, "stride": 16, "area_threshold": 0.0, "layer": 0, "head": 1}
    chosen = {key: value for key, value in small.items() if key in known} | OWN.get(name, {}) | settings
    return load(name, checkpoint(name, folders), dtype, tuple((chosen | parts(name, folders)).items()))


def parts(name: str, folders: dict[str, Path]) -> dict[str, Path]:
    """Return the further folders that a method needs, by the settings that name them."""
    return {key: folders[PARTS[key]] for key in PARTS if key in {entry.name for entry in fields(METHODS[name].config)}}


@cache
def load(name: str, folder: Path, dtype: str, settings: tuple[tuple[str, Any], ...]) -> Segmenter:
    """Loading takes longer than the photos of these tests."""
    return Segmenter(load_method(name, folder, device="cpu", dtype=dtype, **dict(settings)))


def photo(h: int, w: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (h, w, 3), dtype=np.uint8)


def test_it_says_what_it_is(name, folders):
    method = make(name, folders).method
    assert method.name == name
    assert method.model
    assert method.revision.startswith("local-")
    assert METHODS[name].about
    assert METHODS[name].source


@pytest.mark.parametrize(("h", "w"), [(40, 72), (72, 40), (20, 1), (1, 20), (1, 1)])
def test_photos_of_any_shape_have_labels_of_their_size(name, folders, h, w):
    result = make(name, folders)(photo(h, w), NAMES)
    assert result.labels.shape == (h, w)
    assert result.scores.shape == (len(result.classes), h, w)
    assert np.isfinite(result.scores).all()
    assert result.salience.shape[0] == len(NAMES)
    assert result.labels.max() < len(result.classes)


def test_classes_come_in_the_order_given(name, folders):
    result = make(name, folders)(photo(40, 60), NAMES)
    assert result.classes in (tuple(NAMES), ("background", *NAMES))


def test_a_patch_that_changes_is_found_where_it_is(name, folders):
    # Rows are not columns, nothing is mirrored: the map changes most where the photo does.
    segmenter = make(name, folders, **({} if name == "pnp" else {"crop": 0, "short_side": 32}))
    plain = np.full((32, 48, 3), 120, dtype=np.uint8)
    marked = plain.copy()
    marked[2:8, 34:47] = (255, 0, 40)  # at the top, towards the right
    before, after = (segmenter(picture, ["dog", "cat"]).salience for picture in (plain, marked))
    change = np.abs(after - before).sum(0)
    row, column = np.unravel_index(change.argmax(), change.shape)
    assert row < change.shape[0] / 2
    assert column >= change.shape[1] / 2


def test_a_class_has_the_largest_score_of_its_words(name, folders):
    votes = {"map_correction": False} if name == "corrclip" else {}  # which class wins in a region depends on all
    segmenter, picture = make(name, folders, background="never", **votes), photo(40, 60)
    alone = segmenter(picture, ["dog", "cat", "bird"]).scores
    together = segmenter(picture, {"animal": ["dog", "cat"], "bird": ["bird"]}).scores
    np.testing.assert_allclose(together, np.stack([alone[:2].max(0), alone[2]]), atol=1e-6)


def test_photos_of_a_batch_do_not_see_each_other(name, folders):
    photos, classes = [photo(40, 70), photo(50, 45, 1), photo(40, 70, 2)], [["dog"], ["cat", "tree"], ["sky", "dog"]]
    segmenter = make(name, folders)
    for single, one in zip(map(segmenter, photos, classes), segmenter(photos, classes), strict=True):
        assert single.classes == one.classes
        np.testing.assert_allclose(one.scores, single.scores, atol=1e-5)
        np.testing.assert_allclose(one.salience, single.salience, atol=1e-5)


def test_two_runs_are_equal(name, folders):
    first = make(name, folders)(photo(40, 60), NAMES)
    load.cache_clear()
    second = make(name, folders)(photo(40, 60), NAMES)
    np.testing.assert_array_equal(first.labels, second.labels)
    np.testing.assert_array_equal(first.scores, second.scores)


def test_half_precision_is_close(name, folders):
    exact, half = (make(name, folders, dtype)(photo(40, 60), NAMES) for dtype in ("float32", "bfloat16"))
    assert half.scores.dtype == np.float32
    assert np.isfinite(half.scores).all()
    scale = np.abs(exact.salience).max()
    assert np.abs(half.salience - exact.salience).mean() < 0.1 * scale


def test_work_can_be_cancelled_between_steps(name, folders):
    class Stop(Exception):
        pass

    def stop(step: str, done: int, total: int) -> None:
        raise Stop

    with pytest.raises(Stop):
        make(name, folders)(photo(40, 60), NAMES, on_step=stop)


def test_what_cannot_be_is_one_line(name, folders):
    with pytest.raises(ConfigError, match="no setting 'colour'"):
        make(name, folders, colour=1)
    with pytest.raises(ConfigError, match="no preset 'voc2'"):
        load_method(name, checkpoint(name, folders), device="cpu", preset="voc2")
    with pytest.raises(ModelError, match="nowhere"):
        load_method(name, Path("nowhere"), device="cpu", **parts(name, folders))
    with pytest.raises(InputError, match="at least one class name"):
        make(name, folders)(photo(9, 9), [])
    with pytest.raises(InputError, match="named twice"):
        make(name, folders)(photo(9, 9), ["dog", "Dog"])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_gives_the_same(name, folders):
    segmenter = make(name, folders)
    on_gpu = load_method(name, checkpoint(name, folders), device="cuda", **vars(segmenter.config))
    ours, theirs = segmenter(photo(40, 60), NAMES), Segmenter(on_gpu)(photo(40, 60), NAMES)
    np.testing.assert_allclose(theirs.salience, ours.salience, atol=1e-3 * np.abs(ours.salience).max())
