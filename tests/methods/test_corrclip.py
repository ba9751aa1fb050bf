"""CorrCLIP against the official code."""

import numpy as np
import pytest
import torch

from peers import differing, error, golden, method_on, segment, slide, unit
from pnp_ovss import ConfigError, Segmenter, Vocabulary, load_method
from pnp_ovss.methods.corrclip import correct, merge, region_attention
from pnp_ovss.mini import HELD_OUT_SEED, draw
from pnp_ovss.regions import find_regions
from pnp_ovss.regions.folder import keep_regions
from shared import shared
from tiny import tiny_clip

OFFICIAL = {"crop": 112, "stride": 56, "short_side": 112, "logit_scale": 40.0, "prob_threshold": 0.4}
CLASSES = Vocabulary({"background": ("a", "b", "c"), "one": ("d",), "two": ("e",), "three": ("f",)})
"""The classes of the golden queries."""


def on_goldens(**changes):
    return method_on("corrclip", "clip-deep", proxy=shared("golden/peers/dino-tiny"), **OFFICIAL | changes)


def with_masks(method, pixels: np.ndarray, masks: np.ndarray) -> torch.Tensor:
    """Return pixels with the golden masks, where 0 is none."""
    return method.with_regions(torch.from_numpy(pixels), masks.astype(np.int32) - 1)[None]


@pytest.mark.parametrize("shape", ["square", "wide"])
def test_proxies_features_and_logits_are_the_official_ones(shape):
    arrays, _ = golden("corrclip")
    method = on_goldens()
    pixels = with_masks(method, arrays[f"{shape}_pixels"][0], arrays[f"{shape}_masks"])
    proxies = method.proxy.encode_queries_and_keys(method._renormalised(pixels[:, :3])).flatten(0, 2)
    assert error(unit(proxies.numpy()), arrays[f"{shape}_proxy"]) < 1e-5
    assert error(method.features(pixels).flatten(0, 2), unit(arrays[f"{shape}_features"]).numpy()) < 1e-5
    assert error(method.logits(pixels, torch.from_numpy(arrays["text"]))[0], arrays[f"{shape}_logits"]) < 1e-5


def test_windows_and_label_maps_are_the_official_ones(tmp_path):
    arrays, _ = golden("corrclip")
    keep_regions(tmp_path, arrays["photo"], arrays["masks"].astype(np.int32) - 1)
    method = on_goldens(regions="folder", regions_folder=str(tmp_path))
    pixels = with_masks(method, method.prepare(arrays["photo"]).numpy(), arrays["masks"])
    assert error(slide(method, arrays, pixels), arrays["slide_logits"]) < 1e-5
    assert differing(segment(method, arrays["photo"], arrays["text"], CLASSES), arrays["labels"]) <= 0.001


UNIT = torch.tensor([[1.0, 0.0], [0.8, 0.6], [0.28, 0.96], [0.0, 1.0], [-1.0, 0.0]])
"""Neighbours have cosines of 0.8, 0.8, 0.96 and 0."""


def test_regions_are_one_where_a_chain_of_like_ones_leads_from_one_to_the_other():
    numbers = torch.tensor([4, 7, 9, 2, -1])
    assert merge(UNIT, numbers, 0.1).tolist() == [3, 4, 2, 2, 0]  # in the order of their numbers, 2, 4, 7, 9
    assert merge(UNIT, numbers, 0.201).tolist() == [2, 2, 2, 2, 0]
    assert merge(UNIT, torch.tensor([1, 1, 0, -1, 2]), 0.2).tolist() == [2, 2, 1, 0, 3]  # 0: outside of the photo
    assert merge(UNIT, torch.tensor([-1] * 5), 0.2).tolist() == [0] * 5


def test_a_region_counts_by_the_mean_of_its_patches():
    numbers = torch.tensor([1, 1, 2, 3, 3])  # means in the directions of (1.8, 0.6), (0.28, 0.96) and (-1, 1)
    assert merge(UNIT, numbers, 0.44).tolist() == [2, 2, 2, 3, 3]
    assert merge(UNIT, numbers, 0.42).tolist() == [2, 2, 3, 4, 4]


def test_patches_attend_inside_their_region_and_bare_ones_to_what_is_like_them():
    merged = torch.tensor([[2, 2, 3, 0, 1]])
    attention = region_attention(UNIT[None], merged, 4.0)[0]
    likeness = UNIT @ UNIT.T
    mean = float(likeness.mean())  # 0.3648
    counts = torch.eye(5, dtype=torch.bool)
    counts[0, 1] = counts[1, 0] = True
    for other in (0, 1, 2):
        counts[3, other] = counts[other, 3] = likeness[3, other] > mean
    assert counts[3].tolist() == [False, True, True, True, False]
    expected = (4 * likeness).exp() * counts
    torch.testing.assert_close(attention, expected / expected.sum(1, keepdim=True))


def test_where_all_look_the_same_and_nothing_is_covered_patches_keep_to_themselves():
    same = torch.ones(1, 3, 1)
    torch.testing.assert_close(region_attention(same, torch.zeros(1, 3, dtype=torch.long), 4.0), torch.eye(3)[None])


def test_a_region_takes_the_label_that_most_of_its_pixels_have():
    scores = torch.tensor([[0.1, 0.2, 0.5, 0.6], [0.7, 0.1, 0.3, 0.3], [0.2, 0.7, 0.2, 0.1]])[:, None]
    regions = torch.tensor([[0, 0, 0, -1]])
    owners = [0, 1, 1]  # the last two are words of one class
    before = scores.clone()
    correct(scores, owners, regions)
    assert scores[:, 0, :2].equal(before[:, 0, :2])
    assert scores[:, 0, 2].tolist() == pytest.approx([0.3, 0.5, 0.2])  # the best word of the class has the best score
    assert scores[:, 0, 3].equal(before[:, 0, 3])


def test_of_labels_that_are_as_frequent_the_lowest_is_taken():
    scores = torch.tensor([[0.2, 0.6], [0.8, 0.4]])[:, None]
    correct(scores, [0, 1], torch.tensor([[0, 0]]))
    assert scores.argmax(0).tolist() == [[0, 0]]


def test_without_a_proxy_on_drawn_scenes_each_region_has_one_label():
    scene = draw(HELD_OUT_SEED, 0, 112)
    segmenter = Segmenter.from_pretrained("mini-clip", method="corrclip", device="cpu")
    result = segmenter(scene.image, scene.things)
    regions = find_regions(scene.image, segmenter.config)
    assert all(len(np.unique(result.labels[regions == number])) == 1 for number in range(regions.max() + 1))
    assert len(np.unique(result.labels)) > 1
    pixels = segmenter.method.prepare(scene.image)[None]
    queries = torch.eye(segmenter.method.clip.encode_words(["cat"], ["{}"]).shape[1])[:2]
    assert segmenter.method.logits(pixels, queries).shape == (1, 2, 14, 14)  # regions of the pixels themselves


def test_what_cannot_be_used_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="no source of regions 'nowhere'; the sources are watershed"):
        load_method("corrclip", "no-such/clip", regions="nowhere")
    with pytest.raises(ConfigError, match="expected num_spatial up to 0, the blocks of .* got 5"):
        load_method("corrclip", tiny_clip(tmp_path), device="cpu", proxy="clip")
