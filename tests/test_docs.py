"""Every Python block of the README and the docs runs; every file they point to exists; every command is one."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from pnp_ovss.cli import COMMANDS, _parser, main
from pnp_ovss.cli.runfile import take_runfile
from tools import cli

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md")])
BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\((?!https?:|#|mailto:)([^)#]+)(?:#[^)]*)?\)")

INLINE = re.compile(r"`(pnp-ovss [^`]+)`")


def blocks() -> list:
    return [
        pytest.param(block, id=f"{page.name}-{number}", marks=[pytest.mark.slow] * ("serve" in block))
        for page in PAGES
        for number, block in enumerate(BLOCK.findall(page.read_text(encoding="utf-8")))
    ]


@pytest.mark.parametrize("block", blocks())
def test_a_block_of_python_runs(block, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    exec(compile(block, "docs", "exec"), {"__name__": "docs"})


def test_there_are_blocks_to_run():
    assert len(blocks()) >= 3


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for target in LINK.findall(page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), f"{page.name} points to {target}"


def commands(page: Path, kinds: str = "sh|text") -> list[list[str]]:
    """Return the commands that a page prints, in blocks and in lines, without what stands for something else."""
    text = page.read_text(encoding="utf-8")
    blocks = re.findall(rf"^```(?:{kinds})\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    lines = [*lines, *INLINE.findall(text)]
    found = [shlex.split(line, comments=True) for line in lines if line.startswith("pnp-ovss ") and "..." not in line]
    return [words[1:] for words in found if words[1] in COMMANDS and not any(map(str.isupper, words))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_commands_of_a_page_have_such_flags(page):
    for words in commands(page):
        name, *arguments = [word for word in words if word != "--debug"]
        arguments = take_runfile([name, *arguments])[0][1:] if "--config" not in arguments else []
        if arguments and not arguments[-1].startswith("--"):  # else a flag is spoken of
            _parser(name).commands[name].make_context(name, arguments)  # raises for what is no flag


def test_the_reference_of_the_command_line_is_what_the_commands_say():
    assert cli.PAGE.read_text(encoding="utf-8") == cli.page(), "run: python -m tools.cli"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["README.md", "docs/quickstart.md"])
def test_the_commands_of_the_first_pages_run_as_printed(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    listed = commands(ROOT / name, "sh")
    assert listed[0] == ["demo"]
    for words in listed:
        if words[0] != "serve" and "--config" not in words:
            assert main(words) == 0, words


@pytest.mark.slow
def test_the_site_builds_without_a_warning(tmp_path):
    pytest.importorskip("mkdocs")
    command = [sys.executable, "-m", "mkdocs", "build", "--quiet", "--strict", "--site-dir", str(tmp_path / "site")]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
    pages = {page.relative_to(tmp_path / "site").parts[0] for page in (tmp_path / "site").rglob("index.html")}
    assert {page.stem for page in (ROOT / "docs").glob("*.md")} - {"index"} <= pages
