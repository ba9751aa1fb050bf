"""Damaged and hostile inputs by the thousand: each ends in a result or a clear error, and in nothing else.

    python -m tests.fuzz                                # 10,000 inputs; exit code 1 if one of them fails
    python -m tests.fuzz --seed 7 --input 123           # one of them again, here, with its traceback
    python -m tests.fuzz --count 300 --target settings  # of one kind
    python -m tests.fuzz --write                        # 10,000, and the table in docs/reliability.md

A failure is any exception but ``PnpError``, an error of several lines, a traceback on the terminal, more than 30
seconds, more than 4 GB of memory, or the end of the process. Inputs run in child processes, so that these are found as
well. What an input is follows from its seed and number alone.
"""

import argparse
import faulthandler
import json
import os
import re
import resource
import shlex
import signal
import subprocess
import sys
import tempfile
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from random import Random
from time import perf_counter
from typing import Any

from pnp_ovss.errors import PnpError

TESTS = Path(__file__).resolve().parents[1]
PAGE = TESTS.parent / "docs" / "reliability.md"
SECONDS, BYTES = 30, 4 << 30
WAITS = 10
"""By the clock an input may take so many times as long."""
RESULT, CLEAR = "result", "clear error"
TITLE = "## Damaged and hostile inputs"
TEXT = """Whatever somebody gives it, the program ends with a result or with one line that says what came and what to
do. A photo or mask that cannot be read is a fault of that photo, whatever its reader raises, and the rest go on. Each
input below is made by a seeded generator: a whole photo, data set, checkpoint, reply or folder of results in which
bytes are flipped, lost, doubled or numbers are made absurd, values of another kind, nested or missing, texts that
nobody expects. Each is given to the code that people use. None may end in an exception of another kind, an error of
several lines, a traceback on the terminal, more than 30 seconds, or more than 4 GB of memory."""


@dataclass(frozen=True)
class Place:
    """Where an input is made: a folder of its own, and one that all inputs share."""

    folder: Path
    shared: Path


@dataclass
class Report:
    """What came of the inputs."""

    seed: int
    counts: Counter[tuple[str, str]] = field(default_factory=Counter)
    """By target and outcome."""
    failures: list[str] = field(default_factory=list)
    seconds: float = 0.0

    def distinct(self) -> list[str]:
        """Return one failure of each place in the code, and how many there are."""
        by_place: dict[str, list[str]] = {}
        for failure in self.failures:
            frames = re.findall(r'File "\S*/(src/\S+|tests/\S+)", line (\d+)', failure)
            kind = failure.strip().splitlines()[-1].partition(":")[0]
            by_place.setdefault(f"{frames[-1:]} {kind}", []).append(failure)
        return [f"{len(some)} x {some[0]}" for some in by_place.values()]

    def table(self) -> str:
        """Return the counts as a table in Markdown."""
        targets = sorted({target for target, _ in self.counts})
        rows = [(target, *(self.counts[target, kind] for kind in (RESULT, CLEAR))) for target in targets]
        rows.append(("all", sum(row[1] for row in rows), sum(row[2] for row in rows)))
        lines = ["| input | results | clear errors |", "|---|--:|--:|"]
        return "\n".join([*lines, *(f"| {name} | {good:,} | {bad:,} |" for name, good, bad in rows)])


def run(
    count: int,
    seed: int = 0,
    workers: int = 2,
    target: str = "",
    only: int | None = None,
    table: str = "fuzz.targets",
    seconds: int = SECONDS,
    most: int = BYTES,
) -> Report:
    """Return what comes of so many inputs; of ``target`` alone, if one is named, and of input ``only``.

    ``table`` is the module of the targets; an input may take so many ``seconds``, and ``most`` bytes of memory.
    """
    report, begin = Report(seed), perf_counter()
    asked = {"seed": seed, "target": target, "table": table, "seconds": seconds, "most": most}
    numbers = [only] if only is not None else range(count)
    with tempfile.TemporaryDirectory(prefix="pnp-ovss-fuzz-") as shared, ThreadPoolExecutor(workers) as pool:
        parts = [list(numbers[index::workers]) for index in range(workers)]
        for _ in pool.map(lambda part: _work(report, part, asked | {"shared": shared}), parts):
            pass
    report.seconds = perf_counter() - begin
    return report


def _work(report: Report, numbers: list[int], asked: dict[str, Any]) -> None:
    """Give inputs to a child process, and what is left of them to another one when it ends."""
    paths = [str(TESTS), str(TESTS.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths)}
    while numbers:
        arguments = json.dumps({"numbers": numbers, **asked})
        with tempfile.TemporaryFile("w+") as said:
            child = subprocess.Popen(
                [sys.executable, "-m", "fuzz.child", arguments],
                stdout=subprocess.PIPE,
                stderr=said,
                text=True,
                env=environment,
            )
            assert child.stdout is not None
            now, done = ("start", -1), set[int]()
            for line in child.stdout:
                name, number, outcome = json.loads(line)
                now = name, number
                if outcome:
                    done.add(number)
                    _note(report, name, number, outcome, asked["target"])
            child.wait()
            child.stdout.close()
            if child.returncode:
                said.seek(0)
                done.add(now[1])
                _note(report, *now, f"the process ended ({child.returncode}): {said.read(3000)}", asked["target"])
        numbers = [number for number in numbers if number not in done] if done - {-1} else []


def _note(report: Report, name: str, number: int, outcome: str, target: str) -> None:
    if outcome in (RESULT, CLEAR):
        report.counts[name, outcome] += 1
    else:
        which = f" --target {shlex.quote(target)}" if target else ""
        again = f"python -m tests.fuzz --seed {report.seed}{which} --input {number}"
        report.failures.append(f"{name}, input {number} ({again}):\n{outcome}")
        print(report.failures[-1], file=sys.stderr, flush=True)


def chosen(number: int, seed: int, only: str, table: str) -> tuple[str, Random]:
    """Return the target of an input and its generator."""
    targets = import_module(table).TARGETS
    names = [only] if only else list(targets)
    name = Random(f"{seed} {number}").choices(names, [targets[one][1] for one in names])[0]
    return name, Random(f"{seed} {number} {name}")


def serve(numbers: Sequence[int], seed: int, target: str, shared: str, table: str, seconds: int, most: int) -> None:
    """Do the inputs in this process; say on stdout what is begun and what came of it."""
    import_module(table)
    resource.setrlimit(resource.RLIMIT_AS, (memory("VmSize") + 2 * most, resource.RLIM_INFINITY))  # or all is full
    out = os.fdopen(os.dup(1), "w")
    with tempfile.TemporaryFile("w+") as said, tempfile.TemporaryDirectory(dir=shared) as desk:
        errors = os.fdopen(os.dup(2), "w")
        faulthandler.register(signal.SIGPROF, file=errors, chain=True)
        faulthandler.enable(errors)  # where a library ends the process
        for stream in (1, 2):
            os.dup2(said.fileno(), stream)
        os.chdir(desk)
        for number in numbers:
            name, rng = chosen(number, seed, target, table)
            print(json.dumps((name, number, "")), file=out, flush=True)
            # By the processor's time, for the machine may be busy; by the clock where one waits for ever.
            signal.setitimer(signal.ITIMER_PROF, seconds)
            faulthandler.dump_traceback_later(WAITS * seconds, exit=True, file=errors)
            warnings.resetwarnings()
            outcome = outcome_of(import_module(table).TARGETS[name][0], rng, Path(shared), most)
            faulthandler.cancel_dump_traceback_later()
            signal.setitimer(signal.ITIMER_PROF, 0)
            sys.stderr.flush()
            said.seek(0)
            printed = said.read()
            said.truncate(0)
            if outcome in (RESULT, CLEAR) and re.search("Traceback|panicked", printed):
                outcome = f"it printed {printed[-3000:]}"
            print(json.dumps((name, number, outcome)), file=out, flush=True)


def outcome_of(target: Callable[[Random, Place], None], rng: Random, shared: Path, most: int) -> str:
    """Return what comes of an input of a target: ``RESULT``, ``CLEAR``, or what is wrong."""
    forget_peak()
    with tempfile.TemporaryDirectory(dir=shared) as folder:
        try:
            target(rng, Place(Path(folder), shared))
            outcome = RESULT
        except PnpError as error:
            text = str(error)
            outcome = CLEAR if text.strip() and text.isprintable() else f"an error that is no line: {text!r}"
        except BaseException:
            outcome = traceback.format_exc()
    if (bytes := memory("VmHWM")) > most:
        outcome = f"it took {bytes / 1e9:.1f} GB"
    return outcome


def forget_peak() -> None:
    """Start to measure the memory of this process, on Linux."""
    if os.path.exists("/proc/self/clear_refs"):
        Path("/proc/self/clear_refs").write_text("5")


def memory(kind: str) -> int:
    """Return the memory of this process in bytes, "VmHWM" the most that it had since then; 0 where nobody knows."""
    if not os.path.exists("/proc/self/status"):
        return 0
    found = re.search(rf"{kind}:\s*(\d+) kB", Path("/proc/self/status").read_text())
    return int(found[1]) << 10 if found else 0


def write(reports: Sequence[Report]) -> None:
    """Put what came of the inputs into the page, in place of what its section says."""
    counts = sum((report.counts for report in reports), Counter[tuple[str, str]]())
    failures = sum(len(report.failures) for report in reports)
    seeds = [str(report.seed) for report in reports]
    found = f"{sum(counts.values()):,} inputs of seeds {', '.join(seeds)}: {failures or 'no'} failures, 2026-11-26"
    machine = "2 cores of an AMD EPYC, torch 2.13.0, CPU; models of random weights"
    table = Report(0, counts).table()
    command = f"`python -m tests.fuzz --seed {' '.join(seeds)} --write`"
    section = f"{TITLE}\n\n{TEXT}\n\n{found}, {command}\n({machine}).\n\n{table}\n"
    page = PAGE.read_text(encoding="utf-8") if PAGE.exists() else "# Reliability\n"
    before, _, after = page.partition(TITLE)
    rest = after[after.index("\n## ") :] if "\n## " in after else ""
    PAGE.write_text(f"{before.rstrip()}\n\n{section}{rest}", encoding="utf-8")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description="Damaged and hostile inputs.")
    parser.add_argument("--count", type=int, default=10_000, help="inputs (default: 10,000)")
    parser.add_argument("--seed", type=int, nargs="+", default=[0], help="one or several, one after the other")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--target", default="", help="of one kind only")
    parser.add_argument("--input", type=int, help="only the input of this number")
    parser.add_argument("--write", action="store_true", help="put the table into docs/reliability.md")
    given = parser.parse_args()
    reports = []
    for seed in given.seed:
        report = run(given.count, seed, 1 if given.input is not None else given.workers, given.target, given.input)
        reports.append(report)
        done = f"{sum(report.counts.values()):,} inputs of seed {seed} in {report.seconds:.0f} s"
        print(f"{report.table()}\n{done}, {len(report.failures)} failures", flush=True)
        print("".join(f"\n{failure}\n" for failure in report.distinct()), flush=True)
    if given.write:
        write(reports)
    return 1 if any(report.failures for report in reports) else 0
