"""The one way through many photos, with a toy method: order, batches, names, and what a bad photo does to the rest."""

import threading
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import replace
from time import sleep

import numpy as np
import pytest
import torch

import pnp_ovss
from pnp_ovss import Config, InputError, ModelError, Segmenter, Vocabulary
from pnp_ovss.refine.upsample import threshold_and_upsample
from pnp_ovss.runs import pipeline
from pnp_ovss.runs.pipeline import Item, run
from pnp_ovss.types import RGB, ClassMaps

PETS = Vocabulary.of(["cat", "dog"])


class Brightness:
    """Finds the first class where a photo is bright; refuses words that hold 'x'."""

    name, model, revision, device = "toy", "none", "1", torch.device("cpu")

    def __init__(self) -> None:
        self.config = Config(refiners=(), threshold=0.5)
        self.batches: list[int] = []

    def class_maps(self, images, vocabularies, on_step=None) -> list[ClassMaps]:
        self.batches.append(len(images))
        if any("x" in word for vocabulary in vocabularies for word in vocabulary.flat):
            raise InputError("a word holds x")
        maps = []
        for image, vocabulary in zip(images, vocabularies, strict=True):
            grey = torch.from_numpy(image).float().mean(2)[None]
            maps.append(ClassMaps(torch.cat([grey] + [grey * 0] * (len(vocabulary.flat) - 1)), vocabulary))
        return maps

    def scores(self, maps, size):
        return threshold_and_upsample(maps.maps[None], size, threshold=0.5, background=True)[0]


@pytest.fixture
def method() -> Brightness:
    return Brightness()


def photo(level: int) -> RGB:
    image = np.zeros((4, 4, 3), np.uint8)
    image[:2, : level + 1] = 200
    return image


def item(number: int, classes: Vocabulary | None = PETS) -> Item:
    return Item(str(number), lambda: (photo(number % 4), None), classes)


def broken(key: str) -> Item:
    def read() -> RGB:
        raise InputError(f"{key} is damaged")

    return Item(key, read, PETS)


def test_every_photo_comes_out_in_order_as_it_would_alone(method):
    segmenter = Segmenter(method)
    outcomes = list(run(lambda: segmenter, map(item, range(7)), batch=3))
    assert [outcome.key for outcome in outcomes] == list("0123456")
    for number, outcome in enumerate(outcomes):
        alone = segmenter(photo(number % 4), PETS)
        np.testing.assert_array_equal(outcome.result.labels, alone.labels)
        assert set(outcome.seconds) == {"read", "segment", "refine"}
    assert method.batches[:3] == [3, 3, 1]


def test_on_a_cpu_model_and_refinement_take_turns(method, monkeypatch):
    segmenter, cores, alone = Segmenter(method), threading.Lock(), list[bool]()

    def watched(work):
        def wrapped(*args):
            alone.append(cores.acquire(blocking=False))
            sleep(0.01)
            found = work(*args)
            cores.release()
            return found

        return wrapped

    for name in ("locate", "refine_all"):
        monkeypatch.setattr(segmenter, name, watched(getattr(segmenter, name)))
    assert len(list(run(lambda: segmenter, map(item, range(5)), finishers=2))) == 5
    assert alone == [True] * 10


def test_on_a_gpu_the_model_works_while_a_photo_is_refined(method, monkeypatch):
    method.device = torch.device("cuda")  # nothing here runs on it
    monkeypatch.setattr(pipeline, "beside", lambda device: nullcontext())
    segmenter, refining, located = Segmenter(method), threading.Event(), list[bool]()
    locate, refine = segmenter.locate, segmenter.refine_all
    monkeypatch.setattr(segmenter, "locate", lambda *args: [located.append(refining.is_set()), locate(*args)][1])

    def slow(*args):
        refining.set()
        for _ in range(1000):
            if len(located) == 3:
                break
            sleep(0.01)
        refining.clear()
        return refine(*args)

    monkeypatch.setattr(segmenter, "refine_all", slow)
    assert len(list(run(lambda: segmenter, map(item, range(3)), finishers=2))) == 3
    assert located[-1]


@pytest.mark.parametrize(("device", "sizes"), [("cpu", [1] * 4), ("cuda", [2, 2])])
def test_a_gpu_gets_a_batch_at_once_and_a_cpu_its_photos_one_by_one(method, device, sizes, monkeypatch):
    monkeypatch.setattr(pipeline, "beside", lambda device: nullcontext())
    method.device, segmenter = torch.device(device), Segmenter(method)
    refine, together, finished = segmenter.refine_all, [], []
    monkeypatch.setattr(segmenter, "refine_all", lambda some: together.append(len(some)) or refine(some))
    items = [item(0), broken("bad"), item(1), item(2), item(3, Vocabulary({})), item(4)]
    list(run(lambda: segmenter, items, batch=3, finish=lambda outcome: finished.append(outcome.key)))
    assert together == sizes
    assert finished == ["0", "bad", "1", "2", "3", "4"]


def test_a_photo_that_cannot_be_read_is_a_fault_and_the_rest_go_on(method):
    items = [item(0), broken("bad"), item(1), item(2)]
    outcomes = {outcome.key: outcome for outcome in run(lambda: Segmenter(method), items, batch=3)}
    assert str(outcomes["bad"].fault) == "bad is damaged"
    assert outcomes["bad"].result is None
    assert [outcomes[key].result.classes for key in "012"] == [("background", "cat", "dog")] * 3


def test_batches_are_cut_by_place_whatever_cannot_be_read(method):
    items = [item(0), broken("bad"), item(1), item(2), item(3, Vocabulary({})), broken("worse"), item(4)]
    assert len(list(run(lambda: Segmenter(method), items, batch=3))) == 7
    assert method.batches == [2, 1, 1]


def test_company_goes_through_the_model_and_no_further(method, monkeypatch):
    segmenter, refined, finished = Segmenter(method), [], []
    refine = segmenter.refine_all
    monkeypatch.setattr(segmenter, "refine_all", lambda some: (refined.extend(some), refine(some))[1])
    items = [replace(item(number), company=number != 2) for number in range(6)]
    outcomes = list(run(lambda: segmenter, items, batch=3, finish=lambda outcome: finished.append(outcome.key)))
    assert [outcome.key for outcome in outcomes] == finished == ["2"]
    assert outcomes[0].result is not None
    assert len(refined) == 1
    assert method.batches == [3]  # of the second batch nothing is asked


def test_photos_of_a_batch_whose_words_cannot_be_used_are_tried_one_by_one(method):
    items = [item(0), item(1, Vocabulary.of(["fox"])), item(2)]
    outcomes = list(run(lambda: Segmenter(method), items, batch=3))
    assert [str(outcome.fault) for outcome in outcomes] == ["None", "a word holds x", "None"]
    assert method.batches == [3, 1, 1, 1]


def test_words_that_all_photos_share_stop_the_run(method):
    items = [item(number, Vocabulary.of(["fox"])) for number in range(3)]
    with pytest.raises(InputError, match="a word holds x"):
        list(run(lambda: Segmenter(method), items, strict=True))


def test_a_namer_names_those_that_have_no_classes(method):
    def name(photos) -> Iterator:
        for key, image in photos:
            assert image.shape == (4, 4, 3)
            yield key, {"1": Vocabulary.of(["bird"]), "2": None, "3": ModelError("no reply")}[key]

    items = [item(0), item(1, None), broken("bad"), item(2, None), item(3, None), item(4)]
    outcomes = {outcome.key: outcome for outcome in run(lambda: Segmenter(method), items, name, batch=2)}
    assert list(outcomes) == ["0", "1", "bad", "2", "3", "4"]
    assert outcomes["1"].result.classes == ("background", "bird")
    assert (outcomes["2"].result, outcomes["2"].fault) == (None, None)
    assert str(outcomes["3"].fault) == "no reply"
    assert outcomes["4"].result.classes == ("background", "cat", "dog")


def test_the_model_is_loaded_for_the_first_photo_that_needs_it():
    def load() -> Segmenter:
        raise ModelError("no model")

    empty = Vocabulary({})
    assert [outcome.fault for outcome in run(load, [item(0, empty), item(1, empty)])] == [None, None]
    with pytest.raises(ModelError, match="no model"):
        list(run(load, [item(0)]))


def test_few_photos_are_read_ahead(method):
    read = []

    def counted(number: int) -> Item:
        return Item(str(number), lambda: read.append(number) or (photo(0), None), PETS)

    outcomes = run(lambda: Segmenter(method), map(counted, range(100)), batch=2)
    next(outcomes)
    assert len(read) <= 12
    outcomes.close()


@pytest.mark.parametrize("stop", [RuntimeError("power cut"), KeyboardInterrupt()])
def test_what_the_model_is_done_with_is_finished_before_a_run_stops(method, stop):
    finished, yielded, usual = [], [], method.class_maps

    def class_maps(images, vocabularies, on_step=None):
        if len(method.batches) == 4:
            raise stop
        return usual(images, vocabularies, on_step)

    method.class_maps = class_maps

    def finish(outcome) -> None:
        finished.append((outcome.key, outcome.result.classes))

    outcomes = run(lambda: Segmenter(method), map(item, range(9)), finish=finish)
    with pytest.raises(type(stop)):
        yielded.extend(outcome.key for outcome in outcomes)
    assert yielded == list("0123")
    assert finished == [(key, ("background", "cat", "dog")) for key in "0123"]


def test_what_cannot_be_finished_stops_the_run(method):
    def finish(outcome) -> None:
        raise InputError("the disk is full")

    with pytest.raises(InputError, match="the disk is full"):
        list(run(lambda: Segmenter(method), map(item, range(9)), finish=finish))


def test_a_photo_that_does_not_fit_into_the_memory_costs_that_photo_only(method, monkeypatch):
    monkeypatch.setattr(pnp_ovss.segmenter, "room", lambda budget: 210_000_000)
    large = Item("large", lambda: (np.zeros((2000, 2000, 3), np.uint8), None), PETS)
    first, second, third = run(lambda: Segmenter(method), [item(0), large, item(1)])
    assert first.result is not None
    assert third.result is not None
    assert second.result is None
    assert str(second.fault).startswith("the photo needs 0.3 GB of memory, and there is room for 0.2 GB; raise")
