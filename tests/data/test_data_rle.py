import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from pycocotools import mask as coco_mask

from pnp_ovss.data.rle import decode, encode, paint
from pnp_ovss.errors import InputError


# What pycocotools 2.0.11 paints, and its compressed form.
@pytest.mark.parametrize(("polygon", "rows", "compressed"), [
    ([1, 1, 4, 1, 4, 3, 1, 3], ["000000", "011100", "011100", "000000", "000000"], "6230009"),
    ([0.4, 0.2, 5.6, 1.1, 2.3, 4.7],
     ["0100000", "0111100", "0111000", "0010000", "0010000", "0000000"], "6341NN2O<"),
    ([-2, 1.5, 3.2, -1, 8.5, 3.3, 3, 6], ["1111100", "1111110", "1111111", "1111111", "0111110"], "041`00@1NO"),
])  # fmt: skip
def test_the_pixels_of_pycocotools(polygon, rows, compressed):
    height, width = len(rows), len(rows[0])
    expected = [[int(value) for value in row] for row in rows]
    assert decode([polygon], height, width).tolist() == expected
    assert decode({"size": [height, width], "counts": compressed}, height, width).tolist() == expected


def test_long_runs_and_negative_differences():
    mask = np.zeros((40, 50), dtype=np.uint8)
    mask[3:37, 5:9] = mask[10:12, 20:44] = mask[0, 49] = 1
    text = "[6R1600000o=POQC000000000000000000000000000000000000000000000n5OSJ"
    assert decode({"size": [40, 50], "counts": text}, 40, 50).tolist() == mask.tolist()


@given(st.integers(1, 400), st.integers(1, 9), st.integers(0, 2**32 - 1), st.floats(0, 1))
@settings(max_examples=100, deadline=None)
def test_run_lengths_are_read_as_pycocotools_reads_them(height, width, seed, share):
    mask = np.repeat(np.random.default_rng(seed).random((height, width)) < share, 7, axis=0)
    found = encode(mask)
    assert np.array_equal(decode(found, 7 * height, width), mask)
    assert np.array_equal(decode(found, 7 * height, width), coco_mask.decode(found))


def test_run_lengths_do_not_reach_pycocotools(monkeypatch):
    monkeypatch.setattr(coco_mask, "decode", lambda *given: pytest.fail("it writes beyond its memory"))
    assert decode({"size": [5, 6], "counts": "6230009"}, 5, 6).sum() == 6


def test_several_polygons_are_one_region():
    both = decode([[0, 0, 2, 0, 2, 2, 0, 2], [1, 1, 3, 1, 3, 3, 1, 3]], 4, 4)
    assert both.tolist() == [[1, 1, 0, 0], [1, 1, 1, 0], [0, 1, 1, 0], [0, 0, 0, 0]]


@pytest.mark.parametrize(("region", "message"), [
    ({"counts": [1, 2]}, r"runs of 4 pixels, got {'counts': \[1, 2\]}; fetch the annotations again"),
    ({"counts": [6, -2]}, r"got {'counts': \[6, -2\]};"),
    ({"counts": ["a"]}, r"got {'counts': \['a'\]};"),
    ({"counts": [[4]]}, r"got {'counts': \[\[4\]\]};"),
    ({"counts": [10**30]}, r"got {'counts': \[1000"),
    ({"counts": None}, "got {'counts': None};"),
    ({"counts": "08"}, "got {'counts': '08'};"),  # 8 of 4 pixels
    ({"counts": "4P"}, "got {'counts': '4P'};"),  # cut short within a number
    ({"counts": "P" * 99 + "4"}, "got {'counts': 'PPP"),
    ({"counts": "4é"}, "got {'counts': '4é'};"),
    ({"counts": "4 "}, "got {'counts': '4 '};"),
    ({"counts": ""}, "got {'counts': ''};"),
    ("text", r"expected polygons \[\[x, y, ...\], ...\] or runs of 4 pixels, got 'text';"),
    (None, "got None;"),
    ([[0, 0, 1]], r"got \[\[0, 0, 1\]\]; fetch the annotations again"),
    ([[]], r"got \[\[\]\];"),
    ([[0, 0, 1, "b"]], r"got \[\[0, 0, 1, 'b'\]\];"),
    ([[0, 0, 1, float("nan")]], r"got \[\[0, 0, 1, nan\]\];"),
    ([[0, 0, 1, 1e300]], r"got \[\[0, 0, 1, 1e\+300\]\];"),
    ([7], r"got \[7\];"),
])  # fmt: skip
def test_a_region_that_is_none(region, message):
    with pytest.raises(InputError, match=message):
        decode(region, 2, 2)


def test_polygons_of_two_corners_cover_nothing():
    assert not decode([[0, 0, 3, 3], [1, 1]], 4, 4).any()
    assert not decode([], 4, 4).any()


@pytest.mark.parametrize("far", [30, 1000, 2**20 - 1])
def test_of_a_polygon_far_beyond_the_photo_the_part_within_is_painted(far):
    height, width = 12, 20
    square = decode([[-far, -far, far, -far, far, far, -far, far]], height, width)
    assert square.all()
    left = decode([[-far, -far, 7, -far, 7, far, -far, far]], height, width)
    np.testing.assert_array_equal(left, np.arange(width)[None].repeat(height, 0) < 7)
    assert not decode([[far, far, far - 9, far, far, far - 9]], height, width).any()
    slope = decode([[-far, -far, far, far, -far, far]], 15, 15)  # below the diagonal
    assert np.abs(slope.astype(int) - np.tri(15, dtype=int)).sum() <= 15


@given(
    corners=st.lists(st.tuples(st.floats(-20, 40), st.floats(-12, 24)), min_size=3, max_size=9),
)
def test_a_polygon_near_the_photo_is_painted_as_pycocotools_paints_it(corners):
    polygon = [side for corner in corners for side in corner]
    expected = coco_mask.decode(coco_mask.merge(coco_mask.frPyObjects([polygon], 12, 20)))
    np.testing.assert_array_equal(decode([polygon], 12, 20), expected)


def test_an_outline_that_fills_the_photo_many_times_is_refused_at_once():
    zigzag = [[0, 0, 600, 400] * 50_000]
    with pytest.raises(InputError, match=r"^expected polygons .* or runs of 307200 pixels, got \[\[0, 0, 600"):
        decode(zigzag, 480, 640)


SIZE = {"height": 1, "width": 2}


@pytest.mark.parametrize(("image", "region", "message"), [
    ({"width": 2}, {}, "expected a whole number as height, got None; fetch"),
    (SIZE, {"segmentation": {"counts": [0, 2]}}, "expected a whole number as category_id, got None"),
    (SIZE, {"segmentation": {"counts": [2]}, "category_id": "cat"}, "a whole number as category_id, got 'cat';"),
    (SIZE, {"segmentation": {"counts": [2]}, "category_id": 2**70}, "as category_id, got 118059162"),
    (SIZE, {"segmentation": {"counts": [2]}, "category_id": -1}, "as category_id, got -1;"),
    (SIZE, {"category_id": 1}, "expected polygons .* or runs of 2 pixels, got None"),
])  # fmt: skip
def test_a_damaged_annotation(image, region, message):
    with pytest.raises(InputError, match=message):
        paint(image, [region])


@pytest.mark.parametrize(("height", "width", "compressed"), [
    (5, 6, "6230009"), (6, 7, "6341NN2O<"), (5, 7, "041`00@1NO"),
    (40, 50, "[6R1600000o=POQC000000000000000000000000000000000000000000000n5OSJ"),
    (2, 3, "6"), (2, 3, "06"),
])  # fmt: skip
def test_masks_are_written_as_pycocotools_writes_them(height, width, compressed):
    mask = decode({"size": [height, width], "counts": compressed}, height, width).astype(bool)
    assert encode(mask) == {"size": [height, width], "counts": compressed}
    assert decode(encode(mask), height, width).astype(bool).tolist() == mask.tolist()
