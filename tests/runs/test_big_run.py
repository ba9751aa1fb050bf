"""Very many photos: memory stays, time grows with them, and kills change nothing; ``benchmarks.big_run``, smaller."""

import re

import pytest

from benchmarks import big_run


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("format", ["files", "parquet"])
def test_many_photos_take_no_more_memory_and_survive_kills(tmp_path, capsys, format):
    pytest.importorskip("pyarrow")
    big_run.draw(tmp_path / "photos", 3000)
    big_run.measure(tmp_path, format, 3000, kills=3)
    said = capsys.readouterr().out
    assert "[-9, -9, -9, 0]" in said
    assert "results of the killed run are equal" in said
    memory = [int(row) for row in re.findall(r"^\| \d+ \| .* \| (\d+) \|$", said, re.MULTILINE)]
    assert len(memory) == big_run.PARTS
    assert memory[-1] - memory[0] < 30
