"""One process at a time writes into a folder, and what dead ones left is removed."""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import fsspec
import numpy as np
import pytest
from PIL import Image

import chat_server
from pnp_ovss import Config, InputError, lock, segmentation
from pnp_ovss.cli import main
from pnp_ovss.evaluation.record import write_manifest
from pnp_ovss.files import part_of, sweep, write_bytes
from pnp_ovss.lock import LOCK, hold
from pnp_ovss.processes import this_process
from pnp_ovss.refine.scores import ScoreMap
from terminal import errors_of

HOLDER = """
import sys, time
from pnp_ovss.lock import hold
with hold(sys.argv[1], beside="beside" in sys.argv):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(lock, "BEAT", 0.02)
    monkeypatch.setattr(lock, "STALE", 0.5)
    monkeypatch.setattr(lock, "SETTLE", 0.01)


@pytest.fixture
def holder():
    """Start a process that holds a place; it ends with the test."""
    started = []

    def start(place: Path, *how: str) -> subprocess.Popen:
        process = subprocess.Popen([sys.executable, "-c", HOLDER, str(place), *how], stdout=subprocess.PIPE)
        started.append(process)
        assert process.stdout.readline() == b"held\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def refusal(place: Path | str, **how) -> str:
    with pytest.raises(InputError) as refused, hold(place, **how):
        pytest.fail("it was held twice")
    return str(refused.value)


def leave(folder: Path, name: str = LOCK, **about: str) -> None:
    """Write the lock of a process of another host."""
    folder.mkdir(parents=True, exist_ok=True)
    usual = {"number": "7", "host": "far", "since": "noon", "process": "0badcafe-7-0badcafe", "token": "t"}
    (folder / name).write_text(json.dumps(usual | about))


def work(seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        time.sleep(0.01)


def test_the_second_process_is_refused_at_once_and_hears_who_is_there(tmp_path, holder, monkeypatch):
    monkeypatch.setattr(lock, "STALE", 60)
    process = holder(tmp_path / "out")
    began = time.monotonic()
    said = refusal(tmp_path / "out")
    assert time.monotonic() - began < 30
    about = json.loads((tmp_path / "out" / LOCK).read_text())
    assert said == (
        f"{tmp_path}/out is being written by another run (process {process.pid} on {about['host']}, since "
        f"{about['since']}); wait for it or stop it, or give another --out"
    )
    with hold(tmp_path / "other"):
        pass


def test_a_killed_process_is_followed_at_once(tmp_path, holder, monkeypatch):
    monkeypatch.setattr(lock, "STALE", 60)
    process = holder(tmp_path / "out")
    process.kill()
    process.wait()
    assert (tmp_path / "out" / LOCK).exists()
    began = time.monotonic()
    with hold(tmp_path / "out"):
        assert json.loads((tmp_path / "out" / LOCK).read_text())["number"] == str(os.getpid())
    assert time.monotonic() - began < 30


def test_of_many_that_find_a_dead_lock_one_gets_it(tmp_path, holder):
    process = holder(tmp_path)
    process.kill()
    process.wait()
    many = [subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path)], **PIPES) for _ in range(4)]
    while sum(one.poll() is None for one in many) > 1:
        time.sleep(0.05)
    for one in many:
        one.kill()
    said = [one.communicate()[0] for one in many]
    assert sorted(said) == ["", "", "", "held\n"]


PIPES = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}


def test_another_host_counts_as_dead_when_its_file_stays_as_it_is(tmp_path):
    leave(tmp_path)
    began = time.monotonic()
    with hold(tmp_path):
        assert time.monotonic() - began > 0.5
    assert os.listdir(tmp_path) == []


def test_another_host_that_beats_is_refused(tmp_path, monkeypatch):
    leave(tmp_path)
    moments = iter(range(100))
    monkeypatch.setattr(lock.time, "sleep", lambda seconds: os.utime(tmp_path / LOCK, (next(moments),) * 2))
    assert "(process 7 on far, since noon)" in refusal(tmp_path)


@pytest.mark.parametrize("content", [b"", b'{"number', b"[1]", b"{}"])
def test_a_lock_that_says_nothing_is_taken_over_when_it_is_old(tmp_path, content):
    (tmp_path / LOCK).write_bytes(content)
    with hold(tmp_path):
        pass
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("fault", [KeyboardInterrupt, RuntimeError, InputError("x")])
def test_whatever_ends_the_block_gives_it_back(tmp_path, fault):
    with pytest.raises(type(fault) if isinstance(fault, InputError) else fault), hold(tmp_path):
        raise fault
    assert os.listdir(tmp_path) == []


def test_a_new_folder_that_stays_empty_is_removed_and_no_other_one(tmp_path):
    (tmp_path / "there").mkdir()
    with hold(tmp_path / "there"), hold(tmp_path / "new/deep"):
        pass
    assert os.listdir(tmp_path) == ["there"]
    with hold(tmp_path / "new/deep"):
        (tmp_path / "new/file").touch()
    assert os.listdir(tmp_path / "new") == ["file"]


def test_places_in_one_folder_have_locks_of_their_own(tmp_path, holder):
    holder(tmp_path / "names.json", "beside")
    assert f"{tmp_path}/names.json is being written" in refusal(tmp_path / "names.json", beside=True)
    with hold(tmp_path / ("n" * 255), beside=True), hold(tmp_path):
        pass


def test_a_folder_that_is_removed_stops_the_run(tmp_path):
    def run() -> None:
        with hold(tmp_path / "out"):
            (tmp_path / "out" / LOCK).unlink()
            work()

    began = time.monotonic()
    with pytest.raises(InputError) as stop:
        run()
    assert time.monotonic() - began < 30
    assert str(stop.value) == f"{tmp_path}/out was removed while it was written; run the same command again"


def test_a_folder_that_was_taken_over_stops_the_run_and_stays_with_the_other(tmp_path):
    def run() -> None:
        with hold(tmp_path):
            leave(tmp_path, token="other")
            work()

    began = time.monotonic()
    with pytest.raises(InputError, match="was taken over by another run while it was written"):
        run()
    assert time.monotonic() - began < 30
    assert json.loads((tmp_path / LOCK).read_text())["token"] == "other"


def test_one_that_is_removed_at_the_end_is_found_out_too(tmp_path, monkeypatch):
    monkeypatch.setattr(lock, "BEAT", 60)
    with pytest.raises(InputError, match="was removed while it was written"), hold(tmp_path):
        (tmp_path / LOCK).unlink()


def test_a_full_disk_leaves_no_lock(tmp_path, monkeypatch):
    def full(content):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(lock.json, "dumps", full)
    assert "new cannot be written (no space left on device); give another one with --out" in refusal(tmp_path / "new")
    assert os.listdir(tmp_path) == []


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "file").touch()
    for place in ("file", "file/out"):
        said = refusal(tmp_path / place)
        assert said == f"the folder {tmp_path}/{place} cannot be written (not a directory); give another one with --out"


# Behind an address.


@pytest.fixture
def store():
    files = fsspec.filesystem("memory")
    yield files
    if files.exists("/bucket"):
        files.rm("/bucket", recursive=True)


def test_a_folder_behind_an_address_is_held_and_given_back(store):
    with hold("memory://bucket/run"):
        first = store.cat_file(f"/bucket/run/{LOCK}")
        assert "memory://bucket/run is being written by another run (process" in refusal("memory://bucket/run")
        time.sleep(0.1)
        assert store.cat_file(f"/bucket/run/{LOCK}") != first  # it beats
    assert store.find("/bucket/run") == []


def test_one_of_another_host_is_taken_over_when_it_does_not_beat(store):
    store.pipe_file(f"/bucket/run/{LOCK}", b'{"process": "0badcafe-7-0badcafe"}')
    with hold("memory://bucket/run"):
        assert json.loads(store.cat_file(f"/bucket/run/{LOCK}"))["number"] == str(os.getpid())


def test_a_store_that_cannot_write_on_a_condition_is_written_all_the_same(store, monkeypatch):
    usual = type(store).pipe_file

    def plain(self, path, value, **how):
        if how:
            raise NotImplementedError("no such thing")
        usual(self, path, value)

    monkeypatch.setattr(type(store), "pipe_file", plain)
    with hold("memory://bucket/run"):
        assert store.exists(f"/bucket/run/{LOCK}")


def test_of_two_that_write_a_store_the_last_one_has_it(store, monkeypatch):
    other = b'{"number": "7", "process": "%s", "token": "t"}' % str(this_process()).encode()
    monkeypatch.setattr(lock.time, "sleep", lambda seconds: store.pipe_file(f"/bucket/run/{LOCK}", other))
    assert "(process 7 on ?, since ?)" in refusal("memory://bucket/run")


# What dead processes left.


def part(folder: Path, process: str, content: bytes | None = b"half", token: str = "0123abcd") -> Path:
    place = folder / f".pnp-ovss-{process}-{token}.part"
    place.parent.mkdir(parents=True, exist_ok=True)
    if content is None:
        (place / "deep").mkdir(parents=True)
        (place / "deep/file").touch()
    else:
        place.write_bytes(content)
    return place


@pytest.fixture
def dead() -> str:
    """A process of this host that has ended."""
    ended = subprocess.run([sys.executable, "-c", SAY], capture_output=True, text=True, check=True)
    return ended.stdout


SAY = "from pnp_ovss.processes import this_process; print(this_process(), end='')"


def test_only_what_dead_processes_left_is_swept_away(tmp_path, dead):
    gone = [part(tmp_path, dead), part(tmp_path / "images/deep", dead), part(tmp_path, dead, None, "00000000")]
    far = "0badcafe-7-0badcafe"
    old = part(tmp_path, far)
    os.utime(old, (1, 1))
    kept = [
        part(tmp_path, str(this_process())),
        part(tmp_path, far, b"new", "11111111"),
        part(tmp_path / "elsewhere", dead),  # nobody asked for that folder
        tmp_path / "half.part",
        tmp_path / ".pnp-ovss-notes.part",
        tmp_path / f"my.pnp-ovss-{dead}-0123abcd.part",
    ]
    for path in kept[3:]:
        path.touch()
    sweep(tmp_path, "images", "not-there")
    assert not [path for path in (*gone, old) if path.exists()]
    assert [path for path in kept if not path.exists()] == []


def test_a_file_is_written_under_the_name_of_its_process(tmp_path, monkeypatch):
    seen = []
    replace = os.replace
    monkeypatch.setattr(os, "replace", lambda source, place: (seen.append(source), replace(source, place)))
    write_bytes(tmp_path / "file", b"")
    assert seen[0].name.startswith(f".pnp-ovss-{this_process()}-")
    part_of(tmp_path / "x").touch()
    sweep(tmp_path)
    assert len(os.listdir(tmp_path)) == 2  # this process runs


def test_a_folder_that_is_held_is_swept(tmp_path, dead):
    part(tmp_path, dead)
    part(tmp_path / "images/a", dead)
    with hold(tmp_path, below=("images",)):
        assert sorted(path.name for path in tmp_path.rglob("*")) == [LOCK, "a", "images"]


# The commands.


@pytest.fixture
def desk(tmp_path, monkeypatch) -> Path:
    """A folder to work in, with a photo, and names and results for it."""
    monkeypatch.chdir(tmp_path)
    Path("photos").mkdir()
    Image.new("RGB", (8, 6), "red").save("photos/a.png")
    Path("names.json").write_text('{"a": ["dog", "cat"]}')
    segmentation.Segmentation(
        np.zeros((6, 8), np.int64), ("background", "dog"), ScoreMap.of(np.zeros((2, 6, 8), np.float32)),
        np.zeros((1, 2, 2), np.float32), 1.0, Config(), "mini-blip", "r", "0", photo=np.zeros((6, 8, 3), np.uint8),
    ).save("results", "a")  # fmt: skip
    return tmp_path


@pytest.fixture
def no_model(monkeypatch):
    def load(*arguments, **settings):
        raise AssertionError("a model was loaded")

    monkeypatch.setattr("pnp_ovss.segmenter.Segmenter.from_pretrained", load)
    monkeypatch.setattr("pnp_ovss.cli.name.load_vlm", load)
    monkeypatch.setattr("pnp_ovss.cli.flags.ModelFlags.load", load)
    monkeypatch.setattr("pnp_ovss.cli.flags.ModelFlags.load_clip", load)


COMMANDS = {
    "segment": ["segment", "photos", "--classes", "dog", "--model", "mini-blip", "--out", "out"],
    "batch": ["batch", "photos", "--classes", "dog", "--model", "mini-blip", "--out", "out"],
    "demo": ["demo", "--out", "out"],
    "evaluate": ["evaluate", "scenes", "--out", "out"],
    "merge": ["evaluate", "merge", "out"],
    "tune": ["tune", "--images", "photos", "--names", "names.json", "--model", "mini-blip", "--out", "out"],
    "name": ["name", "photos", "--model", "mini-blip", "--out", "out"],
    "export": ["export", "results", "--to", "coco", "--out", "out"],
}


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_is_refused_before_it_loads_a_model(desk, no_model, capsys, command):
    if command == "merge":
        write_manifest(Path("out"), {"dataset": "voc21"}, keys=[], root=None)
    with hold("out", beside=command in ("name", "export")):
        assert main(COMMANDS[command]) == 2
        *_, line = errors_of(capsys)
    assert line.startswith("pnp-ovss: out is being written by another run (process ")


def test_shards_share_a_folder_and_the_same_one_is_refused(desk, no_model, capsys):
    command = ["evaluate", "scenes", "--out", "out", "--shard"]
    with hold("out", ".pnp-ovss-1-of-2.lock"):
        assert main([*command, "1/2"]) == 2
        assert "is being written by another run" in errors_of(capsys)[0]
        with pytest.raises(AssertionError, match="a model was loaded"):
            main([*command, "2/2"])


def test_a_cache_that_cannot_be_written_costs_nothing(desk, capsys, monkeypatch):
    pytest.importorskip("openai")
    Path("cache").touch()
    monkeypatch.setenv("OPENAI_API_KEY", chat_server.KEY)
    with chat_server.serve() as chat:
        ask = ["name", "photos", "--namer", "openai", "--base-url", chat.url, "--cache", "cache"]
        assert main(ask) == 2
        assert chat.calls == []
    said = "pnp-ovss: the folder cache cannot be written (not a directory); give another one with --cache"
    assert errors_of(capsys) == [said]


@pytest.mark.slow
def test_a_service_sweeps_what_dead_ones_left(tmp_path, dead, monkeypatch, no_model):
    pytest.importorskip("uvicorn")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    visitor = tmp_path / f"pnp-ovss-{dead}-ab_12345.part/photo.jpg"
    living = tmp_path / f"pnp-ovss-{this_process()}-ab_12345.part/photo.jpg"
    for photo in (visitor, living):
        photo.parent.mkdir()
        photo.touch()

    def stop(*given):
        raise InputError("enough")

    monkeypatch.setattr("pnp_ovss.cli.serve._listen", stop)
    assert main(["serve", "--model", "mini-blip"]) == 2
    assert not visitor.parent.exists()
    assert living.exists()


def test_what_was_under_way_when_a_lock_was_lost_is_removed(tmp_path, monkeypatch):
    def lose():
        part_of(tmp_path / "stopped while it cleaned up").mkdir()
        part_of(tmp_path / "and this").touch()
        (tmp_path / "whole").touch()
        (tmp_path / LOCK).unlink()

    monkeypatch.setattr(lock, "BEAT", 60)
    with pytest.raises(InputError, match="was removed while"), hold(tmp_path):
        lose()
    assert [path.name for path in tmp_path.iterdir()] == ["whole"]
