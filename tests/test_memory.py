"""What memory there is: as the user says it, as the machine does, and as the container does."""

import pytest

from pnp_ovss import ConfigError, memory
from pnp_ovss.memory import available, parse_bytes, room

GB = 10**9


@pytest.mark.parametrize(
    ("text", "expected"),
    [("4GB", 4 * GB), ("4g", 4 * GB), (" 1.5 GiB ", 3 * 2**29), ("512MiB", 2**29), ("2e9", 2 * GB), (7, 7), ("1", 1)],
)
def test_an_amount_of_memory(text, expected):
    assert parse_bytes(text) == expected


@pytest.mark.parametrize("text", ["", "GB", "4 PB", "-4GB", "0", "0.1", "nan", "inf", "1e99GB", "9" * 5000, "4GBs"])
def test_what_is_no_amount_of_memory(text):
    with pytest.raises(ConfigError, match="^expected an amount of memory such as 4GB or 512MiB, got"):
        parse_bytes(text)


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """A machine with 8 GB left, whose files a test may add to."""
    proc, groups = tmp_path / "proc", tmp_path / "cgroup"
    monkeypatch.setattr(memory, "PROC", proc)
    monkeypatch.setattr(memory, "CGROUP", groups)
    limits = dict(zip((groups, groups / "memory"), memory.LIMITS.values(), strict=True))
    monkeypatch.setattr(memory, "LIMITS", limits)

    def write(files: dict[str, str]) -> None:
        for name, content in files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content)

    write({"proc/meminfo": "MemTotal: 16000000 kB\nMemFree: 1000 kB\nMemAvailable: 8000000 kB\n"})
    write({"proc/self/status": "Name: python\nVmPeak: 9 kB\nVmRSS: 1000000 kB\n"})
    return write


def test_a_machine_without_groups(machine):
    assert available() == 8_000_000 * 1024


def test_a_container_of_version_2_counts_with_the_groups_above_it(machine):
    machine({"proc/self/cgroup": "0::/pods/one\n", "cgroup/pods/one/memory.max": "max\n"})
    machine({"cgroup/pods/one/memory.current": "1000\n"})
    assert available() == 8_000_000 * 1024
    machine({"cgroup/pods/memory.max": f"{4 * GB}\n", "cgroup/pods/memory.current": f"{3 * GB}\n"})
    machine({"cgroup/pods/memory.stat": f"anon 5\ninactive_file {GB // 2}\n"})
    assert available() == 3 * GB // 2
    machine({"cgroup/memory.max": f"{5 * GB}\n", "cgroup/memory.current": f"{4 * GB}\n"})
    assert available() == GB


def test_a_container_of_version_1_sees_its_own_group_as_the_root(machine):
    machine({"proc/self/cgroup": "9:cpu,cpuacct:/docker/abc\n4:memory:/docker/abc\n0::/\n"})
    group = "cgroup/memory/memory"
    machine({f"{group}.limit_in_bytes": f"{4 * GB}\n", f"{group}.usage_in_bytes": f"{GB}\n"})
    machine({f"{group}.stat": f"inactive_file 9\ntotal_inactive_file {GB}\n"})
    assert available() == 4 * GB


def test_a_budget_is_for_the_whole_process_and_no_more_than_is_left(machine):
    held = 1_000_000 * 1024
    assert room(4 * GB) == 4 * GB - held
    assert room(GB) < 0
    assert room(None) == room(100 * GB) == int(0.9 * 8_000_000 * 1024)


def test_without_proc_it_is_what_the_machine_has(machine, tmp_path, monkeypatch):
    monkeypatch.setattr(memory, "PROC", tmp_path / "nothing")
    assert available() > 0
    assert room(GB) <= GB


def test_this_machine_has_memory():
    assert available() > 0
    assert 10**7 < memory.in_use() < 10**12
