"""What is said of a result that should not be believed."""

import json

import numpy as np
import pytest
from PIL import Image

from pnp_ovss import Segmenter, load_vlm
from pnp_ovss.images import read_image
from pnp_ovss.methods.doubts import doubts
from pnp_ovss.mini import HELD_OUT_SEED, TUNE_SEED, draw
from pnp_ovss.mini.territory import distance, is_drawn
from shared import shared
from tiny import tiny_blip

NOISE = np.random.default_rng(0).integers(0, 255, (60, 80, 3), dtype=np.uint8)


@pytest.mark.parametrize("size", [80, 112, 224, (240, 160)])
def test_drawn_scenes_look_drawn(size):
    found = [is_drawn(draw(HELD_OUT_SEED, index, size).image) for index in range(60)]
    assert np.mean(found) >= 0.99


def test_photos_and_other_pictures_do_not_look_drawn():
    photos = [read_image(path) for path in sorted(shared("data/coco-dev/images").glob("*.jpg"))[::4]]
    assert np.mean([is_drawn(photo) for photo in photos]) <= 0.05
    for other in (NOISE, np.zeros((50, 50, 3), np.uint8), np.full((9, 900, 3), 255, np.uint8), NOISE[:1, :1]):
        assert not is_drawn(other)


def test_size_and_compression_hardly_matter(tmp_path):
    scene = draw(TUNE_SEED, 3, 224).image
    Image.fromarray(scene).save(tmp_path / "scene.jpg", quality=75)
    large = np.asarray(Image.fromarray(scene).resize((900, 900)))
    for same in (read_image(tmp_path / "scene.jpg"), large):
        assert distance(same) == pytest.approx(distance(scene), abs=0.5)


def test_a_mini_model_says_that_it_knows_no_photos():
    said = doubts(load_vlm("mini-blip", device="cpu"), NOISE, 9.0)
    advice = "take a model for photos, such as blip-large-flickr"
    assert said == (f"mini-blip knows drawn scenes only, which this is not: its masks mean nothing; {advice}",)
    assert doubts(load_vlm("mini-blip", device="cpu"), draw(HELD_OUT_SEED, 1).image, 9.0) == ()


def test_a_model_that_knows_any_name_is_not_doubted_for_its_photos(tiny_blip_folder):
    assert doubts(load_vlm(tiny_blip_folder, device="cpu"), NOISE, 0.0) == ()


def test_a_low_match_is_doubted_below_the_model_s_own_bound(tmp_path):
    folder = tiny_blip(tmp_path / "model")
    line = "the match of -0.5 is low (below 0): the photo may not show what is named"
    assert doubts(load_vlm(folder, device="cpu"), NOISE, -0.5) == (line,)
    (folder / "calibration.json").write_text(json.dumps({"match": -1.0}))
    assert doubts(load_vlm(folder, device="cpu"), NOISE, -0.5) == ()
    assert doubts(load_vlm(folder, device="cpu"), NOISE, None) == ()


def test_the_result_carries_them_and_the_overlay_shows_them():
    segmenter = Segmenter.from_pretrained("mini-blip", device="cpu")
    result = segmenter(NOISE, ["rocket"])
    assert result.doubts[0].startswith("mini-blip knows drawn scenes only")
    assert result.record("a", "a.jpg", 0.0)["doubts"] == list(result.doubts)
    plain = segmenter(draw(HELD_OUT_SEED, 1, (60, 80)).image, draw(HELD_OUT_SEED, 1).things)
    assert plain.doubts == ()
    assert result.overlay().height > plain.overlay().height
