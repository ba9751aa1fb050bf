"""ResCLIP against the official code."""

from pathlib import Path

import numpy as np
import pytest
import torch

from peers import CLASSES, differing, error, golden, method_on, segment, slide
from pnp_ovss import ConfigError, load_method
from pnp_ovss.methods import METHODS, resclip
from pnp_ovss.methods.resclip import feedback_map, first_labels
from pnp_ovss.methods.windows import interpolation
from tiny import tiny_clip

OFFICIAL = {"crop": 96, "stride": 48, "short_side": 112, "logit_scale": 40.0, "prob_threshold": 0.65}
OFFICIAL |= {"feedback_threshold": 0.25, "rcs_share": 0.3, "sfr_scale": 2.1, "sfr_share": 0.7}


@pytest.mark.parametrize("shape", ["square", "wide"])
def test_both_passes_and_the_map_between_are_the_official_ones(shape):
    arrays, _ = golden("resclip")
    method, pixels = method_on("resclip", "clip-deep", **OFFICIAL), torch.from_numpy(arrays[f"{shape}_pixels"])
    text = torch.from_numpy(arrays["text"])
    first = torch.einsum("byxc,qc->bqyx", method.features(pixels), text)
    assert error(first[0], arrays[f"{shape}_first_logits"]) < 1e-5
    labels = first_labels(first, pixels, 16, 40.0, 0.25)
    np.testing.assert_array_equal(labels[0], arrays[f"{shape}_feedback"])
    official = arrays[f"{shape}_sfr"][1:, 1:]
    assert error(feedback_map(labels)[0], official / official.max()) < 1e-5
    assert error(method.logits(pixels, text)[0], arrays[f"{shape}_logits"]) < 1e-5


def test_the_map_of_equal_labels_is_the_official_one():
    with np.load(Path(__file__).parents[1] / "data/golden/clip/official.npz") as arrays:
        labels, official = torch.from_numpy(arrays["resclip_labels"]).long(), arrays["resclip_map"]
    assert error(feedback_map(labels[None])[0], official / official.max()) < 1e-5


def test_windows_and_label_maps_are_the_official_ones():
    arrays, _ = golden("resclip")
    method = method_on("resclip", "clip-deep", **OFFICIAL)
    assert error(slide(method, arrays), arrays["slide_logits"]) < 1e-5
    assert differing(segment(method, arrays["photo"], arrays["text"], CLASSES), arrays["labels"]) <= 0.001


def test_first_labels_are_the_most_frequent_of_a_patch_and_the_first_where_unsure():
    logits = torch.zeros(1, 3, 1, 2)
    logits[0, 2, 0, 0], logits[0, 1:, 0, 1] = 1, 0.5  # certain of 2 on the left, not sure on the right
    grey = torch.zeros(1, 3, 8, 16)
    grey[..., 8:] = 1  # nothing flows over the edge
    assert first_labels(logits, grey, 8, 40.0, 0.9).tolist() == [[[2, 0]]]


def test_the_grid_is_enlarged_to_all_of_a_picture_although_its_last_pixels_are_in_no_patch(monkeypatch):
    monkeypatch.setattr(resclip, "ITERATIONS", 0)
    logits = torch.tensor([[0.0, 0.0, 1.0], [0.75, 0.75, 0.75]])[None, :, None].expand(1, 2, 2, 3)
    labels = first_labels(logits, torch.zeros(1, 3, 16, 30), 8, 40.0, 0.0)
    assert labels.tolist() == [[[1, 1, 1]] * 2]  # 0 from column 22 on; from 18 on, if the grid were 24 pixels wide


def test_voc_is_seen_whole_and_enlarged_by_way_of_the_resized_picture(tmp_path):
    presets = METHODS["resclip"].presets
    whole = [name for name, config in presets.items() if not config.crop]
    assert whole == ["resclip/voc21", "resclip/voc20", "resclip/mini"]
    method = load_method("resclip", tiny_clip(tmp_path), device="cpu", crop=0, rcs_start_idx=0, rcs_end_idx=1)
    [rows, _] = method._axes(20, 20)
    [down, _] = method._matrices(torch.zeros(1, 2, 2), rows, rows, (31, 31))
    torch.testing.assert_close(down, interpolation(20, 31) @ interpolation(2, 20))


def blur(belongs):
    """Return the rows after a Gaussian of 5, in proportion to the largest value."""
    places = torch.arange(len(belongs))
    reach = len(belongs) // 2
    far = places[:, None] - places
    rows = belongs @ (torch.exp(-(far**2) / 50) * (far.abs() <= reach))
    shares = rows / rows.sum(1, keepdim=True)
    return shares / shares.max()


def test_patches_behind_another_label_belong_together_less():
    e = [float(torch.exp(torch.tensor(-d / 4))) for d in range(5)]
    labels = torch.tensor([[1, 1, 0, 1, 1]])
    belongs = torch.tensor(
        [
            [1, 1, 0, e[3], e[4]],
            [1, 1, 0, e[2], e[3]],
            [0, 0, 1, 0, 0],
            [e[3], e[2], 0, 1, 1],
            [e[4], e[3], 0, 1, 1],
        ]
    )
    torch.testing.assert_close(feedback_map(labels[None])[0], blur(belongs))


def test_lines_that_are_not_the_longest_are_walked_in_part():
    labels = torch.tensor([[[0, 0, 0, 0, 1, 0, 0, 0]]])
    places = torch.arange(8)
    belongs = torch.exp(-(places[:, None] - places).abs() / 7)
    belongs[:4, :4], belongs[5:, 5:] = 1, 1
    belongs[4], belongs[:, 4], belongs[4, 4] = 0, 0, 1
    for start, end in ((1, 5), (2, 5), (6, 3), (7, 3)):  # the walk ends before the 1
        belongs[start, end] = 1
    torch.testing.assert_close(feedback_map(labels)[0], blur(belongs))


def test_one_patch_belongs_to_itself():
    assert feedback_map(torch.zeros(2, 1, 1, dtype=torch.long)).tolist() == [[[1.0]], [[1.0]]]


def test_blocks_that_are_not_there_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="up to 1, the last block of .*, got 5 and 9"):
        load_method("resclip", tiny_clip(tmp_path), device="cpu")
