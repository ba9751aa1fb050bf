"""Batch by Ray: whatever dies, every photo has its result once, and it is the one that a single process gives."""

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from PIL import Image

from pnp_ovss.mini import draw

pytestmark = pytest.mark.slow
COUNT = 300
WORKER = "ray::MapWorker"
"""How Ray calls the process of an actor that maps a data set."""


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of drawn scenes."""
    folder = tmp_path_factory.mktemp("scenes")
    for index in range(COUNT):
        Image.fromarray(draw(seed=2, index=index, size=48).image).save(folder / f"scene-{index:03}.png")
    return folder


@pytest.fixture
def ray_folder() -> Iterator[str]:
    """A short path, for Ray puts sockets there."""
    with tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True) as folder:
        yield folder


@pytest.fixture
def start(scenes, tiny_blip_folder, ray_folder) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start ``batch`` over the scenes in a process of its own; afterwards nothing of it runs any more."""
    started = []

    def run(out: Path, *arguments: str, photos: Path = scenes) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "pnp_ovss", "batch", str(photos), "--classes", "dog, traffic light"]
        command += ["--model", str(tiny_blip_folder), "--size", "32", "--layer", "0", "--head", "1", "--drop", "2"]
        command += ["--out", str(out), "--device", "cpu", *arguments]
        environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
        environment["OMP_NUM_THREADS"] = "1"  # as a worker has: more threads add up in another order, to the last digit
        process = subprocess.Popen(
            command, env=environment | {"RAY_TMPDIR": ray_folder}, stderr=subprocess.PIPE, text=True
        )
        started.append(process)
        return process

    yield run
    for process in started:
        process.kill()
        process.wait()
        process.stderr.close()


RAY = ("--engine", "ray", "--cluster", "local", "--workers", "2")


def records(out: Path) -> dict[str, dict]:
    """Return the records by key, without the time they took."""
    told = [json.loads(path.read_text()) for path in (out / "images").rglob("*.json")]
    return {record["key"]: {name: value for name, value in record.items() if name != "seconds"} for record in told}


def labels(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (out / "images").rglob("*.png")}


def family(pid: int) -> dict[int, str]:
    """Return the command lines of all that a process has started, directly or not."""
    parents, lines = {}, {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parents[int(folder.name)] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            lines[int(folder.name)] = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode().strip()
        except OSError:  # it has just ended
            continue
    found, fresh = set(), {pid}
    while fresh:
        fresh = {child for child, parent in parents.items() if parent in fresh} - found
        found |= fresh
    return {child: lines[child] for child in found if child in lines}


def wait_until(true: Callable[[], bool], process: subprocess.Popen[str] | None = None, seconds: float = 1500) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it took too long"
        assert process is None or process.poll() is None, process.stderr.read()
        time.sleep(0.05)


def is_running(pid: int, line: str) -> bool:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode().strip() == line
    except OSError:
        return False


def written(out: Path) -> int:
    return len(list((out / "images").glob("*.json")))


def test_a_killed_worker_and_a_killed_head_lose_and_repeat_nothing(tmp_path, start):
    pytest.importorskip("ray.data")
    alone, worker_dies, head_dies = (tmp_path / name for name in ("alone", "worker", "head"))
    assert start(alone).wait() == 0
    expected, expected_labels = records(alone), labels(alone)
    assert len(expected) == COUNT

    run = start(worker_dies, *RAY)
    wait_until(lambda: written(worker_dies) >= COUNT // 3, run)
    workers = [pid for pid, line in family(run.pid).items() if line.startswith(WORKER)]
    assert len(workers) == 2
    os.kill(workers[0], signal.SIGKILL)
    assert written(worker_dies) < COUNT
    relatives = family(run.pid)
    assert run.wait() == 0, run.stderr.read()
    assert records(worker_dies) == expected
    assert labels(worker_dies) == expected_labels
    wait_until(lambda: not any(is_running(*relative) for relative in relatives.items()), seconds=60)

    run = start(head_dies, *RAY)
    wait_until(lambda: written(head_dies) >= COUNT // 3, run)
    relatives = family(run.pid)
    run.kill()
    run.wait()
    wait_until(lambda: not any(is_running(*relative) for relative in relatives.items()), seconds=120)
    before = {path: path.stat().st_mtime_ns for path in (head_dies / "images").glob("*.json")}
    assert COUNT // 3 <= len(before) < COUNT
    assert start(head_dies, *RAY).wait() == 0
    assert records(head_dies) == expected
    assert labels(head_dies) == expected_labels
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_parquet_by_ray_holds_every_photo_once(tmp_path, start):
    pytest.importorskip("ray.data")
    parquet = pytest.importorskip("pyarrow.parquet")
    out = tmp_path / "packed"
    assert start(out, *RAY, "--format", "parquet", "--rows", "50").wait() == 0
    shards = sorted((out / "shards").glob("*.parquet"))
    keys = [key for path in shards for key in parquet.read_table(path)["key"].to_pylist()]
    assert len(shards) == 6
    assert sorted(keys) == [f"scene-{index:03}" for index in range(COUNT)]
    assert not list((out / "images").glob("*.json"))


def test_what_stops_a_run_is_reported_in_one_line(tmp_path, start):
    pytest.importorskip("ray.data")
    run = start(tmp_path / "out", *RAY, "--classes", "dog " * 600)
    assert run.wait() == 2
    assert "the class names make 605 tokens" in run.stderr.read()


DEADLY = """
import os, signal
from PIL import Image
open_picture = Image.open
def deadly(*given, **more):
    picture = open_picture(*given, **more)
    if picture.size == (13, 17):
        os.kill(os.getpid(), signal.SIGKILL)
    return picture
Image.open = deadly
"""


def test_a_photo_that_kills_its_worker_every_time_is_given_up_and_the_others_are_done(
    tmp_path, start, scenes, monkeypatch
):
    pytest.importorskip("ray.data")
    (tmp_path / "code").mkdir()
    (tmp_path / "code/sitecustomize.py").write_text(DEADLY)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path / "code"), os.environ.get("PYTHONPATH", "")]))
    (tmp_path / "some").mkdir()
    for number, place in enumerate(sorted(scenes.iterdir())[:30]):
        (tmp_path / f"some/{number:02}.png").symlink_to(place)
    Image.new("RGB", (13, 17)).save(tmp_path / "some/05-deadly.png")
    out = tmp_path / "out"
    run = start(out, *RAY, photos=tmp_path / "some")
    assert run.wait() == 1
    told = run.stderr.read()
    assert re.search(r"05-deadly: its worker died while it was done \(run .{8}\); see Ray's log, or leave it out", told)
    assert set(records(out)) == {f"{number:02}" for number in range(30)}
    assert [path.stem for path in (out / "faults").glob("*.json")] == ["05-deadly"]
