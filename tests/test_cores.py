"""The cores that a process may use, on machines that are made up of files."""

import os

import pytest
import torch

from pnp_ovss import memory
from pnp_ovss.cli import main
from pnp_ovss.cores import usable_cores


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """A machine of eight cores without control groups, whose files a test may add to."""
    monkeypatch.setattr(memory, "PROC", tmp_path / "proc")
    monkeypatch.setattr(memory, "CGROUP", tmp_path / "cgroup")
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(8)), raising=False)

    def write(**files: str) -> None:
        for name, content in files.items():
            path = tmp_path / name.replace("__", "/").replace("cpu_", "cpu.")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content + "\n")

    return write


def test_without_a_quota_it_is_the_cores_that_the_process_may_run_on(machine, monkeypatch):
    assert usable_cores() == 8
    machine(proc__self__cgroup="0::/", cgroup__cpu_max="max 100000")
    assert usable_cores() == 8
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 3)
    assert usable_cores() == 3


@pytest.mark.parametrize(("quota", "cores"), [("200000 100000", 2), ("150000 100000", 2), ("5000 100000", 1)])
def test_a_quota_of_version_2_counts_wherever_above_the_process_it_is(machine, quota, cores):
    machine(proc__self__cgroup="0::/pods/one", cgroup__pods__one__cpu_max="max 100000", cgroup__pods__cpu_max=quota)
    assert usable_cores() == cores


@pytest.mark.parametrize(("quota", "cores"), [("300000", 3), ("-1", 8)])
def test_a_quota_of_version_1(machine, quota, cores):
    machine(proc__self__cgroup="4:cpu,cpuacct:/docker/abc\n3:memory:/docker/abc")
    machine(cgroup__cpu__cpu_cfs_quota_us=quota, cgroup__cpu__cpu_cfs_period_us="100000")
    assert usable_cores() == cores


def test_a_command_computes_on_so_many_threads(monkeypatch, machine, capsys):
    asked = list[int]()
    monkeypatch.setattr(torch, "set_num_threads", asked.append)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 8)
    machine(proc__self__cgroup="0::/", cgroup__cpu_max="200000 100000")
    assert main(["data", "list"]) == 0
    assert main(["data", "list", "--threads", "5"]) == 0
    assert main(["data", "list", "--threads", "0"]) == 2
    assert asked == [2, 5]
