"""What is no error of the user's: a line that calls it a bug, a traceback in a file, and exit code 70."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pnp_ovss import cli

CODE = """
import sys
from pnp_ovss import cli
from pnp_ovss.redaction import keep_key

def parser(asked):
    keep_key("secret-0123456789")
    raise {}

cli._parser = parser
sys.exit(cli.run())
"""


def run(error: str, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"TMPDIR": str(folder)}
    command = [sys.executable, "-c", CODE.format(error), "segment", *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, cwd=folder.parent)


def test_a_bug_is_one_line_with_its_traceback_in_a_file(tmp_path):
    place = tmp_path / "tmp"
    place.mkdir()
    done = run("RuntimeError('no secret-0123\\n at all')", place)
    (file,) = place.iterdir()
    assert done.returncode == 70
    assert done.stdout == ""
    assert done.stderr == (
        "pnp-ovss: a bug in pnp-ovss, not your mistake: RuntimeError: no ... at all; "
        f"its traceback is in {file}; report it\n"
    )
    text = file.read_text()
    assert text.startswith("pnp-ovss ")
    assert "Traceback (most recent call last):" in text
    assert "RuntimeError: no ..." in text
    assert "secret-0123'" not in text.replace('keep_key("secret-0123456789")', "")
    assert file.stat().st_mode & 0o077 == 0
    assert list(tmp_path.iterdir()) == [place]  # nothing beside it


def test_debug_shows_the_traceback(tmp_path):
    for arguments in (["--debug"], ["--out", "x", "--debug"]):
        done = run("KeyError('x')", tmp_path, *arguments)
        assert done.returncode == 70
        assert "Traceback (most recent call last):" in done.stderr
        assert done.stderr.splitlines()[-1].startswith("pnp-ovss: a bug in pnp-ovss, not your mistake: KeyError: 'x';")


def test_a_bug_without_a_temporary_folder_is_one_line(monkeypatch, capsys):
    def full(**how):
        raise OSError(28, "No space left on device")

    def fail():
        raise MemoryError

    monkeypatch.setattr(cli.tempfile, "mkstemp", full)
    monkeypatch.setattr(cli, "main", fail)
    assert cli.run() == 70
    assert capsys.readouterr().err == (
        "pnp-ovss: a bug in pnp-ovss, not your mistake: MemoryError: MemoryError; again with --debug to see where; "
        "report it\n"
    )


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_what_ends_a_program_is_no_bug(monkeypatch, error):
    def fail():
        raise error

    monkeypatch.setattr(cli, "main", fail)
    with pytest.raises(error):
        cli.run()


def test_the_program_ends_as_main_says(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["pnp-ovss", "segment", "--debug", "--nonsense"])
    assert cli.run() == 2
    assert "No such option: --nonsense" in capsys.readouterr().err
