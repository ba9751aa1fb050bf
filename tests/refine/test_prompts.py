"""Class maps that prompt SAM."""

import numpy as np
import pytest
import torch

from pnp_ovss import Config, Segmenter, refine
from pnp_ovss.models.sam import load_sam
from pnp_ovss.refine.prompts import Prompts, find_prompts, replace_masks
from tiny import tiny_sam


def test_prompts_are_the_peak_and_the_box_of_where_a_class_is_the_largest():
    scores = torch.zeros(4, 4, 5)
    scores[0] = 0.5  # the background
    scores[1, 1:3, 1:4] = 0.6
    scores[1, 2, 3] = 0.9
    scores[2] = 0.4  # nowhere the largest
    scores[3, 0, 0] = 0.5  # as large as the background: no peak
    peaks, boxes, there = find_prompts(scores, first=1)
    assert (peaks.tolist(), boxes.tolist(), there.tolist()) == ([[3, 2]], [[1, 1, 3, 2]], [False, True, False, False])
    assert not find_prompts(torch.zeros(2, 3, 3), first=0)[2].any()


def test_masks_take_the_place_of_the_classes_that_have_a_peak():
    there, masks = torch.tensor([False, True, False]), torch.tensor([[[True, True, False, False]]])
    scores = torch.tensor([[[0.0, 1.0, 0.0, 0.3]], [[0.2, 0.0, 0.8, 0.0]], [[0.1, 0.1, 0.1, 0.1]]])
    replace_masks(scores, masks, there, first=1)
    expected = torch.tensor([[[0.0, 0.0, 0.0, 0.3]], [[0.5, 0.4, 0.0, 0.0]], [[0.1, 0.1, 0.1, 0.1]]])
    assert torch.allclose(scores, expected)


def test_without_a_background_what_no_mask_covers_keeps_its_order():
    scores = torch.tensor([[[0.8, 0.2, 0.6, 0.0]], [[0.1, 0.6, 0.5, 0.1]]])
    masks = torch.tensor([[[True, True, False, False]], [[False, True, False, False]]])
    replace_masks(scores, masks, torch.tensor([True, True]), first=0)
    expected = torch.tensor([[[0.8, 0.5, 0.3, 0.0]], [[0.0, 0.6, 0.25, 0.05]]])
    assert torch.allclose(scores, expected)


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> str:
    return str(tiny_sam(tmp_path_factory.mktemp("sam")))


def test_each_class_gets_the_mask_that_sam_has_for_its_peak_and_box(model):
    photo = np.random.default_rng(0).integers(0, 255, (24, 32, 3)).astype(np.uint8)
    scores = torch.zeros(1, 2, 24, 32)
    scores[0, 0] = 0.2
    scores[0, 1, 5:15, 8:20] = 0.5
    scores[0, 1, 9, 12] = 1
    sam, box = load_sam(model, device="cpu"), torch.tensor([[8.0, 5, 19, 14]])
    mask = sam.masks(sam.embed(photo), torch.tensor([[[12.0, 9]]]), torch.ones(1, 1, dtype=torch.long), box)[0]
    refined = Prompts(model).with_background(scores, torch.from_numpy(photo)[None])
    assert 0 < mask.mean() < 1
    assert ((refined[0, 1] > 0).numpy() == mask).all()
    assert ((refined[0, 0] == 0).numpy() == mask).all()
    assert scores[0, 1].sum() > 50  # what came in is as it was


def test_a_segmenter_refines_by_prompts_and_by_regions(model, tiny_blip_folder):
    photo, settings = np.full((16, 16, 3), 90, np.uint8), {"layer": 1, "head": 1, "drop": 2, "passes": 2}
    settings |= {"prompts_model": model, "refiners": ("regions", "prompts")}
    result = Segmenter.from_pretrained(tiny_blip_folder, device="cpu", **settings)(photo, ["dog"])
    assert result.labels.shape == (16, 16)


def test_prompts_are_a_refiner_like_any_other(model):
    photo, maps = np.full((16, 16, 3), 90, np.uint8), np.zeros((2, 2, 2), np.float32)
    maps[0, 0, 0] = maps[1, 1, 1] = 1
    config = Config(refiners=("prompts",), prompts_model=model)
    labels, scores = refine(maps, photo, config)
    assert labels.shape == (16, 16)
    assert 0 <= scores.min() < scores.max() <= 1
    nothing = refine(np.zeros((1, 2, 2), np.float32), photo, config)[0]
    assert not nothing.any()
