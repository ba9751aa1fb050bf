"""Tuning without masks: the reward, the judge, the maps on disk, the search, the quality of a mask."""

import logging
import math
from copy import copy
from dataclasses import replace
from threading import Thread

import numpy as np
import optuna
import pytest
import torch

from pnp_ovss import Config, ConfigError, InputError, Segmenter, load_vlm, make_prompt
from pnp_ovss.methods.pnp.saliency import class_maps
from pnp_ovss.models.clip import Clip
from pnp_ovss.segmentation import Segmentation
from pnp_ovss.tuning.judge import Judge
from pnp_ovss.tuning.maps import HeadMaps, MapCache
from pnp_ovss.tuning.objective import Example, Objective
from pnp_ovss.tuning.quality import drop_below, judge_for, masks_of, rate
from pnp_ovss.tuning.reward import REWARDS, Evidence
from pnp_ovss.tuning.search import open_search
from pnp_ovss.tuning.space import BLURS, THRESHOLDS, Candidate, Space

COLOURS = ("red", "green", "blue")


class ColourClip(Clip):
    """Sees how much of a picture is red, green and blue; black is like nothing."""

    def __init__(self, known=COLOURS) -> None:
        self.name, self.revision, self.size, self.scale, self.known = "colours", "1", 8, 10.0, known
        self.device, self.batches = torch.device("cpu"), []

    def prepare(self, image):
        rows = np.arange(self.size) * image.shape[0] // self.size
        return torch.from_numpy(image[rows][:, rows].astype(np.float32)).permute(2, 0, 1) / 255

    def encode_images(self, pixels):
        self.batches.append(len(pixels))
        return pixels.mean((2, 3))

    def encode_texts(self, texts):
        names = [text.removeprefix("A picture of ") for text in texts]
        return torch.tensor([[float(name == colour) for colour in COLOURS] for name in names])


def photo() -> np.ndarray:
    """Left half red, right half green."""
    image = np.zeros((16, 16, 3), np.uint8)
    image[:, :8, 0] = image[:, 8:, 1] = 255
    return image


LEFT = np.arange(16)[None].repeat(16, 0) < 8


def evidence(seen=(True, True, True)) -> Evidence:
    """Three classes of four names; the second class's mask looks exactly like black, the third's less than that."""
    kept = [[2.0, 0.0, 1.0, 0.0], [0.5, 0.0, 1.0, 0.0], [3.0, 0.0, 0.0, 0.5]]
    removed = [[0.0, 0.0, 2.0, 0.0], [0.0, 1.0, 0.0, 0.0], [0.0, 0.0, 0.0, -1.0]]
    black = [0.5, 0.0, 1.0, 0.0]
    own = torch.tensor([0, 1, 3])
    return Evidence(torch.tensor(kept), torch.tensor(removed), torch.tensor(black), own, torch.tensor(seen))


def share(row, k: int) -> float:
    return math.exp(row[k]) / sum(math.exp(value) for value in row)


def plain(found: Evidence, form: str) -> list[float]:
    """The reward as the equations say it, class by class."""
    worth = []
    for row, k in enumerate(found.own.tolist()):
        kept, removed = share(found.kept[row].tolist(), k), share(found.removed[row].tolist(), k)
        black = share(found.black.tolist(), k)
        value = {"black": kept > black, "rest": kept > removed, "graded": kept / (kept + black)}[form]
        worth.append(float(value) if found.seen[row] else 0.0)
    return worth


@pytest.mark.parametrize("form", REWARDS)
@pytest.mark.parametrize("seen", [(True, True, True), (False, True, True), (True, False, False)])
def test_a_reward_is_its_equation(form, seen):
    found = evidence(seen)
    assert REWARDS[form](found).tolist() == pytest.approx(plain(found, form), abs=1e-6)


def test_the_rewards_of_the_hand_made_case():
    assert REWARDS["black"](evidence()).tolist() == [1, 0, 0]  # the second ties, the third is below black
    assert REWARDS["rest"](evidence()).tolist() == [1, 0, 0]
    assert REWARDS["rest"](replace(evidence(), removed=evidence().kept)).tolist() == [0, 0, 0]


def test_a_right_mask_beats_a_wrong_one_in_every_form():
    for form in REWARDS:
        judge = Judge(ColourClip(), COLOURS, form)
        right = judge(photo(), np.stack([LEFT, ~LEFT]), ["red", "green"])
        wrong = judge(photo(), np.stack([~LEFT, LEFT]), ["red", "green"])
        assert (right > wrong).all(), form
        if form != "graded":
            assert right.tolist() == [1, 1]
            assert wrong.tolist() == [0, 0]


def test_only_the_graded_reward_sees_that_half_of_an_object_is_missing():
    whole, half = LEFT[None], (LEFT & (np.arange(16)[:, None] < 8))[None]
    for form, expected in (("black", False), ("graded", True)):
        judge = Judge(ColourClip(), COLOURS, form)
        assert (judge(photo(), whole, ["red"]) > judge(photo(), half, ["red"]))[0] == expected


def test_a_class_without_a_pixel_is_worth_nothing():
    nothing = np.zeros((1, 16, 16), bool)
    for form in REWARDS:
        assert Judge(ColourClip(), COLOURS, form)(photo(), nothing, ["blue"]).tolist() == [0]


def test_the_black_picture_is_encoded_once_and_each_photo_as_one_batch():
    clip = ColourClip()
    judge = Judge(clip, COLOURS, "rest")
    masks = np.stack([LEFT, ~LEFT, np.zeros_like(LEFT)])
    for _ in range(2):
        judge(photo(), masks, COLOURS)
    assert clip.batches == [1, 5, 5]  # two masks, what the three leave; the third mask shows black
    Judge(clip, COLOURS, "black")(photo(), masks, COLOURS)
    assert clip.batches[3:] == [1, 2]


def test_one_name_has_nothing_to_be_compared_with():
    with pytest.raises(InputError, match=r"^the reward compares names and got 1; give more .* --vocabulary$"):
        Judge(ColourClip(), ["red", "red"])


def test_a_name_the_dual_encoder_cannot_know_is_refused():
    with pytest.raises(InputError, match="colours cannot know 'grey'"):
        Judge(ColourClip(), ["red", "grey"])


# Maps on disk.


@pytest.fixture(scope="module")
def vlm(tiny_blip_folder):
    return load_vlm(tiny_blip_folder, device="cpu")


SETTINGS = Config(size=32, layer=0, head=0, threshold=0.1, refiners=("blur",), sum_last_name=False)
PICTURE = np.random.default_rng(0).integers(0, 255, (40, 48, 3), dtype=np.uint8)


def test_maps_survive_half_precision_however_small_they_are():
    maps = torch.rand(2, 3, 2, 4, 4, generator=torch.Generator().manual_seed(0)) * 1e-12
    maps[0, 1, 1] = 0
    held = HeadMaps.of(maps)
    for layer in range(2):
        for head in range(3):
            largest = maps[layer, head].amax((1, 2), keepdim=True)
            assert ((held.at(layer, head) - maps[layer, head]).abs() <= 5e-4 * largest).all()


def test_one_look_gives_the_maps_of_every_layer_and_head(vlm, tmp_path):
    cache = MapCache(vlm, SETTINGS, tmp_path)
    held = cache(PICTURE, ("dog", "traffic light"))
    attention = vlm.attend(vlm.prepare(PICTURE, 32)[None], [make_prompt(["dog", "traffic light"])])
    for layer in range(vlm.layers):
        for head in range(vlm.heads):
            expected = class_maps(attention, layer, head)[0]
            torch.testing.assert_close(held.at(layer, head), expected, rtol=0, atol=5e-4 * float(expected.max()))
    assert cache.looks == 1


def test_a_photo_is_looked_at_once_by_all_who_share_the_folder(vlm, tmp_path):
    first = MapCache(vlm, SETTINGS, tmp_path)
    held = first(PICTURE, ("dog",))
    second = MapCache(vlm, replace(SETTINGS, threshold=0.4, layer=1, blur=0.1), tmp_path)
    again = second(PICTURE, ("dog",))
    assert (first.looks, second.looks) == (1, 0)
    assert np.array_equal(held.shares, again.shares)
    assert np.array_equal(held.largest, again.largest)


@pytest.mark.parametrize(
    ("classes", "config", "revision", "picture"),
    [
        (("cat",), SETTINGS, "", PICTURE),
        (("dog",), replace(SETTINGS, gradient=False), "", PICTURE),
        (("dog",), replace(SETTINGS, sum_last_name=True), "", PICTURE),
        (("dog",), replace(SETTINGS, size=16), "", PICTURE),
        (("dog",), SETTINGS, "local-other", PICTURE),
        (("dog",), SETTINGS, "", PICTURE[::-1].copy()),
    ],
)
def test_whatever_changes_the_maps_asks_for_another_look(vlm, tmp_path, classes, config, revision, picture):
    MapCache(vlm, SETTINGS, tmp_path)(PICTURE, ("dog",))
    retrained = copy(vlm)
    retrained.revision = revision or vlm.revision
    other = MapCache(retrained, config, tmp_path)
    other(picture, classes)
    assert other.looks == 1


@pytest.mark.parametrize("damage", [b"", b"PK\x03\x04 no archive", None])
def test_a_damaged_file_counts_as_absent(vlm, tmp_path, damage):
    MapCache(vlm, SETTINGS, tmp_path)(PICTURE, ("dog",))
    [file] = tmp_path.glob("*/*.npz")
    file.write_bytes(file.read_bytes()[:-40] if damage is None else damage)
    cache = MapCache(vlm, SETTINGS, tmp_path)
    for _ in range(2):
        cache(PICTURE, ("dog",))
    assert cache.looks == 1


def test_what_a_full_disk_does_not_take_stays_in_memory(vlm, tmp_path, monkeypatch, caplog):
    def full(path, content):
        raise InputError(f"{path} cannot be written (no space left on device); make room")

    monkeypatch.setattr("pnp_ovss.tuning.maps.write_bytes", full)
    cache = MapCache(vlm, SETTINGS, tmp_path)
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            for classes in (("dog",), ("cat",)):
                cache(PICTURE, classes)
    assert cache.looks == 2
    assert len(caplog.records) == 1
    assert "no space left" in caplog.text


def test_a_trial_draws_the_masks_of_the_method_without_dropout(vlm, tmp_path):
    example = Example("a", lambda: PICTURE, ("dog", "cat"))
    objective = Objective(
        MapCache(vlm, SETTINGS, tmp_path), Judge(ColourClip(None), ["dog", "cat"]), [example], SETTINGS
    )
    candidate = Candidate(layer=0, head=1, threshold=0.3, blur=0.05)
    drawn = objective.masks(PICTURE, example, candidate)
    labels = Segmenter(vlm, candidate.settings(replace(SETTINGS, passes=1)))(PICTURE, ["dog", "cat"]).labels
    same = drawn == (labels[None] == np.array([1, 2])[:, None, None])
    assert drawn.any((1, 2)).any()
    assert same.mean() > 0.995


# The search.


SPACE = Space((0, 1, 2, 3), (0, 1), (0.05, 0.15), (0.01, 0.03))
ABOUT = {"model": "none"}


def earn(candidate: Candidate, photos: int = 3):
    for _ in range(photos):
        yield np.array([0.2 * candidate.layer + 0.05 * candidate.head + candidate.threshold], np.float32)


def url(folder) -> str:
    return f"sqlite:///{folder / 'study.db'}"


@pytest.fixture(autouse=True)
def quiet():
    optuna.logging.set_verbosity(optuna.logging.CRITICAL)


def test_the_poster_s_space(vlm):
    space = Space.of(vlm)
    assert (space.thresholds, space.blurs) == (THRESHOLDS, BLURS)
    assert len(space.candidates()) == vlm.layers * vlm.heads * 5 * 6
    with pytest.raises(ConfigError, match="layer is 9"):
        Space.of(vlm, layers=[9])
    with pytest.raises(ConfigError, match="threshold is 2"):
        Space.of(vlm, thresholds=[2.0])
    with pytest.raises(ConfigError, match="blurs has no value"):
        Space.of(vlm, blurs=[])


@pytest.mark.slow
@pytest.mark.parametrize("sampler", ["random", "tpe", "grid"])
def test_no_candidate_comes_twice_and_a_finished_study_adds_none(tmp_path, sampler):
    search = open_search(url(tmp_path), ABOUT, SPACE, sampler)
    first = list(search.run(earn, 14))
    again = open_search(url(tmp_path), ABOUT, SPACE, sampler)
    assert list(again.run(earn, 14)) == []
    rest = list(again.run(earn, 1000))
    tried = [one.candidate for one in (*first, *rest)]
    assert len(first) == 14
    assert len(tried) == len(set(tried)) == len(SPACE.candidates())
    assert again.best() == max(again.finished(), key=lambda one: one.reward)
    if sampler == "grid":
        assert tried == SPACE.candidates()
    else:
        assert tried != SPACE.candidates()


def test_the_seed_decides_a_random_search(tmp_path):
    def tried(name: str, seed: int) -> list[Candidate]:
        search = open_search(f"sqlite:///{tmp_path / name}.db", ABOUT, SPACE, seed=seed)
        return [one.candidate for one in search.run(earn, 6)]

    assert tried("a", 0) == tried("b", 0) != tried("c", 1)


def test_a_stopped_study_goes_on_and_gives_back_what_was_begun(tmp_path):
    def stopping(candidate: Candidate):
        begun.append(candidate)
        if len(begun) == 4:
            raise KeyboardInterrupt
        return earn(candidate)

    begun: list[Candidate] = []
    with pytest.raises(KeyboardInterrupt):
        list(open_search(url(tmp_path), ABOUT, SPACE).run(stopping, 8))
    search = open_search(url(tmp_path), ABOUT, SPACE)
    assert [one.candidate for one in search.finished()] == begun[:3]
    rest = [one.candidate for one in search.run(earn, 8)]
    assert rest[0] == begun[3]
    assert len(rest) == 5
    assert len({one.candidate for one in search.finished()}) == 8


@pytest.mark.slow
def test_the_trial_of_a_killed_worker_is_taken_up_by_another(tmp_path):
    killed = open_search(url(tmp_path), ABOUT, SPACE, "grid", grace=2)
    with pytest.warns(UserWarning, match="Heartbeat"):
        trial = killed.study.ask()
    lost = killed._claim(trial)
    killed.study._storage.record_heartbeat(trial._trial_id)  # a sign of life, and then none
    search = open_search(url(tmp_path), ABOUT, SPACE, "grid", grace=2)
    list(search.run(earn, len(SPACE.candidates())))
    assert lost in {one.candidate for one in search.finished()}
    assert len({one.candidate for one in search.finished()}) == len(search.finished()) == len(SPACE.candidates())


@pytest.mark.filterwarnings(
    "ignore::optuna.exceptions.ExperimentalWarning"
)  # filters are the process's, not a thread's
def test_two_workers_share_a_study_without_repeating_a_trial(tmp_path):
    found: list[list[Candidate]] = [[], []]

    def work(worker: int) -> None:
        search = open_search(url(tmp_path), ABOUT, SPACE)
        found[worker] += [one.candidate for one in search.run(earn, len(SPACE.candidates()))]

    open_search(url(tmp_path), ABOUT, SPACE)
    workers = [Thread(target=work, args=(worker,)) for worker in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert sorted(map(str, found[0] + found[1])) == sorted(map(str, SPACE.candidates()))


def test_poor_candidates_are_dropped_after_a_few_photos(tmp_path):
    looked: dict[Candidate, int] = {}

    def counted(candidate: Candidate):
        for values in earn(candidate, photos=40):
            looked[candidate] = looked.get(candidate, 0) + 1
            yield values

    search = open_search(url(tmp_path), ABOUT, SPACE)
    finished = list(search.run(counted, 32))
    dropped = [one for one in finished if one.dropped]
    assert dropped
    assert all(looked[one.candidate] == one.classes == 10 for one in dropped)
    assert not any(one.dropped for one in finished[:5])
    assert search.best().candidate.layer == 3
    assert not search.best().dropped
    whole = open_search(f"sqlite:///{tmp_path}/whole.db", ABOUT, SPACE)
    assert not any(one.dropped for one in whole.run(counted, 12, prune=False))


def test_a_study_of_something_else_is_refused(tmp_path):
    open_search(url(tmp_path), ABOUT, SPACE)
    with pytest.raises(ConfigError, match="begun with another model: none, not other; give what it was begun with"):
        open_search(url(tmp_path), {"model": "other"}, SPACE)
    with pytest.raises(ConfigError, match="another seed"):
        open_search(url(tmp_path), ABOUT, SPACE, seed=1)


def test_a_storage_that_cannot_be_used_is_told_in_one_line_without_its_password(tmp_path):
    with pytest.raises(InputError, match=r"cannot be read or written \(.*unable to open database file\)"):
        open_search(f"sqlite:///{tmp_path}/no/such/study.db", ABOUT, SPACE)
    with pytest.raises(ConfigError, match="the storage is no address such as"):
        open_search("study.db", ABOUT, SPACE)
    with pytest.raises(InputError) as refused:
        open_search("mysql://me:secret@localhost/x", ABOUT, SPACE)
    assert "secret" not in str(refused.value)
    assert "\n" not in str(refused.value)


# The quality of a mask.


def segmentation(background: bool = True) -> Segmentation:
    """Red found on the left, green where blue would be second best, blue on one row of the right."""
    scores = np.zeros((4, 16, 16), np.float32)
    scores[0] = 0.1
    scores[1, :, :8] = 0.9
    scores[2, :, 8:] = 0.8
    scores[3, 8:, 8:] = 0.4
    scores[3, 0, 8:] = 0.85
    classes = ("background", *COLOURS)
    if not background:
        scores, classes = scores[1:], COLOURS
    salience = np.arange(12, dtype=np.float32).reshape(3, 2, 2)
    labels = scores.argmax(0).astype(np.int32)
    return Segmentation(labels, classes, scores, salience, 1.0, Config(), "m", "r", "v")


def test_a_rated_segmentation_has_a_quality_per_class():
    result = rate(segmentation(), photo(), judge_for(ColourClip(), COLOURS))
    assert segmentation().quality is None
    red, green, blue = result.quality
    assert red > 0.7
    assert green > 0.7
    assert blue < 0.5
    masks, names = masks_of(result)
    assert names == COLOURS
    assert masks.shape == (3, 16, 16)
    assert masks[0].sum() == 128


def test_a_dropped_class_leaves_its_pixels_to_the_next_best():
    result = replace(segmentation(), quality=np.array([0.9, 0.2, 0.3], np.float32))
    kept = drop_below(result, 0.25)
    assert kept.classes == ("background", "red", "blue")
    assert kept.scores.shape == (3, 16, 16)
    assert kept.salience.shape == (2, 2, 2)
    assert kept.salience[1, 0, 0] == 8
    assert kept.quality.tolist() == pytest.approx([0.9, 0.3])
    assert (kept.labels[8:, 8:] == 2).all()
    assert (kept.labels[1:8, 8:] == 0).all()
    assert (kept.labels[:, :8] == 1).all()
    assert drop_below(result, 0.2) is result


def test_dropping_all_leaves_the_background_or_the_best_class():
    none = drop_below(replace(segmentation(), quality=np.array([0.1, 0.3, 0.2], np.float32)), 0.5)
    assert none.classes == ("background",)
    assert not none.labels.any()
    assert len(none.quality) == 0
    best = drop_below(replace(segmentation(background=False), quality=np.array([0.1, 0.3, 0.2], np.float32)), 0.5)
    assert best.classes == ("green",)
    assert not best.labels.any()


def test_a_single_class_is_compared_with_common_nouns():
    assert len(judge_for(ColourClip(), ["red"]).names) == 3
    nouns = judge_for(ColourClip(None), ["red"]).names
    assert len(nouns) == 50
    assert nouns[0] == "red"
    assert len(set(nouns)) == 50
