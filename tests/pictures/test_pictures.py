"""Pictures for people: colours that differ, legends that hide nothing, heat in order."""

import inspect
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from pnp_ovss.pictures import DARK, class_colours, label_png
from pnp_ovss.pictures.figures import (
    PAPER,
    SheetRow,
    contact_sheet,
    font,
    heat,
    legend,
    overlay,
    paint,
    panels,
    share,
    text,
)

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
def test_colours_are_reported_apart_with_any_colour_vision(names, normal, blind):
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
    picture = label_png(labels, class_colours(("background", *map(str, range(255)))))
    assert picture.mode == "P"
    assert np.array_equal(np.asarray(picture), labels)
    colours = class_colours(("background", "dog", "cat"))
    assert np.asarray(picture.convert("RGB"))[0].tolist() == colours.tolist()
    shown = np.asarray(label_png(labels[:, :1] - labels[:, :1], class_colours(("dog",))).convert("RGB"))
    assert shown[0, 0].tolist() == class_colours(("dog",))[0].tolist()


@pytest.mark.parametrize("label", [-1, 256])
def test_labels_beyond_a_palette_are_refused(label):
    with pytest.raises(ValueError, match=r"^expected labels from 0 to 255, got "):
        label_png(np.array([[0, label]]) if label > 0 else np.array([[label, 0]]), class_colours(["a"]))


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


def test_regions_are_tinted_bordered_and_the_background_is_the_photo():
    photo = np.random.default_rng(0).integers(100, 140, (9, 9, 3), dtype=np.uint8)
    labels = np.zeros((9, 9), dtype=np.int64)
    labels[:, 5:] = 1
    colours = class_colours(("background", "dog"))
    painted = paint(photo, labels, colours, background=True)
    assert np.array_equal(painted[:, :5], photo[:, :5])
    assert painted[4, 5].min() > 230  # the border is near white
    assert np.abs(painted[4, 7].astype(int) - (0.45 * 120 + 0.55 * colours[1])).max() <= 11
    assert not np.array_equal(paint(photo, labels, colours, background=False)[4, 2], painted[4, 2])


def test_dust_has_its_colour_and_no_border():
    photo, labels = np.full((40, 40, 3), 120, dtype=np.uint8), np.zeros((40, 40), dtype=np.int64)
    labels[10:20, 10:20] = 1
    labels[30, ::2] = 1
    painted = paint(photo, labels, class_colours(("background", "dog")), background=True)
    white = painted.min(axis=2) > 200
    assert white[10:21, 10:21].any()
    assert not white[25:].any()
    assert np.array_equal(painted[30, 0], painted[15, 15])


def test_at_no_strength_the_photo_is_left():
    photo, labels = np.random.default_rng(0).integers(0, 256, (9, 9, 3), dtype=np.uint8), np.eye(9, dtype=np.int64)
    assert np.array_equal(paint(photo, labels, class_colours(("a", "b")), False, strength=0.0), photo)


def test_photo_and_labels_of_different_sizes_are_refused():
    unchecked = inspect.unwrap(overlay)  # in tests the shapes are checked before
    with pytest.raises(ValueError, match=r"^expected labels of the photo's size \(4, 5\), got \(5, 4\)"):
        unchecked(np.zeros((4, 5, 3), dtype=np.uint8), np.zeros((5, 4), dtype=np.int64), ("dog",))


@pytest.mark.parametrize("name", ["dog", "犬", "собака", "عربى", "👍🏽", "dog\u200b", "\udc80", "e\u0301", "नमस्ते", "…"])
def test_any_name_is_drawn_into_the_legend(name):
    photo, labels = np.zeros((40, 50, 3), dtype=np.uint8), np.zeros((40, 50), dtype=np.int64)
    picture, unnamed = (np.asarray(overlay(photo, labels, ("background", drawn))) for drawn in (name, " "))
    ink = [int((part.sum(axis=2) < 300).sum()) for part in (picture, unnamed)]  # pixels
    assert ink[0] > ink[1]


@pytest.mark.parametrize(
    ("part", "shown_as"),
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
def test_shares_are_reported_as_people_read_them(part, shown_as):
    assert share(part) == shown_as


@settings(max_examples=60, deadline=None)
@given(line=st.text(st.characters(codec="ascii", exclude_categories=["Cc"]), min_size=1, max_size=60))
def test_a_line_is_as_wide_as_asked_and_whole_where_it_fits(line):
    whole, cut = text(line, 14), text(line, 14, width=60)
    assert whole.width == np.ceil(font(14).getlength(line))
    assert cut.width == 60
    if whole.width <= 60:
        assert np.array_equal(np.asarray(cut)[:, : whole.width], np.asarray(whole))


def test_a_legend_fills_the_width_with_columns_and_shows_every_colour():
    colours = class_colours(LONG).tolist()
    entries = [(name, "12 %", colour) for name, colour in zip(LONG, colours, strict=True)]
    wide, narrow = legend(entries, 16, 900), legend(entries, 16, 1)
    assert wide.width <= 900
    assert wide.height <= narrow.height / 2
    for picture in (wide, narrow):
        there = {tuple(colour) for _, colour in picture.getcolors(1 << 20)}
        assert there >= set(map(tuple, colours))


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


def test_heat_stands_beside_the_overlay_a_tile_per_class():
    photo, labels = np.full((300, 400, 3), 100, dtype=np.uint8), np.zeros((300, 400), dtype=np.int64)
    classes = ("background", "dog", "cat")
    salience = np.stack([np.eye(8, dtype=np.float32), np.zeros((8, 8), dtype=np.float32)])
    picture, left = np.asarray(panels(photo, labels, classes, salience)), np.asarray(overlay(photo, labels, classes))
    assert np.array_equal(picture[: left.shape[0], : left.shape[1]], left)
    tiles = picture[:, left.shape[1] :]
    bright = (tiles.min(axis=2) > 100) & (tiles != PAPER).any(axis=2) & (np.ptp(tiles, axis=2) > 40)
    assert bright.any()  # the dog's heat
    assert not bright[len(bright) // 2 + 20 :].any()  # the cat's tile is dark


def rows(salience: int) -> list[SheetRow]:
    photo = np.full((60, 60, 3), 200, dtype=np.uint8)
    labels = np.zeros((60, 60), dtype=np.int64)
    labels[20:40, 20:40] = 2
    found = np.where(labels == 2, 1, labels)
    found[40:, 40:] = 2
    maps = {name: np.eye(4, dtype=np.float32) for name in ("dog", "cat")[:salience]}
    return [SheetRow(photo, labels, found, maps, "a cat", "mIoU 0.30"), SheetRow(photo, labels, labels, {}, "", "")]


def count(picture: np.ndarray, colour) -> int:
    return int((picture == colour).all(axis=-1).sum())


def test_on_a_contact_sheet_a_class_has_one_colour_everywhere():
    classes = ("background", "dog", "cat")
    _, dog, cat = class_colours(classes)
    with_dog, without = (
        np.asarray(contact_sheet(some, classes, "Title", "subtitle")) for some in (rows(2), rows(2)[1:])
    )
    tile = 180 * 180 / 9  # pixels of a ninth of a tile, as the drawn regions are
    assert count(with_dog, dog) == pytest.approx(tile, rel=0.2)  # where it was found for the cat
    assert count(with_dog, cat) == pytest.approx(4 * tile, rel=0.2)  # truth, labels beside it, and both of row two
    assert count(without, dog) == 0
    key = with_dog[-120:]
    for colour in (dog, cat, DARK):
        assert count(key, colour) > 50
    assert count(without[-120:], cat) > 50


def test_a_contact_sheet_grows_by_rows_and_columns():
    classes = ("background", "dog", "cat")
    small, large = (contact_sheet(some, classes, "t", "s") for some in (rows(1)[:1], rows(2)))
    assert large.width > small.width
    assert large.height > small.height
    assert small.getpixel((0, 0)) == PAPER
    assert small.getpixel((small.width - 1, small.height - 1)) == PAPER
