"""The command line, in process: exit codes, exact messages, and files that are whole or not there."""

import os
import re
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import pnp_ovss
from pnp_ovss import Config
from pnp_ovss import models as vlm_models
from pnp_ovss.cli import COMMANDS, main
from pnp_ovss.cli.command import Parser
from pnp_ovss.cli.options import NAMES, add_settings, settings
from pnp_ovss.evaluation.metrics import Confusion
from pnp_ovss.mini import CLASSES
from pnp_ovss.segmenter import Segmenter

# What makes a random model of a 4 x 4 grid quick.
SMALL = ("--size", "32", "--layer", "0", "--head", "1", "--drop", "2", "--refine", "blur")


@pytest.fixture
def desk(tmp_path, monkeypatch) -> Path:
    """A folder to work in, with two photos."""
    monkeypatch.chdir(tmp_path)
    Path("photos").mkdir()
    for seed, name in enumerate(("dog.jpg", "street.png")):
        noise = np.random.default_rng(seed).integers(0, 256, (40, 50 + seed, 3), dtype=np.uint8)
        Image.fromarray(noise).save(Path("photos") / name)
    return tmp_path


def told(capsys) -> list[str]:
    """Return the lines on stderr, the progress bar's left out."""
    text = re.sub(r"\r[^\r\n]*(?=\r|$)", "", capsys.readouterr().err)
    return [
        line
        for line in text.replace("\r", "").splitlines()
        if "photo]" not in line and "photo/s]" not in line and line.strip()
    ]


# Help and wrong use.


@pytest.mark.parametrize("command", [(), *[(name,) for name in COMMANDS]])
def test_help_is_quick_and_shows_an_example(command):
    code = f"import sys; from pnp_ovss.cli import main; code = main([*{command}, '--help']); "
    code += "print({'torch', 'transformers'} & set(sys.modules)); sys.exit(code)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert f"example: pnp-ovss {' '.join(command)}" in done.stdout
    assert done.stdout.endswith("set()\n")


def test_the_version_is_told(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"pnp-ovss {pnp_ovss.__version__}\n"


def test_python_m_runs_it_as_well():
    done = subprocess.run([sys.executable, "-m", "pnp_ovss", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == f"pnp-ovss {pnp_ovss.__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ([], "the following arguments are required: COMMAND; see pnp-ovss --help"),
        (["segment"], "the following arguments are required: PHOTO; see pnp-ovss segment --help"),
        (
            ["segment", "a.jpg"],
            "one of the arguments --classes --classes-file is required; see pnp-ovss segment --help",
        ),
        (
            ["segment", "a.jpg", "--classes", "a", "--threshold", "much"],
            "argument --threshold: 'much' is no number; see pnp-ovss segment --help",
        ),
        (
            ["segment", "a.jpg", "--classes", "a", "--layer", "1.5"],
            "argument --layer: '1.5' is no whole number; see pnp-ovss segment --help",
        ),
        (
            ["segment", "a.jpg", "--classes", "a", "--batch-size", "0"],
            "argument --batch-size: '0' is no whole number above 0; see pnp-ovss segment --help",
        ),
        (
            ["segment", "a.jpg", "--class", "a"],
            "one of the arguments --classes --classes-file is required; see pnp-ovss segment --help",
        ),
        (
            ["demo", "--seed", "-1"],
            "Invalid value for '--seed': Input should be greater than or equal to 0; see pnp-ovss demo --help",
        ),
    ],
)
def test_wrong_use_is_told_in_one_line(capsys, arguments, line):
    assert main(arguments) == 2
    assert capsys.readouterr().err == f"pnp-ovss: error: {line}\n"


def test_an_unknown_command_is_told_with_those_there_are(capsys):
    assert main(["sgment"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("pnp-ovss: error: argument COMMAND: invalid choice: 'sgment'")
    assert "demo" in line


def test_every_setting_has_a_flag():
    parser = Parser()
    add_settings(parser)
    texts = {"gradient": None, "sum_last_name": None, "count_first_twice": None, "background": "few", "drop": "0.25"}
    for setting in fields(Config):
        flag, text = NAMES.get(setting.name, setting.name).replace("_", "-"), texts.get(setting.name, "1")
        given = settings(parser.parse_args([f"--no-{flag}"] if text is None else [f"--{flag}", text]))
        wanted = {"background": "few", "drop": 0.25, "refiners": ("1",)}.get(setting.name, False if text is None else 1)
        assert given == {setting.name: wanted}
        assert type(given[setting.name]) is type(wanted) or isinstance(setting.default, float)
        Config(**given)


@pytest.mark.parametrize(
    ("flag", "text", "value"),
    [
        ("--refine", "none", ()),
        ("--refine", "crf, blur", ("crf", "blur")),
        ("--size", "none", None),
        ("--drop", "12", 12),
        ("--gradient", None, True),
    ],
)
def test_settings_are_read_as_they_are_meant(flag, text, value):
    parser = Parser()
    add_settings(parser)
    (read,) = settings(parser.parse_args([flag] if text is None else [flag, text])).values()
    assert (read, type(read)) == (value, type(value))


@pytest.mark.skipif(os.name != "posix", reason="pipes of posix")
def test_a_reader_that_stops_early_is_no_error(tmp_path):
    run = f'{sys.executable} -c \'from pnp_ovss.cli import main; raise SystemExit(main(["segment", "--help"]))\''
    done = subprocess.run(f"{run} | true", shell=True, capture_output=True, text=True, check=True)
    assert done.stderr == ""


@pytest.fixture
def no_model(monkeypatch):
    def load(*arguments, **settings):
        raise AssertionError("a model was loaded")

    monkeypatch.setattr(Segmenter, "from_pretrained", load)


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
        truth, guess = (label_file(f"demo/scene-00{index}.{kind}.png") for kind in ("truth", "labels"))
        pooled += Confusion.of(truth, guess, len(CLASSES))
        assert truth.max() < len(CLASSES) - 6  # things alone: the grounds are background
    out = capsys.readouterr().out.splitlines()
    assert out[0] == f"2 drawn scenes of series 7, segmented with {tiny_blip_folder}, which is given the names"
    assert re.fullmatch(r"scene  0  mIoU 0\.\d\d  an? .*", out[1])
    assert out[3] == f"mIoU {pooled.miou():.3f} over 2 drawn scenes, things and background"
    assert out[4] == "drawn scenes and a mini model show how the method works; they say nothing about real photos"
    assert out[5] == "contact sheet: demo/contact-sheet.png"
    with Image.open("demo/contact-sheet.png") as sheet:
        assert sheet.width > 700


def test_the_demo_tells_where_it_cannot_write(desk, no_model, capsys):
    Path("demo").touch()
    assert main(["demo"]) == 2
    assert told(capsys) == [
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
        ("segment a.png --classes dog --clip c --min-quality 2", "--min-quality is 2; a number from 0 to 1 is wanted"),
        (
            "serve --port 99999",
            "error: Invalid value for '--port': Input should be less than or equal to 65535; see pnp-ovss serve --help",
        ),
        ("tune --images nowhere --names itm", "there is no photo nowhere; check the path given with --images"),
    ],
)
def test_a_slip_is_told_before_a_model_is_looked_for(arguments, line, no_model, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(arguments.split()) == 2
    assert told(capsys) == [f"pnp-ovss: {line}"]
    assert list(tmp_path.iterdir()) == []
