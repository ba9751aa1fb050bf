import hashlib
from functools import cache

import numpy as np
import pytest
from PIL import Image

from pnp_ovss.mini import CLASSES, SIMILAR, STUFF, THINGS, Scene, draw
from pnp_ovss.mini.drawing import DRAWINGS, TELLING, Canvas, pick_colours, strokes
from pnp_ovss.mini.scenes import Placed, paint


def draw_alone(name: str, seed: int = 0, size: int = 112) -> tuple[np.ndarray, np.ndarray]:
    """One thing on white, and its parts: 0 for the white, 1 for the rest of the thing, 2 for its telling part."""
    canvas = Canvas(Image.new("RGB", (2 * size, 2 * size), "white"), Image.new("L", (2 * size, 2 * size)))
    paint(canvas, Placed(name, x=0.5, y=0.5, width=0.92, degrees=0.0, flipped=False), np.random.default_rng(seed))
    labels = np.asarray(canvas.labels)[1::2, 1::2]
    return np.array(canvas.picture.reduce(2)), (labels > 0).astype(np.uint8) + (labels >= TELLING)


@cache
def scenes() -> tuple[Scene, ...]:
    return tuple(draw(0, index, 64) for index in range(200))


def names_in(mask: np.ndarray) -> dict[str, float]:
    """Every class of a mask and its share of the pixels."""
    numbers, counts = np.unique(mask, return_counts=True)
    return {CLASSES[number]: count / mask.size for number, count in zip(numbers, counts, strict=True)}


def test_the_same_number_is_the_same_scene():
    first, again = draw(3, 14), draw(3, 14)
    np.testing.assert_array_equal(first.image, again.image)
    np.testing.assert_array_equal(first.mask, again.mask)
    assert (first.things, first.stuff, first.caption) == (again.things, again.stuff, again.caption)


def test_another_seed_or_index_is_another_scene():
    assert not np.array_equal(draw(0, 1, 48).image, draw(0, 2, 48).image)
    assert not np.array_equal(draw(0, 1, 48).image, draw(1, 1, 48).image)


def test_drawing_leaves_the_global_generator_alone():
    np.random.seed(5)
    expected = np.random.random()
    np.random.seed(5)
    draw(0, 0, 48)
    assert np.random.random() == expected


@pytest.mark.parametrize("index", range(12))
def test_a_scene_keeps_its_layout_at_any_size(index):
    small, large = draw(0, index, 112), draw(0, index, 336)
    assert (small.things, small.stuff, small.caption) == (large.things, large.stuff, large.caption)
    assert (small.mask == large.mask[1::3, 1::3]).mean() > 0.95
    shrunk = large.image.reshape(112, 3, 112, 3, 3).mean((1, 3))
    assert np.abs(small.image - shrunk).mean() < 8


@pytest.mark.parametrize(("size", "shape"), [(56, (56, 56)), ((60, 100), (60, 100)), ((101, 57), (101, 57))])
def test_the_size_is_a_side_or_height_and_width(size, shape):
    scene = draw(1, 5, size)
    assert (scene.image.shape, scene.image.dtype) == ((*shape, 3), np.uint8)
    assert (scene.mask.shape, scene.mask.dtype) == (shape, np.uint8)
    assert scene.image.flags.writeable  # torch.from_numpy warns otherwise


def test_what_is_named_is_what_is_seen():
    for scene in [*scenes(), *(draw(2, index, (48, 96)) for index in range(50))]:
        shares = names_in(scene.mask)
        assert set(shares) == {*scene.things, *scene.stuff}
        assert min(shares.values()) > 0.006


def test_a_scene_has_one_to_four_things_on_one_or_two_grounds():
    counts = np.bincount([len(scene.things) for scene in scenes()], minlength=5)
    assert counts[0] == 0
    assert counts[1:].min() > 20
    assert len(counts) == 5
    assert {len(scene.stuff) for scene in scenes()} == {1, 2}


def test_every_class_is_met_soon():
    seen = {name for scene in scenes() for name in (*scene.things, *scene.stuff)}
    assert seen == {*THINGS, *STUFF}


def test_the_things_mask_keeps_things_and_drops_stuff():
    scene = draw(0, 1)
    things = scene.things_mask()
    assert things.dtype == np.uint8
    assert set(names_in(things)) == {"background", *scene.things}
    np.testing.assert_array_equal(things[things > 0], scene.mask[things > 0])
    assert all(CLASSES[number] in STUFF for number in np.unique(scene.mask[things == 0]))


def test_the_caption_names_every_thing_and_every_ground():
    for scene in scenes():
        assert all(name in scene.caption for name in (*scene.things, *scene.stuff)), scene.caption


def test_a_caption_is_plain_english():
    captions = {scene.things: scene.caption for scene in scenes()}
    three = next(things for things in captions if len(things) == 3 and things[0][0] not in "aiu")
    a, b, c = three
    an = ["an" if name[0] in "aeiou" else "a" for name in three]
    assert captions[three].startswith(f"{an[0]} {a}, {an[1]} {b} and {an[2]} {c} ")


def test_the_tables_agree():
    assert len(THINGS) == len(set(THINGS)) == 20
    assert len(STUFF) == 6
    assert ("background", *THINGS, *STUFF) == CLASSES
    assert tuple(DRAWINGS) == THINGS
    assert set(SIMILAR) == set(THINGS)
    for name, rivals in SIMILAR.items():
        assert 2 <= len(set(rivals) - {name}) == len(rivals) <= 4
        assert set(rivals) <= set(THINGS)


@pytest.mark.parametrize("name", THINGS)
def test_a_drawing_names_colours_and_roles_that_exist(name):
    colours = pick_colours(name, np.random.default_rng(0))
    used = {stroke.colour for stroke in strokes(name)}
    assert {colour for colour in used if isinstance(colour, str)} <= set(colours)
    assert all(len(colour) in (3, 4) for colour in used if not isinstance(colour, str))
    assert {stroke.role for stroke in strokes(name)} == {"rest", "telling", "detail"}
    assert set(DRAWINGS[name]["picks"]) <= used  # no colour is drawn at random for nothing
    points = np.concatenate([stroke.points for stroke in strokes(name)])
    assert -0.05 < points.min() < points.max() < 1.05


def test_a_scene_is_the_one_that_the_checkpoints_learned_from():
    """The pixels of a scene may never change: the shipped checkpoints and every score depend on them."""
    scene = draw(0, 7, 112)
    assert scene.caption == "a star in the sky"
    assert hashlib.sha256(scene.image.tobytes() + scene.mask.tobytes()).hexdigest()[:20] == "20c9f0c9b40f7eb20d21"


@pytest.mark.parametrize("name", THINGS)
def test_a_thing_has_a_telling_part_and_a_plainer_rest(name):
    image, parts = draw_alone(name, size=112)
    assert (image[parts == 0] > 200).mean() > 0.95  # outside the thing the paper is white, but for smooth edges
    assert 0.25 < (parts > 0).mean() < 0.7
    assert 0.3 < (parts == 2).sum() / (parts > 0).sum() < 0.5


def test_telling_colours_differ_more_between_rivals_than_the_colours_of_the_rest():
    telling, rest = (np.array([_colours(name, part) for name in THINGS]) for part in (2, 1))
    pairs = [(THINGS.index(a), THINGS.index(b)) for a, rivals in SIMILAR.items() for b in rivals]
    apart = {
        part: [np.abs(table[a] - table[b]).sum() for a, b in pairs] for part, table in (("t", telling), ("r", rest))
    }
    assert np.mean(apart["t"]) > 1.3 * np.mean(apart["r"])


def _colours(name: str, part: int) -> np.ndarray:
    """A histogram of 64 coarse colours over one part of a thing, over several seeds."""
    pixels = [image[parts == part] for image, parts in (draw_alone(name, seed, 56) for seed in range(12))]
    coarse = np.concatenate(pixels) // 64 @ np.array([16, 4, 1])
    return np.bincount(coarse, minlength=64) / len(coarse)
