"""Objects one by one: in Python, in records, in every format as its own reader sees it, and on overlays."""

import json
import warnings
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from PIL import Image

from pnp_ovss import Config, Segmentation
from pnp_ovss.cli import main
from pnp_ovss.export import FORMATS, cleaned, export
from pnp_ovss.files import Folder, Source
from pnp_ovss.parts import Objects
from pnp_ovss.pictures.figures import paint
from pnp_ovss.refine.scores import ScoreMap
from pnp_ovss.refine.tidy import Tidy
from pnp_ovss.regions.folder import keep_masks
from pnp_ovss.runs.record import Results, load_results

CLASSES = ("background", "dog", "cat")
Found = list[tuple[str, np.ndarray]]
LABELS = np.zeros((24, 30), np.int32)
LABELS[2:8, 2:9] = LABELS[2:6, 20:24] = LABELS[12:22, 3:20] = 1
LABELS[15:18, 8:12] = 0  # a hole
LABELS[8:11, 9:12] = 2  # touches a dog at a corner
LABELS[23, 29] = 2
BOXES = [("dog", (2, 2, 9, 8)), ("dog", (20, 2, 24, 6)), ("dog", (3, 12, 20, 22)), ("cat", (9, 8, 12, 11))]
"""The objects, but the cat of one pixel: in order, each with left, top, and the column and row after the last."""


def segmentation(labels: np.ndarray = LABELS, **more) -> Segmentation:
    scores = np.zeros((len(CLASSES), *labels.shape), np.float32)
    salience = np.ones((2, 2, 3), np.float32)
    salience[0] = [[4, 1, 3], [8, 0, 0]]
    about, photo = (Config(), "mini-blip", "r", "0"), np.full((*labels.shape, 3), 90, np.uint8)
    sure = np.array([0.8, 0.5])
    result = Segmentation(labels, CLASSES, ScoreMap.of(scores), salience, 1.0, *about, photo=photo, confidence=sure)
    return replace(result, **more)


def masks(result: Segmentation, min_area: int = 2) -> Found:
    return [(one.name, one.mask) for one in result.instances(min_area)]


def test_objects_are_the_connected_parts_of_each_class_but_dust():
    found = segmentation().instances(min_area=2)
    assert [(one.name, one.box) for one in found] == BOXES
    assert [one.area for one in found] == [42, 16, 170 - 12, 9]
    assert found[2].mask[15, 7]
    assert not found[2].mask[15, 8]
    assert len(segmentation().instances(0)) == 5
    assert len(segmentation().instances(0.1)) == 1  # a share of the photo: 72 pixels


def test_the_object_with_the_most_salience_of_its_class_has_its_confidence():
    """The cells of the grid are 12 x 10 pixels: of 4 and 3 in the first row, and 8 in the second."""
    found = segmentation().instances(min_area=2)
    masses = [42 / 120 * 4, 16 / 120 * 3, ((7 * 10 - 6) * 8) / 120]
    expected = [0.8 * mass / max(masses) for mass in masses]
    assert [one.confidence for one in found] == pytest.approx([*expected, 0.5])
    flat = segmentation(salience=np.ones((2, 2, 3), np.float32)).instances(min_area=2)
    assert [one.confidence for one in flat] == [0.8, 0.8, 0.8, 0.5]
    assert segmentation(confidence=None).instances()[0].confidence is None


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.booleans())
def test_every_labelled_pixel_lies_in_one_object_and_every_region_is_its_objects(seed, background):
    labels = np.random.default_rng(seed).integers(0, 3, (7, 9)).astype(np.int32)
    result = segmentation(labels, classes=CLASSES if background else ("bird", *CLASSES[1:]), confidence=None)
    found = result.instances(min_area=0)
    assert (sum(one.mask.astype(int) for one in found) == (labels >= background)).all()
    for region in result.label_map().regions(result.label_map().names):
        same = [one.mask for one in found if one.name == region.name]
        assert np.array_equal(np.any(same, axis=0), region.mask)


def test_masks_of_things_divide_what_follows_regions(tmp_path):
    photo = np.random.default_rng(0).integers(0, 256, (*LABELS.shape, 3), np.uint8)
    left, right = np.zeros((2, *LABELS.shape), bool)
    left[12:22, 3:10], right[12:22, 10:20] = True, True
    keep_masks(tmp_path, photo, [left, right])
    config = Config(refiners=("regions",), regions="folder", regions_folder=str(tmp_path))
    result = segmentation(photo=photo, config=config)
    boxes = [("dog", (3, 12, 10, 22)), ("dog", (10, 12, 20, 22))]
    assert [(one.name, one.box) for one in result.instances(2)] == [*BOXES[:2], *boxes, BOXES[3]]
    for other in (replace(config, refiners=()), replace(config, regions="watershed")):
        assert len(replace(result, config=other).instances(2)) == 4
    assert len(replace(result, photo=None).instances(2)) == 4


# Every format, as its own reader sees it.


def from_coco(where: Path) -> Iterator[tuple[str, np.ndarray]]:
    coco = pytest.importorskip("pycocotools.coco").COCO(where / "instances.json")
    for annotation in coco.anns.values():
        mask = coco.annToMask(annotation).astype(bool)
        left, top, width, height = map(int, annotation["bbox"])
        assert mask[top : top + height, left : left + width].sum() == annotation["area"] == mask.sum()
        yield coco.cats[annotation["category_id"]]["name"], mask


def from_supervision(where: Path) -> Iterator[tuple[str, np.ndarray]]:
    Image.new("RGB", LABELS.shape[::-1]).save(where / "a.png")
    with quiet():
        sv = pytest.importorskip("supervision")
        data = sv.DetectionDataset.from_coco(str(where), str(where / "_annotations.coco.json"), force_masks=True)
    ((_, _, found),) = data
    for mask, number in zip(found.mask, found.class_id, strict=True):
        yield data.classes[number], mask


def from_label_studio(where: Path) -> Iterator[tuple[str, np.ndarray]]:
    with quiet():
        brush = pytest.importorskip("label_studio_sdk.converter.brush")
    ((prediction,),) = (task["predictions"] for task in json.loads((where / "tasks.json").read_text()))
    regions = prediction["result"]
    assert len({region["id"] for region in regions}) == len(regions)
    for region in regions:
        pixels = brush.decode_rle(region["value"]["rle"]).reshape(*LABELS.shape, 4)
        yield region["value"]["brushlabels"][0], pixels[..., 3] > 0


def from_cvat(where: Path) -> Iterator[tuple[str, np.ndarray]]:
    for mask in ET.parse(where / "annotations.xml").iter("mask"):
        left, top, width, height = (int(mask.get(name)) for name in ("left", "top", "width", "height"))
        lengths = [int(length) for length in mask.get("rle").split(",")]
        whole = np.zeros(LABELS.shape, bool)
        inner = np.repeat(np.arange(len(lengths)) % 2 == 1, lengths).reshape(height, width)
        whole[top : top + height, left : left + width] = inner
        yield mask.get("label"), whole


def from_yolo(where: Path) -> Iterator[tuple[str, np.ndarray]]:
    """ultralytics' checks of a label file and its way to a mask, as in test_export."""
    with quiet():
        sv = pytest.importorskip("supervision")
    height, width = LABELS.shape
    for line in (where / "labels/a.txt").read_text().splitlines():
        number, *shares = line.split()
        corners = np.array(shares, np.float32).reshape(-1, 2)
        assert len(corners) > 2
        assert 0 <= corners.min() <= corners.max() <= 1
        corners = (corners * np.array([width, height], np.float32)).astype(np.int32)
        yield CLASSES[1 + int(number)], sv.polygon_to_mask(corners, (width, height)).astype(bool)


READERS = {
    "coco": from_coco,
    "yolo": from_yolo,
    "label-studio": from_label_studio,
    "cvat": from_cvat,
    "supervision": from_supervision,
}
PLAIN = sorted(READERS.keys() - {"yolo"})
"""Formats whose region may have several parts."""


def quiet():
    return warnings.catch_warnings(action="ignore")


def exported(tmp_path: Path, name: str, instances: bool = True, min_area: int = 0) -> Found:
    found = [replace(one, instances=instances) for one in load_results(tmp_path / "results")]
    found = [cleaned(one, Tidy(min_area), Counter()) for one in found] if min_area else found
    export(found, name, tmp_path / "out")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "__array__ implementation", DeprecationWarning)  # pycocotools on numpy 2
        return list(READERS[name](tmp_path / "out"))


def same(found: Found, expected: Found) -> bool:
    one, other = (sorted((name, mask.tobytes()) for name, mask in some) for some in (found, expected))
    return one == other


@pytest.mark.parametrize("name", READERS)
def test_each_object_comes_back_from_its_format(tmp_path, name):
    result = segmentation()
    result.save(tmp_path / "results", "a", "a.png")
    assert same(exported(tmp_path, name), masks(result, min_area=0))


@pytest.mark.parametrize("name", READERS)
def test_no_format_counts_an_area_twice(tmp_path, name):
    """Regions of classes and of objects both have as many pixels as are labelled, and no pixel twice."""
    for number, (saved, asked) in enumerate([(False, False), (True, False), (False, True)]):
        segmentation().save(tmp_path / f"{number}/results", "a", "a.png", instances=saved)
        found = exported(tmp_path / str(number), name, asked)
        assert (sum(mask.astype(int) for _, mask in found) == (LABELS > 0)).all()
        assert len(found) == (5 if asked or name == "yolo" else 2)


def divided() -> Segmentation:
    """Two dogs side by side, the left one with a part behind a cat, which only regions can tell."""

    class Told(Segmentation):
        def objects(self, min_area=0) -> Objects:
            index = np.zeros(LABELS.shape, np.int32)
            index[5:10, 2:8] = index[5:10, 14:16] = 1
            index[5:10, 16:25] = 2
            index[5:10, 8:14] = 3
            return Objects(index, np.array([1, 1, 2]), (0.75, 0.25, 0.5))

    result = segmentation()
    own = {name: getattr(result, name) for name in result.__dataclass_fields__}
    labels = np.array([0, 1, 1, 2], np.int32)[Told.objects(result).index]
    return Told(**own | {"labels": labels})


@pytest.mark.parametrize("name", PLAIN)
@pytest.mark.parametrize("kind", ["segment", "files", "parquet"])
def test_objects_that_were_written_are_exported_as_they_were(tmp_path, name, kind):
    result = divided()
    if kind == "segment":
        result.save(tmp_path / "results", "a", "a.png", instances=True)
    else:
        write = Results(Folder(tmp_path / "results"), instances=True)
        write.write("a", Source("a.png"), result.photo, result, 0.1)
        if kind == "parquet":
            pytest.importorskip("pyarrow")
            write.pack("shards/00000.parquet", ["a"])
    (label_map,) = load_results(tmp_path / "results")
    objects = replace(label_map, instances=True).regions(("cat", "dog"))
    assert [(one.name, one.confidence) for one in objects] == [("cat", 0.5), ("dog", 0.75), ("dog", 0.25)]
    assert same(exported(tmp_path, name), masks(result))


def test_cleaning_keeps_objects_apart(tmp_path):
    """A speck of the left dog in the right one goes to the right one."""
    result = divided()
    found = result.objects()
    found.index[7, 20] = 1
    result = replace(result)
    object.__setattr__(result, "objects", lambda *_: found)
    result.save(tmp_path / "results", "a", "a.png", instances=True)
    clean = exported(tmp_path, "coco", min_area=2)
    assert same(clean, masks(divided()))


def test_to_coco_and_to_supervision_have_a_region_an_object():
    found = segmentation().to_coco(instances=True)["annotations"]
    assert [(CLASSES[one["category_id"]], one["bbox"]) for one in found][:2] == [
        ("dog", [2, 2, 7, 6]),
        ("dog", [20, 2, 4, 4]),
    ]
    assert len(segmentation().to_coco()["annotations"]) == 2
    with quiet():
        pytest.importorskip("supervision")
        detections = segmentation().to_supervision(instances=True)
    assert detections.class_id.tolist() == [0, 0, 0, 1, 1]
    assert detections.xyxy[2].tolist() == [3, 12, 20, 22]


@pytest.mark.parametrize("name", [name for name, form in FORMATS.items() if not form.objects])
def test_formats_without_objects_say_so(tmp_path, capsys, name):
    segmentation().save(tmp_path / "results", "a", "a.png")
    assert main(["export", str(tmp_path / "results"), "--to", name, "--instances"]) == 2
    known = "coco, yolo, label-studio, cvat, supervision"
    assert capsys.readouterr().err == f"pnp-ovss: {name} has no objects; take {known}, or leave --instances out\n"


@pytest.mark.parametrize("harm", [{"class": "cow"}, {"segmentation": {"counts": "1"}}, {"confidence": "x"}])
def test_damaged_objects_are_one_line(tmp_path, capsys, harm):
    segmentation().save(tmp_path / "results", "a", "a.png", instances=True)
    record = tmp_path / "results/a.json"
    content = json.loads(record.read_text())
    content["segments"][1] |= harm
    record.write_text(json.dumps(content))
    assert main(["export", str(tmp_path / "results"), "--to", "coco", "--instances", "--out", str(tmp_path / "o")]) == 2
    assert f"{record} has segments that are no objects; segment the photo again" in capsys.readouterr().err


def test_objects_of_one_class_that_touch_have_an_outline_between_them():
    photo, labels = np.zeros((60, 90, 3), np.uint8), np.ones((60, 90), np.int32)
    index = np.where(np.arange(90) < 45, 1, 2)[None].repeat(60, 0)
    colours = np.array([[0, 0, 0], [200, 0, 0]], np.uint8)
    plain, outlined = (paint(photo, labels, colours, True, objects=objects) for objects in (None, index))
    between = (outlined != plain).any(-1)
    assert between[:, 43:47].any(1).all()
    assert not between[:, :43].any()
    assert not between[:, 47:].any()
    assert (outlined[30, 45] > 200).all()
