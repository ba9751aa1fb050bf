"""The authors' refinement, run with pydensecrf on 12 photos: ours gives the same labels."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pnp_ovss import Config
from pnp_ovss.refine import refine

SHARED = Path(__file__).resolve().parents[3] / "shared"
CASES = sorted((SHARED / "golden" / "refine").glob("*.npz"))
NAN_CASE = "000000000154"  # the classes cover the whole photo: the released code divides 0 by 0 there

pytestmark = pytest.mark.skipif(not CASES, reason="the golden cases lie outside the repository")


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


def test_dense_crf_gives_the_labels_of_pydensecrf():
    case = SHARED / "golden" / "refine" / "000000000488.npz"  # the smallest photo
    arrays, photo = load(case)
    labels, _ = refine(arrays["class_maps"], photo, Config())
    assert (labels == arrays["labels_blur_crf"]).mean() >= 0.999


def test_classes_that_cover_the_photo_leave_no_background():
    arrays, photo = load(SHARED / "golden" / "refine" / f"{NAN_CASE}.npz")
    labels, scores = refine(arrays["class_maps"], photo, Config())
    assert np.isfinite(scores).all()
    overlap = [
        np.sum((labels == k) & (arrays["truth"] == k)) / np.sum((labels == k) | (arrays["truth"] == k)) for k in (1, 2)
    ]
    assert np.mean(overlap) > 0.75
