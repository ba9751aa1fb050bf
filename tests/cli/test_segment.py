"""``pnp-ovss segment``, in process: exit codes, exact messages, and files that are whole or not there."""

import json
import os
import re
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import pnp_ovss
from pnp_ovss import PRESETS, Config, ModelError
from pnp_ovss.cli import main
from pnp_ovss.mini import HELD_OUT_SEED, Scene, draw
from pnp_ovss.refine.budget import need
from pnp_ovss.segmenter import Segmenter
from terminal import errors_of

pytestmark = pytest.mark.usefixtures("loaded_once")
# What makes a random model of a 4 x 4 grid quick.
SMALL = ("--size", "32", "--layer", "0", "--head", "1", "--drop", "2", "--refine", "blur")


@pytest.fixture
def segment(desk, tiny_blip_folder):
    """Run ``segment`` with a random model; returns the exit code."""

    def run(*arguments: str, classes: str = "dog, traffic light") -> int:
        usual = ["--classes", classes, "--model", str(tiny_blip_folder), "--present", "all"]
        return main(["segment", *arguments, *usual, *SMALL])

    return run


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
    assert record["key"] == "dog"
    assert record["method"] == "pnp"
    assert {part["class"] for part in record["segments"]} == {n for n in expected.classes[1:] if expected.areas[n]}
    assert record["classes"] == ["background", "dog", "traffic light"]
    assert record["areas"] == pytest.approx(expected.areas, abs=1e-6)
    assert record["match"] == pytest.approx(expected.match, abs=1e-5)
    assert (record["photo"], record["width"], record["height"]) == ("photos/dog.jpg", 50, 40)
    content, status = Path("photos/dog.jpg").read_bytes(), os.stat("photos/dog.jpg")
    about = {"size": len(content), "modified": str(status.st_mtime_ns), "sha256": sha256(content).hexdigest()}
    assert record["file"] == about
    assert not record["instances"]
    assert (record["labels"], record["overlay"]) == ("dog.png", "dog.overlay.png")
    assert (record["model"], record["revision"]) == (str(tiny_blip_folder), expected.revision)
    assert record["version"] == pnp_ovss.__version__
    assert record["seconds"] >= 0
    assert Config.from_json(json.dumps(record["config"])) == expected.config
    out = capsys.readouterr().out.splitlines()
    areas = r"((dog|traffic light|background) (\d+|\d\.\d|< 0\.1) %(, )?)+"
    assert re.fullmatch(rf"photos/dog\.jpg: {areas}; match {expected.match:.1f}", out[0])
    sure = dict(zip(expected.classes, [0, *expected.confidence], strict=True))
    assert record["confidence"] == pytest.approx(sure, abs=1e-6)
    assert [part["confidence"] for part in record["segments"]] == [
        record["confidence"][part["class"]] for part in record["segments"]
    ]
    assert record["presence"] == expected.presence.record()
    assert out[1] == "1 photo in results: for each a label map .png, an .overlay.png and a .json record"


def test_objects_one_by_one_are_recorded_and_outlined(segment, tiny_blip_folder):
    assert segment("photos/dog.jpg", "--background", "never") == 0
    plain = Path("results/dog.overlay.png").read_bytes()
    assert segment("photos/dog.jpg", "--instances", "--background", "never") == 0
    record = json.loads(Path("results/dog.json").read_text())
    how = {"size": 32, "layer": 0, "head": 1, "drop": 2, "refiners": ("blur",), "background": "never"}
    expected = Segmenter.from_pretrained(tiny_blip_folder, **how)("photos/dog.jpg", ["dog", "traffic light"])
    objects = [(part["class"], part["area"], part["confidence"]) for part in record["segments"]]
    assert objects == [(one.name, one.area, pytest.approx(one.confidence, abs=1e-6)) for one in expected.instances()]
    assert record["instances"]
    assert objects
    assert Path("results/dog.overlay.png").read_bytes() != plain


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


def shown(name: str) -> tuple[dict[str, int], set[int]]:
    """Return the value of each class in the record of a photo, and the values of its label map."""
    record = json.loads(Path(f"results/{name}.json").read_text())
    with Image.open(f"results/{name}.png") as labels:
        return dict(zip(record["classes"], record["values"], strict=True)), set(np.unique(labels).tolist())


def test_a_class_has_one_value_and_colour_in_a_folder(segment):
    assert segment("photos/dog.jpg", classes="dog, cat") == 0
    assert segment("photos/street.png", classes="cat, bird") == 0
    assert shown("dog")[0] == {"background": 0, "dog": 1, "cat": 2}
    assert shown("street")[0] == {"background": 0, "cat": 2, "bird": 3}
    assert shown("street")[1] <= {0, 2, 3}
    assert segment("photos", classes="cat, bird") == 0  # all done anew: nothing to keep to
    assert shown("street")[0] == {"background": 0, "cat": 1, "bird": 2}


def test_values_and_colours_are_those_that_are_given(segment):
    Path("colours.txt").write_text("TV: #ff8000\n")
    assert segment("photos/dog.jpg", "--values", "coco-object", "--colors", "colours.txt", classes="TV, person") == 0
    assert shown("dog")[0] == {"background": 0, "TV": 72, "person": 1}
    assert shown("dog")[1] <= {0, 1, 72}
    with Image.open("results/dog.png") as labels:
        assert labels.getpalette()[3 * 72 : 3 * 72 + 3] == [255, 128, 0]


@pytest.mark.parametrize(
    ("classes", "line"),
    [
        ("dragon", "coco-object has no number for the class 'dragon'; give another --values"),
        ("tv, TV ", "class 'TV' is named twice; name each class once"),
        ("person, man=Person ", "class 'Person' is named twice; name each class once"),
    ],
)
def test_a_class_without_a_value_is_reported(desk, no_model, capsys, classes, line):
    assert main(["segment", "photos", "--values", "coco-object", "--classes", classes]) == 2
    assert errors_of(capsys) == [f"pnp-ovss: {line}"]


# Segment: what is refused, before a model is loaded.


@pytest.mark.parametrize(
    ("arguments", "classes", "line"),
    [
        (["missing.jpg"], "dog", "there is no photo missing.jpg; check the path"),
        (["*.tiff"], "dog", "no picture matches *.tiff; check the pattern and the folder"),
        (["photos"], "dog,, cat", "a class name is empty; leave it out or write the name"),
        (["photos"], "", "expected at least one class name such as 'dog', got none"),
        (["photos"], "dog, Dog", "class 'Dog' is named twice; name each class once"),
        (
            ["photos"],
            ",".join(f"n{index}" for index in range(256)),
            "expected at most 255 classes in a label map, got 256; name fewer",
        ),
        (["photos", "--preset", "best"], "dog", "there is no preset 'best'; "),
        (["photos", "--threshold", "2"], "dog", "expected threshold"),
        (["photos", "--drop", "1.5"], "dog", "expected drop"),
        (["photos", "--min-quality", "2"], "dog", "error: "),
        (["photos", "--batch-size", "0"], "dog", "error: "),
        (["photos", "--refine", "sharpen"], "dog", "there is no refiner 'sharpen'; the refiners are "),
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
def test_bad_input_is_reported_before_a_model_is_loaded(desk, no_model, capsys, arguments, classes, line):
    assert main(["segment", *arguments, "--classes", classes]) == 2
    (err,) = capsys.readouterr().err.splitlines()
    assert err.startswith(f"pnp-ovss: {line}")
    assert sorted(os.listdir(desk)) == ["photos"]
    assert sorted(os.listdir("photos")) == ["dog.jpg", "street.png"]


def test_photos_that_would_share_a_result_are_refused(desk, no_model, capsys):
    Path("more").mkdir()
    Path("photos/dog.jpg").rename("more/street.jpg")
    assert main(["segment", "photos", "more", "--classes", "dog"]) == 2
    assert errors_of(capsys) == [
        "pnp-ovss: photos/street.png and more/street.jpg would both be written to results/street.png; rename one, or "
        "give each its own --out"
    ]


def test_an_overlay_does_not_take_the_place_of_a_label_map(desk, no_model, capsys):
    Path("photos/street.png").rename("photos/dog.overlay.png")
    assert main(["segment", "photos", "--classes", "dog"]) == 2
    assert "would both be written to results/dog.overlay.png" in errors_of(capsys)[0]


@pytest.mark.parametrize("content", [None, b"\xff\xfe\x00", b"# nothing\n", b"dog\ndog\n"])
def test_a_classes_file_that_cannot_be_used_is_one_line(desk, no_model, capsys, content):
    if content is not None:
        Path("classes.txt").write_bytes(content)
    assert main(["segment", "photos", "--classes-file", "classes.txt"]) == 2
    (line,) = errors_of(capsys)
    assert line.startswith("pnp-ovss: ")


@pytest.mark.parametrize("flags", [(), ("--classes", "dog", "--classes-file", "classes.txt")])
def test_classes_have_to_be_given_once(desk, no_model, capsys, flags):
    assert main(["segment", "photos", *flags]) == 2
    line = "pnp-ovss: expected classes: give either --classes 'dog, cat' or --classes-file FILE"
    assert errors_of(capsys) == [line]


@pytest.mark.parametrize(
    ("flags", "line"),
    [
        (["--layer", "7"], "expected "),
        (["--dtype", "int4"], "expected dtype auto, float32, "),
        (
            ["--device", "quantum"],
            "device 'quantum' cannot be used here; give auto or cpu",
        ),
    ],
)
def test_what_the_model_cannot_do_is_reported(segment, capsys, tiny_blip_folder, flags, line):
    # The fixture's own flags follow and win, so this run brings all of its own.
    small = [text for pair in zip(SMALL[::2], SMALL[1::2], strict=True) if pair[0] not in flags for text in pair]
    model = ["--classes", "dog", "--model", str(tiny_blip_folder), *small]
    assert main(["segment", "photos", *model, *flags]) == 2
    (err,) = errors_of(capsys)
    assert err.startswith(f"pnp-ovss: {line.format(tiny_blip_folder)}")
    assert not Path("results").exists()


def test_a_class_called_background_is_one_too_many(segment, capsys):
    assert segment("photos", classes="dog, Background") == 2
    line = "class 'background' is there by itself; leave it out, or set the background to 'never'"
    assert errors_of(capsys) == [f"pnp-ovss: {line}"]
    assert segment("photos/dog.jpg", "--background", "never", classes="background, dog") == 0


def test_too_many_words_are_reported_once_however_many_photos(segment, capsys):
    assert segment("photos", classes=",".join(f"n{index}" for index in range(100))) == 2
    (line,) = errors_of(capsys)
    assert "the class names make 105 tokens" in line


# Segment: what goes wrong on the way.


def test_one_bad_photo_is_reported_and_the_others_go_on(segment, capsys):
    Path("photos/empty.png").touch()
    assert segment("photos", "missing.jpg", "--batch-size", "2") == 1
    assert sorted(os.listdir("results")) == sorted(
        f"{n}{s}" for n in ("dog", "street") for s in (".json", ".overlay.png", ".png")
    )
    assert errors_of(capsys) == [
        "pnp-ovss: photos/empty.png is no picture; expected a JPEG, PNG, WebP, TIFF, BMP or GIF file",
        "pnp-ovss: there is no photo missing.jpg; check the path",
        "pnp-ovss: 2 of 4 photos could not be read",
    ]


def test_a_single_bad_photo_is_an_error(segment, no_model, capsys):
    Path("text.jpg").write_text("no photo")
    assert segment("text.jpg") == 2
    assert errors_of(capsys) == ["pnp-ovss: text.jpg is no picture; expected a JPEG, PNG, WebP, TIFF, BMP or GIF file"]
    assert not Path("results").exists()


def fail_at(monkeypatch, call: int, fault: BaseException) -> None:
    """Let the segmenter fail at its n-th batch."""
    usual, calls = Segmenter.locate, []

    def called(self, *arguments):
        calls.append(arguments)
        if len(calls) == call:
            raise fault
        return usual(self, *arguments)

    monkeypatch.setattr(Segmenter, "locate", called)


def test_ctrl_c_keeps_what_is_done(segment, monkeypatch, capsys):
    for number in range(4):
        Image.new("RGB", (9, 7)).save(f"photos/more-{number}.png")
    fail_at(monkeypatch, 4, KeyboardInterrupt())
    assert segment("photos") == 130
    done = len(list(Path("results").glob("*.json")))
    assert 1 <= done <= 3
    assert len(list(Path("results").iterdir())) == 3 * done
    assert errors_of(capsys) == [f"pnp-ovss: stopped; {done} of 6 photos are done, their results are in results"]


def test_ctrl_c_before_anything_is_done_is_one_line(segment, monkeypatch, capsys):
    fail_at(monkeypatch, 1, KeyboardInterrupt())
    assert segment("photos") == 130
    assert errors_of(capsys) == ["pnp-ovss: stopped; 0 of 2 photos are done"]


def test_a_bug_keeps_its_traceback(segment, monkeypatch):
    fail_at(monkeypatch, 1, RuntimeError("a bug"))
    with pytest.raises(RuntimeError, match="a bug"):
        segment("photos")


def test_a_full_gpu_is_reported(segment, monkeypatch, capsys):
    fail_at(monkeypatch, 1, torch.OutOfMemoryError("CUDA out of memory"))
    assert segment("photos") == 2
    assert errors_of(capsys) == [
        "pnp-ovss: the GPU is full; use a smaller --batch-size, --dtype bfloat16 or --device cpu"
    ]


def test_a_full_disk_stops_the_run_with_nothing_half_written(segment, monkeypatch, capsys):
    def full(source, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pnp_ovss.files.os.replace", full)
    assert segment("photos") == 2
    assert errors_of(capsys) == [
        "pnp-ovss: results/dog.png cannot be written (no space left on device); choose another place or make room"
    ]
    assert not Path("results").exists()


def test_an_error_of_several_lines_is_reported_in_one(segment, monkeypatch, capsys):
    fail_at(monkeypatch, 1, ModelError("first\nsecond"))
    assert segment("photos") == 2
    assert errors_of(capsys) == ["pnp-ovss: first second"]


def test_a_second_run_that_fails_leaves_no_record_of_other_classes(segment, monkeypatch):
    assert segment("photos/dog.jpg", classes="dog, cat") == 0
    monkeypatch.setattr("pnp_ovss.segmentation.save_png", lambda *_: (_ for _ in ()).throw(ModelError("stopped")))
    assert segment("photos/dog.jpg", classes="cat, dog, bird") == 2
    assert not Path("results/dog.json").exists()


# Memory.


def test_a_photo_that_had_to_be_refined_smaller_says_so(segment, capsys, monkeypatch):
    Image.effect_noise((800, 600), 40).convert("RGB").save("photos/large.png")
    config = Config(refiners=("blur",))
    monkeypatch.setattr(pnp_ovss.segmenter, "room", lambda budget: need(config.steps(), 3, 480_000, 480_000) - 1)
    assert segment("photos/large.png", "--memory", "9GB") == 0
    line = "photos/large.png: refined at 292 x 390 pixels to fit into the memory"
    assert line in capsys.readouterr().out.splitlines()
    record = json.loads(Path("results/large.json").read_text())
    assert (record["height"], record["width"], record["refined"]) == (600, 800, [292, 390])
    with Image.open("results/large.png") as labels:
        assert labels.size == (800, 600)


def test_a_photo_that_cannot_fit_is_one_line(segment, capsys):
    assert segment("photos/dog.jpg", "--memory", "1MB") == 2
    (line,) = errors_of(capsys)
    assert line.startswith("pnp-ovss: photos/dog.jpg: the photo needs 0.2 GB of memory, and there is room for 0.0 GB;")
    assert segment("photos/dog.jpg", "--memory", "a lot") == 2
    assert errors_of(capsys) == ["pnp-ovss: expected an amount of memory such as 4GB or 512MiB, got 'a lot'"]


# What a result is worth.


@pytest.fixture
def scenes(desk) -> list[Scene]:
    """Drawn scenes as photos: neither shows a cactus."""
    drawn = [scene for scene in (draw(HELD_OUT_SEED, index) for index in range(9)) if "cactus" not in scene.things][:2]
    for index, scene in enumerate(drawn):
        Image.fromarray(scene.image).save(f"photos/scene-{index}.png")
    return drawn


MINI = ("--model", "mini-blip", "--device", "cpu")


def test_a_class_that_no_photo_shows_gets_no_mask_and_exports_keep_the_photos(scenes, capsys):
    assert main(["segment", "photos/scene-?.png", "--classes", "cactus", *MINI]) == 0
    out, err = capsys.readouterr()
    assert [line for line in out.splitlines() if line.startswith("photos")] == [
        f"photos/scene-{index}.png: background 100 %; absent: cactus" for index in (0, 1)
    ]
    assert "low" not in err
    record = json.loads(Path("results/scene-0.json").read_text())
    assert record["classes"] == ["background", "cactus"]
    assert record["presence"]["absent"] == ["cactus"]
    assert record["presence"]["scores"]["cactus"] < record["presence"]["threshold"]
    assert not np.asarray(Image.open("results/scene-0.png")).any()
    assert main(["export", "results", "--to", "coco"]) == 0
    coco = json.loads(Path("export/coco/instances.json").read_text())
    assert len(coco["images"]) == 2
    assert coco["annotations"] == []
    assert [category["name"] for category in coco["categories"]] == ["cactus"]
    assert main(["export", "results", "--to", "yolo"]) == 0
    assert [Path(f"export/yolo/labels/scene-{index}.txt").read_text() for index in (0, 1)] == ["", ""]


def test_all_classes_are_taken_where_that_is_asked_and_a_low_match_is_said(scenes, capsys):
    assert main(["segment", "photos/scene-1.png", "--classes", "cactus", "--present", "all", *MINI]) == 0
    assert re.search(r"cactus \d+ %.*; match -\d", capsys.readouterr().out)
    record = json.loads(Path("results/scene-1.json").read_text())
    assert record["presence"]["choice"] == "all"
    assert record["presence"]["absent"] == []
    assert record["confidence"]["cactus"] < 0.1
    assert main(["export", "results", "--to", "coco"]) == 0
    (region,) = json.loads(Path("export/coco/instances.json").read_text())["annotations"]
    assert region["score"] == record["confidence"]["cactus"]
    main(["segment", "photos/scene-1.png", "--classes", "cactus", "--present", "all", *MINI])
    (line,) = errors_of(capsys)
    assert re.search(
        r"scene-1\.png: the match of -\d\.\d is low \(below .*\): the photo may not show what is named", line
    )


def test_a_mini_model_on_a_photo_says_that_it_knows_none(desk, capsys):
    assert main(["segment", "photos/dog.jpg", "--classes", "rocket", "--present", "all", *MINI]) == 0
    lines = errors_of(capsys)
    assert "photos/dog.jpg: mini-blip knows drawn scenes only, which this is not: its masks mean nothing" in lines[0]
    assert json.loads(Path("results/dog.json").read_text())["doubts"][0].startswith("mini-blip knows drawn scenes only")


def test_names_of_a_namer_are_taken_at_their_word(scenes):
    Path("names.json").write_text(json.dumps({f"scene-{index}": ["cactus"] for index in (0, 1)}))
    assert main(["segment", "photos/scene-?.png", "--classes-file", "names.json", *MINI]) == 0
    assert json.loads(Path("results/scene-0.json").read_text())["areas"]["cactus"] > 0
