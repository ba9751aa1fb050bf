"""SC-CLIP against the official code."""

import numpy as np
import pytest
import torch

from peers import CLASSES, differing, error, golden, method_on, segment, slide, unit
from pnp_ovss import ConfigError, load_method
from pnp_ovss.methods.scclip import find_outliers, heal, outlier_factors, together
from tiny import tiny_clip

OFFICIAL = {"crop": 96, "stride": 48, "short_side": 112, "logit_scale": 40.0, "prob_threshold": 0.5}
OFFICIAL |= {"area_threshold": 0.1}


@pytest.mark.parametrize("shape", ["square", "big"])
def test_outliers_features_and_logits_are_the_official_ones(shape):
    arrays, _ = golden("scclip")
    method, pixels = method_on("scclip", "clip-deep"), torch.from_numpy(arrays[f"{shape}_pixels"])
    with torch.no_grad():
        patches = method.clip.run(method.clip.embed(pixels), 0, 11)[:, 1:]
    assert error(outlier_factors(patches, 30)[0], arrays[f"{shape}_lof"]) < 1e-5
    found = find_outliers(patches, 30, 0.05)[0].nonzero().ravel()
    np.testing.assert_array_equal(found, np.sort(arrays[f"{shape}_outliers"]))
    assert error(method.features(pixels).flatten(0, 2), unit(arrays[f"{shape}_features"]).numpy()) < 1e-5
    assert error(method.logits(pixels, torch.from_numpy(arrays["text"]))[0], arrays[f"{shape}_logits"]) < 1e-5


def test_windows_and_label_maps_are_the_official_ones():
    arrays, _ = golden("scclip")
    method = method_on("scclip", "clip-deep", **OFFICIAL)
    assert error(slide(method, arrays), arrays["slide_logits"]) < 1e-5
    assert differing(segment(method, arrays["photo"], arrays["text"], CLASSES), arrays["labels"]) <= 0.001


def test_an_outlier_becomes_the_mean_of_its_sound_neighbours():
    patches = torch.arange(12.0).view(1, 12, 1)  # 3 rows of 4
    outliers = torch.zeros(1, 12, dtype=torch.bool)
    outliers[0, [0, 1]] = True
    healed = heal(patches, outliers, (3, 4))
    expected = patches.clone()
    expected[0, 0], expected[0, 1] = (4 + 5) / 2, (2 + 4 + 5 + 6) / 4
    torch.testing.assert_close(healed, expected)
    everything = torch.ones(1, 12, dtype=torch.bool)
    torch.testing.assert_close(heal(patches, everything, (3, 4)), patches)  # nothing sound to take


def test_like_patches_come_together():
    patches = torch.tensor([[[1.0], [3.0], [10.0]]])
    likeness = torch.tensor([[[1.0, 0.5, 0.3], [0.5, 1.0, 0.3], [0.3, 0.3, 1.0]]])
    torch.testing.assert_close(together(patches, likeness, 0.4).ravel(), torch.tensor([5 / 3, 7 / 3, 10.0]))


def test_equal_or_single_patches_have_no_outlier():
    assert not find_outliers(torch.ones(2, 9, 3), 30, 0.05).any()
    assert not find_outliers(torch.ones(1, 1, 3), 30, 0.05).any()


def test_blocks_that_are_not_there_are_refused(tmp_path):
    with pytest.raises(
        ConfigError, match="expected blocks before the last one of .*, from 0 to 0, got settings up to 9"
    ):
        load_method("scclip", tiny_clip(tmp_path), device="cpu")
