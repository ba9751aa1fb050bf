"""What makes a shell pleasant: run files, quiet and JSON output, completion, quick commands, a check-up."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from pnp_ovss.cli import main
from terminal import errors_of

pytestmark = pytest.mark.usefixtures("loaded_once")
SMALL = {"size": 32, "layer": 0, "head": 1, "drop": 2, "refine": ["blur"]}


@pytest.fixture
def runfile(desk, tiny_blip_folder):
    """Write a run file of these flags; returns its name."""

    def write(name: str = "run.yaml", **flags) -> str:
        content = {"command": "segment", "photos": ["photos"], "classes": "dog, cat", "model": str(tiny_blip_folder)}
        Path(name).write_text(yaml.safe_dump(content | SMALL | flags, sort_keys=False))
        return name

    return write


def test_a_run_file_has_the_command_and_its_flags(runfile, capsys):
    assert main(["--config", runfile(classes={"person": ["man", "woman"], "dog": "dog"}, out="mine")]) == 0
    record = json.loads(Path("mine/street.json").read_text())
    assert record["classes"] == ["background", "person", "dog"]
    assert (record["config"]["drop"], record["config"]["refiners"]) == (2, ["blur"])
    kept = yaml.safe_load(Path("mine/run.yaml").read_text())
    assert kept["command"] == "segment"
    assert (kept["classes"], kept["photos"], kept["drop"]) == ("person=man|woman, dog=dog", ["photos"], 2)
    before = Path("mine/street.png").read_bytes()
    Path("mine/street.png").unlink()
    assert main(["segment", "--config", "mine/run.yaml"]) == 0  # what lies beside results makes them again
    assert Path("mine/street.png").read_bytes() == before


def test_flags_of_the_command_line_win_over_those_of_the_file(runfile):
    assert main(["segment", "photos/dog.jpg", f"--config={runfile(threshold=0.4)}", "--classes", "boat"]) == 0
    record = json.loads(Path("results/dog.json").read_text())
    assert record["classes"] == ["background", "boat"]
    assert record["config"]["threshold"] == 0.4
    assert not Path("results/street.json").exists()


def test_without_a_run_file_none_is_written(desk, tiny_blip_folder):
    small = [part for name in ("size", "layer", "head", "drop") for part in (f"--{name}", str(SMALL[name]))]
    arguments = ["photos/dog.jpg", "--classes", "dog", "--model", str(tiny_blip_folder), *small, "--refine", "blur"]
    assert main(["segment", *arguments]) == 0
    assert not Path("results/run.yaml").exists()


@pytest.mark.parametrize(
    ("content", "line"),
    [
        ("command: segment\nphoto: a.jpg\n", "there is no flag 'photo' of segment; see pnp-ovss segment --help"),
        ("command: segment\nphotos: a.jpg\nthreshold: much\n", "error: Invalid value for '--threshold': "),
        ("photos: a.jpg\n", "run.yaml names no command; write 'command: segment' into it"),
        ("- segment\n", "expected flags by name in run.yaml, such as 'model: mini-blip', got list"),
        ("a: [\n", "the run file run.yaml cannot be read (while parsing"),
        (None, "the run file run.yaml cannot be read (no such file or directory); give YAML or JSON"),
    ],
)
def test_a_run_file_that_cannot_be_used_is_one_line(desk, no_model, capsys, content, line):
    if content:
        Path("run.yaml").write_text(content)
    assert main(["--config", "run.yaml"]) == 2
    (found,) = errors_of(capsys)
    assert found.startswith(f"pnp-ovss: {line}")


def test_a_quiet_command_prints_errors_alone(runfile, capsys):
    Path("photos/broken.png").touch()
    assert main(["segment", "--config", runfile(), "--quiet"]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == [
        "pnp-ovss: photos/broken.png is no picture; expected a JPEG, PNG, WebP, TIFF, BMP or GIF file",
        "pnp-ovss: 1 of 3 photos could not be read",
    ]


def test_a_photo_is_a_line_of_json(runfile, capsys):
    assert main(["segment", "--config", runfile(), "--json"]) == 0
    found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [one["photo"] for one in found] == ["photos/dog.jpg", "photos/street.png"]
    assert list(found[0]["areas"]) == ["background", "dog", "cat"]
    assert Path(found[1]["record"]).is_file()
    assert main(["batch", "photos", "--config", runfile(command="batch", out="batch"), "--json"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert lines == [{"key": "dog", "fault": ""}, {"key": "street", "fault": ""}]


def test_details_say_what_ran_and_how_long_it_took(runfile, capsys, tiny_blip_folder):
    assert main(["segment", "photos/dog.jpg", "--config", runfile(), "--verbose"]) == 0
    (line,) = errors_of(capsys)
    assert line.startswith("pnp-ovss: photos/dog.jpg: read 0.")
    assert f"pnp on {tiny_blip_folder}, local-" in line


def run(code: str, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=os.environ | environment, check=True
    )
    return done.stdout


def test_models_are_listed_without_torch():
    code = "import sys; from pnp_ovss.cli import main; main(['models', '--json']); "
    lines = run(code + "print({'torch', 'transformers', 'scipy'} & set(sys.modules))").splitlines()
    assert json.loads(lines[0])["name"] == "mini-blip"
    assert lines[-1] == "set()"


@pytest.mark.parametrize(
    ("words", "expected"), [("pnp-ovss seg", "segment"), ("pnp-ovss segment --min-a", "--min-area")]
)
def test_the_shell_completes_commands_and_flags(words, expected, monkeypatch, capsys):
    number = str(len(words.split()) - 1)
    asked = {"_PNP_OVSS_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": number}
    for name, value in asked.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "argv", ["pnp-ovss"])
    with pytest.raises(SystemExit) as left:
        main()
    assert not left.value.code
    assert expected in capsys.readouterr().out.split()


@pytest.mark.parametrize(("given", "expected"), [({}, "0"), ({"OMP_WAIT_POLICY": "active"}, "None")])
def test_threads_do_not_spin_while_they_wait_unless_that_is_asked(monkeypatch, given, expected):
    monkeypatch.delenv("GOMP_SPINCOUNT", raising=False)
    code = "import os, sys; sys.argv = ['pnp-ovss', '--version']; from pnp_ovss.cli import run; run(); "
    code += "print('torch' in sys.modules, os.environ.get('GOMP_SPINCOUNT'))"
    assert run(code, **given).splitlines()[-1] == f"False {expected}"


def test_the_doctor_says_what_is_here(capsys, monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    assert main(["doctor", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["cache"].startswith(f"{tmp_path / 'hub'}, ")
    assert facts["cache"].endswith(" GB free, not there yet")
    assert facts["devices"].startswith("cpu (")
    assert facts["models here"] == "mini-blip, mini-bridgetower, mini-clip"
    assert facts["hub"].startswith(
        "http://127.0.0.1:9 does not answer (Connection refused); set HF_ENDPOINT to a mirror"
    )
    assert main(["doctor"]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()][:3] == ["pnp-ovss", "python", "packages"]
