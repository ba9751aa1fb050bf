"""A photo that kills the process is left out after two deaths, and nothing else is; each run is a real process."""

import json
import os
import signal
import threading
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from PIL import Image

from company import tell_company
from pnp_ovss import InputError
from pnp_ovss.cli import main
from pnp_ovss.files import Folder
from pnp_ovss.runs import batch as runs
from pnp_ovss.runs.deaths import UNDER_WAY, UnderWay
from pnp_ovss.segmenter import Segmenter

SMALL = ("--size", "32", "--layer", "0", "--head", "1", "--drop", "2", "--refine", "blur", "--present", "all")
KEYS = [f"p{number:03}" for number in range(8)]
STATE = Path("results", UNDER_WAY)
DEAD = -signal.SIGKILL


@pytest.fixture
def batch(tmp_path, tiny_blip_folder, monkeypatch):
    """Run ``batch`` in a process of its own, which dies as soon as it reads one of the photos ``deadly``."""
    monkeypatch.chdir(tmp_path)
    Path("photos").mkdir()
    for number, key in enumerate(KEYS):
        Image.new("RGB", (8, 8), (20 * number, 0, 0)).save(f"photos/{key}.png")
    read_photo = runs.read_photo

    def run(*deadly: str, more: tuple[str, ...] = (), before: Callable[[], None] = lambda: None) -> int:
        def read(place: str, name: str):
            if Path(place).stem in deadly:
                os.kill(os.getpid(), signal.SIGKILL)
            return read_photo(place, name)

        command = ["batch", "photos", "--classes", "dog", "--model", str(tiny_blip_folder), *SMALL, *more]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Python warns of threads, which the child does not need
            child = os.fork()
        if not child:
            code = 99
            try:
                runs.read_photo = read
                before()
                code = main(command)
            finally:
                os._exit(code)
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

    return run


def done(folder: str = "results") -> set[str]:
    return {path.stem for path in Path(folder, "images").glob("*.json")}


def faults() -> dict[str, str]:
    return {path.stem: json.loads(path.read_text())["fault"] for path in Path("results/faults").glob("*.json")}


def records(folder: str = "results") -> dict[str, dict]:
    """Return the records by key, without the time they took."""
    told = [json.loads(path.read_text()) for path in Path(folder, "images").glob("*.json")]
    return {record["key"]: {name: value for name, value in record.items() if name != "seconds"} for record in told}


def test_a_photo_that_kills_the_process_is_left_out_after_two_deaths(batch, capfd):
    assert batch("p004") == DEAD
    assert batch("p004") == DEAD
    assert batch("p004") == 1
    assert done() == {*KEYS} - {"p004"}
    advice = "leave it out, or remove state/under-way.json in results to have it tried again"
    assert faults() == {"p004": f"p004: the process died twice while it was done; {advice}"}
    assert f"pnp-ovss: {faults()['p004']}" in capfd.readouterr().err
    assert batch("p004") == 1  # and so it stays
    STATE.unlink()
    assert batch() == 0
    assert done() == {*KEYS}
    assert not faults()
    assert not STATE.exists()


def test_a_run_that_died_ends_as_one_that_did_not(batch):
    company = partial(tell_company, pytest.MonkeyPatch())  # in the child
    assert batch(before=company, more=("--out", "whole")) == 0
    assert batch("p004", before=company) == DEAD
    assert batch(before=company) == 0
    assert records() == records("whole")
    assert len({record["match"] for record in records().values()}) == 2


@pytest.mark.slow
def test_a_deadly_photo_leaves_its_place_in_the_batch_empty(batch):
    company = partial(tell_company, pytest.MonkeyPatch())
    assert [batch("p005", before=company) for _ in range(3)] == [DEAD, DEAD, 1]
    Path("photos/p005.png").write_bytes(b"no picture")
    assert batch(before=company, more=("--out", "whole")) == 1
    assert records() == records("whole")


@pytest.mark.slow
def test_a_batch_that_kills_the_process_though_no_photo_of_it_does_is_done_one_by_one(batch):
    def deadly_batches() -> None:
        locate = Segmenter.locate

        def locating(self, photos, *more):
            if len(photos) > 1:
                os.kill(os.getpid(), signal.SIGKILL)
            return locate(self, photos, *more)

        Segmenter.locate = locating

    assert [batch(before=deadly_batches) for _ in range(4)] == [DEAD, DEAD, DEAD, 0]
    assert done() == {*KEYS}
    assert not STATE.exists()


@pytest.mark.slow
def test_a_photo_that_was_replaced_is_tried_again(batch):
    assert [batch("p000") for _ in range(3)] == [DEAD, DEAD, 1]
    Image.new("RGB", (9, 9)).save("photos/p000.png")
    assert batch() == 0
    assert not faults()


@pytest.mark.slow
def test_several_deadly_photos_are_found_one_after_the_other(batch):
    codes = [batch("p001", "p003", "p004") for _ in range(5)]
    assert codes == [DEAD, DEAD, DEAD, DEAD, 1]
    assert {*faults()} == {"p001", "p003", "p004"}
    assert done() == {*KEYS} - {*faults()}


def test_the_only_photo_is_left_out_too(batch):
    for key in KEYS[1:]:
        os.remove(f"photos/{key}.png")
    assert [batch("p000") for _ in range(3)] == [DEAD, DEAD, 1]
    assert {*faults()} == {"p000"}


@pytest.mark.slow
def test_a_model_that_kills_the_process_is_no_photos_fault(batch):
    def deadly_model() -> None:
        Segmenter.from_pretrained = lambda *all, **more: os.kill(os.getpid(), signal.SIGKILL)

    for _ in range(2):
        assert batch(before=deadly_model) == DEAD
    assert batch() == 0
    assert done() == {*KEYS}


def stopped_at(key: str, number: int, then_killed: bool = False) -> Callable[[], None]:
    """Return what lets a process stop itself by a signal while it does a photo, and die while it winds up."""

    def prepare() -> None:
        read = runs.read_photo

        def stop(place: str, name: str):
            if Path(place).stem == key:
                time.sleep(0.2)  # until the main thread waits for the photo
                os.kill(os.getpid(), number)
                time.sleep(0.4)  # until its handler has worked
                if then_killed:
                    os.kill(os.getpid(), signal.SIGKILL)
            return read(place, name)

        runs.read_photo = stop

    return prepare


@pytest.mark.parametrize(
    ("number", "then_killed"),
    [
        (signal.SIGTERM, True),
        pytest.param(signal.SIGINT, False, marks=pytest.mark.slow),
        pytest.param(signal.SIGHUP, False, marks=pytest.mark.slow),
    ],
)
def test_a_stop_is_no_death(batch, number, then_killed):
    assert batch("p004") == DEAD  # from now on one by one
    for key in ("p005", "p006"):
        assert batch(before=stopped_at(key, number, then_killed)) == (DEAD if then_killed else 130)
        assert not faults()
    assert batch() == 0
    assert done() == {*KEYS}
    assert not STATE.exists()


def test_a_run_that_is_stopped_before_any_death_leaves_no_trace(batch):
    assert batch(before=stopped_at("p004", signal.SIGTERM)) == 130
    assert not STATE.exists()


@pytest.mark.slow
def test_a_full_disk_is_no_death(batch):
    def full() -> None:
        write = Folder.write

        def refuse(self, name: str, content: bytes) -> None:
            if name == "images/p003.json" or Path("full").exists():
                Path("full").touch()
                raise InputError("no space left on device")
            write(self, name, content)

        Folder.write = refuse

    assert batch("p004") == DEAD
    for _ in range(2):
        assert batch(before=full) == 2
        Path("full").unlink()
    assert batch() == 0
    assert done() == {*KEYS}
    assert not faults()


def test_all_that_may_be_under_way_is_named(tmp_path):
    places = {key: f"{key}.png" for key in KEYS}
    under_way = UnderWay(Folder(tmp_path), places, window=2)
    started = under_way.begin(KEYS)
    for number, key in enumerate(KEYS):
        started(key)
        named = json.loads((tmp_path / UNDER_WAY).read_text())["photos"]
        assert set(KEYS[max(0, number - 2) : number + 1]) <= set(named)
        assert len(named) <= 4
    assert UnderWay(Folder(tmp_path), places, 2).suspects == KEYS[4:]
    (tmp_path / UNDER_WAY).write_text("[1")  # damaged: says nothing
    assert UnderWay(Folder(tmp_path), places, 4).suspects == []


def test_signals_are_left_as_they_were(tmp_path):
    under_way = UnderWay(Folder(tmp_path), {}, 4)
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
    try:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
        with under_way.watched():
            assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
            with pytest.raises(KeyboardInterrupt):
                os.kill(os.getpid(), signal.SIGTERM)
    finally:
        signal.signal(signal.SIGHUP, before[2])
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)] == before
    thread = threading.Thread(target=lambda: under_way.watched().__enter__())  # handlers belong to the main thread
    thread.start()
    thread.join()
