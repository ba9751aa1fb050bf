"""What commands do when they are killed at a file operation, the disk is full, or their folder is gone: and then again.

``python tests/kills.py`` tries every operation and prints the table of docs/reliability.md. A run is a forked process
with a model of random weights. What is counted as an operation: a file that is opened to be written, a write, and a
file or folder that is made, renamed or removed, below the folder of the run; and a statement of the study's database.
A kill before one is a kill after the one before it; of a write, half is done.
"""

import argparse
import errno
import json
import os
import random
import shutil
import signal
import sqlite3
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet
import pytest
import torch
from PIL import Image
from sqlalchemy import event
from sqlalchemy.engine import Engine
from tqdm import tqdm

import archive_server
import chat_server
import company
from pnp_ovss import files, lock
from pnp_ovss.cli import (  # noqa: F401
    batch,
    data as data_command,
    evaluate,
    export,
    main,
    name,
    reproduce,
    segment,
    tune,
)
from pnp_ovss.data import archives
from pnp_ovss.evaluation import run as evaluation
from pnp_ovss.runs import pipeline
from pnp_ovss.runs.deaths import UNDER_WAY
from reproductions import make_blip
from tiny import WORDS, tiny_blip, tiny_clip
from trees import save

SMALL = ("--size", "32", "--layer", "0", "--head", "1", "--drop", "2", "--refine", "blur", "--device", "cpu")
MAKES = {"open", "write", "os.mkdir", "os.rename", "database"}
"""Operations that need room."""


class Disturbance:
    """Counts the operations of this process below a folder, and disturbs one of them."""

    def __init__(self, folder: Path, act: str, at: int, out: Path) -> None:
        self.folder, self.act, self.at, self.out = f"{folder}{os.sep}", act, at, out
        self.count = 0

    def install(self) -> None:
        sys.addaudithook(self._hook)
        files.open = lock.open = archives.open = self._open  # type: ignore[attr-defined]
        event.listen(Engine, "do_execute", lambda cursor, statement, *rest: self._statement(statement))

    def _hook(self, operation: str, given: tuple[Any, ...]) -> None:
        if operation == "open":
            writes = isinstance(given[2], int) and given[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
        else:
            writes = operation in ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "os.truncate")
        if writes and not isinstance(given[0], int):
            place = os.path.abspath(os.fsdecode(given[0]))
            if place.startswith(self.folder):
                self._step(operation)

    def _open(self, *given: Any) -> Any:
        file = open(*given)  # noqa: SIM115
        write = file.write

        def half(content: bytes) -> int:
            self._step("write", lambda: (write(content[: len(content) // 2]), file.flush()))
            return write(content)

        file.write = half
        return file

    def _statement(self, statement: str) -> None:
        reads = statement.lstrip().startswith(("SELECT", "PRAGMA", "BEGIN"))
        beats = "trial_heartbeats" in statement and not statement.lstrip().startswith("CREATE")
        if not reads and not beats:  # whether there is a beat depends on when the clock's second ends
            self._step("database")

    def _step(self, operation: str, half: Callable[[], Any] = lambda: None) -> None:
        number, self.count = self.count, self.count + 1
        if self.act == "kill" and number == self.at:
            half()
            os.kill(os.getpid(), signal.SIGKILL)
        elif self.act == "full" and number >= self.at and operation in MAKES:
            half()
            if operation == "database":
                raise sqlite3.OperationalError("database or disk is full")
            raise OSError(errno.ENOSPC, "No space left on device")
        elif self.act == "read-only":
            raise OSError(errno.EROFS, "Read-only file system")
        elif self.act == "gone" and number == self.at:
            self.act = ""
            shutil.rmtree(self.out, ignore_errors=True)
        elif self.act == "wait" and number == self.at:
            (Path(self.folder).parent / "waits").touch()
            while (Path(self.folder).parent / "waits").exists():
                signal.sigtimedwait([], 0.01)


@dataclass(frozen=True)
class Ended:
    """How a run ended: its exit code, -9 if it was killed, its operations, and the lines on stderr."""

    code: int
    operations: int
    lines: list[str]


@dataclass(frozen=True)
class Case:
    """A command, and the folder that its results go to, which is below the one it runs in."""

    name: str
    arguments: tuple[str, ...]
    code: int = 0
    """Of an undisturbed run."""
    once: bool = False
    """It refuses results that are there, whole."""
    out: str = "out"


@dataclass
class World:
    """Photos, a model and a chat server for all cases."""

    folder: Path
    chat: chat_server.Chat
    cases: dict[str, Case] = field(default_factory=dict)
    runs: int = 0

    def start(self, case: Case, place: Path, act: str = "", at: int = 0) -> tuple[int, Path]:
        """Start a run in a folder; return its process and where it writes how it ended."""
        self.runs += 1
        place.mkdir(exist_ok=True)
        about = self.folder / f"run-{self.runs}"
        about.mkdir()
        child = os.fork()
        if not child:
            self._run(case, place, Disturbance(place, act, at, place / case.out), about)
        return child, about

    def run(self, case: Case, place: Path, act: str = "", at: int = 0) -> Ended:
        return self.end(*self.start(case, place, act, at))

    def end(self, child: int, about: Path) -> Ended:
        """Wait for a run."""
        _, status = os.waitpid(child, 0)
        count, text = about / "count", (about / "stderr").read_text()
        lines = [line.rpartition("\r")[2] for line in text.splitlines()]
        lines = [line for line in lines if line.strip() and "|" not in line]
        operations = int(count.read_text()) if count.exists() else 0
        for module in (about / "modules").read_text().splitlines() if count.exists() else ():
            with suppress(Exception):  # once here, not in every run
                import_module(module)
        shutil.rmtree(about)
        return Ended(os.waitstatus_to_exitcode(status), operations, lines)

    def _run(self, case: Case, place: Path, disturbance: Disturbance, about: Path) -> None:
        code = 70
        try:
            os.chdir(place)
            for number, stream in ((1, "stdout"), (2, "stderr")):
                os.dup2(os.open(about / stream, os.O_WRONLY | os.O_CREAT), number)
            sys.stdout, sys.stderr = (open(number, "w", buffering=1, closefd=False) for number in (1, 2))  # noqa: SIM115
            os.environ["OPENAI_API_KEY"] = chat_server.KEY
            pipeline.perf_counter = evaluation.perf_counter = lambda: 0.0  # type: ignore[assignment]
            tqdm.set_lock(threading.RLock())  # its own is shared by all runs, one of which was killed with it
            lock.STALE, name.SAVE_EVERY = 0.2, 1
            archives.CHUNK, os.sync = 200, lambda: None  # of the whole machine
            lock.BEAT = 0.02 if disturbance.act == "gone" else lock.BEAT
            company.tell_company(pytest.MonkeyPatch())  # a machine may round alike in any
            before = set(sys.modules)
            disturbance.install()
            code = main(list(case.arguments))
            (about / "count").write_text(str(disturbance.count))
            (about / "modules").write_text("\n".join(set(sys.modules) - before))
        except BaseException:
            traceback.print_exc()
        finally:
            for thread in threading.enumerate():  # as Python does at its end
                if thread is not threading.main_thread() and not thread.daemon:
                    thread.join()
            sys.stderr.flush()
            os._exit(code)


@contextmanager
def make_world(folder: Path) -> Iterator[World]:
    """Make inputs, and results to export."""
    torch.set_num_threads(1)
    Image.init()
    rng = np.random.default_rng(0)
    photos, data = folder / "photos", folder / "VOC2012"
    for key in ("a", "b", "c"):
        noise = rng.integers(0, 256, (3, 12, 16, 3), dtype=np.uint8)
        photos.mkdir(exist_ok=True)
        (data / "JPEGImages").mkdir(parents=True, exist_ok=True)
        Image.fromarray(noise[0]).save(photos / f"{key}.png")
        Image.fromarray(noise[1]).save(data / f"JPEGImages/{key}.jpg")
        save(data / f"SegmentationClass/{key}.png", np.where(noise[2, ..., 0] > 128, 8, 12))
    broken = shutil.copytree(photos, folder / "with-a-broken-one")
    (broken / "broken.png").write_bytes(b"no picture")
    (data / "ImageSets/Segmentation").mkdir(parents=True)
    (data / "ImageSets/Segmentation/val.txt").write_text("a\nb\nc\n")
    (folder / "voc.json").write_text(json.dumps({"a": ["dog", "cat"], "b": ["bird"], "c": ["dog"]}))
    make_blip(folder / "weights/blip-large-flickr")
    (folder / "names.json").write_text(json.dumps({"a": ["dog", "cat"], "b": ["bird"], "c": ["dog"]}))
    model = ("--model", str(tiny_blip(folder / "blip", known=WORDS)), *SMALL)
    clip = str(tiny_clip(folder / "clip"))
    with chat_server.serve() as chat, archive_server.serve() as server:
        server.files = archive_server.archives(folder / "archives")
        data_command.SOURCES = archive_server.sources(server)
        ask = ("--namer", "openai", "--base-url", chat.url, "--cache", "cache", "--calls", "1")
        classes, out = ("--classes", "dog, cat"), ("--out", "out")
        pairs = ("--present", "all", "--batch-size", "2")
        packed = ("--format", "parquet", "--rows", "2")
        voc = ("voc21", "--root", str(data), "--names", "truth")
        space = ("--layers", "0", "--heads", "0,1", "--thresholds", "0.05,0.15", "--blurs", "0.03", "--trials", "3")
        study = ("--images", str(photos), "--names", str(folder / "names.json"), "--clip", clip, *space)
        results = str(folder / "results")
        plain = tuple(argument for argument in model if argument not in ("--layer", "0", "--head", "1"))
        table = ("--data", str(folder), "--weights", str(folder / "weights"), "--rows", "pnp-blip-224")
        table += ("--columns", "voc", "--anyway", "--device", "cpu")
        world = World(folder, chat)
        world.cases = {case.name: case for case in (
            Case("segment", ("segment", str(photos), *classes, *model, *out)),
            Case("batch", ("batch", str(broken), "--classes", "auto", *ask, *model, *out), 1),
            Case("batch, Parquet", ("batch", str(broken), *classes, *packed, *model, *out), 1),
            Case("batch, two at a time", ("batch", str(broken), *classes, *pairs, *model, *out), 1),
            Case("name", ("name", str(photos), *ask, "--out", "out/names.json")),
            Case("evaluate", ("evaluate", *voc, *model, *out)),
            Case("data", ("data", "get", "panoptic", "--to", "out")),
            Case("reproduce", ("reproduce", "table3", *table, *out)),
            Case("tune", ("tune", *study, *plain, *out)),
            Case("export", ("export", results, "--to", "yolo", "--photos", str(photos), "--out", "out/yolo"), 0, True),
        )}  # fmt: skip
        made = world.run(Case("", ("segment", str(photos), *classes, *model, "--out", "results")), folder)
        assert made.code == 0, made.lines
        yield world


def tree(folder: Path) -> dict[str, Any]:
    """Return all that lies in a folder; of a study its trials, of its report the lines, in any order, one index."""
    found: dict[str, Any] = {}
    for path in sorted(folder.rglob("*")):
        if path.name.startswith("index-"):  # what is in which one depends on the runs
            found["index"] = found.get("index", {}) | json.loads(path.read_bytes())
        elif path.suffix == ".parquet":  # a run that goes on may begin another file
            rows = map(repr, pyarrow.parquet.read_table(path).to_pylist())
            found["rows"] = sorted([*found.get("rows", ()), *rows])
        elif path.is_file():
            found[str(path.relative_to(folder))] = content(path)
        elif not any(path.iterdir()) and path.name != "images":  # packed results leave it empty
            found[str(path.relative_to(folder))] = "empty"
    return found


def content(path: Path) -> Any:
    if path.suffix == ".db":
        return trials(path)
    if path.name == "report.html" and path.with_name("study.db").exists():
        return sorted(path.read_text().splitlines())
    return path.read_bytes()


def trials(path: Path) -> list[tuple[Any, ...]]:
    with sqlite3.connect(path) as database:
        query = (
            "select trial_id, param_name, param_value, value from trials join trial_params using (trial_id) "
            "join trial_values using (trial_id) where state = 'COMPLETE' order by trial_id, param_name"
        )
        rows = database.execute(query).fetchall()
    database.close()
    grouped: dict[int, list[Any]] = {}
    for number, *rest in rows:
        grouped.setdefault(number, []).append(tuple(rest))
    return sorted(tuple(one) for one in grouped.values())


def difference(one: dict[str, Any], other: dict[str, Any]) -> str:
    """Return what lies in one tree alone, and what differs."""
    names = sorted(set(one) ^ set(other)) + sorted(name for name in set(one) & set(other) if one[name] != other[name])
    return ", ".join(names)


@dataclass
class Trial:
    """A case with its undisturbed run, to be disturbed."""

    world: World
    case: Case
    whole: dict[str, Any]
    operations: int

    @classmethod
    def of(cls, world: World, case: Case) -> "Trial":
        place = world.folder / "undisturbed"
        ended = world.run(case, place)
        assert ended.code == case.code, ended
        found = cls(world, case, tree(place), ended.operations)
        shutil.rmtree(place)
        return found

    def kill(self, *at: int) -> str:
        """Kill a run at its operations one after the other, and let it go on; return what is wrong in the end."""
        return self._disturb("kill", at, -signal.SIGKILL)

    def full(self, at: int) -> str:
        """Let the disk be full from an operation on."""
        return self._disturb("full", [at], 2)

    def gone(self, at: int) -> str:
        """Remove the folder of the results at an operation."""
        return self._disturb("gone", [at], 2)

    def read_only(self) -> str:
        """Let no operation be allowed."""
        return self._disturb("read-only", [0], 2)

    def twice(self) -> str:
        """Start a second run while the first one stands at its last operation but one."""
        place, flag = self.world.folder / "disturbed", self.world.folder / "waits"
        first = self.world.start(self.case, place, "wait", self.operations - 2)
        while not flag.exists():
            signal.sigtimedwait([], 0.01)
        second = self.world.run(self.case, place)
        flag.unlink()
        ended = self.world.end(*first)
        ok = second.code == 2 and len(second.lines) == 1 and "is being written by another run" in second.lines[0]
        wrong = "" if ok else f"the second run ended with {second.code}: {second.lines}"
        wrong = wrong or ("" if ended.code == self.case.code else f"the first ended with {ended}")
        wrong = wrong or difference(tree(place), self.whole)
        shutil.rmtree(place)
        return wrong

    def _disturb(self, act: str, at: Any, code: int) -> str:
        place, wrong = self.world.folder / "disturbed", ""
        for number in at:
            ended = self.world.run(self.case, place, act, number)
            if ended.code not in (code, self.case.code) and not (self.case.once and ended.code == 2):
                wrong = f"it ended with {ended.code}: {ended.lines[-3:]}"
            if code == 2 and (
                traces := [path.name for path in place.rglob("*.*") if path.suffix in (".part", ".lock")]
            ):
                wrong = f"it left {traces}"
        stored, asked = len(list(place.glob("cache/??/*.json"))), len(self.world.chat.calls)
        ended = self.world.run(self.case, place)
        if (place / self.case.out / UNDER_WAY).exists():  # a photo was under way at both deaths, and is left out
            (place / self.case.out / UNDER_WAY).unlink()
            ended = self.world.run(self.case, place)
        if ended.code != self.case.code and not (self.case.once and ended.code == 2):
            wrong = wrong or f"going on ended with {ended.code}: {ended.lines[-3:]}"
        wrong = wrong or difference(tree(place), self.whole)
        if "--cache" in self.case.arguments and len(self.world.chat.calls) - asked > 3 - stored:
            wrong = wrong or "a stored reply was asked for again"
        shutil.rmtree(place)
        return wrong


def everything(commands: list[str], most: int | None, others: int, seed: int) -> int:
    """Kill commands at all of their operations, or ``most``, disturb them in other ways at some; print a table."""
    rng, failures = random.Random(seed), list[str]()
    print(
        "| command | operations | killed at | killed twice | disk full | folder removed | wrong |\n" + "|---" * 7 + "|"
    )
    with tempfile.TemporaryDirectory() as folder, make_world(Path(folder).resolve()) as world:
        for case in filter(lambda case: case.name in commands or not commands, world.cases.values()):
            trial, wrong = Trial.of(world, case), list[str]()
            every = range(trial.operations)
            killed, some = sample(rng, every, most), sample(rng, every, others)
            pairs = [(rng.choice(every), rng.choice(every)) for _ in some]
            tries: list[tuple[str, tuple[int, ...]]] = [("kill", (at,)) for at in killed]
            tries += [("kill", pair) for pair in pairs]
            tries += [(act, (at,)) for act in ("full", "gone") for at in some]
            for act, at in [*tries, ("read_only", ()), ("twice", ())]:
                if said := getattr(trial, act)(*at):
                    wrong.append(f"{case.name}, {act} {at}: {said}")
            counts = (len(every), len(killed), len(pairs), len(some), len(some), len(wrong))
            print(f"| {case.name} | {' | '.join(map(str, counts))} |", flush=True)
            print("\n".join(wrong), file=sys.stderr, flush=True)
            failures += wrong
    return int(bool(failures))


def sample(rng: random.Random, every: Sequence[int], most: int | None) -> list[int]:
    return list(every) if most is None or most >= len(every) else sorted(rng.sample(every, most))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("commands", nargs="*", help="such as segment (default: all)")
    parser.add_argument("--most", type=int, metavar="N", help="kill at N operations of each (default: at all)")
    parser.add_argument("--others", type=int, default=8, metavar="N", help="disturb in other ways at N (default: 8)")
    parser.add_argument("--seed", type=int, default=0)
    sys.exit(everything(**vars(parser.parse_args())))
