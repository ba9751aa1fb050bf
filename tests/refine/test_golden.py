"""The authors' refinement, run with pydensecrf: ours gives the same labels. Origins: tests/data/golden/README.md."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pnp_ovss import Config
from pnp_ovss.refine import refine
from pnp_ovss.refine.crf import dense_crf
from shared import SHARED, shared

SLICE = Path(__file__).parents[1] / "data" / "golden" / "refine"
CASES = sorted((SHARED / "golden" / "refine").glob("*.npz"))
NAN_CASE = "000000000154"  # the classes cover the whole photo: the released code divides 0 by 0 there


@pytest.mark.parametrize("case", sorted(SLICE.glob("0*.npz")), ids=lambda case: case.stem)
def test_labels_after_the_blur_are_those_of_the_released_code(case):
    with np.load(case) as arrays:
        maps, expected = arrays["class_maps"], arrays["labels_blur"]
    any_photo = np.zeros((*expected.shape, 3), np.uint8)
    labels, scores = refine(maps, any_photo, Config(refiners=("blur",)))
    assert np.isfinite(scores).all()
    if case.stem != NAN_CASE:
        assert (labels == expected).mean() >= 0.999
    else:
        assert labels.any()
        assert not expected.any()


def test_dense_crf_gives_the_labels_of_pydensecrf_on_a_drawn_scene():
    with np.load(SLICE / "pydensecrf.npz") as case:
        scores, image = torch.from_numpy(case["scores"])[None], torch.from_numpy(case["image"])[None]
        assert (dense_crf(scores, image).argmax(1)[0].numpy() == case["labels"]).mean() >= 0.999
        assert (scores.argmax(1)[0].numpy() == case["labels"]).mean() < 0.99


def load(case: Path) -> tuple[dict[str, np.ndarray], np.ndarray]:
    photo = Image.open(SHARED / "data" / "coco-dev" / "images" / f"{case.stem}.jpg").convert("RGB")
    return dict(np.load(case)), np.array(photo)


@pytest.mark.parametrize("case", [case for case in CASES if case.stem != NAN_CASE], ids=lambda case: case.stem)
@pytest.mark.parametrize(
    ("refiners", "stored"),
    [(("blur",), "labels_blur"), pytest.param(("blur", "crf"), "labels_blur_crf", marks=pytest.mark.slow)],
    ids=["blur", "blur-crf"],
)
def test_labels_are_those_of_the_released_code(case, refiners, stored):
    arrays, photo = load(case)
    labels, _ = refine(arrays["class_maps"], photo, Config(refiners=refiners))
    assert (labels == arrays[stored]).mean() >= 0.999


def test_dense_crf_gives_the_labels_of_pydensecrf_on_a_photo():
    case = shared("golden/refine/000000000488.npz")  # the smallest photo
    arrays, photo = load(case)
    labels, _ = refine(arrays["class_maps"], photo, Config())
    assert (labels == arrays["labels_blur_crf"]).mean() >= 0.999


def test_classes_that_cover_the_photo_leave_no_background():
    arrays, photo = load(shared(f"golden/refine/{NAN_CASE}.npz"))
    labels, scores = refine(arrays["class_maps"], photo, Config())
    assert np.isfinite(scores).all()
    overlap = [
        np.sum((labels == k) & (arrays["truth"] == k)) / np.sum((labels == k) | (arrays["truth"] == k)) for k in (1, 2)
    ]
    assert np.mean(overlap) > 0.75
