"""One value and one colour per class for a whole run."""

import numpy as np
import pytest

from pnp_ovss.errors import InputError
from pnp_ovss.pictures import DARK, class_colours
from pnp_ovss.pictures.palette import Palette, read_colours

SIX = class_colours(("background", *"abcdef"))


def test_an_empty_palette_counts_as_the_classes_come():
    palette = Palette()
    assert palette.values_of(("background", "dog", "cat")) == [0, 1, 2]
    assert palette.values_of(("dog", "cat")) == [0, 1]
    assert np.array_equal(palette.colours_of(("background", "dog")), SIX[:2])
    assert np.array_equal(palette.colours_of(("dog", "cat")), SIX[1:3])


def test_a_class_has_one_value_and_colour_whatever_is_with_it():
    palette = Palette({"dog": 1, "cat": 2, "bird": 5})
    for classes in (("background", "cat"), ("bird", "cat"), ("background", "dog", "cat", "bird")):
        values, colours = palette.values_of(classes), palette.colours_of(classes)
        for name, value, colour in zip(classes, values, colours.tolist(), strict=True):
            assert value == palette.numbers.get(name, 0)
            assert colour == (list(DARK) if name == "background" else SIX[value].tolist())
    assert palette.values_of(("background", "cow", "cat", "emu")) == [0, 3, 2, 4]
    assert palette.numbers == {"dog": 1, "cat": 2, "bird": 5}
    table = palette.table_of(("background", "bird"))
    assert table.shape == (6, 3)
    assert table[5].tolist() == SIX[5].tolist()


def test_a_palette_that_grows_keeps_what_it_gave():
    palette = Palette(grows=True)
    assert palette.values_of(("background", "dog", "cat")) == [0, 1, 2]
    assert palette.values_of(("bird", "cat")) == [3, 2]
    assert palette.numbers == {"dog": 1, "cat": 2, "bird": 3}


def test_a_full_palette_still_tells_the_classes_of_a_photo_apart():
    palette = Palette({str(number): number for number in range(1, 256)}, grows=True)
    values = palette.values_of(("background", "7", "dog", "cat"))
    assert values[:2] == [0, 7]
    assert len(set(values)) == 4
    assert max(values) <= 255
    assert len(palette.numbers) == 255


def test_what_is_in_use_keeps_its_value():
    palette = Palette({"dog": 1, "cat": 2, "bird": 3})
    palette.begin_with({"cat": 1, "cow": 3})
    assert palette.numbers == {"cat": 1, "cow": 3, "dog": 2, "bird": 4}


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.txt", "# mine\ndog: #ff8000\nTraffic Light: 0,128,255\n\ncat: red\n"),
        ("a.json", '{"dog": "#ff8000", "traffic light": [0, 128, 255], "cat": "red"}'),
        (
            "labelmap.txt",
            "# label:color_rgb:parts:actions\ndog:255,128,0::\ntraffic light:0,128,255::\ncat:255,0,0::\n",
        ),
    ],
)
def test_colours_come_from_a_file(tmp_path, name, content):
    (tmp_path / name).write_text(content)
    colours = read_colours(tmp_path / name)
    assert colours == {"dog": (255, 128, 0), "trafficlight": (0, 128, 255), "cat": (255, 0, 0)}
    palette = Palette({"Dog": 1, "cow": 2}, colours)
    assert palette.colours_of(("background", "Dog", "cow")).tolist() == [list(DARK), [255, 128, 0], SIX[2].tolist()]


@pytest.mark.parametrize("content", ["dog\n", "dog: \n", "dog: nice\n", "dog: 1,2\n"])
def test_a_line_without_a_colour_is_reported(tmp_path, content):
    (tmp_path / "a.txt").write_text(content)
    with pytest.raises(InputError, match=r"^expected a colour such as 'dog: #ff8000', .* got 'dog"):
        read_colours(tmp_path / "a.txt")
    with pytest.raises(InputError, match=r"^.*nowhere.txt cannot be read \(no such file"):
        read_colours(tmp_path / "nowhere.txt")
