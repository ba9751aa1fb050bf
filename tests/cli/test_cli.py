"""The command line, in process: exit codes, exact messages, and files that are whole or not there."""

import json
import os
import re
import subprocess
import sys
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import pnp_ovss
from pnp_ovss import PRESETS, Config, ModelError
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


@pytest.fixture
def segment(desk, tiny_blip_folder):
    """Run ``segment`` with a random model; returns the exit code."""

    def run(*arguments: str, classes: str = "dog, traffic light") -> int:
        return main(["segment", *arguments, "--classes", classes, "--model", str(tiny_blip_folder), *SMALL])

    return run


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
        (["demo", "--seed", "-1"], "argument --seed: '-1' is no whole number from 0 up; see pnp-ovss demo --help"),
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


# Segment: what is written.


def test_a_photo_gets_a_label_map_an_overlay_and_a_record(segment, capsys, tiny_blip_folder):
    assert segment("photos/dog.jpg") == 0
    assert sorted(os.listdir("results")) == ["dog.json", "dog.overlay.png", "dog.png"]
    record = json.loads(Path("results/dog.json").read_text())
    expected = Segmenter.from_pretrained(tiny_blip_folder, size=32, layer=0, head=1, drop=2, refiners=("blur",))(
        "photos/dog.jpg", ["dog", "traffic light"]
    )
    with Image.open("results/dog.png") as labels:
        assert labels.mode == "P"
        assert np.array_equal(np.asarray(labels), expected.labels)
    assert record["classes"] == ["background", "dog", "traffic light"]
    assert record["areas"] == pytest.approx(expected.areas, abs=1e-6)
    assert record["match"] == pytest.approx(expected.match, abs=1e-5)
    assert (record["photo"], record["width"], record["height"]) == ("photos/dog.jpg", 50, 40)
    assert (record["labels"], record["overlay"]) == ("dog.png", "dog.overlay.png")
    assert (record["model"], record["revision"]) == (str(tiny_blip_folder), expected.revision)
    assert record["version"] == pnp_ovss.__version__
    assert record["seconds"] >= 0
    assert Config.from_json(json.dumps(record["config"])) == expected.config
    out = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"photos/dog\.jpg: ((dog|traffic light|background) (\d+|\d\.\d|< 0\.1) %(, )?)+", out[0])
    assert out[1] == "1 photo in results: for each a label map .png, an .overlay.png and a .json record"


def test_a_folder_is_segmented_with_a_bar_and_a_line_per_photo(segment, capsys):
    assert segment("photos", "--out", "new/folder") == 0
    assert len(os.listdir("new/folder")) == 6
    out, err = capsys.readouterr()
    assert [line.split(":")[0] for line in out.splitlines()] == [
        "photos/dog.jpg",
        "photos/street.png",
        "2 photos in new/folder",
    ]
    assert "2/2" in err


def test_a_batch_gives_what_single_photos_give(segment):
    assert segment("photos", "--out", "single") == 0
    assert segment("photos", "--out", "batch", "--batch-size", "5") == 0
    for name in ("dog", "street"):
        one, two = (json.loads(Path(folder, f"{name}.json").read_text()) for folder in ("single", "batch"))
        assert one["areas"] == pytest.approx(two["areas"], abs=2e-3)
        assert one["match"] == pytest.approx(two["match"], abs=1e-4)


def test_twice_in_a_row_gives_the_same_files(segment):
    assert segment("photos") == 0
    first = Path("results/dog.png").read_bytes()
    assert segment("photos") == 0
    assert Path("results/dog.png").read_bytes() == first
    assert len(os.listdir("results")) == 6


def test_classes_come_from_a_file_as_well(desk, tiny_blip_folder):
    Path("classes.txt").write_text("\ufeff# what to look for\ndog\n\n  traffic   light # on a pole\n", encoding="utf-8")
    model = ("--model", str(tiny_blip_folder), *SMALL)
    assert main(["segment", "photos/dog.jpg", "--classes-file", "classes.txt", *model]) == 0
    assert json.loads(Path("results/dog.json").read_text())["classes"] == ["background", "dog", "traffic light"]


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


def test_without_a_flag_the_preset_decides(desk, tiny_blip_folder):
    preset = replace(PRESETS["paper"], size=32, layer=0, head=0, refiners=(), threshold=0.4)
    Path("mine.json").write_text(preset.to_json())
    arguments = ("--classes", "dog", "--model", str(tiny_blip_folder), "--preset", "mine.json", "--threshold", "0.5")
    assert main(["segment", "photos/dog.jpg", *arguments]) == 0
    config = Config.from_json(json.dumps(json.loads(Path("results/dog.json").read_text())["config"]))
    assert config == replace(preset, threshold=0.5)


@pytest.mark.parametrize("size", [(1, 1), (1, 5000), (300, 1)])
def test_odd_sizes_go_through(segment, size):
    Image.new("RGB", size, "olive").save("odd.png")
    assert segment("odd.png") == 0
    with Image.open("results/odd.png") as labels:
        assert labels.size == size


def test_any_class_name_goes_through(segment):
    names = ["犬", "café", "n" * 300, "traffic  light"]
    assert segment("photos/dog.jpg", classes=", ".join(names)) == 0
    assert json.loads(Path("results/dog.json").read_text())["classes"] == ["background", *names[:3], "traffic light"]


# Segment: what is refused, before a model is loaded.


@pytest.fixture
def no_model(monkeypatch):
    def load(*arguments, **settings):
        raise AssertionError("a model was loaded")

    monkeypatch.setattr(Segmenter, "from_pretrained", load)


@pytest.mark.parametrize(
    ("arguments", "classes", "line"),
    [
        (["missing.jpg"], "dog", "there is no photo missing.jpg; check the path"),
        (["*.tiff"], "dog", "no picture matches *.tiff; check the pattern and the folder"),
        (["photos"], "dog,, cat", "a class name is empty; leave it out or write the name"),
        (["photos"], "", "a class name is empty; leave it out or write the name"),
        (["photos"], "dog, Dog", "class 'Dog' is named twice; name each class once"),
        (
            ["photos"],
            ",".join(f"n{index}" for index in range(256)),
            "256 classes were named; a label map holds 255 at most: name fewer",
        ),
        (
            ["photos", "--preset", "best"],
            "dog",
            f"no preset 'best'; the presets are {', '.join(PRESETS)}, or give the path of",
        ),
        (["photos", "--threshold", "2"], "dog", "threshold is 2.0; a number from 0 to 1 is wanted"),
        (
            ["photos", "--drop", "1.5"],
            "dog",
            "drop is 1.5; a count of patches (10) or a share between 0 and 1 (0.5) is wanted",
        ),
        (
            ["photos", "--out", "photos/dog.jpg"],
            "dog",
            "the folder photos/dog.jpg cannot be written (not a directory); give another one with --out",
        ),
        (
            ["photos", "--out", "photos"],
            "dog",
            "photos/street.png is a photo and would be overwritten; give another --out",
        ),
    ],
)
def test_bad_input_is_told_before_a_model_is_loaded(desk, no_model, capsys, arguments, classes, line):
    assert main(["segment", *arguments, "--classes", classes]) == 2
    (err,) = capsys.readouterr().err.splitlines()
    assert err.startswith(f"pnp-ovss: {line}")
    assert sorted(os.listdir(desk)) == ["photos"]
    assert sorted(os.listdir("photos")) == ["dog.jpg", "street.png"]


def test_photos_that_would_share_a_result_are_refused(desk, no_model, capsys):
    Path("more").mkdir()
    Path("photos/dog.jpg").rename("more/street.jpg")
    assert main(["segment", "photos", "more", "--classes", "dog"]) == 2
    assert told(capsys) == [
        "pnp-ovss: photos/street.png and more/street.jpg would both be written to results/street.png; rename one, or "
        "give each its own --out"
    ]


def test_an_overlay_does_not_take_the_place_of_a_label_map(desk, no_model, capsys):
    Path("photos/street.png").rename("photos/dog.overlay.png")
    assert main(["segment", "photos", "--classes", "dog"]) == 2
    assert "would both be written to results/dog.overlay.png" in told(capsys)[0]


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (None, "the classes file classes.txt cannot be read (no such file or directory); one name a line is wanted"),
        (
            b"\xff\xfe\x00",
            "the classes file classes.txt cannot be read (it is no text in UTF-8); one name a line is wanted",
        ),
        (b"# nothing\n", "no class was named; name at least one, such as 'dog'"),
    ],
)
def test_a_classes_file_without_classes_is_told(desk, no_model, capsys, content, line):
    if content is not None:
        Path("classes.txt").write_bytes(content)
    assert main(["segment", "photos", "--classes-file", "classes.txt"]) == 2
    assert told(capsys) == [f"pnp-ovss: {line}"]


@pytest.mark.parametrize(
    ("flags", "line"),
    [
        (["--layer", "7"], "layer is 7; {} has layers 0 to 1"),
        (["--refine", "sharpen"], "no refiner 'sharpen'; the refiners are "),
        (["--dtype", "int8"], "dtype 'int8' is not known; use auto, float32, bfloat16, float16"),
        (["--device", "quantum"], "device 'quantum' cannot be used here; use auto, cpu or cuda:0 where there is a GPU"),
    ],
)
def test_what_the_model_cannot_do_is_told(segment, capsys, tiny_blip_folder, flags, line):
    # The fixture's own flags follow and win, so this run brings all of its own.
    small = [text for pair in zip(SMALL[::2], SMALL[1::2], strict=True) if pair[0] not in flags for text in pair]
    model = ["--classes", "dog", "--model", str(tiny_blip_folder), *small]
    assert main(["segment", "photos", *model, *flags]) == 2
    (err,) = told(capsys)
    assert err.startswith(f"pnp-ovss: {line.format(tiny_blip_folder)}")
    assert not Path("results").exists()


def test_a_class_called_background_is_one_too_many(segment, capsys):
    assert segment("photos", classes="dog, Background") == 2
    line = "class 'background' is there by itself; leave it out, or set the background to 'never'"
    assert told(capsys) == [f"pnp-ovss: {line}"]
    assert segment("photos/dog.jpg", "--background", "never", classes="background, dog") == 0


def test_too_many_words_are_told_once_however_many_photos(segment, capsys):
    assert segment("photos", classes=",".join(f"n{index}" for index in range(100))) == 2
    (line,) = told(capsys)
    assert "the class names make 105 tokens" in line


# Segment: what goes wrong on the way.


def test_one_bad_photo_is_told_and_the_others_go_on(segment, capsys):
    Path("photos/empty.png").touch()
    assert segment("photos", "missing.jpg", "--batch-size", "2") == 1
    assert sorted(os.listdir("results")) == sorted(
        f"{n}{s}" for n in ("dog", "street") for s in (".json", ".overlay.png", ".png")
    )
    assert told(capsys) == [
        "pnp-ovss: photos/empty.png is empty; fetch or save it again",
        "pnp-ovss: there is no photo missing.jpg; check the path",
        "pnp-ovss: 2 of 4 photos could not be read",
    ]


def test_a_single_bad_photo_is_an_error(segment, no_model, capsys):
    Path("text.jpg").write_text("no photo")
    assert segment("text.jpg") == 2
    assert told(capsys) == ["pnp-ovss: text.jpg is no picture; a JPEG, PNG, WebP, TIFF, BMP or GIF file is wanted"]
    assert not Path("results").exists()


def interrupt_at(monkeypatch, call: int, fault: BaseException) -> None:
    """Let the segmenter fail at its n-th call."""
    usual, calls = Segmenter.__call__, []

    def called(self, *arguments):
        calls.append(arguments)
        if len(calls) == call:
            raise fault
        return usual(self, *arguments)

    monkeypatch.setattr(Segmenter, "__call__", called)


def test_ctrl_c_keeps_what_is_done(segment, monkeypatch, capsys):
    interrupt_at(monkeypatch, 2, KeyboardInterrupt())
    assert segment("photos") == 130
    assert sorted(os.listdir("results")) == ["dog.json", "dog.overlay.png", "dog.png"]
    assert told(capsys) == ["pnp-ovss: stopped; 1 of 2 photos are done, their results are in results"]


def test_ctrl_c_anywhere_else_is_one_line(segment, monkeypatch, capsys):
    def stopped(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(vlm_models, "load_vlm", stopped)
    monkeypatch.setattr("pnp_ovss.images.find_images", stopped)
    assert segment("photos") == 130
    assert capsys.readouterr().err == "pnp-ovss: stopped\n"


def test_a_bug_keeps_its_traceback(segment, monkeypatch):
    interrupt_at(monkeypatch, 1, RuntimeError("a bug"))
    with pytest.raises(RuntimeError, match="a bug"):
        segment("photos")


def test_a_full_gpu_is_told(segment, monkeypatch, capsys):
    interrupt_at(monkeypatch, 1, torch.OutOfMemoryError("CUDA out of memory"))
    assert segment("photos") == 2
    assert told(capsys) == ["pnp-ovss: the GPU is full; use a smaller --batch-size, --dtype bfloat16 or --device cpu"]


def test_a_full_disk_stops_the_run_with_nothing_half_written(segment, monkeypatch, capsys):
    def full(source, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pnp_ovss.store.os.replace", full)
    assert segment("photos") == 2
    assert told(capsys) == [
        "pnp-ovss: results/dog.png cannot be written (no space left on device); choose another place or make room"
    ]
    assert os.listdir("results") == []


def test_an_error_of_several_lines_is_told_in_one(segment, monkeypatch, capsys):
    interrupt_at(monkeypatch, 1, ModelError("first\nsecond"))
    assert segment("photos") == 2
    assert told(capsys) == ["pnp-ovss: first second"]


@pytest.mark.skipif(os.name != "posix", reason="pipes of posix")
def test_a_reader_that_stops_early_is_no_error(tmp_path):
    run = f'{sys.executable} -c \'from pnp_ovss.cli import main; raise SystemExit(main(["segment", "--help"]))\''
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
        truth, guess = (label_file(f"demo/scene-00{index}.{kind}.png") for kind in ("truth", "labels"))
        pooled += Confusion.of(truth, guess, len(CLASSES))
        assert truth.max() < len(CLASSES) - 6  # things alone: the grounds are background
    out = capsys.readouterr().out.splitlines()
    assert out[0] == f"2 drawn scenes of series 7, segmented with {tiny_blip_folder}, which is given the names"
    assert re.fullmatch(r"scene  0  mIoU 0\.\d\d  an? .*", out[1])
    assert out[3] == f"mIoU {pooled.miou():.3f} over 2 drawn scenes, things and background"
    assert out[4] == "drawn scenes and a mini model show how the method works; they tell nothing about real photos"
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
        ("serve --port 99999", "--port is 99999; a number from 1 to 65535 is wanted"),
        ("tune --images nowhere --names itm", "there is no photo nowhere; check the path given with --images"),
    ],
)
def test_a_slip_is_told_before_a_model_is_looked_for(arguments, line, no_model, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(arguments.split()) == 2
    assert told(capsys) == [f"pnp-ovss: {line}"]
    assert list(tmp_path.iterdir()) == []


def test_a_second_run_that_fails_leaves_no_record_of_other_classes(segment, monkeypatch):
    assert segment("photos/dog.jpg", classes="dog, cat") == 0
    monkeypatch.setattr("pnp_ovss.runs.record.overlay", lambda *_: (_ for _ in ()).throw(ModelError("stopped")))
    assert segment("photos/dog.jpg", classes="cat, dog, bird") == 2
    assert not Path("results/dog.json").exists()


def test_a_name_too_long_for_results_is_told_before_anything_is_done(segment, desk, no_model, capsys):
    long = "x" * 246
    Image.new("RGB", (4, 4)).save(f"photos/{long}.png")
    assert segment("photos") == 2
    assert told(capsys) == [f"pnp-ovss: photos/{long}.png has too long a name: its results' would not fit; rename it"]
    assert not Path("results").exists()
