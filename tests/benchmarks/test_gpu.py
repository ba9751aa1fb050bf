"""The benchmark of a GPU runs, on a CPU."""

import json
import re
from xml.etree import ElementTree

import pytest
import torch

from benchmarks import gpu, refine, segment


def test_without_cuda_it_says_so(capsys, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert gpu.main([]) == 2
    assert capsys.readouterr().out == "there is no CUDA device here; give --device cpu to see that it runs\n"


def test_a_clock_counts_what_is_spent_within(monkeypatch):
    times = iter([1.0, 3.0, 10.0, 10.5])
    monkeypatch.setattr(gpu.time, "process_time", lambda: next(times))
    clock = gpu.Clock(max, cuda=False)
    assert [clock(1, 2), clock(4, 3)] == [2, 4]
    assert [clock.seconds(), clock.seconds()] == [2.5, 0]


@pytest.fixture
def small(monkeypatch):
    """Small photos, and no compiler, which takes a minute."""
    monkeypatch.setattr(gpu, "CRF_SIZE", (24, 32))
    monkeypatch.setattr(segment, "PHOTO", (48, 64))
    monkeypatch.setattr(refine, "BATCH", 2)
    monkeypatch.setattr(torch, "compile", lambda run, **how: run)


@pytest.mark.slow
def test_all_of_it_runs_on_a_cpu(small, capsys, tmp_path):
    trace = tmp_path / "trace.json"
    how = ["--device", "cpu", "--model", "mini-blip", "--passes", "2", "--rounds", "1", "--many", "2"]
    assert gpu.main([*how, "--batches", "2", "--dtypes", "bfloat16", "--profile", str(trace)]) == 0
    out = capsys.readouterr().out
    rows = re.findall(r"^\| (\w+) \| (\d+) \| (\w+) \|.* ([\d.]+) \|$", out, re.MULTILINE)
    assert [row[1:3] for row in rows] == [("2", "plain"), ("2", "compiled")]
    assert all(0 < float(share) <= 1 for *_, share in rows)
    assert "aten::addmm" in out
    assert "| 24 x 32, cpu | 7 |" in out
    assert "100.000 % of the CPU's" in out
    assert json.loads(trace.read_text())["traceEvents"]


def test_a_plot_stacks_what_ran_at_a_time():
    kinds = [("gemm", 0, 100), ("_sums", 200, 100), ("Memcpy HtoD", 200, 100), ("elementwise", 300, 100)]
    events = [{"cat": "kernel", "name": name, "ts": 10 + ts, "dur": dur} for name, ts, dur in kinds]
    picture = gpu.plot([*events, {"cat": "cpu_op", "name": "aten::mm", "ts": 0, "dur": 999}])
    bars = re.findall(r'<rect x="(\d+)" y="([\d.-]+)" width="3" height="([\d.]+)" fill="(#\w+)"', picture)
    copies, products, _, lattice, rest = gpu.COLOURS
    assert [bar[3] for bar in bars] == [copies, products, lattice, rest]
    assert bars[0][0] == bars[2][0]
    assert float(bars[2][1]) < float(bars[0][1])
    assert ElementTree.fromstring(picture).tag.endswith("svg")
