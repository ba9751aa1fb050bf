"""Whether a photo shows a class: by the matching head, a dual encoder, or not at all."""

import json
import shutil

import numpy as np
import pytest
import torch

from pnp_ovss import ConfigError, Segmenter, load_vlm
from pnp_ovss.methods.presence import EVEN, Calibration, Presence, fillers, rate_presence
from pnp_ovss.mini import HELD_OUT_SEED, THINGS, draw
from pnp_ovss.models import MODELS
from pnp_ovss.models.clip import load_clip
from pnp_ovss.naming.scores import ClipNamer, Itm
from pnp_ovss.types import KEEP, Vocabulary
from tiny import tiny_blip, tiny_clip, tiny_vilt

PHOTO = np.random.default_rng(0).integers(0, 255, (20, 30, 3), dtype=np.uint8)
OTHER = np.ascontiguousarray(PHOTO[::-1, :10])
PETS = Vocabulary.of(["dog", "cat", "bird"])


def one(model, photo, vocabulary, choice="auto") -> Presence:
    (found,) = rate_presence(model, [photo], [vocabulary], choice)
    return found


@pytest.mark.parametrize(
    ("choice", "absent"),
    [("auto", ("cat", "cow")), ("all", ())],
)
def test_absent_is_what_is_not_above_the_threshold_where_that_is_asked(choice, absent):
    presence = Presence({"dog": 0.71, "cat": 0.7, "cow": 0.0}, choice, calibrated=True)
    assert presence.absent == absent
    vocabulary = Vocabulary.of({"dog": ["dog"], "cat": ["cat", "kitten"], "cow": ["cow"]})
    assert presence.present(vocabulary).classes == tuple(name for name in vocabulary.classes if name not in absent)


def test_a_background_without_another_class_is_nothing_to_look_for():
    vocabulary = Vocabulary.of({"background": ["sky"], "dog": ["dog"]})
    assert Presence({"dog": 0.1}, "auto", True).present(vocabulary).words == {}
    assert Presence({"dog": 0.9}, "auto", True).present(vocabulary) == vocabulary
    assert Presence({"dog": 0.1}, "all", True).present(vocabulary) == vocabulary


def test_the_chance_is_what_the_namer_by_a_calibrated_model_says():
    vlm, things = load_vlm("mini-blip", device="cpu"), Vocabulary.of(["dog", "cactus", "hot air balloon"])
    scene = draw(HELD_OUT_SEED, 1).image
    said = {named.name: named.confidence for named in Itm(vlm)(scene, things, "").classes}
    found = one(vlm, scene, things)
    assert found.calibrated
    assert found.threshold == KEEP
    assert list(found.scores) == ["dog", "cactus", "hot air balloon"]
    assert found.scores == pytest.approx(said)


def test_without_a_calibration_a_word_has_to_match_better_than_other_nouns_do(tiny_blip_folder):
    vlm = load_vlm(tiny_blip_folder, device="cpu")
    odds = Itm(vlm).scores(PHOTO, (*PETS.classes, *fillers(vlm, PETS.classes, 11)))
    assert len(odds) == 11
    expected = torch.sigmoid(torch.minimum(odds[:3], odds[:3] - odds[3:].mean()))
    found = one(vlm, PHOTO, PETS)
    assert not found.calibrated
    torch.testing.assert_close(torch.tensor([*found.scores.values()]), expected)
    assert max(found.scores.values()) < 0.6  # random weights, whatever they say of everything


@pytest.mark.parametrize("known", [(), ("dog", "cat", "bird", "house")])
def test_a_dual_encoder_says_what_its_namer_says(tmp_path, known):
    clip = load_clip(tiny_clip(tmp_path, known=known), device="cpu")
    said = {named.name: named.confidence for named in ClipNamer(clip)(PHOTO, PETS, "").classes}
    # Texts are encoded together with others here: a cosine is rounded to 1e-7, and the odds are 100 times that.
    assert one(clip, PHOTO, PETS).scores == pytest.approx(said, rel=1e-4)


def test_a_class_gets_the_best_of_its_words_and_the_background_none(tiny_blip_folder):
    vlm = load_vlm(tiny_blip_folder, device="cpu")
    by_word = one(vlm, PHOTO, PETS).scores
    words = Vocabulary.of({"background": ["house"], "pet": ["dog", "cat"], "bird": ["bird"]})
    expected = {"pet": max(by_word["dog"], by_word["cat"]), "bird": by_word["bird"]}
    assert one(vlm, PHOTO, words).scores == pytest.approx(expected)


def test_photos_with_their_own_classes_are_rated_as_if_alone(tiny_blip_folder):
    vlm = load_vlm(tiny_blip_folder, device="cpu")
    some = Vocabulary.of(["cat"])
    together = rate_presence(vlm, [PHOTO, OTHER], [PETS, some], "auto")
    assert together[0].scores == pytest.approx(one(vlm, PHOTO, PETS).scores)
    assert together[1].scores == pytest.approx(one(vlm, OTHER, some).scores)


def test_a_model_with_one_logit_says_nothing(tmp_path):
    assert rate_presence(load_vlm(tiny_vilt(tmp_path), device="cpu"), [PHOTO], [PETS], "auto") is None


def test_a_calibration_lies_beside_its_checkpoint(tmp_path):
    folder = tiny_blip(tmp_path / "model")
    assert Calibration.of(load_vlm(folder, device="cpu")) is None
    (folder / "calibration.json").write_text(json.dumps({"presence": {"slope": 2.0, "cut": -9.0}}))
    vlm = load_vlm(folder, device="cpu")
    scores = Itm(vlm).scores(PHOTO, PETS.classes)
    found = one(vlm, PHOTO, PETS)
    assert found.calibrated
    torch.testing.assert_close(torch.tensor([*found.scores.values()]), torch.sigmoid(2 * (scores + 9) + EVEN))
    copy = shutil.copytree(MODELS["mini-blip"].source, tmp_path / "copy")
    assert Calibration.of(load_vlm(copy, device="cpu")) == Calibration.of(load_vlm("mini-blip", device="cpu"))


def test_mini_blip_knows_which_things_a_scene_shows():
    vlm, things = load_vlm("mini-blip", device="cpu"), Vocabulary.of(THINGS)
    right = named = true = 0
    for index in range(20):
        scene = draw(HELD_OUT_SEED, index)
        kept = {*THINGS} - {*one(vlm, scene.image, things).absent}
        right, named, true = right + len(kept & {*scene.things}), named + len(kept), true + len(scene.things)
    assert right / named > 0.9
    assert right / true > 0.9


def test_another_choice_is_refused_before_a_model_is_fetched():
    with pytest.raises(ConfigError, match="^expected present to be 'auto' or 'all', got 'none'; choose one$"):
        Segmenter.from_pretrained("nobody/nothing", present="none")
