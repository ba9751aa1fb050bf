import json
import math
from pathlib import Path

import numpy as np
import pytest

from pnp_ovss.data import load_dataset
from pnp_ovss.evaluation import metrics
from pnp_ovss.evaluation.metrics import IGNORE, PROTOCOLS, Confusion, Counts, confusion_of, count, no_counts
from shared import shared

GOLDEN = Path(__file__).parents[1] / "data/golden/metrics"
TRUTH = np.array([[0, 0, 1, 1], [0, 2, 2, IGNORE]])
PREDICTION = np.array([[0, 1, 1, 1], [0, 1, 2, 1]])


def test_rows_are_truth_and_columns_prediction_and_ignored_pixels_count_nowhere():
    confusion = Confusion.of(TRUTH, PREDICTION, classes=4)
    assert confusion.counts.tolist() == [[2, 1, 0, 0], [0, 2, 0, 0], [0, 1, 1, 0], [0, 0, 0, 0]]


def test_scores_by_hand():
    confusion = Confusion.of(TRUTH, PREDICTION, classes=4)
    assert confusion.iou()[:3].tolist() == [2 / 3, 2 / 4, 1 / 2]
    assert math.isnan(confusion.iou()[3])  # in neither truth nor prediction
    assert confusion.miou() == pytest.approx((2 / 3 + 1 / 2 + 1 / 2) / 3)
    assert confusion.pixel_accuracy() == pytest.approx(5 / 7)


def test_a_class_only_predictioned_counts_as_zero():
    confusion = Confusion.of(np.array([[0, 0]]), np.array([[0, 3]]), classes=4)
    assert confusion.miou() == pytest.approx((1 / 2 + 0) / 2)


def test_images_add():
    parts = [Confusion.of(TRUTH[row : row + 1], PREDICTION[row : row + 1], 4) for row in (0, 1)]
    assert (parts[0] + parts[1]).counts.tolist() == Confusion.of(TRUTH, PREDICTION, 4).counts.tolist()
    assert (parts[0] + Confusion.empty(4)).counts.tolist() == parts[0].counts.tolist()


def test_no_pixel_no_score():
    assert math.isnan(Confusion.empty(3).miou())
    assert math.isnan(Confusion.empty(3).pixel_accuracy())


@pytest.mark.parametrize(("truth", "prediction", "message"), [
    ([[0, 1]], [[0, 1, 1]], "expected maps of one size"),
    ([[0, 9]], [[0, 1]], "expected labels 0 to 2, got a map with another value"),
    ([[0, 1]], [[0, -1]], "expected labels 0 to 2, got a map with another value"),
    ([[0, 1]], [[0, 255]], "expected labels 0 to 2, got a map with another value"),
])  # fmt: skip
def test_maps_that_do_not_fit(truth, prediction, message):
    with pytest.raises(ValueError, match=message):
        Confusion.of(np.array(truth), np.array(prediction), classes=3)


def test_the_four_meanings_of_miou():
    counts = np.zeros((5, 5), dtype=np.int64)
    counts[0, 0], counts[0, 1], counts[1, 1], counts[1, 3] = 6, 2, 3, 1  # 3 is only predictioned, 2 and 4 are nowhere
    found = {over: Confusion(counts).miou(over) for over in ("truth", "either", "one", "zero")}
    first, second = 6 / 8, 3 / 6
    assert found == pytest.approx({
        "truth": (first + second) / 2, "either": (first + second + 0) / 3,
        "one": (first + second + 0 + 1 + 1) / 5, "zero": (first + second) / 5,
    })  # fmt: skip
    assert Confusion(counts).miou("either", first=1) == pytest.approx((second + 0) / 2)
    assert Confusion(counts).frequency_weighted_iou() == pytest.approx((8 * first + 4 * second) / 12)


def test_the_authors_count_the_void_as_background():
    known, void = np.array([[4, 0], [1, 3]]), np.array([1, 2])
    counts = np.vstack([known, void, np.zeros((3, 2), dtype=np.int64)])
    assert PROTOCOLS["standard"].miou(counts, background=True) == pytest.approx((4 / 5 + 3 / 4) / 2)
    assert PROTOCOLS["authors"].miou(counts, background=True) == pytest.approx((5 / 8 + 3 / 6) / 2)
    assert PROTOCOLS["standard"].miou(counts, background=False) == pytest.approx(3 / 4)  # the first row is no class
    assert PROTOCOLS["authors"].miou(counts, background=False) == pytest.approx((5 / 8 + 3 / 6) / 2)


def _corrupted(mask: np.ndarray) -> np.ndarray:
    """The recipe in the reference: seven pixels to the right, void to background, person to chair in the upper half."""
    prediction = np.roll(mask, 7, axis=1)
    prediction[prediction == 255] = 0
    upper = prediction[: len(prediction) // 2]
    upper[upper == 15] = 9
    return prediction.astype(np.uint8)


def test_the_scores_of_the_authors_own_code():
    golden = json.loads((GOLDEN / "voc.json").read_text())
    counts = _golden_counts()
    for name, protocol in PROTOCOLS.items():
        expected, confusion = golden[name], confusion_of(counts, protocol.void)
        assert protocol.miou(counts, background=True) == pytest.approx(expected["miou"], abs=1e-9)
        assert confusion.pixel_accuracy() == pytest.approx(expected["pixel_accuracy"], abs=1e-9)
    authors = confusion_of(counts, void=True)
    assert authors.frequency_weighted_iou() == pytest.approx(golden["authors"]["fwiou"], abs=1e-9)
    for label, expected in enumerate(golden["authors"]["class_iou"].values()):
        if expected is not None:
            assert authors.iou()[label] == pytest.approx(expected, abs=1e-9)


def test_the_counts_of_ten_voc_masks():
    dataset, counts = load_dataset("voc21", shared("data/voc-dev")), no_counts(21)
    assert [sample.key for sample in dataset.samples] == json.loads((GOLDEN / "voc.json").read_text())["images"]
    for sample in dataset.samples:
        counts += count(dataset.truth(sample), _corrupted(sample.mask()), 21)
    assert counts[:22].tolist() == _golden_counts()[:22].tolist()


def _golden_counts() -> Counts:
    stored = json.loads((GOLDEN / "counts.json").read_text())
    counts = no_counts(21)
    for truth, prediction, pixels in stored["known"]:
        counts[truth, prediction] = pixels
    counts[21] = stored["void"]
    return counts


@pytest.mark.parametrize(("name", "folder"), [("voc21", "voc-dev"), ("panoptic133", "coco-dev")])
def test_truth_against_itself_is_one(name, folder):
    dataset = load_dataset(name, shared(f"data/{folder}"))
    counts = no_counts(len(dataset.labels))
    for sample in dataset.samples[:20]:
        truth = dataset.truth(sample)
        counts += count(truth, np.where(truth == IGNORE, 0, truth).astype(np.uint8), len(dataset.labels))
    assert PROTOCOLS["standard"].miou(counts, dataset.background) == 1.0
    assert PROTOCOLS["authors"].miou(counts, dataset.background) == 1.0
    assert confusion_of(counts).pixel_accuracy() == 1.0


def _mmseg(truths: list[np.ndarray], predictions: list[np.ndarray], classes: int) -> dict[str, np.ndarray]:
    """mmsegmentation's IoUMetric: histograms of what agrees, of the prediction and of the truth, over all images."""
    areas = np.zeros((3, classes))
    for truth, prediction in zip(truths, predictions, strict=True):
        prediction, truth = prediction[truth != 255], truth[truth != 255]
        for row, values in enumerate((prediction[prediction == truth], prediction, truth)):
            areas[row] += np.histogram(values, bins=classes, range=(0, classes - 1))[0]
    intersect, predictioned, true = areas
    return {"aAcc": intersect.sum() / true.sum(), "IoU": intersect / (predictioned + true - intersect)}


def test_the_same_score_as_mmsegmentation():
    rng = np.random.default_rng(5)
    truths = [rng.choice([*range(7), 255], (40, 30)).astype(np.uint8) for _ in range(6)]
    predictions = [
        np.where(rng.random(t.shape) < 0.6, t % 9, rng.integers(0, 9, t.shape)).astype(np.uint8) for t in truths
    ]
    counts = no_counts(12)
    for truth, prediction in zip(truths, predictions, strict=True):
        counts += count(truth, prediction.astype(np.uint8), 12)
    with np.errstate(invalid="ignore"):
        wanted = _mmseg(truths, predictions, 12)
    assert np.isnan(wanted["IoU"]).any()  # a class that is nowhere is left out by both
    np.testing.assert_allclose(confusion_of(counts).iou(), wanted["IoU"], atol=1e-12)
    assert PROTOCOLS["standard"].miou(counts, True) == pytest.approx(np.nanmean(wanted["IoU"]), abs=1e-9)
    assert confusion_of(counts).pixel_accuracy() == pytest.approx(wanted["aAcc"], abs=1e-9)


def test_near_an_edge_by_hand():
    labels = np.zeros((5, 9), dtype=np.uint8)
    labels[:, 6:] = 3
    assert metrics.near_edge(labels, 1)[2].tolist() == [True, False, False, False, False, True, True, False, True]
    assert metrics.near_edge(labels, 1)[0].all()


def test_near_an_edge_as_the_definition_has_it():
    labels = np.random.default_rng(1).integers(0, 2, (4, 5)).repeat(5, 0).repeat(4, 1).astype(np.uint8)
    outside = np.pad(labels.astype(int), 3, constant_values=-1)
    slow = [[len(np.unique(outside[y : y + 7, x : x + 7])) > 1 for x in range(20)] for y in range(20)]
    assert metrics.near_edge(labels, 3).tolist() == slow


def test_boundary_iou_by_hand():
    truth = np.zeros((9, 40), dtype=np.uint8)
    truth[:, 20:] = 1
    prediction = np.zeros_like(truth)
    prediction[:, 21:] = 1
    truth[4, 10] = IGNORE
    near = metrics.boundary(truth, prediction, 3)  # 0.02 of the diagonal of 41 pixels: one pixel wide
    rim = 20 + 20 + 7  # the upper and lower row and the left side of the truth's left half
    inner = 8  # towards the void pixel, beside it
    assert near[1].tolist() == [rim + 7 + inner, 47 + 7, 0]
    assert near[2].tolist() == [rim + 2 + 7, 47 - 2 + 7, 0]
    assert near[0].tolist() == [47, 45, 0]
    iou = metrics.boundary_iou(count(truth, prediction, 3))
    assert iou[:2] == pytest.approx([47 / (62 + 56 - 47), 45 / (54 + 52 - 45)])
    assert math.isnan(iou[2])
    assert metrics.mean_of_known(iou) == pytest.approx(iou[:2].mean())
