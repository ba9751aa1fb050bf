"""The command line, in process: exit codes, exact messages, and files that are whole or not there."""

import os
import re
import subprocess
import sys
from dataclasses import fields
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import typer
from PIL import Image

import pnp_ovss
from pnp_ovss import Config, models as vlm_models
from pnp_ovss.cli import COMMANDS, main
from pnp_ovss.cli.flags import ModelFlags, expand
from pnp_ovss.evaluation.metrics import Confusion
from pnp_ovss.mini import CLASSES
from terminal import errors_of

# What makes a random model of a 4 x 4 grid quick.
SMALL = ("--size", "32", "--layer", "0", "--head", "1", "--drop", "2", "--refine", "blur")

# Help and wrong use.


def test_the_help_of_all_commands_imports_none():
    code = "import sys; from pnp_ovss.cli import main; code = main([]); "
    code += "print({'torch', 'transformers'} & set(sys.modules)); sys.exit(code)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert all(f"  {name}" in done.stdout and summary in done.stdout for name, summary in COMMANDS.items())
    assert "example: pnp-ovss demo" in done.stdout
    assert done.stdout.endswith("set()\n")


@pytest.mark.parametrize("name", COMMANDS)
def test_the_help_of_a_command_shows_an_example(name, capsys):
    assert main([name, "--help"]) == 0
    text = capsys.readouterr().out
    assert f"example: pnp-ovss {name}" in text
    assert "Args:" not in text


@pytest.mark.parametrize("name", COMMANDS)
def test_the_help_says_what_every_flag_is_for(name):
    flags = as_click(import_module(f"pnp_ovss.cli.{name}").command).params
    assert [flag.name for flag in flags if not (flag.help or flag.hidden)] == []


def as_click(command):
    app = typer.Typer(add_completion=False)
    app.command()(expand(command))
    return typer.main.get_command(app)


def test_the_version_is_reported(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"pnp-ovss {pnp_ovss.__version__}\n"


def test_python_m_runs_it_as_well():
    done = subprocess.run([sys.executable, "-m", "pnp_ovss", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == f"pnp-ovss {pnp_ovss.__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ("segment", "Missing argument 'PHOTO...'"),
        ("segment a --threshold much", "Invalid value for '--threshold': Input should be a valid number"),
        ("segment a --layer 1.5", "Invalid value for '--layer': Input should be a valid integer"),
        ("segment a --drop much", "Invalid value for '--drop': Value error, could not convert"),
        ("segment a --background most", "Invalid value for '--background': Value error, 'most' is not one of 'always'"),
        ("segment a --batch-size 0", "Invalid value for '--batch-size': Input should be greater than or equal to 1"),
        ("segment a --class a", "No such option: --class"),
        ("demo --seed -1", "Invalid value for '--seed': Input should be greater than or equal to 0"),
        ("evaluate voc21 --shard 3/2", "Invalid value for '--shard': expected a part such as 2/4"),
    ],
)
def test_wrong_use_is_reported_in_one_line(capsys, arguments, line):
    assert main(arguments.split()) == 2
    (text,) = capsys.readouterr().err.splitlines()
    assert text.startswith(f"pnp-ovss: error: {line}")
    assert text.endswith(f"; see pnp-ovss {arguments.split()[0]} --help")


def test_an_unknown_command_is_reported_with_the_nearest(capsys):
    assert main(["sgment"]) == 2
    line = "pnp-ovss: error: No such command 'sgment'. Did you mean 'segment'?; see pnp-ovss --help\n"
    assert capsys.readouterr().err == line


def settings(*arguments: str) -> dict:
    """Return the settings that flags give."""
    found: list[ModelFlags] = []

    def command(model: ModelFlags) -> None:
        found.append(model)

    as_click(command).main(list(arguments), standalone_mode=False)
    return found[0].settings


@pytest.mark.parametrize("setting", fields(Config), ids=lambda setting: setting.name)
def test_every_setting_has_a_flag(setting):
    flag = {"refiners": "refine"}.get(setting.name, setting.name).replace("_", "-")
    text, value = {"background": ("few", "few"), "refiners": ("pamr", ("pamr",))}.get(
        setting.name, ("1", "1" if setting.type is str else 1)
    )
    if setting.type is bool:
        assert settings(f"--{flag}") == {setting.name: True}
        assert settings(f"--no-{flag}") == {setting.name: False}
    else:
        assert settings(f"--{flag}", text) == {setting.name: value}
        Config(**settings(f"--{flag}", text))


@pytest.mark.parametrize(
    ("arguments", "value"),
    [
        ("--refine=none", ()),
        ("--refine=crf, blur", ("crf", "blur")),
        ("--size=none", None),
        ("--size=32", 32),
        ("--drop=12", 12),
        ("--drop=0.25", 0.25),
        ("--threshold=1", 1.0),
        ("--gradient", True),
    ],
)
def test_settings_are_read_as_they_are_meant(arguments, value):
    (read,) = settings(arguments).values()
    assert (read, type(read)) == (value, type(value))


def test_settings_that_are_not_given_are_left_to_the_preset():
    assert settings() == {}


@pytest.mark.parametrize("address", ["http://[x", "http://host:99999", "http://me:long-password@host:x"])
def test_an_endpoint_of_the_hub_that_is_none_is_one_line(monkeypatch, capsys, address):
    monkeypatch.setenv("HF_ENDPOINT", address)
    assert main(["segment", "photo.jpg", "--classes", "dog"]) == 2
    (line,) = errors_of(capsys)
    assert line.startswith("pnp-ovss: HF_ENDPOINT is no web address (")
    assert "long-password" not in line


@pytest.mark.skipif(os.name != "posix", reason="pipes of posix")
def test_a_reader_that_stops_early_is_no_error(tmp_path):
    run = f"{sys.executable} -c 'from pnp_ovss.cli import main; raise SystemExit(main([\"--help\"]))'"
    done = subprocess.run(f"{run} | true", shell=True, capture_output=True, text=True, check=True)
    assert done.stderr == ""


# Demo.


def label_file(path: str) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image).astype(np.int64)


def test_the_demo_draws_segments_scores_and_shows(desk, tiny_blip_folder, capsys):
    arguments = ["--scenes", "2", "--seed", "7", "--scene-size", "48", "--model", str(tiny_blip_folder)]
    assert main(["demo", *arguments, *SMALL]) == 0
    names = [f"scene-00{index}{kind}.png" for index in (0, 1) for kind in ("", ".labels", ".truth")]
    assert sorted(os.listdir("demo")) == sorted(["contact-sheet.png", *names])
    pooled = Confusion.empty(len(CLASSES))
    for index in (0, 1):
        truth, prediction = (label_file(f"demo/scene-00{index}.{kind}.png") for kind in ("truth", "labels"))
        pooled += Confusion.of(truth, prediction, len(CLASSES))
        assert truth.max() < len(CLASSES) - 6  # things alone: the grounds are background
    out = capsys.readouterr().out.splitlines()
    assert out[0] == f"2 drawn scenes of series 7, segmented with {tiny_blip_folder}, which is given the names"
    assert re.fullmatch(r"scene  0  mIoU 0\.\d\d  an? .*", out[1])
    assert out[3] == f"mIoU {pooled.miou():.3f} over 2 drawn scenes, things and background"
    assert out[4] == "drawn scenes and a mini model show how the method works; they say nothing about real photos"
    assert out[5] == "contact sheet: demo/contact-sheet.png"
    with Image.open("demo/contact-sheet.png") as sheet:
        assert sheet.width > 700


def test_the_demo_says_where_it_cannot_write(desk, no_model, capsys):
    Path("demo").touch()
    assert main(["demo"]) == 2
    assert errors_of(capsys) == [
        "pnp-ovss: the folder demo cannot be written (not a directory); give another one with --out"
    ]


# Models.


def test_models_are_listed_with_what_a_user_wants_to_know(capsys):
    assert main(["models"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 120
    assert lines[0].split() == ["name", "family", "parameters", "input", "weights", "licence", "preset", "checked"]
    text = "\n".join(lines)
    for name, model in vlm_models.MODELS.items():
        (line,) = (line for line in lines if line.startswith(f"{name} "))
        assert f"{model.millions:.0f} M" in line
        assert f"{model.pixels} px" in line
        assert model.licence in line
        assert model.preset in line
        assert model.checked in line
    assert "hub id" in text
    assert "mini-clip" in text


def test_models_are_listed_with_where_their_weights_are(capsys, monkeypatch, tmp_path):
    snapshot = tmp_path / "models--Salesforce--blip-itm-base-coco" / "snapshots" / ("a" * 40)
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").write_text("{}")
    (snapshot / "pytorch_model.bin").write_bytes(bytes(7_000_000))
    (snapshot.parents[1] / "refs").mkdir()
    (snapshot.parents[1] / "refs" / "main").write_text("a" * 40)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    assert main(["models"]) == 0
    lines = {line.split()[0]: line for line in capsys.readouterr().out.splitlines() if line}
    assert " 7 MB cached " in lines["blip-base-coco"]
    assert " 1.8 GB to fetch " in lines["blip-large-flickr"]
    assert " MB shipped " in lines["mini-blip"]


# The public names.


def test_every_public_name_is_there():
    assert all(getattr(pnp_ovss, name) is not None for name in pnp_ovss.__all__)
    assert dir(pnp_ovss) == sorted(pnp_ovss.__all__)
    with pytest.raises(AttributeError, match="module 'pnp_ovss' has no attribute 'nonsense'"):
        pnp_ovss.nonsense  # noqa: B018


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (
            "segment a.png --classes dog --clip c --min-quality 2",
            "error: Invalid value for '--min-quality': Input should be less than or equal to 1",
        ),
        (
            "serve --port 99999",
            "error: Invalid value for '--port': Input should be less than or equal to 65535",
        ),
        ("tune --images nowhere --names itm", "there is no photo nowhere; check the path given with --images"),
    ],
)
def test_a_slip_is_reported_before_a_model_is_looked_for(arguments, line, no_model, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(arguments.split()) == 2
    assert errors_of(capsys)[0].startswith(f"pnp-ovss: {line}")
    assert list(tmp_path.iterdir()) == []
