"""Commands that are killed, have no room or share a folder go on: at a few operations; in the slow run at more.

``python tests/kills.py`` tries all of them.
"""

import random
from collections.abc import Iterator

import pytest

pytest.importorskip("pyarrow")
pytest.importorskip("optuna")
pytest.importorskip("openai")

import kills

QUICK = (
    "segment",
    "batch",
    "batch, Parquet",
    "batch, two at a time",
    "name",
    "evaluate",
    "reproduce",
    "data",
    "export",
)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[kills.World]:
    with kills.make_world(tmp_path_factory.mktemp("kills")) as made:
        yield made


@pytest.mark.parametrize("command", [pytest.param("batch, Parquet", marks=pytest.mark.slow), "data", "export"])
def test_killed_at_an_operation_it_goes_on_and_ends_the_same(world, command):
    trial = kills.Trial.of(world, world.cases[command])
    for at in random.Random(command).sample(range(trial.operations), 1):
        assert trial.kill(at) == "", f"operation {at} of {trial.operations}"
    assert trial.full(trial.operations // 2) == ""
    assert trial.gone(trial.operations // 3) == ""
    assert trial.read_only() == ""
    assert trial.twice() == ""


@pytest.mark.slow
@pytest.mark.parametrize(("command", "most", "others"), [*((name, 12, 2) for name in QUICK), ("tune", 6, 1)])
def test_killed_at_many_operations_it_goes_on_and_ends_the_same(command, most, others):
    assert kills.everything([command], most, others, seed=1) == 0
