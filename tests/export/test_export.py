"""Exports: what the tools' own readers make of them is the label map, pixel by pixel."""

import json
import os
import re
import warnings
import xml.etree.ElementTree as ET
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from time import perf_counter

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from PIL import Image

from pnp_ovss import Config, InputError, Segmentation
from pnp_ovss.cli import main
from pnp_ovss.data import load_dataset, rle
from pnp_ovss.export import FORMATS, all_names, export
from pnp_ovss.export.cvat import runs
from pnp_ovss.export.label_studio import brush
from pnp_ovss.export.voc import name_lines
from pnp_ovss.export.yolo import lines, outlines, settings as data_yaml
from pnp_ovss.files import Folder, fetch, fetch_from
from pnp_ovss.pictures import class_colours
from pnp_ovss.refine.scores import ScoreMap
from pnp_ovss.runs.record import load_results, write_result

NAMES = ("dog", "traffic light", "a/b: <\"é'&")


def segmentation(labels: np.ndarray, classes: tuple[str, ...]) -> Segmentation:
    scores = np.zeros((len(classes), *labels.shape), np.float32)
    np.put_along_axis(scores, labels[None].astype(np.int64), 0.75, axis=0)
    named = len(classes) - (classes[0] == "background")
    salience = np.zeros((named, 2, 2), np.float32)
    about, sure = (Config(), "mini-blip", "r", "0"), np.full(named, 0.75)
    return Segmentation(labels, classes, ScoreMap.of(scores), salience, 1.0, *about, confidence=sure)


def hard() -> np.ndarray:
    """A ring with an island in it, one pixel at a corner of another, parts at every border, single pixels."""
    labels = np.zeros((24, 31), np.int64)
    labels[3:15, 4:18] = 1
    labels[6:12, 7:14] = 0  # a hole ...
    labels[8:10, 9:11] = 1  # ... with an island ...
    labels[9, 9] = 2  # ... that has a hole with another class
    labels[15, 18] = 1  # touches the ring at a corner
    labels[0, 0] = labels[0, 30] = labels[23, 0] = labels[23, 30] = 1
    labels[23, 4:20] = labels[5:12, 30] = 2
    labels[18:21, 22:25] = 3
    labels[19, 23] = 0
    labels[20, 2] = 3
    return labels


RESULTS = {
    "hard": segmentation(hard(), ("background", *NAMES)),
    "other": segmentation(np.full((3, 7), 1), ("traffic light", "cow")),  # no background; "cow" covers all
    "tiny": segmentation(np.ones((1, 1), np.int64), ("background", "dog")),
    "nothing": segmentation(np.zeros((5, 4), np.int64), ("background", "dog")),
}
ORDER = (*NAMES, "cow")
"""As the names first appear, by key."""


@pytest.fixture
def folder(tmp_path) -> Path:
    """What ``segment`` writes for four photos."""
    for key, result in RESULTS.items():
        photo = np.zeros((*result.labels.shape, 3), np.uint8)
        (tmp_path / "photos").mkdir(exist_ok=True)
        Image.fromarray(photo).save(tmp_path / f"photos/{key}.bmp")
        write_result(tmp_path / "results", tmp_path / f"photos/{key}.bmp", photo, result, 0.1)
    return tmp_path / "results"


@pytest.fixture
def out(folder, tmp_path):
    """Export in a format; returns the folder."""

    def write(name: str, **how) -> Path:
        export(load_results(folder), name, tmp_path / "out", **how)
        return tmp_path / "out"

    return write


def truth(key: str, name: str) -> np.ndarray:
    result = RESULTS[key]
    return (
        result.labels == result.classes.index(name) if name in result.classes else np.zeros(result.labels.shape, bool)
    )


def check(found: dict[tuple[str, str], np.ndarray]) -> None:
    """Compare every class's mask in every photo; what is missing counts as empty."""
    for key, result in RESULTS.items():
        for name in ORDER:
            mask = found.pop((key, name), np.zeros(result.labels.shape, bool))
            assert np.array_equal(mask, truth(key, name)), (key, name)
    assert not found


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # pycocotools on numpy 2
def test_coco_loads_in_pycocotools_with_the_same_masks_and_areas(out):
    coco_api = pytest.importorskip("pycocotools.coco")
    coco_mask = pytest.importorskip("pycocotools.mask")
    coco = coco_api.COCO(out("coco") / "instances.json")
    assert {number: cat["name"] for number, cat in coco.cats.items()} == dict(enumerate(ORDER, start=1))
    assert [image["file_name"] for image in coco.imgs.values()] == [f"{key}.bmp" for key in sorted(RESULTS)]
    found = {}
    for annotation in coco.anns.values():
        region = annotation["segmentation"]
        mask = coco.annToMask(annotation).astype(bool)
        assert annotation["area"] == coco_mask.area(region) == mask.sum()
        assert annotation["bbox"] == coco_mask.toBbox(region).tolist()
        assert region["counts"] == coco_mask.encode(np.asfortranarray(mask, np.uint8))["counts"].decode()
        assert np.array_equal(rle.decode(region, *mask.shape), mask)
        key = Path(coco.imgs[annotation["image_id"]]["file_name"]).stem
        found[key, coco.cats[annotation["category_id"]]["name"]] = mask
    check(found)


@pytest.mark.parametrize("name", ["coco", "supervision"])
def test_coco_loads_in_supervision(out, name, tmp_path):
    sv = supervision()
    where = out(name)
    place = next(where.glob("*.json"))
    data = sv.DetectionDataset.from_coco(str(tmp_path / "photos"), str(place), force_masks=True)
    assert data.classes == list(ORDER)
    found = {}
    for path, detections in data.annotations.items():
        for mask, number in zip(detections.mask if len(detections) else (), detections.class_id, strict=True):
            found[Path(path).stem, data.classes[number]] = mask
    check(found)


def test_voc_pictures_hold_the_numbers_of_the_classes(out, tmp_path):
    where = out("voc", fetch=fetch)
    palette = Image.open(where / "SegmentationClass/hard.png").getpalette()
    assert palette[:12] == [0, 0, 0, 128, 0, 0, 0, 128, 0, 128, 128, 0]
    assert palette[3 * 20 : 3 * 21] == [0, 64, 128]
    assert palette[-3:] == [224, 224, 192]
    check({(key, ORDER[v - 1]): m for key, v, m in values(where / "SegmentationClass", "P")})
    assert (where / "ImageSets/Segmentation/default.txt").read_text().split() == sorted(RESULTS)
    assert (where / "labelmap.txt").read_text().splitlines()[1:3] == ["background:0,0,0::", "dog:128,0,0::"]
    assert (where / "JPEGImages/hard.bmp").read_bytes() == (tmp_path / "photos/hard.bmp").read_bytes()


def test_voc_in_the_order_of_its_own_classes_is_read_by_our_reader_of_voc(tmp_path):
    labels = np.array([[0, 1], [2, 2]])
    result = segmentation(labels, ("background", "train", "dog"))
    write_result(tmp_path / "results", Path("a.jpg"), np.zeros((2, 2, 3), np.uint8), result, 0.0)
    (tmp_path / "voc").mkdir()
    assert (
        main(["export", str(tmp_path / "results"), "--to", "voc", "--order", "voc", "--out", str(tmp_path / "x")]) == 0
    )
    (tmp_path / "voc/images").mkdir()
    Image.new("RGB", (2, 2)).save(tmp_path / "voc/images/a.jpg")
    os.rename(tmp_path / "x/SegmentationClass", tmp_path / "voc/masks")
    data = load_dataset("voc21", tmp_path / "voc")
    assert np.array(data.labels)[data.truth(data.samples[0])].tolist() == [["background", "train"], ["dog", "dog"]]


def test_ade_pictures_are_grey_and_count_from_1(out):
    where = out("ade")
    check({(key, ORDER[v - 1]): m for key, v, m in values(where / "annotations", "L")})
    rows = [line.split("\t") for line in (where / "objectInfo.txt").read_text().splitlines()]
    assert rows == [["Idx", "Name"], *([str(number), name] for number, name in enumerate(ORDER, start=1))]


def values(where: Path, mode: str):
    for path in where.glob("*.png"):
        with Image.open(path) as picture:
            assert picture.mode == mode
            found = np.asarray(picture)
        yield from ((path.stem, value, found == value) for value in np.unique(found[found > 0]))


def test_yolo_passes_the_checks_of_its_reader_and_fills_to_the_same_masks(out):
    """ultralytics' checks of a label file, and its way from an outline to a mask, written anew: it rounds down."""
    yaml = pytest.importorskip("yaml")
    sv = supervision()
    where = out("yolo")
    found = yaml.safe_load((where / "data.yaml").read_text())
    assert found["names"] == dict(enumerate(ORDER))
    found = {}
    for path in where.glob("labels/*.txt"):
        height, width = RESULTS[path.stem].labels.shape
        for line in path.read_text().splitlines():
            words = line.split()
            assert len(words) > 6
            assert len(words) % 2
            number, shares = int(words[0]), np.array(words[1:], np.float32).reshape(-1, 2)
            assert 0 <= number < len(ORDER)
            assert shares.min() >= 0
            assert shares.max() <= 1
            corners = (shares * np.array([width, height], np.float32)).astype(np.int32)
            mask = sv.polygon_to_mask(corners, (width, height)).astype(bool)
            before = found.setdefault((path.stem, ORDER[number]), np.zeros((height, width), bool))
            assert not (before & mask).any()  # parts lie apart
            before |= mask
    check(found)


@settings(deadline=None)
@given(st.integers(1, 9), st.integers(1, 9), st.data())
def test_outlines_fill_to_the_mask_in_cocos_way_and_by_the_pixels_centres(height, width, data):
    bits = data.draw(st.lists(st.booleans(), min_size=height * width, max_size=height * width))
    mask = np.array(bits).reshape(height, width)
    polygons = outlines(mask)
    by_coco = sum(rle.decode([np.ravel(polygon).tolist()], height, width) for polygon in polygons)
    assert np.array_equal(by_coco + np.zeros((height, width)), mask)  # a pixel of two parts would be 2
    assert np.array_equal(by_centres(polygons, height, width), mask)


def test_outlines_of_many_holes_take_no_time():
    """Their seams are found without a look at every corner: which would take a minute here."""
    mask = np.ones((241, 241), bool)
    mask[1::2, 1::2] = False
    start = perf_counter()
    (polygon,) = outlines(mask)
    assert perf_counter() - start < 10
    assert len(polygon) == 4 + 7 * 120 * 120  # a hole has four corners, the first twice, and a seam two ends


def by_centres(polygons, height: int, width: int) -> np.ndarray:
    """Return the pixels whose centre has an odd number of borders on its left."""
    rows, columns = np.mgrid[:height, :width] + 0.5
    inside = np.zeros((height, width), int)
    for polygon in polygons:
        for (x, y), (_, below) in zip(polygon, [*polygon[1:], polygon[0]], strict=True):
            inside += ((y > rows) != (below > rows)) & (x < columns)  # sides run along the rows or columns
    return inside % 2 == 1


def test_readers_that_round_to_whole_pixels_are_off_by_one_pixel_to_the_right_and_below(out):
    """The bound docs/formats.md gives for supervision's reader of YOLO files."""
    sv = supervision()
    text = lines(load_results(out("yolo").parent / "results")[0], ORDER)
    for line in text:
        words = line.split()
        shares = np.array(words[1:], np.float32).reshape(-1, 2)
        corners = np.round(shares * np.array([31, 24], np.float32)).astype(np.int32)
        mask = sv.polygon_to_mask(corners, (31, 24)).astype(bool)
        meant = truth("hard", ORDER[int(words[0])])
        grown = np.pad(meant, ((1, 0), (1, 0)))
        grown = grown[1:, 1:] | grown[:-1, 1:] | grown[1:, :-1] | grown[:-1, :-1]
        assert not (mask & ~grown).any()


def test_label_studio_decodes_the_same_masks(out):
    sdk = label_studio_brush()
    where = out("label-studio")
    brushes = {label.get("value"): label.get("background") for label in ET.parse(where / "interface.xml").iter("Label")}
    assert list(brushes) == list(ORDER)
    assert list(brushes.values()) == [f"#{r:02x}{g:02x}{b:02x}" for r, g, b in class_colours(ORDER)]
    found = {}
    for task in json.loads((where / "tasks.json").read_text(encoding="utf-8")):
        address = task["data"]["image"]
        assert address.startswith("/data/local-files/?d=images/")
        (prediction,) = task["predictions"]
        for region in prediction["result"]:
            assert (region["type"], region["from_name"], region["to_name"]) == ("brushlabels", "label", "image")
            size = region["original_height"], region["original_width"]
            pixels = sdk.decode_rle(region["value"]["rle"]).reshape(*size, 4)
            assert (pixels == pixels[..., :1]).all()
            assert set(np.unique(pixels)) <= {0, 255}
            (name,) = region["value"]["brushlabels"]
            found[Path(address.partition("=")[2]).stem, name] = pixels[..., 3] > 0
    check(found)


@pytest.mark.parametrize("run", [1, 2, 3, 4, 64, 65, 1024, 1025, 16384, 16385, 40000])
def test_a_brush_run_of_any_length_is_decoded(run):
    sdk = label_studio_brush()
    pixels = np.repeat([False, True, False], [3, run, 2])
    assert np.array_equal(sdk.decode_rle(brush(pixels[None])).reshape(-1, 4)[:, 3] == 255, pixels)


def test_cvat_decodes_the_same_masks(out):
    masks = pytest.importorskip("cvat_sdk.masks")
    where = out("cvat")
    labels = json.loads((where / "labels.json").read_text())
    assert [label["name"] for label in labels] == list(ORDER)
    assert [label["color"] for label in labels] == [f"#{r:02x}{g:02x}{b:02x}" for r, g, b in class_colours(ORDER)]
    found = {}
    for image in ET.parse(where / "annotations.xml").iter("image"):
        width, height = int(image.get("width")), int(image.get("height"))
        for mask in image.iter("mask"):
            left, top, wide, high = (int(mask.get(side)) for side in ("left", "top", "width", "height"))
            points = [int(run) for run in mask.get("rle").split(",")] + [left, top, left + wide - 1, top + high - 1]
            decoded = masks.decode_mask(points, image_width=width, image_height=height)
            assert points == masks.encode_mask(decoded)
            found[Path(image.get("name")).stem, mask.get("label")] = decoded
    check(found)


def test_runs_start_outside_the_mask():
    assert runs(np.array([[True, False], [False, True]])) == [0, 1, 2, 1]
    assert runs(np.array([[False, True]])) == [1, 1]


def test_a_result_converts_in_memory():
    result = RESULTS["hard"]
    coco = result.to_coco("x.png")
    assert [image["file_name"] for image in coco["images"]] == ["x.png"]
    assert [annotation["category_id"] for annotation in coco["annotations"]] == [1, 2, 3]
    found = result.to_hf()
    assert [entry["label"] for entry in found] == list(NAMES)
    for entry in found:
        assert entry["mask"].mode == "L"
        assert entry["score"] == 0.75
        assert np.array_equal(np.asarray(entry["mask"]), 255 * truth("hard", entry["label"]))
    assert RESULTS["nothing"].to_hf() == RESULTS["nothing"].to_coco()["annotations"] == []


def test_supervision_takes_a_result():
    sv = supervision()
    detections = RESULTS["hard"].to_supervision()
    assert isinstance(detections, sv.Detections)
    assert detections.class_id.tolist() == [0, 1, 2]
    assert detections.confidence.tolist() == [0.75] * 3
    assert detections.data["class_name"].tolist() == list(NAMES)
    for mask, name, box in zip(detections.mask, NAMES, detections.xyxy, strict=True):
        rows, columns = np.nonzero(mask)
        assert np.array_equal(mask, truth("hard", name))
        assert box.tolist() == [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
    assert len(RESULTS["nothing"].to_supervision()) == 0


def test_pictures_show_the_photo_that_was_segmented():
    photo = np.full((24, 31, 3), 200, np.uint8)
    result = replace(RESULTS["hard"], photo=photo)
    assert result._repr_png_().startswith(b"\x89PNG")
    assert result.overlay() == RESULTS["hard"].overlay(photo)
    plot = result.plot()
    assert plot.width > result.overlay().width
    assert plot.crop((0, 0, *result.overlay().size)) == result.overlay()
    assert RESULTS["hard"]._repr_png_() is None
    with pytest.raises(InputError, match="carries no photo"):
        RESULTS["hard"].plot()


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_writes_the_same_bytes_twice(folder, tmp_path, name):
    results = load_results(folder)
    for out in ("a", "b"):
        export(results, name, tmp_path / out)
    files = sorted(path.relative_to(tmp_path / "a") for path in (tmp_path / "a").rglob("*") if path.is_file())
    assert files
    assert all((tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes() for file in files)


def test_numbers_follow_the_order_that_is_given(folder):
    results = load_results(folder)
    assert all_names(results) == ORDER
    assert all_names(results, ("cow", *NAMES)) == ("cow", *NAMES)
    with pytest.raises(InputError, match="'cow'"):
        all_names(results, NAMES)


PHOTOS = ("--to", "yolo", "--photos")


def refused(capsys, *arguments: str) -> str:
    """Run ``export``, which must refuse in one line and write nothing; returns the line."""
    assert main(["export", *arguments]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line


def test_the_command_writes_into_a_new_folder_only(folder, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["export", "results", "--to", "coco", "--min-area", "0"]) == 0
    assert capsys.readouterr().out == "4 photos in export/coco: instances.json\n"
    assert os.listdir("export") == ["coco"]
    assert "is there already" in refused(capsys, "results", "--to", "coco")
    assert "the formats are coco, yolo" in refused(capsys, "results", "--to", "tiff")


def test_a_photo_that_is_gone_is_reported(folder, tmp_path, capsys):
    (tmp_path / "photos/tiny.bmp").unlink()
    line = refused(capsys, str(folder), *PHOTOS, str(tmp_path / "photos"), "--out", str(tmp_path / "out"))
    assert f"there is no photo {tmp_path}/photos/tiny.bmp; check the path" in line
    assert not (tmp_path / "out").exists()


def test_a_photo_that_is_another_by_now_is_reported(folder, tmp_path, capsys):
    record = folder / "tiny.json"
    content = json.loads(record.read_text())
    file = {"size": None, "modified": "", "sha256": sha256((tmp_path / "photos/tiny.bmp").read_bytes()).hexdigest()}
    record.write_text(json.dumps(content | {"file": file}))
    export(load_results(folder), "yolo", tmp_path / "out", fetch=fetch)
    (tmp_path / "photos/tiny.bmp").write_bytes(b"another")
    photos = ("--photos", str(tmp_path / "photos"))
    line = refused(capsys, str(folder), "--to", "yolo", *photos, "--out", str(tmp_path / "other"))
    assert f"{tmp_path}/photos/tiny.bmp is another photo than was segmented; segment it again" in line
    assert not (tmp_path / "other").exists()


def test_photos_are_fetched_from_where_batch_found_them(folder, tmp_path, capsys):
    Folder("memory://bucket").write("x.bmp", b"the photo")
    record = folder / "tiny.json"
    content = json.loads(record.read_text())
    record.write_text(json.dumps(content | {"photo": "memory://bucket/x.bmp"}))
    export(load_results(folder), "yolo", tmp_path / "out", fetch=fetch)
    assert (tmp_path / "out/images/tiny.bmp").read_bytes() == b"the photo"
    record.write_text(json.dumps(content | {"photo": "nowhere://bucket/x.bmp"}))
    line = refused(capsys, str(folder), *PHOTOS, "nowhere://bucket", "--out", str(tmp_path / "other"))
    assert "nowhere://bucket cannot be reached (Protocol not known: nowhere)" in line


@pytest.mark.parametrize("place", [
    "secret.txt", "photos/link.bmp", "photos/../secret.txt", "photos\0/x.bmp",
    "file://{}/secret.txt", "simplecache::file://{}/secret.txt", "memory://bucket/x.bmp",
])  # fmt: skip
@pytest.mark.parametrize("given", ["photos", "memory://bucket/photos"])
def test_a_file_outside_of_the_folders_given_is_not_copied(folder, tmp_path, monkeypatch, capsys, place, given):
    monkeypatch.chdir(tmp_path)
    Path("secret.txt").write_text("of the machine")
    Path("photos/link.bmp").symlink_to(tmp_path / "secret.txt")
    Folder("memory://bucket").write("x.bmp", b"of the store")
    record = folder / "tiny.json"
    record.write_text(json.dumps(json.loads(record.read_text()) | {"photo": place.format(tmp_path)}))
    more = ("--photos", str(tmp_path / "photos")) if given != "photos" else ()
    line = refused(capsys, "results", *PHOTOS, given, *more, "--out", "out")
    assert "lies in none of the folders given" in line or "cannot be read (embedded null" in line
    assert not Path("out").exists()


@pytest.mark.parametrize("photo", ["memory://bucket/photos/../x.bmp", "memory://bucket/photos/%2e%2e/x.bmp",
                                   "memory://bucket/photos2/x.bmp"])  # fmt: skip
def test_a_url_outside_of_those_given_is_not_read(photo):
    Folder("memory://bucket").write("x.bmp", b"of the store")
    with pytest.raises(InputError, match="lies in none of the folders given, photos, memory://bucket/photos; give"):
        fetch_from(["photos", "memory://bucket/photos"])(photo)


def test_photos_of_several_folders_are_copied(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("link").symlink_to("photos")  # the folder given may be a link itself
    Folder("memory://bucket").write("deep/x.bmp", b"the photo")
    record = folder / "tiny.json"
    record.write_text(json.dumps(json.loads(record.read_text()) | {"photo": "memory://bucket/deep/x.bmp"}))
    assert main(["export", "results", *PHOTOS, "link", "--photos", "memory://bucket", "--out", "out"]) == 0
    assert (tmp_path / "out/images/tiny.bmp").read_bytes() == b"the photo"
    assert (tmp_path / "out/images/hard.bmp").read_bytes() == (tmp_path / "photos/hard.bmp").read_bytes()


def test_a_place_that_cannot_be_written_is_reported_as_it_was_given(folder, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    line = refused(capsys, str(folder), "--to", "coco", "--out", str(tmp_path / "file/out"))
    assert f"the folder {tmp_path}/file cannot be written (not a directory); give another one with --out" in line
    line = refused(capsys, str(folder), "--to", "coco", "--out", str(tmp_path / ("x" * 300)))
    assert f"{'x' * 300} cannot be written (file name too long)" in line


def test_an_order_that_fits_no_file_or_list_is_reported(folder, tmp_path, capsys):
    assert "there is no vocabulary nowhere; give one of voc" in refused(
        capsys, str(folder), "--to", "ade", "--order", "nowhere"
    )
    (tmp_path / "order.txt").write_text("dog\ndog\n")
    assert "the class 'traffic light', which the list of classes lacks" in refused(
        capsys, str(folder), "--to", "ade", "--order", str(tmp_path / "order.txt")
    )


def supervision():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # without OpenCV it says that it will be slower
        return pytest.importorskip("supervision")


def label_studio_brush():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip("label_studio_sdk.converter.brush")


def test_a_class_may_be_called_background_where_the_setting_has_none():
    result = segmentation(np.array([[0, 1]]), ("dog", "background"))
    assert [entry["label"] for entry in result.to_hf()] == ["dog", "background"]


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("strange", ["a\nb", "bell\a", "caf\udce9", "a\u2028b", "a\uffffb"])
def test_a_name_that_a_format_cannot_hold_is_reported(tmp_path, name, strange):
    result = RESULTS["tiny"]
    write_result(tmp_path / "photo", Path(f"{strange}.jpg"), np.zeros((1, 1, 3), np.uint8), result, 0.0)
    result = replace(result, classes=("background", strange))
    write_result(tmp_path / "class", Path("a.jpg"), np.zeros((1, 1, 3), np.uint8), result, 0.0)
    for kind, found in (("photo", f"{strange}.jpg"), ("class", strange)):
        results = load_results(tmp_path / kind)
        if name in ("coco", "supervision"):
            (place,) = export(results, name, tmp_path / f"{kind}-out")
            entry = json.loads((tmp_path / f"{kind}-out" / place).read_text(encoding="utf-8"))
            assert found in (entry["images"][0]["file_name"], entry["categories"][0]["name"])
            continue
        with pytest.raises(InputError) as refusal:
            export(results, name, tmp_path / f"{kind}-out")
        assert str(refusal.value) == (
            f"{found!a} has a character that {name} cannot hold; rename the class or photo and segment again, or take "
            "coco"
        )
        assert not (tmp_path / f"{kind}-out").exists()


def test_names_of_any_script_are_taken(tmp_path):
    names = ("\N{GRINNING FACE} emoji", "犬", "nb\u202fsp", '"quoted" \\n')
    result = segmentation(np.array([[1, 2, 3, 4]]), ("background", *names))
    write_result(tmp_path / "results", Path("犬 \u202f.jpg"), np.zeros((1, 4, 3), np.uint8), result, 0.0)
    for name in FORMATS:
        export(load_results(tmp_path / "results"), name, tmp_path / name)
    yaml = pytest.importorskip("yaml")
    found = yaml.safe_load((tmp_path / "yolo/data.yaml").read_text(encoding="utf-8"))
    assert found == {"train": "images", "val": "images", "names": dict(enumerate(names))}
    assert [label.get("value") for label in ET.parse(tmp_path / "label-studio/interface.xml").iter("Label")] == [*names]
    masks = ET.parse(tmp_path / "cvat/annotations.xml").iter("mask")
    assert [mask.get("label") for mask in masks] == [*names]


def test_without_classes_yolo_names_none():
    yaml = pytest.importorskip("yaml")
    assert yaml.safe_load("\n".join(data_yaml(()))) == {"train": "images", "val": "images", "names": {}}


def test_vocs_list_of_names_has_each_once():
    palette = np.zeros((256, 3), np.uint8)
    assert name_lines(["a:b", "x # y"], palette)[2:] == ["a b:0,0,0::", "x # y:0,0,0::"]
    for names in (["a:b", "a b"], ["# x"], ["background"], [":"]):
        with pytest.raises(InputError, match=re.escape(f"the class {names[-1]!r} would be a comment or another class")):
            name_lines(names, palette)


# Clean regions, parts, subsets.


@pytest.fixture
def dusty(tmp_path, monkeypatch) -> Path:
    """A result of 640 x 640 pixels with two dogs and a lot of dust."""
    labels = np.zeros((640, 640), np.int64)
    labels[::16, ::16] = 1
    labels[100:200, 100:200] = labels[300:500, 300:399] = 1
    result = segmentation(labels, ("background", "dog"))
    write_result(tmp_path / "results", Path("a.jpg"), np.zeros((640, 640, 3), np.uint8), result, 0.0)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(("name", "clean"), [("yolo", True), ("coco", True), ("voc", False), ("ade", False)])
def test_regions_are_cleaned_where_people_work_on_them_and_the_output_says_so(dusty, capsys, name, clean):
    assert main(["export", "results", "--to", name]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1:] == ["clean regions: 1488 parts became 2; --min-area 0 keeps every pixel"] * clean
    if name == "yolo":
        assert len(Path("export/yolo/labels/a.txt").read_text().splitlines()) == 2


def test_a_smallest_area_of_0_keeps_every_pixel(dusty, capsys):
    assert main(["export", "results", "--to", "yolo", "--min-area", "0"]) == 0
    assert len(Path("export/yolo/labels/a.txt").read_text().splitlines()) == 1488
    assert len(capsys.readouterr().out.splitlines()) == 1


def test_objects_have_boxes_of_their_own(dusty):
    assert main(["export", "results", "--to", "coco", "--instances"]) == 0
    found = json.loads(Path("export/coco/instances.json").read_text())["annotations"]
    assert [part["bbox"] for part in found] == [[100, 100, 100, 100], [300, 300, 99, 200]]
    assert [part["area"] for part in found] == [10_000, 19_800]
    assert main(["export", "results", "--to", "label-studio", "--instances"]) == 0
    (task,) = json.loads(Path("export/label-studio/tasks.json").read_text())
    assert len({part["id"] for part in task["predictions"][0]["result"]}) == 2


@pytest.mark.parametrize("name", ["yolo", "coco"])
def test_some_photos_are_for_validation(folder, tmp_path, name):
    out = tmp_path / "out"
    assert (
        main(["export", str(folder), "--to", name, "--val", "0.25", "--photos", str(folder.parent), "--out", str(out)])
        == 0
    )
    photos = {subset: {path.stem for path in (out / "images" / subset).iterdir()} for subset in ("train", "val")}
    assert (len(photos["train"]), len(photos["val"])) == (3, 1)
    assert photos["train"] | photos["val"] == set(RESULTS)
    if name == "yolo":
        assert (out / "data.yaml").read_text().startswith("train: images/train\nval: images/val\n")
        assert {path.stem for path in (out / "labels/val").iterdir()} == photos["val"]
    else:
        content = json.loads((out / "instances_val.json").read_text())
        assert [image["file_name"] for image in content["images"]] == [f"val/{key}.bmp" for key in photos["val"]]


def test_a_format_without_subsets_says_so(folder, tmp_path, capsys):
    line = refused(capsys, str(folder), "--to", "voc", "--val", "0.5", "--out", str(tmp_path / "out"))
    assert line.endswith("voc has no train and val; take coco, yolo, or leave --val out")
