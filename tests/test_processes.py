"""Which process is which, and which one runs no more."""

import os
import re
import subprocess
import sys
from dataclasses import replace

import pytest

from pnp_ovss import processes
from pnp_ovss.processes import PATTERN, Process, this_process

proc = pytest.mark.skipif(not os.path.exists("/proc/self/stat"), reason="this system does not say when a process began")


def test_a_process_is_read_as_it_is_written():
    assert Process.parse(str(this_process())) == this_process()
    assert re.fullmatch(PATTERN, str(this_process()))
    with pytest.raises(ValueError, match="values to unpack"):
        Process.parse("12")


def test_a_running_process_is_not_gone_and_one_that_ended_is():
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    other = replace(this_process(), number=child.pid, start=processes._start(child.pid))
    assert not this_process().is_gone()
    assert not other.is_gone()
    child.communicate(b"\n")
    assert other.is_gone()


@proc
def test_a_process_that_waits_for_its_parent_is_gone():
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    other = replace(this_process(), number=child.pid, start=processes._start(child.pid))
    assert other.is_gone() is False
    child.stdin.close()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # it has ended, and its number is still taken
    assert other.is_gone()
    child.wait()


@proc
def test_another_process_of_the_same_number_does_not_count():
    assert replace(this_process(), start="0badcafe").is_gone()


def test_what_cannot_be_known_is_said_to_be_so(monkeypatch):
    assert replace(this_process(), host="0badcafe").is_gone() is None
    assert replace(this_process(), start=processes.UNKNOWN).is_gone() is None
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    assert replace(this_process(), number=ended.pid, start=processes.UNKNOWN).is_gone()


def test_a_forked_process_is_another_one():
    parent = this_process()
    read, write = os.pipe()
    child = os.fork()
    if not child:
        os.write(write, str(this_process()).encode())
        os._exit(0)
    os.waitpid(child, 0)
    forked = Process.parse(os.read(read, 100).decode())
    assert (forked.host, forked.number) == (parent.host, child)
