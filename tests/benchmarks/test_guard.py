"""Two commits timed in turns: the arithmetic, and a tree that was made slower."""

import shutil
import subprocess
from math import inf

import pytest

from benchmarks import guard


def test_the_spread_is_that_of_order_statistics():
    """Of nine, all lie on one side of the median in 1 of 256 cases, at most one does in 20 of 512: 96 % are inside."""
    ratios = [1.3, 0.9, 1.0, 1.1, 1.2, 0.8, 1.4, 1.5, 9.0]
    assert guard.spread(ratios) == (1.2, 0.9, 1.5)
    assert guard.spread([3.0, 1.0, 2.0, 5.0, 4.0]) == (3.0, 1.0, 5.0)  # outside in 1 of 16 cases
    assert guard.spread([1.0, 2.0, 3.0, 4.0]) == (2.5, -inf, inf)  # in 1 of 8


@pytest.mark.parametrize(
    ("after", "code"),
    [((2.3, 2.4, 2.5, 2.3, 2.3), 1), ((2.3, 2.4, 2.5, 2.3, 2.1), 0), ((9.0, 2.0, 9.0, 9.0, 9.0), 0)],
)
def test_a_path_is_slower_if_all_of_its_interval_is(after, code, capsys):
    assert guard.report([("crf", [(2.0, one) for one in after]), ("new", "AttributeError: no such thing")]) == code
    lines = capsys.readouterr().out.splitlines()
    assert lines[2].startswith("| crf | 2.000 | ")
    assert lines[3] == "| new | AttributeError: no such thing | | | |"
    assert lines[4:] == (["", "slower: crf"] if code else [])


@pytest.mark.slow
def test_a_tree_that_is_slower_is_found(tmp_path, capsys):
    ignore = shutil.ignore_patterns("__pycache__")
    slow = shutil.copytree(guard.ROOT / "src", tmp_path / "src", ignore=ignore) / "pnp_ovss" / "methods" / "pnp"
    with (slow / "dropout.py").open("a") as file:
        file.write(
            "\n\nfrom time import sleep\nfast = total\ndef total(*given):\n    sleep(0.5)\n    return fast(*given)\n"
        )
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=guard.ROOT, capture_output=True, text=True)
    if head.returncode:
        pytest.skip("not a git repository")
    with guard.tree_of(head.stdout.strip()) as old:
        assert guard.report(guard.compare(old, tmp_path, ["salience", "crf"], rounds=5)) == 1
    assert capsys.readouterr().out.endswith("slower: salience\n")
