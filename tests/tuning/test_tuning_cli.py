"""``pnp-ovss tune`` and ``segment --min-quality``, on random weights."""

import json
import re
import shutil
from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pnp_ovss import Config
from pnp_ovss.cli import main
from pnp_ovss.cli.tune import _namer
from tiny import WORDS, tiny_blip, tiny_clip

NAMES = {"a": ["dog", "cat"], "b": ["bird"], "c": []}


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("models")
    return tiny_blip(folder / "blip", known=WORDS), tiny_clip(folder / "clip")


@pytest.fixture
def tune(tmp_path, models, monkeypatch):
    """Run ``tune`` on three photos of noise, the last one without a class."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    (tmp_path / "photos").mkdir()
    for key in NAMES:
        Image.fromarray(rng.integers(0, 255, (40, 40, 3), dtype=np.uint8)).save(tmp_path / "photos" / f"{key}.png")
    (tmp_path / "names.json").write_text(json.dumps(NAMES))
    usual = ["--images", "photos", "--names", "names.json", "--model", str(models[0]), "--clip", str(models[1])]

    def run(*more: str) -> int:
        return main(["tune", *usual, "--size", "32", "--refine", "blur", "--device", "cpu", *more])

    return run


def test_tuning_writes_a_preset_and_a_page_and_goes_on_where_it_was(tune, tmp_path, models, capfd):
    assert tune("--trials", "3") == 0
    out, told = capfd.readouterr()
    assert "looked 2 times at 2 photos" in out
    assert "1 of 3 photos have no class and are left out" in told
    config = Config.from_preset(tmp_path / "tuning" / "preset.json")
    assert f"layer {config.layer}, head {config.head}, threshold {config.threshold}, blur {config.blur}" in out
    page = (tmp_path / "tuning" / "report.html").read_text(encoding="utf-8")
    assert "Settings for" in page
    assert not re.findall(r"https?://|<script", page)
    assert tune("--trials", "5") == 0
    assert "looked 0 times at 2 photos" in capfd.readouterr().out
    assert (
        main(
            ["segment", "photos/a.png", "--classes", "dog", "--model", str(models[0]), "--preset", "tuning/preset.json"]
        )
        == 0
    )


def test_a_setting_that_is_given_is_not_tuned(tune, tmp_path):
    assert tune("--trials", "2", "--layer", "1", "--heads", "0", "--sampler", "grid", "--reward", "graded") == 0
    config = Config.from_preset(tmp_path / "tuning" / "preset.json")
    assert (config.layer, config.head, config.refiners) == (1, 0, ("blur",))


@pytest.mark.parametrize(
    ("more", "line"),
    [
        (["--images", "nowhere"], "cannot be read|there is no photo|none of"),
        (["--names", "nobody"], "--names nobody is neither a file nor one of itm, clip, caption, openai"),
        (["--names", "none.json"], "none of 3 photos has a class to tune on; give other --names"),
        (["--names", "one.json"], "the reward compares names and got 1; give more to compare with by --vocabulary"),
        (["--clip", "empty"], "empty"),
        (["--layers", "7"], "layer is 7; .* has layers 0 to 1"),
        (["--storage", "study.db"], "the storage is no address such as sqlite:///study.db"),
        (["--out", "names.json/x"], "cannot be written"),
    ],
)
def test_what_is_wrong_is_told_in_one_line(tune, tmp_path, models, capfd, more, line):
    (tmp_path / "none.json").write_text(json.dumps({key: [] for key in NAMES}))
    (tmp_path / "one.json").write_text(json.dumps({key: ["dog"] for key in NAMES}))
    shutil.copytree(models[1], tmp_path / "empty", ignore=shutil.ignore_patterns("*.safetensors"))
    assert tune("--trials", "1", *more) == 2
    last = capfd.readouterr().err.strip().splitlines()[-1]
    assert last.startswith("pnp-ovss: ")
    assert re.search(line, last), last


def test_segment_rates_masks_and_drops_those_below(tune, tmp_path, models, capfd):
    usual = ["segment", "photos/a.png", "--classes", "dog, cat", "--model", str(models[0]), "--clip", str(models[1])]
    usual += ["--size", "32", "--layer", "1", "--head", "0", "--device", "cpu"]
    assert main(usual) == 0
    record = json.loads((tmp_path / "results" / "a.json").read_text())
    assert list(record["quality"]) == ["dog", "cat"]
    assert all(0 <= value <= 1 for value in record["quality"].values())
    assert main([*usual, "--min-quality", "1"]) == 0
    record = json.loads((tmp_path / "results" / "a.json").read_text())
    assert record["classes"] == ["background"]
    assert not np.asarray(Image.open(tmp_path / "results" / "a.png")).any()


def test_a_line_of_a_names_file_is_one_name(tmp_path):
    (tmp_path / "names.txt").write_text("chair, wooden\ndog\n")
    arguments = Namespace(names=str(tmp_path / "names.txt"), namer_model=None, device="cpu", dtype="auto")
    assert _namer(arguments, vlm=None).names == ("chair, wooden", "dog")


def test_what_is_wrong_with_the_search_is_told_before_a_model_is_fetched(tune, capfd):
    for flags, line in (
        (["--thresholds", "2"], "threshold is 2"),
        (["--blurs", "nan"], "blur is nan"),
        (["--storage", "foo"], "the storage is no address such as sqlite:///study.db; give one with --storage"),
        (["--names", "itm"], "itm by nobody/nothing needs a vocabulary to choose from; give --vocabulary coco-object"),
    ):
        assert tune("--model", "nobody/nothing", *flags) == 2
        assert capfd.readouterr().err.startswith(f"pnp-ovss: {line}")
    assert tune("--keep", "5") == 2
    assert "'5' is no confidence from 0 to 1" in capfd.readouterr().err


def test_the_study_lies_in_the_folder_whatever_it_is_called(tune, tmp_path):
    assert tune("--trials", "1", "--out", "a?b/t%41 #x") == 0
    assert (tmp_path / "a?b/t%41 #x/study.db").is_file()
    assert not (tmp_path / "a").exists()
