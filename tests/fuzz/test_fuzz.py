"""Damaged and hostile inputs end in a result or a clear error; and the harness finds what does not."""

import pytest

from fuzz import harness
from fuzz.broken import TARGETS as BROKEN
from fuzz.harness import CLEAR, RESULT, run


@pytest.mark.slow
def test_500_inputs_end_in_a_result_or_a_clear_error():
    report = run(500)
    assert not report.failures, "\n".join(report.distinct())
    assert sum(report.counts.values()) == 500


@pytest.mark.slow
def test_10_000_inputs_end_in_a_result_or_a_clear_error():
    report = run(10_000, seed=1)
    assert not report.failures, "\n".join(report.distinct())
    assert sum(report.counts.values()) == 10_000


@pytest.mark.parametrize(("target", "found"), {
    "raises": "KeyError",
    "leaves": "SystemExit: 2",
    "many_lines": "an error that is no line: 'one\\ntwo'",
    "says_nothing": "an error that is no line: ''",
    "hangs": "the process ended (-27)",
    "dies": "the process ended (3)",
    "fills": "it took ",
    "dies_in_a_thread": "ZeroDivisionError",
    "works": None,
    "refuses": None,
}.items())  # fmt: skip
def test_the_harness_finds(target, found):
    assert target in BROKEN
    report = run(3, 5, 1, target, only=2, table="fuzz.broken", seconds=2 if target == "hangs" else 30, most=250 << 20)
    assert [*report.counts] == ([] if found else [(target, RESULT if target == "works" else CLEAR)])
    assert len(report.failures) == (1 if found else 0)
    for failure in report.failures:
        assert failure.startswith(f"{target}, input 2 (python -m tests.fuzz --seed 5 --target {target} --input 2):")
        assert found in failure


def test_what_is_left_is_done_by_another_process():
    report = run(6, 0, 1, "dies", table="fuzz.broken")
    assert len(report.failures) == 6
    assert len(report.distinct()) == 1


def test_an_input_follows_from_seed_and_number():
    names = [harness.chosen(number, 3, "", "fuzz.broken") for number in range(50)]
    again = [harness.chosen(number, 3, "", "fuzz.broken") for number in reversed(range(50))][::-1]
    assert [(name, rng.random()) for name, rng in names] == [(name, rng.random()) for name, rng in again]
    assert len({name for name, _ in names}) > 5
