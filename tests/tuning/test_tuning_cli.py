"""``pnp-ovss tune`` and ``segment --min-quality``, on random weights."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pnp_ovss import Config
from pnp_ovss.cli import main
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
    usual = ["--names", "names.json", "--model", str(models[0]), "--clip", str(models[1])]

    def run(*more: str) -> int:
        images = [] if "--images" in more else ["--images", "photos"]
        return main(["tune", *images, *usual, "--size", "32", "--refine", "blur", "--device", "cpu", *more])

    return run


def test_tuning_writes_a_preset_and_a_page_and_goes_on_where_it_was(tune, tmp_path, models, capfd):
    assert tune("--trials", "3") == 0
    out, said = capfd.readouterr()
    assert "ran 2 times for 2 photos" in out
    assert "1 of 3 photos have no class and are left out" in said
    config = Config.from_preset(tmp_path / "tuning" / "preset.json")
    assert f"layer {config.layer}, head {config.head}, threshold {config.threshold}, blur {config.blur}" in out
    page = (tmp_path / "tuning" / "report.html").read_text(encoding="utf-8")
    assert f"Layer <b>{config.layer}</b>, head <b>{config.head}</b>" in page
    assert page.count("data:image/jpeg;base64,") == 2
    assert page.count("</tr>") == 1 + 2 + 1 + 3  # layers and heads, candidates
    assert not re.findall(r"https?://|<script", page)
    assert tune("--trials", "5") == 0
    assert "ran 0 times for 2 photos" in capfd.readouterr().out
    assert (
        main(
            ["segment", "photos/a.png", "--classes", "dog", "--model", str(models[0]), "--preset", "tuning/preset.json"]
        )
        == 0
    )


def test_a_study_goes_on_with_the_same_photos_only(tune, capfd):
    assert tune("--trials", "1") == 0
    Image.new("RGB", (40, 40), "red").save("photos/c.png")  # has no class, so it does not count
    assert tune("--trials", "1") == 0
    Image.new("RGB", (40, 40), "red").save("photos/a.png")
    assert tune("--trials", "2") == 2
    assert "the study was begun with another content of the photos" in capfd.readouterr().err


def test_with_few_photos_the_settings_at_the_start_stay_and_that_is_said(tune, tmp_path, capsys):
    """Whatever a search finds on two photos, it may not hold for others."""
    assert tune("--trials", "6", "--preset", "mini", "--reward", "graded") == 0
    out, err = capsys.readouterr()
    start, config = Config.from_preset("mini"), Config.from_preset(tmp_path / "tuning" / "preset.json")
    layer, head, threshold, blur = (getattr(start, name) for name in ("layer", "head", "threshold", "blur"))
    assert (config.layer, config.head, config.threshold, config.blur) == (layer, head, threshold, blur)
    assert re.search(
        r"(which is not certain: the settings at the start stay|no candidate is better, and they stay)", out
    )
    assert "only 2 photos: " in err
    page = (tmp_path / "tuning" / "report.html").read_text(encoding="utf-8")
    assert f"Layer <b>{layer}</b>, head <b>{head}</b>, threshold\n<b>{threshold:g}</b>, blur <b>{blur:g}</b>" in page


def test_a_setting_that_is_given_is_not_tuned(tune, tmp_path):
    assert tune("--trials", "2", "--layer", "1", "--heads", "0", "--sampler", "grid", "--reward", "graded") == 0
    config = Config.from_preset(tmp_path / "tuning" / "preset.json")
    assert (config.layer, config.head, config.refiners) == (1, 0, ("blur",))


@pytest.mark.parametrize(
    ("more", "line"),
    [
        (["--images", "nowhere"], "cannot be read|there is no photo|none of"),
        (["--names", "nobody"], "expected --names to be a file or one of itm, clip, caption, openai, got nobody"),
        (["--names", "none.json"], "none of 3 photos has a class to tune on; give other --names"),
        (["--names", "one.json"], "expected two names or more to compare, got 1; give a --vocabulary"),
        (["--clip", "empty"], "empty"),
        (["--layers", "7"], "expected layer from 0 to 1 for .*, got 7"),
        (["--storage", "study.db"], "expected a storage URL such as sqlite:///study.db"),
        (["--out", "names.json/x"], "cannot be written"),
    ],
)
def test_what_is_wrong_is_reported_in_one_line(tune, tmp_path, models, capfd, more, line):
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


def test_a_line_of_a_names_file_is_one_name(tune, tmp_path, capfd):
    (tmp_path / "names.txt").write_text("dog, brown\ndog\n")
    assert tune("--names", "names.txt", "--trials", "1", "--layer", "1", "--head", "0") == 2
    assert "'dog, brown'" in capfd.readouterr().err  # a comma is part of the name, which this model cannot know


def test_many_photos_after_one_flag_are_all_tuned_on(tune, capfd):
    assert tune("--images", "photos/a.png", "photos/b.png", "--trials", "1", "--layer", "1", "--head", "0") == 0
    assert "for 2 photos" in capfd.readouterr().out


def test_what_is_wrong_with_the_search_is_reported_before_a_model_is_fetched(tune, capfd):
    for flags, line in (
        (["--thresholds", "2"], "expected threshold to be a number from 0 to 1, got 2"),
        (["--blurs", "nan"], "expected blur to be a number"),
        (["--heads", "x"], "error: Invalid value for '--heads': Value error, could not convert string to float: 'x'"),
        (["--storage", "foo"], "expected a storage URL such as sqlite:///study.db; give one with --storage"),
        (["--names", "itm"], "itm by nobody/nothing needs a vocabulary to choose from; give --vocabulary coco-object"),
    ):
        assert tune("--model", "nobody/nothing", *flags) == 2
        assert capfd.readouterr().err.startswith(f"pnp-ovss: {line}")
    assert tune("--keep", "5") == 2
    assert "Invalid value for '--keep'" in capfd.readouterr().err
