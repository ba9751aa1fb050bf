"""What people do with a result: its masks by name, its pictures, its files."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pnp_ovss import Config, InputError, Segmentation
from pnp_ovss.pictures import class_colours
from pnp_ovss.pictures.palette import Palette
from pnp_ovss.refine.scores import ScoreMap
from pnp_ovss.runs.record import load_results, numbers_in

CLASSES = ("background", "dog", "traffic light")
LABELS = np.array([[0, 1, 1, 1], [2, 1, 0, 1]])
PHOTO = np.full((2, 4, 3), 90, np.uint8)


def segmentation(**more) -> Segmentation:
    scores, salience = np.zeros((3, 2, 4), np.float32), np.zeros((2, 2, 2), np.float32)
    about = Config(), "mini-blip", "r", "0"
    result = Segmentation(LABELS, CLASSES, ScoreMap.of(scores), salience, 1.25, *about, photo=PHOTO)
    return replace(result, **more)


def test_a_class_gives_its_mask():
    result = segmentation()
    assert result["dog"].dtype == bool
    assert result["Traffic  Light"].tolist() == (LABELS == 2).tolist()
    assert list(result) == list(CLASSES)
    assert "dog" in result
    assert "cat" not in result


def test_a_class_that_is_not_there_is_reported():
    with pytest.raises(InputError, match=r"^there is no class 'cat'; the classes are background, dog, traffic light$"):
        segmentation()["cat"]


def test_a_result_prints_as_one_line():
    line = "Segmentation(4 x 2 pixels: dog 62 %, traffic light 12 %, background 25 %; pnp on mini-blip)"
    assert repr(segmentation()) == line


def test_the_opacity_goes_from_the_photo_alone_to_the_labels_alone():
    photo = np.random.default_rng(0).integers(0, 256, (400, 400, 3), dtype=np.uint8)
    one = np.ones((400, 400), np.int64)
    result = segmentation(labels=one, score_map=ScoreMap.of(np.zeros((3, 400, 400), np.float32)), photo=photo)
    found = [np.asarray(result.overlay(opacity=opacity))[200:300, 200:300].astype(int) for opacity in (0.0, 0.5, 1.0)]
    spreads = [float(part.std(axis=(0, 1)).mean()) for part in found]
    assert spreads[0] > spreads[1] > spreads[2] == 0
    margin = (np.asarray(result.overlay()) != result.overlay().getpixel((0, 0))).any(axis=(1, 2)).argmax()
    corner = np.asarray(result.overlay(opacity=0.0))[margin : margin + 400, margin : margin + 400]
    assert np.array_equal(corner, photo)


@pytest.mark.parametrize("opacity", [-0.1, 1.5])
def test_an_opacity_beyond_its_range_is_reported(opacity):
    with pytest.raises(InputError, match=rf"^expected an opacity from 0 to 1, got {opacity}"):
        segmentation().overlay(opacity=opacity)


def test_a_result_is_saved_as_segment_writes_it(tmp_path):
    segmentation().save(tmp_path / "new", "a.dog", "photos/a.dog.jpeg", 0.25)
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == [
        "a.dog.json",
        "a.dog.overlay.png",
        "a.dog.png",
    ]
    record = json.loads((tmp_path / "new/a.dog.json").read_text())
    assert (record["key"], record["photo"], record["seconds"]) == ("a.dog", "photos/a.dog.jpeg", 0.25)
    with Image.open(tmp_path / "new/a.dog.png") as labels:
        assert np.array_equal(np.asarray(labels), LABELS)
    (found,) = load_results(tmp_path / "new")
    assert (found.file_name, found.classes) == ("a.dog.jpeg", CLASSES)


def test_values_and_colours_are_those_of_the_palette(tmp_path):
    palette = Palette({"traffic light": 3, "dog": 7}, {"dog": (255, 128, 0)})
    result = segmentation(palette=palette)
    assert result.colours.tolist() == [[38, 41, 48], [255, 128, 0], class_colours(["", "", "a"])[2].tolist()]
    result.save(tmp_path, "a")
    with Image.open(tmp_path / "a.png") as labels:
        assert np.array_equal(np.asarray(labels), np.array([0, 7, 3])[LABELS])
        assert np.asarray(labels.convert("RGB"))[0, 1].tolist() == [255, 128, 0]
    record = json.loads((tmp_path / "a.json").read_text())
    assert (record["classes"], record["values"]) == (list(CLASSES), [0, 7, 3])
    assert [part["label"] for part in record["segments"]] == [7, 3]
    (found,) = load_results(tmp_path)
    assert found.values(CLASSES[1:]).tolist() == LABELS.tolist()
    assert numbers_in(tmp_path) == {"dog": 7, "traffic light": 3}
    assert numbers_in(tmp_path, [Path("photos/a.jpg")]) == {}


def test_a_result_without_a_photo_is_not_saved(tmp_path):
    with pytest.raises(InputError, match="carries no photo"):
        segmentation(photo=None).save(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_notebook_gets_the_picture_and_a_legend_of_any_script():
    result = segmentation(classes=("background", "犬", "<b>"))
    page = result._repr_html_()
    assert page.startswith('<figure><img style="max-width: 100%" src="data:image/')
    assert "犬 62 %" in page
    assert "&lt;b&gt; 12 %" in page
    assert segmentation(photo=None)._repr_html_() is None
