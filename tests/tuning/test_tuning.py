"""Tuning without masks: the reward, the judge, the maps on disk, the search, the quality of a mask."""

import math
import subprocess
import sys
import zlib
from collections import Counter
from contextlib import suppress
from copy import copy
from dataclasses import replace
from threading import Thread

import numpy as np
import pytest
import safetensors.torch
import torch
from optuna.exceptions import UpdateFinishedTrialError
from optuna.samplers import RandomSampler
from optuna.storages import RDBStorage
from optuna.study import StudyDirection
from optuna.trial import TrialState, create_trial
from sqlalchemy.exc import OperationalError

from pnp_ovss import Config, ConfigError, InputError, Segmenter, load_vlm, make_prompt
from pnp_ovss.methods.pnp import PnP
from pnp_ovss.methods.pnp.saliency import class_maps
from pnp_ovss.models.clip import Clip
from pnp_ovss.refine.scores import ScoreMap
from pnp_ovss.segmentation import Segmentation
from pnp_ovss.tuning import search
from pnp_ovss.tuning.objective import (
    BLURS,
    THRESHOLDS,
    Candidate,
    Example,
    HeadMaps,
    MapCache,
    Objective,
    search_space,
)
from pnp_ovss.tuning.reward import REWARDS, ClipReward, drop_below, named_masks, rate
from pnp_ovss.tuning.search import (
    best_trial,
    choose,
    finished_trials,
    open_study,
    requeue,
    run_trials,
    storage_url,
)

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


KEPT = torch.tensor([0.6, 0.2, 0.1])
REMOVED = torch.tensor([0.1, 0.3, 0.05])
BLACK = torch.tensor([0.2, 0.2, 0.3])


def test_the_rewards_of_a_hand_made_case():
    assert REWARDS["black"](KEPT, REMOVED, BLACK).tolist() == [1, 0, 0]  # the second ties, the third is below black
    assert REWARDS["rest"](KEPT, REMOVED, BLACK).tolist() == [1, 0, 1]
    assert REWARDS["rest"](KEPT, KEPT, BLACK).tolist() == [0, 0, 0]
    assert REWARDS["graded"](KEPT, REMOVED, BLACK).tolist() == pytest.approx([0.75, 0.5, 0.25])


def test_the_probabilities_are_those_of_the_kept_the_removed_and_the_black_picture():
    """Half red and half green: the mean of a colour over the picture, times the model's scale of 10, is its logit."""
    kept, removed, black = ClipReward(ColourClip(), COLOURS, "rest").probabilities(photo(), LEFT[None], ["green"])
    share = 1 / (math.exp(5) + 2)  # logits 5, 0, 0
    assert kept.tolist() == pytest.approx([share])  # red alone is left
    assert removed.tolist() == pytest.approx([math.exp(5) * share])
    assert black.tolist() == pytest.approx([1 / 3])


def test_a_right_mask_beats_a_wrong_one_in_every_form():
    for form in REWARDS:
        reward = ClipReward(ColourClip(), COLOURS, form)
        right = reward(photo(), np.stack([LEFT, ~LEFT]), ["red", "green"])
        wrong = reward(photo(), np.stack([~LEFT, LEFT]), ["red", "green"])
        assert (right > wrong).all(), form
        if form != "graded":
            assert right.tolist() == [1, 1]
            assert wrong.tolist() == [0, 0]


def test_only_the_graded_reward_sees_that_half_of_an_object_is_missing():
    whole, half = LEFT[None], (LEFT & (np.arange(16)[:, None] < 8))[None]
    for form, expected in (("black", False), ("graded", True)):
        reward = ClipReward(ColourClip(), COLOURS, form)
        assert (reward(photo(), whole, ["red"]) > reward(photo(), half, ["red"]))[0] == expected


def test_a_class_without_a_pixel_is_worth_nothing():
    nothing = np.zeros((1, 16, 16), bool)
    for form in REWARDS:
        assert ClipReward(ColourClip(), COLOURS, form)(photo(), nothing, ["blue"]).tolist() == [0]


def test_the_black_picture_is_encoded_once_and_each_photo_as_one_batch():
    clip = ColourClip()
    reward = ClipReward(clip, COLOURS, "rest")
    masks = np.stack([LEFT, ~LEFT, np.zeros_like(LEFT)])
    for _ in range(2):
        reward(photo(), masks, COLOURS)
    assert clip.batches == [1, 5, 5]  # two masks, what the three leave; the third mask shows black
    ClipReward(clip, COLOURS, "black")(photo(), masks, COLOURS)
    assert clip.batches[3:] == [1, 2]


def test_one_name_has_nothing_to_be_compared_with():
    with pytest.raises(InputError, match=r"^expected two names or more to compare, got 1; give a --vocabulary$"):
        ClipReward(ColourClip(), ["red", "red"])


def test_a_name_the_dual_encoder_cannot_know_is_refused():
    with pytest.raises(InputError, match="colours cannot know 'grey'"):
        ClipReward(ColourClip(), ["red", "grey"])


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
    assert cache.passes == 1


def test_a_photo_is_looked_at_once_by_all_who_share_the_folder(vlm, tmp_path):
    first = MapCache(vlm, SETTINGS, tmp_path)
    held = first(PICTURE, ("dog",))
    second = MapCache(vlm, replace(SETTINGS, threshold=0.4, layer=1, blur=0.1), tmp_path)
    again = second(PICTURE, ("dog",))
    assert (first.passes, second.passes) == (1, 0)
    assert torch.equal(held.shares, again.shares)
    assert torch.equal(held.largest, again.largest)


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
    assert other.passes == 1


@pytest.mark.parametrize("damage", [b"", b"no maps", zlib.compress(b"no tensors"), None])
def test_a_damaged_file_counts_as_absent(vlm, tmp_path, damage):
    MapCache(vlm, SETTINGS, tmp_path)(PICTURE, ("dog",))
    [file] = tmp_path.glob("*/*.safetensors.z")
    file.write_bytes(file.read_bytes()[:-40] if damage is None else damage)
    cache = MapCache(vlm, SETTINGS, tmp_path)
    for _ in range(2):
        cache(PICTURE, ("dog",))
    assert cache.passes == 1


@pytest.mark.parametrize("name", ["shares", "largest", "other"])
def test_maps_of_another_shape_count_as_absent(vlm, tmp_path, name):
    first = MapCache(vlm, SETTINGS, tmp_path)(PICTURE, ("dog",))
    [file] = tmp_path.glob("*/*.safetensors.z")
    stored = vars(first) | {name: vars(first).get(name, first.largest)[:1].clone()}
    file.write_bytes(zlib.compress(safetensors.torch.save(stored)))
    cache = MapCache(vlm, SETTINGS, tmp_path)
    assert torch.equal(cache(PICTURE, ("dog",)).shares, first.shares)
    assert cache.passes == 1


def test_a_trial_draws_the_masks_of_the_method_without_dropout(vlm, tmp_path):
    example = Example("a", lambda: PICTURE, ("dog", "cat"))
    objective = Objective(
        MapCache(vlm, SETTINGS, tmp_path), ClipReward(ColourClip(None), ["dog", "cat"]), [example], SETTINGS
    )
    candidate = {"layer": 0, "head": 1, "threshold": 0.3, "blur": 0.05}
    labels = objective.labels(PICTURE, ("dog", "cat"), candidate)
    expected = Segmenter(PnP(vlm, replace(SETTINGS, passes=1, **candidate)))(PICTURE, ["dog", "cat"]).labels
    assert labels.any()
    assert (labels == expected).mean() > 0.995
    [rewards] = objective(candidate)
    masks = np.stack([labels == 1, labels == 2])
    assert rewards.tolist() == objective.reward(PICTURE, masks, ["dog", "cat"]).tolist()


# The search.


SPACE = {"layer": [0, 1, 2, 3], "head": [0, 1], "threshold": [0.05, 0.15], "blur": [0.01, 0.03]}
SIZE = 4 * 2 * 2 * 2
ABOUT = {"model": "none"}


def earn(candidate: Candidate, photos: int = 3):
    for _ in range(photos):
        value = 0.2 * candidate["layer"] + 0.05 * candidate["head"] + candidate["threshold"]
        yield np.array([value], np.float32)


def url(folder, name: str = "study") -> str:
    return f"sqlite:///{folder / name}.db"


def distinct(trials) -> set[tuple]:
    return {tuple(trial.params.items()) for trial in trials}


def test_the_space_of_the_poster_has_every_layer_and_head(vlm):
    space = search_space(vlm)
    assert space["layer"] == list(range(vlm.layers))
    assert space["head"] == list(range(vlm.heads))
    assert (space["threshold"], space["blur"]) == (list(THRESHOLDS), list(BLURS))
    assert search_space(vlm, head=[1, 0, 1])["head"] == [1, 0]
    with pytest.raises(ConfigError, match=r"^expected layer from 0 to 1 for .*, got 9"):
        search_space(vlm, layer=[9])
    with pytest.raises(ConfigError, match=r"^expected threshold to be a number from 0 to 1, got 2"):
        search_space(vlm, threshold=[2.0])


@pytest.mark.slow
@pytest.mark.parametrize("sampler", ["random", "tpe", "grid"])
def test_no_candidate_comes_twice_and_a_finished_study_adds_none(tmp_path, sampler):
    study = open_study(url(tmp_path), ABOUT, SPACE, sampler)
    first = list(run_trials(study, earn, 14))
    again = open_study(url(tmp_path), ABOUT, SPACE, sampler)
    assert list(run_trials(again, earn, 14)) == []
    rest = list(run_trials(again, earn, 1000))
    assert len(first) == 14
    assert len(first) + len(rest) == len(distinct([*first, *rest])) == SIZE
    assert best_trial(again).value == max(trial.value for trial in finished_trials(again))
    assert best_trial(again).params["layer"] == 3


def test_the_seed_decides_a_search(tmp_path):
    def tried(name: str, seed: int, sampler: str) -> list[Candidate]:
        study = open_study(url(tmp_path, name), ABOUT, SPACE, sampler, seed=seed)
        return [trial.params for trial in run_trials(study, earn, 3)]

    for sampler in ("random", "tpe"):
        assert tried(f"a{sampler}", 0, sampler) == tried(f"b{sampler}", 0, sampler) != tried(f"c{sampler}", 1, sampler)


def test_a_stopped_study_goes_on_and_gives_back_what_was_begun(tmp_path):
    def stopping(candidate: Candidate):
        begun.append(candidate)
        if len(begun) == 4:
            raise KeyboardInterrupt
        return earn(candidate)

    begun: list[Candidate] = []
    with pytest.raises(KeyboardInterrupt):
        list(run_trials(open_study(url(tmp_path), ABOUT, SPACE), stopping, 8))
    study = open_study(url(tmp_path), ABOUT, SPACE)
    assert [trial.params for trial in finished_trials(study)] == begun[:3]
    rest = [trial.params for trial in run_trials(study, earn, 8)]
    assert rest[0] == begun[3]
    assert len(rest) == 5
    assert len(distinct(finished_trials(study))) == 8


@pytest.mark.filterwarnings("ignore:Heartbeat of storage:UserWarning")
@pytest.mark.slow
def test_what_a_dead_process_had_begun_is_begun_again(tmp_path):
    study = open_study(url(tmp_path), ABOUT, SPACE)
    study.ask()  # killed here, before its first heartbeat
    chosen = study.ask()
    begun = {name: chosen.suggest_categorical(name, values) for name, values in SPACE.items()}
    again = open_study(url(tmp_path), ABOUT, SPACE)
    requeue(again)
    rest = [trial.params for trial in run_trials(again, earn, SIZE)]
    assert begun in rest
    assert len(rest) == len(distinct(finished_trials(again))) == SIZE


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Heartbeat of storage:UserWarning")
@pytest.mark.parametrize("queued", [False, True])
def test_a_worker_that_died_before_its_first_heartbeat_holds_nobody_up(tmp_path, monkeypatch, queued):
    space = {"layer": [0, 1, 2]}
    study = open_study(url(tmp_path), ABOUT, space)
    if queued:
        study.enqueue_trial({"layer": 1})
    study.ask()  # killed here
    monkeypatch.setattr(search, "GRACE", 1)
    tried = [trial.params["layer"] for trial in run_trials(study, lambda _: [np.ones(1)], 3)]
    assert sorted(tried) == [0, 1, 2]
    assert not queued or tried[-1] == 1


WORKER = """
import numpy, os, sys, time
from pnp_ovss.tuning.search import open_study, run_trials
space = {"layer": [0, 1, 2, 3], "head": [0, 1], "threshold": [0.05, 0.15], "blur": [0.01, 0.03]}
def rewards(candidate):
    if len(sys.argv) > 2:
        os.kill(os.getpid(), 9)
    time.sleep(0.1)
    yield numpy.array([candidate["layer"] / 4], numpy.float32)
study = open_study(sys.argv[1], {"model": "none"}, space, grace=2)
print(len(list(run_trials(study, rewards, 32))))
"""


def worker(*arguments: str) -> subprocess.Popen:
    return subprocess.Popen([sys.executable, "-c", WORKER, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE)


@pytest.mark.slow
def test_processes_share_a_study_and_take_up_the_trial_of_a_killed_one(tmp_path):
    killed = worker(url(tmp_path), "dies")
    killed.communicate()
    assert killed.returncode == -9
    workers = [worker(url(tmp_path)) for _ in range(2)]
    outputs = [one.communicate(timeout=240) for one in workers]
    assert [errors for _, errors in outputs] == [b"", b""]
    counts = [int(output) for output, _ in outputs]
    assert sum(counts) == SIZE
    assert min(counts) > 0
    assert len(distinct(finished_trials(open_study(url(tmp_path), ABOUT, SPACE)))) == SIZE


@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
@pytest.mark.parametrize("state", [TrialState.RUNNING, TrialState.COMPLETE])
def test_a_trial_is_begun_and_ended_by_one_worker_alone(tmp_path, monkeypatch, state):
    """Another worker comes between this one's reading and writing of the trial's state."""
    storages, done, others = [search._storage(url(tmp_path), 30) for _ in range(2)], [], []
    before = TrialState.WAITING if state == TrialState.RUNNING else TrialState.RUNNING
    trial = storages[0].create_new_trial(
        storages[0].create_new_study([StudyDirection.MAXIMIZE]), create_trial(state=before)
    )

    def change(storage: RDBStorage) -> None:
        with suppress(UpdateFinishedTrialError):
            done.append(storage.set_trial_state_values(trial, state))

    def check(*known) -> None:
        others.append(Thread(target=change, args=storages[1:]))
        others[0].start()
        others[0].join(0.5)
        RDBStorage.check_trial_is_updatable(storages[0], *known)

    monkeypatch.setattr(storages[0], "check_trial_is_updatable", check)
    change(storages[0])
    others[0].join()
    assert sum(done) == 1


@pytest.mark.filterwarnings(
    "ignore::optuna.exceptions.ExperimentalWarning"
)  # filters are the process's, not a thread's
@pytest.mark.slow
def test_two_workers_share_a_study_without_repeating_a_trial(tmp_path):
    found: list[list] = [[], []]

    def work(number: int) -> None:
        found[number] += run_trials(open_study(url(tmp_path), ABOUT, SPACE), earn, SIZE)

    open_study(url(tmp_path), ABOUT, SPACE)
    workers = [Thread(target=work, args=(number,)) for number in range(2)]
    for one in workers:
        one.start()
    for one in workers:
        one.join()
    assert len(found[0]) + len(found[1]) == len(distinct(found[0] + found[1])) == SIZE


@pytest.mark.slow
def test_poor_candidates_are_pruned_after_a_few_photos(tmp_path):
    photos: Counter = Counter()

    def counted(candidate: Candidate):
        for values in earn(candidate, photos=40):
            photos[tuple(candidate.items())] += 1
            yield values

    study = open_study(url(tmp_path), ABOUT, SPACE)
    finished = list(run_trials(study, counted, 16))
    pruned = [trial for trial in finished if trial.state == TrialState.PRUNED]
    assert pruned
    assert all(photos[tuple(trial.params.items())] == 10 for trial in pruned)
    assert not any(trial.state == TrialState.PRUNED for trial in finished[:5])
    assert best_trial(study).value == max(trial.value for trial in finished)
    assert photos[tuple(best_trial(study).params.items())] == 40
    whole = open_study(url(tmp_path, "whole"), ABOUT, SPACE)
    assert all(trial.state == TrialState.COMPLETE for trial in run_trials(whole, counted, 7, prune=False))


START = {"layer": 2, "head": 1, "threshold": 0.15, "blur": 0.03}


@pytest.mark.parametrize("sampler", ["random", pytest.param("tpe", marks=pytest.mark.slow)])
def test_the_settings_at_the_start_are_the_first_trial_and_no_other(tmp_path, sampler):
    study = open_study(url(tmp_path), ABOUT, SPACE, sampler, start=START)
    tried = [trial.params for trial in run_trials(study, earn, SIZE)]
    assert tried[0] == START
    assert len(tried) == SIZE
    assert tried.count(START) == 1
    again = open_study(url(tmp_path), ABOUT, SPACE, sampler, start=START)
    assert list(run_trials(again, earn, SIZE)) == []


@pytest.mark.filterwarnings("ignore:Heartbeat of storage:UserWarning")
@pytest.mark.parametrize("finished", [0, 2])
def test_a_study_that_was_killed_while_it_began_a_trial_tries_the_same_candidates(tmp_path, finished):
    whole = [trial.params for trial in run_trials(open_study(url(tmp_path), ABOUT, SPACE, start=START), earn, 4)]
    killed = open_study(url(tmp_path, "killed"), ABOUT, SPACE, start=START if finished else None)
    list(run_trials(killed, earn, finished))
    killed.sampler = RandomSampler()
    killed.ask()  # killed before anything of its candidate was written
    again = open_study(url(tmp_path, "killed"), ABOUT, SPACE, start=START)
    requeue(again)
    list(run_trials(again, earn, 4))
    assert [trial.params for trial in finished_trials(again)] == whole


@pytest.mark.parametrize("state", [TrialState.RUNNING, TrialState.COMPLETE])
def test_a_full_disk_is_one_line(tmp_path, monkeypatch, state):
    def write(storage, trial, **named):
        if named["state"] == state:
            raise OperationalError("", {}, Exception("disk is full"))
        return before(storage, trial, **named)

    before = RDBStorage.set_trial_state_values
    monkeypatch.setattr(RDBStorage, "set_trial_state_values", write)
    study = open_study(url(tmp_path), ABOUT, SPACE, start=START)
    with pytest.raises(InputError, match=r"^the study cannot be read or written \(disk is full\); give"):
        list(run_trials(study, earn, 4))


def noisy(candidate: Candidate, photos: int = 30):
    """Rewards of chance, but for layer 3, which is better in earnest."""
    for number in range(photos):
        rng = np.random.default_rng((2, number, *map(int, (100 * value for value in candidate.values()))))
        yield (rng.random(2) < (0.95 if candidate["layer"] == 3 else 0.3)).astype(np.float32)


@pytest.mark.parametrize("start", [START, pytest.param(START | {"threshold": 0.3}, marks=pytest.mark.slow)])
def test_the_start_stays_where_no_gain_is_certain_and_goes_where_one_is(tmp_path, start):
    """Also one that is not in the space, since the user chose among others."""
    worse = SPACE | {"layer": [0, 1, 2]}
    study = open_study(url(tmp_path, "worse"), ABOUT, worse, start=start)
    for _ in run_trials(study, noisy, 20):
        pass
    kept = choose(study, noisy, start)
    assert kept.best.params != start
    assert kept.gain.mean > 0
    assert not kept.gain.certain
    assert kept.params == start
    assert np.array_equal(np.concatenate(kept.rewards), np.concatenate(list(noisy(start))))
    study = open_study(url(tmp_path, "better"), ABOUT, SPACE, start=start)
    for _ in run_trials(study, noisy, 20):
        pass
    taken = choose(study, noisy, start)
    assert taken.gain.certain
    assert taken.params == taken.best.params
    assert taken.params["layer"] == 3


def test_a_start_that_is_the_best_stays_and_without_one_the_best_is_taken(tmp_path):
    best = {"layer": 3, "head": 1, "threshold": 0.15, "blur": 0.03}
    study = open_study(url(tmp_path), ABOUT, SPACE, start=best)
    assert choose(study, earn, best) is None
    for _ in run_trials(study, earn, 3):
        pass
    assert (choose(study, earn, best).params, choose(study, earn, best).gain) == (best, None)
    assert choose(study, earn, None).params == best


def test_a_study_of_something_else_is_refused(tmp_path):
    open_study(url(tmp_path), ABOUT, SPACE)
    with pytest.raises(ConfigError, match="begun with another model: none, not other$"):
        open_study(url(tmp_path), {"model": "other"}, SPACE)
    with pytest.raises(ConfigError, match="another seed"):
        open_study(url(tmp_path), ABOUT, SPACE, seed=1)


def test_a_storage_that_cannot_be_used_is_reported_in_one_line_without_its_password(tmp_path):
    with pytest.raises(InputError, match=r"cannot be read or written \(.*unable to open database file"):
        open_study(url(tmp_path / "no" / "such"), ABOUT, SPACE)
    with pytest.raises(ConfigError, match="expected a storage URL such as"):
        storage_url("study.db", tmp_path)
    with pytest.raises(InputError) as refused:
        open_study(storage_url("mysql://me:secret@localhost/x", tmp_path), ABOUT, SPACE)
    assert "secret" not in str(refused.value)
    assert "\n" not in str(refused.value)
    assert open_study(storage_url(None, tmp_path), ABOUT, SPACE).user_attrs["model"] == "none"
    assert (tmp_path / "study.db").is_file()


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
    return Segmentation(labels, classes, ScoreMap.of(scores), salience, 1.0, Config(), "m", "r", "v")


def test_a_rated_segmentation_has_a_quality_per_class():
    result = rate(segmentation(), photo(), ColourClip())
    assert segmentation().quality is None
    red, green, blue = result.quality
    assert red > 0.7
    assert green > 0.7
    assert blue < 0.5
    masks, names = named_masks(result)
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
    clip = ColourClip(known=None)
    texts: list[str] = []
    clip.encode_texts = lambda some: texts.extend(some) or torch.zeros(len(some), 3)
    result = segmentation()
    only_red = replace(
        result,
        labels=result.labels % 2,
        classes=("background", "red"),
        score_map=result.score_map.only([0, 1]),
        salience=result.salience[:1],
    )
    assert rate(only_red, photo(), clip).quality.tolist() == pytest.approx([0.5])  # vectors of 0 are like nothing
    assert len(texts) == len(set(texts)) == 50
    assert texts[0] == "A picture of red"
