"""Pictures for people: colours that differ, legends that hide nothing, heat in order."""

import inspect
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pnp_ovss.pictures import Row, class_colours, contact_sheet, label_png, overlay
from pnp_ovss.pictures.legend import Entry, legend
from pnp_ovss.pictures.overlay import paint
from pnp_ovss.pictures.palette import DARK
from pnp_ovss.pictures.sheet import TILE, _left, heat
from pnp_ovss.pictures.text import PAPER, fitted, font, legible, share, wrapped

LONG = ("background", *(f"a very long name of many words, number {index}" for index in range(25)))

TO_CONES = np.array([[0.4122, 0.5363, 0.0514], [0.2119, 0.6807, 0.1074], [0.0883, 0.2817, 0.6300]])
TO_OKLAB = np.array([[0.2105, 0.7936, -0.0041], [1.9780, -2.4286, 0.4506], [0.0259, 0.7828, -0.8087]])
# What an eye without red cones, without green cones makes of linear RGB (Machado, Oliveira, Fernandes 2009).
WITHOUT_RED = np.array([[0.1523, 1.0526, -0.2049], [0.1145, 0.7863, 0.0992], [-0.0039, -0.0481, 1.0520]])
WITHOUT_GREEN = np.array([[0.3673, 0.8606, -0.2280], [0.2801, 0.6725, 0.0474], [-0.0118, 0.0429, 0.9689]])


def oklab(colours: np.ndarray, eye: np.ndarray) -> np.ndarray:
    """Return colours where equal distances look equally far."""
    scaled = colours / 255
    linear = np.where(scaled <= 0.04045, scaled / 12.92, ((scaled + 0.055) / 1.055) ** 2.4)
    return np.cbrt((linear @ eye.T).clip(0) @ TO_CONES.T) @ TO_OKLAB.T


def nearest(colours: np.ndarray, eye: np.ndarray) -> float:
    seen = oklab(colours, eye)
    return min(np.linalg.norm(a - b) for a, b in combinations(seen, 2))


@pytest.mark.parametrize(("names", "normal", "blind"), [(8, 0.13, 0.06), (32, 0.06, 0.02)])
def test_colours_are_told_apart_with_any_colour_vision(names, normal, blind):
    colours = class_colours(("background", *map(str, range(names))))
    assert nearest(colours, np.eye(3)) > normal
    assert min(nearest(colours, WITHOUT_RED), nearest(colours, WITHOUT_GREEN)) > blind


def test_a_hundred_names_have_a_hundred_colours():
    assert len(np.unique(class_colours([str(index) for index in range(100)]), axis=0)) == 100


def test_a_name_has_its_colour_with_and_without_background():
    with_background, without = class_colours(("background", "dog", "cat")), class_colours(("dog", "cat"))
    assert tuple(with_background[0]) == DARK
    assert np.array_equal(with_background[1:], without)
    assert class_colours(("dog", "background")).tolist()[1] != list(DARK)  # dark means that nothing was found


def test_a_label_map_keeps_its_labels_and_shows_their_colours():
    labels = np.array([[0, 1, 2], [2, 255, 0]])
    picture = label_png(labels)
    assert picture.mode == "P"
    assert np.array_equal(np.asarray(picture), labels)
    colours = class_colours(("background", "dog", "cat"))
    assert np.asarray(picture.convert("RGB"))[0].tolist() == colours.tolist()
    shown = np.asarray(label_png(labels[:, :1] - labels[:, :1], class_colours(("dog",))).convert("RGB"))
    assert shown[0, 0].tolist() == class_colours(("dog",))[0].tolist()


@pytest.mark.parametrize("label", [-1, 256])
def test_labels_beyond_a_palette_are_refused(label):
    with pytest.raises(ValueError, match=r"labels run from .* 0 to 255 fit a palette picture"):
        label_png(np.array([[0, label]]) if label > 0 else np.array([[label, 0]]))


SIZES = [(1, 1), (1, 5000), (5000, 1), (3, 7), (120, 160), (600, 400)]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("classes", [("background", "dog"), ("dog",), LONG], ids=["few", "one", "many"])
def test_any_photo_gets_an_overlay(size, classes):
    photo = np.full((*size, 3), 90, dtype=np.uint8)
    labels = np.arange(photo[..., 0].size).reshape(size) % len(classes)
    picture = overlay(photo, labels, classes)
    assert picture.mode == "RGB"
    assert min(picture.size) >= 24
    assert picture.width * picture.height < 3_000_000


@pytest.mark.parametrize("size", [(400, 600), (600, 400)])
def test_the_photo_lies_whole_beside_the_legend(size):
    photo = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    labels = np.zeros(size, dtype=np.int64)
    labels[100:, 50:] = 3
    picture = np.asarray(overlay(photo, labels, LONG))
    painted = paint(photo, labels, class_colours(LONG), background=True)
    margin = (np.any(picture != PAPER, axis=(1, 2))).argmax()  # rows of bare paper above the photo
    assert np.array_equal(picture[margin : margin + size[0], margin : margin + size[1]], painted)
    upright = size[0] > size[1]
    assert (picture.shape[1] > 1.3 * size[1]) == upright  # the legend is at its right, else below
    assert (picture.shape[0] > 1.3 * size[0]) != upright


def test_without_background_the_first_class_has_its_colour():
    photo = np.full((400, 500, 3), 100, dtype=np.uint8)
    picture = np.asarray(overlay(photo, np.zeros((400, 500), dtype=np.int64), ("dog", "cat")))
    assert np.abs(picture[200, 250] - (0.45 * 100 + 0.55 * class_colours(("dog",))[0])).max() <= 1


def test_regions_are_tinted_bordered_and_the_background_is_the_dimmed_photo():
    photo = np.full((9, 9, 3), 120, dtype=np.uint8)
    labels = np.zeros((9, 9), dtype=np.int64)
    labels[:, 5:] = 1
    colours = class_colours(("background", "dog"))
    painted = paint(photo, labels, colours, background=True).astype(int)
    assert np.ptp(painted[4, 2]) <= 1  # no colour of its own
    assert painted[4, 2].max() < 120
    assert painted[4, 5].min() > 230  # the border is near white
    assert np.abs(painted[4, 7] - (0.45 * 120 + 0.55 * colours[1])).max() <= 1
    assert not np.array_equal(paint(photo, labels, colours, background=False)[4, 2], painted[4, 2])


def test_photo_and_labels_of_different_sizes_are_refused():
    unchecked = inspect.unwrap(overlay)  # in tests the shapes are checked before
    with pytest.raises(ValueError, match="the photo is \\(4, 5\\) and the labels are \\(5, 4\\); one size is wanted"):
        unchecked(np.zeros((4, 5, 3), dtype=np.uint8), np.zeros((5, 4), dtype=np.int64), ("dog",))


@pytest.mark.parametrize("name", ["犬", "собака", "عربى", "👍🏽", "dog\u200b", "\udc80", "e\u0301", "नमस्ते", " ", "…"])
def test_no_name_stops_a_picture(name):
    overlay(np.zeros((40, 50, 3), dtype=np.uint8), np.zeros((40, 50), dtype=np.int64), ("background", name))


@pytest.mark.parametrize(
    ("name", "drawn"), [("traffic light", "traffic light"), ("café", "cafe"), ("犬", "label 3"), ("dog\n", "label 3")]
)
def test_names_are_drawn_in_letters_the_font_has(name, drawn):
    assert legible(name, "label 3") == drawn


@pytest.mark.parametrize(
    ("part", "told"),
    [
        (0.0, "0 %"),
        (1e-9, "< 0.1 %"),
        (0.0005, "0.1 %"),
        (0.034, "3.4 %"),
        (0.0994, "9.9 %"),
        (0.0996, "10 %"),
        (1.0, "100 %"),
    ],
)
def test_shares_are_told_as_people_read_them(part, told):
    assert share(part) == told


@settings(max_examples=60, deadline=None)
@given(text=st.text(min_size=1, max_size=60), width=st.integers(20, 300))
def test_fitted_text_fits(text, width):
    cut = fitted(text, font(14), width)
    assert font(14).getlength(cut) <= width or cut == "…"
    if font(14).getlength(text) <= width:
        assert cut == text


def test_a_caption_is_broken_at_spaces_and_cut_at_the_last_line():
    lines = wrapped("a bird, a dog, a bus and a snowman in the snow under the sky", font(14), 120, 2)
    assert lines[0] == "a bird, a dog, a"
    assert lines[1].startswith("bus and a")
    assert lines[1].endswith("…")
    assert len(lines) == 2


def test_a_legend_fills_the_width_with_columns_and_shows_every_colour():
    colours = class_colours(LONG).tolist()
    entries = [Entry(name, "12 %", tuple(colour)) for name, colour in zip(LONG, colours, strict=True)]
    wide, tall = legend(entries, 16, width=900), legend(entries, 16, height=900)
    assert wide.width <= 900
    assert wide.height < tall.height <= 900
    for picture in (wide, tall, legend(entries, 16), legend(entries, 16, width=1), legend(entries, 16, height=1)):
        there = {tuple(colour) for _, colour in picture.getcolors(1 << 20)}
        assert there >= {entry.colour for entry in entries}


@pytest.mark.parametrize("grey", [0, 128, 255])
def test_heat_is_lighter_where_salience_is_larger(grey):
    photo = np.full((40, 200, 3), grey, dtype=np.uint8)
    shown = heat(photo, np.linspace(3, 9, 20, dtype=np.float32)[None])
    lightness = oklab(shown[20].astype(float), np.eye(3))[:, 0]
    assert (np.diff(lightness) > -0.004).all()
    assert lightness[-1] - lightness[0] > 0.35
    assert (np.diff(lightness[20:180:20]) > 0.02).all()


def test_heat_of_a_flat_map_is_dark():
    assert heat(np.full((8, 8, 3), 255, dtype=np.uint8), np.full((2, 2), 5, dtype=np.float32)).mean() < 110


def rows(salience: int) -> list[Row]:
    photo = np.full((60, 60, 3), 200, dtype=np.uint8)
    labels = np.zeros((60, 60), dtype=np.int64)
    labels[20:40, 20:40] = 2
    found = np.where(labels == 2, 1, labels)
    found[40:, 40:] = 2
    maps = {name: np.eye(4, dtype=np.float32) for name in ("dog", "cat")[:salience]}
    return [Row(photo, labels, found, maps, "a cat", "mIoU 0.30"), Row(photo, labels, labels, {}, "", "")]


def test_on_a_contact_sheet_a_class_has_one_colour_everywhere():
    classes = ("background", "dog", "cat")
    sheet = contact_sheet(rows(2), classes, "Title", "subtitle")
    pixels = np.asarray(sheet)
    _, dog, cat = class_colours(classes)
    top = int(np.argmax((pixels[:, _left(1) + TILE // 2] == DARK).all(axis=1)))  # where the first truth begins
    middle = top + TILE // 2
    assert np.array_equal(pixels[middle, _left(1) + TILE // 2], cat)
    assert np.array_equal(pixels[middle, _left(2) + TILE // 2], dog)
    assert np.array_equal(pixels[middle + TILE // 3, _left(2) + TILE * 5 // 6], cat)
    chip = pixels[top + TILE : top + TILE + 30, _left(4) : _left(4) + 14]
    assert (chip == cat).all(axis=2).any()
    key = pixels[-60:]
    for colour in (dog, cat, DARK):
        assert (key == colour).all(axis=2).any()
    without_dog = np.asarray(contact_sheet(rows(2)[1:], classes, "Title", "subtitle"))[-60:]
    assert not (without_dog == dog).all(axis=2).any()


def test_a_contact_sheet_grows_by_rows_and_columns():
    classes = ("background", "dog", "cat")
    small, large = (contact_sheet(some, classes, "t", "s") for some in (rows(1)[:1], rows(2)))
    assert large.width > small.width
    assert large.height > small.height
    assert small.getpixel((0, 0)) == PAPER
    assert Image.new("RGB", (1, 1), PAPER).getpixel((0, 0)) == small.getpixel((small.width - 1, small.height - 1))
