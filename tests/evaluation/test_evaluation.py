import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pnp_ovss import PRESETS, Segmenter
from pnp_ovss.cli import main
from pnp_ovss.cli.evaluate import published
from pnp_ovss.cli.flags import ModelFlags
from pnp_ovss.data import DATASETS, Dataset, benchmark_vocabulary, load_dataset
from pnp_ovss.data.vocabulary import class_names
from pnp_ovss.errors import InputError
from pnp_ovss.evaluation.record import read_record
from pnp_ovss.evaluation.run import Task, load_choice, segment
from pnp_ovss.methods import METHODS
from pnp_ovss.mini import THINGS
from shared import shared
from tiny import tiny_clip
from trees import coco, save

pytestmark = pytest.mark.usefixtures("loaded_once")
KEYS = tuple(f"2007_{number}" for number in range(6))
CAT, DOG = 8, 12


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, tiny_blip_folder: Path) -> Path:
    """Results over the six photos, the true names given."""
    root = tmp_path_factory.mktemp("undisturbed")
    assert main(arguments(make_voc(root / "data", KEYS), tiny_blip_folder, root / "out")) == 0
    return root / "out"


@pytest.fixture
def voc(tmp_path: Path) -> Path:
    """Six photos of 24 x 16 pixels: a cat on the left, a dog on the right, a void column, background around."""
    return make_voc(tmp_path / "data", KEYS)


def make_voc(root: Path, keys: tuple[str, ...]) -> Path:
    base = root / "VOC2012"
    (base / "ImageSets/Segmentation").mkdir(parents=True)
    (base / "ImageSets/Segmentation/val.txt").write_text("\n".join(keys) + "\n")
    rng = np.random.default_rng(0)
    for key in keys:
        (base / "JPEGImages").mkdir(exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (16, 24, 3), dtype=np.uint8)).save(base / f"JPEGImages/{key}.jpg")
        save(base / f"SegmentationClass/{key}.png", truth_mask())
    return base


def truth_mask() -> np.ndarray:
    mask = np.zeros((16, 24), dtype=np.uint8)
    mask[4:12, 2:10], mask[4:12, 10], mask[4:12, 11:20] = CAT, 255, DOG
    return mask


def predict(folder: Path, keys: tuple[str, ...] = KEYS) -> Path:
    """Label maps that take the dog's lower half for a cat, and the void for a dog."""
    prediction = truth_mask()
    prediction[prediction == 255], prediction[8:12, 11:20] = DOG, CAT
    for key in keys:
        save(folder / f"{key}.png", prediction)
    return folder


def read_report(out: Path) -> dict:
    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is not JSON")

    return json.loads((out / "report.json").read_text(), parse_constant=refuse)


def without_times(out: Path) -> dict:
    content = read_report(out)
    del content["seconds"]
    return content


def test_predictions_give_the_score_worked_out_by_hand(voc, tmp_path, capsys):
    out, predictions = tmp_path / "out", predict(tmp_path / "predictions")
    given = ["evaluate", "voc21", "--root", str(voc), "--predictions", str(predictions), "--out", str(out)]
    assert main(given) == 0
    cat, dog = 64 / (64 + 36), 36 / 72
    assert read_report(out)["score"]["miou"] == pytest.approx((1 + cat + dog) / 3, abs=1e-9)
    assert read_report(out)["confusions"][0] | {"miou_lost": 0} == {
        "truth": "dog", "guess": "cat", "miou_lost": 0, "pixels": 36 * len(KEYS),
    }  # fmt: skip
    assert read_report(out)["confusions"][0]["miou_lost"] == pytest.approx((2 - cat - dog) / 3, abs=1e-9)
    assert main([*given, "--protocol", "authors"]) == 0  # the same results, counted otherwise
    background = 16 * 24 - 64 - 8 - 72
    expected = (background / (background + 8) + cat + 36 / (72 + 8)) / 3
    assert read_report(out)["score"]["miou"] == pytest.approx(expected, abs=1e-9)
    assert read_report(out)["score"]["protocol"] == "authors"
    assert "mIoU " in capsys.readouterr().out


def test_the_label_maps_of_a_system_stand_among_the_published_scores(voc, tmp_path, capsys):
    given = ["evaluate", "voc21", "--root", str(voc), "--out", str(tmp_path / "out"), "--system", "ViL-Seg"]
    assert main([*given, "--predictions", str(predict(tmp_path / "predictions"))]) == 0
    text, page = ((tmp_path / "out" / f"report.{kind}").read_text() for kind in ("md", "html"))
    assert "Label maps of ViL-Seg from " in text
    assert "| ViL-Seg | 71.3 | scored here, from its label maps |" in text
    assert "| ViL-Seg | 37.3 | PnP-OVSS, CVPR 2024 poster, Table 3 |" in text
    assert "ViL-Seg, this run" in page
    assert main([*given, "--names", "given"]) == 2
    assert "give their folder with --predictions" in capsys.readouterr().err


@pytest.mark.parametrize(("values", "shift"), [("file", 0), ("index", -1), ("own", 0)])
def test_values_of_foreign_label_maps(voc, tmp_path, values, shift):
    for key in KEYS:
        prediction = truth_mask()
        prediction[(prediction == 0) | (prediction == 255)] = 1
        save(tmp_path / f"predictions/{key}.png", prediction.astype(int) + shift)
    given = ["--predictions", str(tmp_path / "predictions"), "--values", values, "--out", str(tmp_path / "out")]
    assert main(["evaluate", "voc20", "--root", str(voc), *given]) == 0
    assert read_report(tmp_path / "out")["score"]["miou"] == 1.0  # cat and dog; around them nothing is asked


def test_what_is_wrong_with_an_image_is_one_line_and_the_others_are_scored(voc, tmp_path, capsys):
    predictions = predict(tmp_path / "predictions")
    list_file = voc / "ImageSets/Segmentation/val.txt"
    list_file.write_text(list_file.read_text() + f"{KEYS[5]}\n")
    mask = voc / f"SegmentationClass/{KEYS[0]}.png"
    mask.write_bytes(mask.read_bytes()[:40])
    save(predictions / f"{KEYS[1]}.png", np.zeros((8, 24)))
    save(predictions / f"{KEYS[2]}.png", np.full((16, 24), 77))
    (predictions / f"{KEYS[3]}.png").unlink()
    given = ["evaluate", "voc21", "--root", str(voc), "--predictions", str(predictions), "--out", str(tmp_path / "o")]
    assert main(given) == 1
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("pnp-ovss: ")]
    assert len(lines) == 5
    assert f"{KEYS[5]} is listed twice in" in lines[0]
    assert f"{KEYS[0]}.png is no picture" in lines[1]
    assert f"{KEYS[1]}: expected a label map of the truth's size (16, 24), got (8, 24); scale label maps" in lines[2]
    assert "holds the unknown label id 77" in lines[3]
    assert f"there is no prediction {predictions / KEYS[3]}.png" in lines[4]
    content = read_report(tmp_path / "o")
    assert (content["score"]["images"], content["score"]["failed"]) == (2, 5)
    assert len(content["failed"]) == 5
    assert "is listed twice" in (tmp_path / "o/report.html").read_text()
    predict(predictions)  # mended: what failed is tried again
    assert main(given) == 1
    assert read_report(tmp_path / "o")["score"] == content["score"] | {"images": 5, "failed": 2}


def test_label_maps_and_masks_that_changed_are_scored_anew(voc, tmp_path):
    out, predictions = tmp_path / "out", predict(tmp_path / "predictions")
    given = ["evaluate", "voc21", "--root", str(voc), "--predictions", str(predictions), "--out", str(out)]
    assert main(given) == 0
    assert read_report(out)["score"]["miou"] == pytest.approx((1 + 64 / 100 + 36 / 72) / 3, abs=1e-9)
    for key in KEYS:
        save(predictions / f"{key}.png", truth_mask())
    assert main(given) == 0
    assert read_report(out)["score"]["miou"] == 1.0
    for key in KEYS:
        save(voc / f"SegmentationClass/{key}.png", np.where(truth_mask() == DOG, CAT, truth_mask()))
    assert main(given) == 0
    assert read_report(out)["score"]["miou"] == pytest.approx((1 + 64 / (64 + 72) + 0) / 3, abs=1e-9)


def test_a_damaged_annotation_is_one_line_and_the_others_are_scored(tmp_path, capsys):
    path = coco(tmp_path) / "annotations/instances_val2017.json"
    content = json.loads(path.read_text())
    content["annotations"].append({"image_id": 2, "category_id": 1, "segmentation": [[0, 0, 3, 0, 3]]})
    path.write_text(json.dumps(content))
    for key in ("000000000001", "000000000002"):
        save(tmp_path / f"predictions/{key}.png", np.zeros((5, 6)))
    given = ["--predictions", str(tmp_path / "predictions"), "--out", str(tmp_path / "out")]
    assert main(["evaluate", "object81", "--root", str(tmp_path), *given]) == 1
    [line] = [line for line in capsys.readouterr().err.splitlines() if line.startswith("pnp-ovss: ")]
    assert line == (
        "pnp-ovss: 000000000002: expected polygons [[x, y, ...], ...] or runs of 30 pixels, "
        "got [[0, 0, 3, 0, 3]]; fetch the annotations again"
    )
    assert read_report(tmp_path / "out")["score"]["images"] == 1


def test_no_image_could_be_scored(voc, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    given = ["--predictions", str(tmp_path / "empty"), "--out", str(tmp_path / "out")]
    assert main(["evaluate", "voc21", "--root", str(voc), *given]) == 2
    assert "none of 6 images could be scored: there is no prediction" in capsys.readouterr().err


@pytest.mark.parametrize(("given", "message"), [
    (["nothing"], "no data set 'nothing'; the data sets are voc20"),
    (["voc21"], "where voc21 lies is not said; give its folder with --root"),
    (["voc21", "--root", "ROOT"], "which classes are named is not said; give --names truth, given or a file"),
    (["voc21", "--root", "ROOT", "--names", "none.json"], "there is no file of names none.json"),
    (["voc21", "--root", "ROOT", "--predictions", "none"], "there is no folder none"),
    (["voc21", "--root", "ROOT", "--names", "truth", "--vocabulary", "odd"], "there is no vocabulary odd"),
    (["voc21", "--root", "ROOT", "--shard", "0/2"], "expected a part such as 2/4, from 1/4 to 4/4, got '0/2'"),
    (["merge"], "no folder was given"),
    (["merge", "none"], "none/manifest.json cannot be read (no such file or directory)"),
    (["voc21", "more"], "more came besides voc21"),
])  # fmt: skip
def test_wrong_use_is_one_line(voc, tmp_path, monkeypatch, capsys, given, message):
    monkeypatch.chdir(tmp_path)
    given = [str(voc) if word == "ROOT" else word for word in given]
    assert main(["evaluate", *given]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert message in lines[0]


def arguments(voc: Path, model: Path, out: Path, *more: str) -> list[str]:
    given = ["--root", str(voc), "--model", str(model), "--preset", "mini", "--drop", "2", "--refine", "blur"]
    names = [] if "--names" in more else ["--names", "truth"]
    return ["evaluate", "voc21", *given, *names, "--out", str(out), *more]


def test_a_run_that_stopped_goes_on_and_other_settings_are_refused(
    voc, undisturbed, tiny_blip_folder, tmp_path, capsys
):
    whole, parts = undisturbed, tmp_path / "parts"
    assert main(arguments(voc, tiny_blip_folder, parts, "--limit", "2")) == 0
    first = read_record(parts / f"images/{KEYS[0]}.json")
    written = (parts / f"images/{KEYS[0]}.json").stat().st_mtime_ns
    assert main(arguments(voc, tiny_blip_folder, parts)) == 0
    assert (parts / f"images/{KEYS[0]}.json").stat().st_mtime_ns == written
    assert without_times(parts) == without_times(whole)
    assert first.named == ["cat", "dog"]
    assert first.salience is not None
    assert first.salience.shape == (4, 4)
    assert np.asarray(Image.open(whole / f"images/{KEYS[0]}.png")).shape == (16, 24)
    capsys.readouterr()
    for flags, name in (
        (["--threshold", "0.3"], f"threshold {PRESETS['mini'].threshold}, and 0.3"),
        (["--vocabulary", "synonyms"], 'vocabulary "english", and "synonyms"'),
        (["--names", "given"], 'names "truth", and "given"'),
    ):
        assert main(arguments(voc, tiny_blip_folder, parts, *flags)) == 2
        [line] = capsys.readouterr().err.splitlines()
        assert f"holds a run with {name}" in line


def test_a_stopped_run_goes_on_in_the_same_batches(voc, tiny_blip_folder, tmp_path, monkeypatch):
    batches, locate = [], Segmenter.locate

    def locating(self, photos, *more):
        batches.append([int(photo.sum()) for photo in photos])
        return locate(self, photos, *more)

    monkeypatch.setattr(Segmenter, "locate", locating)
    out = tmp_path / "out"
    assert main(arguments(voc, tiny_blip_folder, out, "--batch-size", "2")) == 0
    whole, before = batches[:], without_times(out)
    assert [len(batch) for batch in whole] == [2, 2, 2]
    del batches[:]
    for key in KEYS[3:]:
        (out / f"images/{key}.json").unlink()
    written = (out / f"images/{KEYS[2]}.json").stat().st_mtime_ns
    assert main(arguments(voc, tiny_blip_folder, out, "--batch-size", "2")) == 0
    assert batches == whole[1:]
    assert without_times(out) == before
    assert (out / f"images/{KEYS[2]}.json").stat().st_mtime_ns == written


def test_a_method_takes_the_settings_published_for_the_benchmark(voc, tmp_path, capsys):
    given = ["evaluate", "voc20", "--root", str(voc), "--names", "truth", "--limit", "1", "--short-side", "32"]
    given += ["--model", str(tiny_clip(tmp_path / "clip"))]
    out, other = tmp_path / "out", tmp_path / "other"
    assert main([*given, "--method", "sclip", "--out", str(out)]) == 0
    assert "settings: sclip/voc20, those that were published for it" in capsys.readouterr().out
    settings = read_report(out)["settings"]
    assert (settings["method"], settings["preset"]) == ("sclip", "sclip/voc20")
    expected = asdict(METHODS["sclip"].presets["sclip/voc20"].override({"short_side": 32}))
    assert settings["config"] == json.loads(json.dumps(expected))
    assert "Method sclip, preset sclip/voc20, model" in (out / "report.md").read_text()
    assert main([*given, "--method", "sclip", "--preset", "sclip/voc20", "--out", str(out)]) == 0  # goes on
    assert main([*given, "--method", "clip", "--out", str(out)]) == 2
    assert 'holds a run with method "sclip", and "clip" is asked for' in capsys.readouterr().err
    assert main([*given, "--method", "sclip", "--preset", "sclip/voc21", "--out", str(other)]) == 0
    assert "published" not in capsys.readouterr().out
    assert "preset" not in read_report(other)["settings"]


def test_a_mini_model_keeps_its_own_settings_on_a_benchmark():
    model = ModelFlags("sclip", "mini-clip")
    assert published("voc20", model) is model
    assert published("voc20", ModelFlags()).preset == "auto"  # pnp has none
    assert published("voc20", ModelFlags("sclip")).preset == "sclip/voc20"


def test_a_run_goes_on_over_the_images_whose_masks_changed_or_label_maps_are_gone(voc, tiny_blip_folder, tmp_path):
    out = tmp_path / "out"
    assert main(arguments(voc, tiny_blip_folder, out, "--limit", "2")) == 0
    written = [(out / f"images/{key}.json").stat().st_mtime_ns for key in KEYS[:2]]
    save(voc / f"SegmentationClass/{KEYS[1]}.png", np.full((16, 24), CAT))
    assert main(arguments(voc, tiny_blip_folder, out, "--limit", "2")) == 0
    assert [(out / f"images/{key}.json").stat().st_mtime_ns == t for key, t in zip(KEYS[:2], written, strict=True)] == [
        True, False,
    ]  # fmt: skip
    assert read_record(out / f"images/{KEYS[1]}.json").true == ["cat"]
    (out / f"images/{KEYS[0]}.png").unlink()
    assert main(arguments(voc, tiny_blip_folder, out, "--limit", "2")) == 0
    assert (out / f"images/{KEYS[0]}.png").exists()


@pytest.mark.parametrize(
    "damage", ['"seconds": 5', '"seconds": {"read": 0.0}', '"truth": 7', '"counts": {}', "{" * 9000, ""]
)
def test_a_damaged_record_is_made_anew(voc, tiny_blip_folder, tmp_path, damage):
    out = tmp_path / "out"
    assert main(arguments(voc, tiny_blip_folder, out, "--limit", "1")) == 0
    path = out / f"images/{KEYS[0]}.json"
    before = path.read_text()
    name = damage.partition(":")[0]
    path.write_text(re.sub(name + r": (\{[^}]*\}|[^,}]*)", damage, before) if name.startswith('"') else damage)
    assert path.read_text() != before
    assert main(arguments(voc, tiny_blip_folder, out, "--limit", "1")) == 0
    assert read_record(path).true == ["cat", "dog"]


@pytest.mark.parametrize("change", [{"keys": 5}, {"settings": {}}, {"faults": None}, {"more": 1}])
def test_a_damaged_manifest_is_one_line(voc, tiny_blip_folder, tmp_path, capsys, change):
    out = tmp_path / "out"
    assert main(arguments(voc, tiny_blip_folder, out, "--limit", "1")) == 0
    manifest = out / "manifest.json"
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | change))
    capsys.readouterr()
    for again in (arguments(voc, tiny_blip_folder, out, "--limit", "1"), ["evaluate", "merge", str(out)]):
        assert main(again) == 2
        assert capsys.readouterr().err == f"pnp-ovss: {manifest} is damaged; remove it, or give another --out\n"


def test_a_run_does_photos_anew_that_changed(voc, tiny_blip_folder, tmp_path, capsys):
    out, fresh = tmp_path / "out", tmp_path / "fresh"
    photo, record = voc / f"JPEGImages/{KEYS[0]}.jpg", out / f"images/{KEYS[0]}.json"
    flags = ("--limit", "2")
    assert main(arguments(voc, tiny_blip_folder, out, *flags)) == 0
    before = record.stat().st_mtime_ns
    os.utime(photo, (0, 0))  # touched: the same content
    assert main(arguments(voc, tiny_blip_folder, out, *flags)) == 0
    assert record.stat().st_mtime_ns == before
    assert "done anew" not in capsys.readouterr().out
    Image.fromarray(np.random.default_rng(5).integers(0, 255, (16, 24, 3), dtype=np.uint8)).save(photo)
    assert main(arguments(voc, tiny_blip_folder, out, *flags)) == 0
    assert "1 image changed since and is done anew\n" in capsys.readouterr().out
    assert main(arguments(voc, tiny_blip_folder, fresh, *flags)) == 0
    assert without_times(out) == without_times(fresh)


def test_label_maps_of_ours_are_not_scored_on_other_photos(voc, tiny_blip_folder, tmp_path, capsys):
    model = ["--model", str(tiny_blip_folder), "--preset", "mini", "--drop", "2", "--refine", "blur"]
    assert main(["batch", str(voc / "JPEGImages"), "--classes", "cat", *model, "--out", str(tmp_path / "r")]) == 0
    given = ["--root", str(voc), "--predictions", str(tmp_path / "r/images"), "--values", "own"]
    assert main(["evaluate", "voc21", *given, "--out", str(tmp_path / "out")]) == 0
    Image.new("RGB", (24, 16)).save(voc / f"JPEGImages/{KEYS[0]}.jpg")
    assert main(["evaluate", "voc21", *given, "--out", str(tmp_path / "out")]) == 1
    record = tmp_path / f"r/images/{KEYS[0]}.json"
    assert f"{record} is the record of another photo than {voc}" in capsys.readouterr().err
    assert read_report(tmp_path / "out")["score"]["images"] == len(KEYS) - 1


def test_results_with_the_true_names_are_left_out_unless_complete_or_asked_for(voc, tiny_blip_folder, tmp_path, capsys):
    out, note = tmp_path / "out", "pnp-ovss: results with the true names are not there for these images: left out"
    named = ("--names", "given", "--limit")
    assert main(arguments(voc, tiny_blip_folder, out, *named, "1", "--oracle")) == 0
    assert read_report(out)["losses"] is not None
    assert main(arguments(voc, tiny_blip_folder, out, *named, "1")) == 0
    assert read_report(out)["losses"] is not None  # complete
    assert note not in capsys.readouterr().err
    assert main(arguments(voc, tiny_blip_folder, out, *named, "2")) == 0
    assert (read_report(out)["losses"], read_report(out)["score"]["images"]) == (None, 2)
    assert note in capsys.readouterr().err
    assert main(["evaluate", "merge", str(out), "--oracle"]) == 2
    assert "1 of 2 images have no result: 2007_1; run their shards" in capsys.readouterr().err
    save(voc / f"SegmentationClass/{KEYS[0]}.png", np.full((16, 24), CAT))
    assert main(arguments(voc, tiny_blip_folder, out, *named, "1")) == 0
    assert read_report(out)["losses"] is None  # those there are had another truth
    assert note in capsys.readouterr().err


def test_a_background_for_few_is_for_few_classes_not_words(voc, tiny_blip_folder):
    dataset = load_dataset("voc20", voc)
    vocabulary = benchmark_vocabulary("synonyms", dataset.classes, "voc")
    names = ("person", "sheep")
    assert sum(len(vocabulary.words[name]) for name in names) >= 3
    found = {}
    for background in ("always", "few", "never"):
        given = {"drop": 2, "refiners": ("blur",), "threshold": 0.5, "background": background}
        segmenter = Segmenter.from_pretrained(tiny_blip_folder, "mini", **given)
        task = Task(dataset.samples[0], named=names)
        [prediction] = segment([task], segmenter, dataset, vocabulary)
        found[background] = prediction.labels.tolist()
    assert found["few"] == found["always"]
    assert found["few"] != found["never"]


@pytest.mark.parametrize(("name", "asked"), [("voc20", False), ("voc21", True)])
def test_the_words_of_the_background_are_asked_for_only_where_it_is_scored(voc, tiny_blip_folder, name, asked):
    dataset = load_dataset(name, voc)
    words = benchmark_vocabulary("synonyms", dataset.classes, "voc")
    seen = []

    class Spy(Segmenter):
        def locate(self, photos, vocabularies, *more):
            seen.extend(vocabularies)
            return super().locate(photos, vocabularies, *more)

    method = Segmenter.from_pretrained(tiny_blip_folder, "mini", drop=2, refiners=("blur",)).method
    [_] = segment([Task(dataset.samples[0], named=dataset.classes)], Spy(method), dataset, words)
    assert ("background" in seen[0].words) == asked


@pytest.mark.parametrize("more", [["--workers", "3"], ["--batch-size", "4"]])
def test_workers_and_batches_change_nothing(voc, undisturbed, tiny_blip_folder, tmp_path, more):
    assert main(arguments(voc, tiny_blip_folder, tmp_path / "many", *more)) == 0
    assert without_times(tmp_path / "many") == without_times(undisturbed)


@pytest.mark.slow
def test_shards_make_the_whole_and_a_missing_one_is_refused(voc, tiny_blip_folder, tmp_path, capsys):
    whole, one, two = (tmp_path / name for name in ("whole", "one", "two"))
    oracle = ("--names", "given", "--oracle")
    assert main(arguments(voc, tiny_blip_folder, whole, *oracle)) == 0
    assert main(arguments(voc, tiny_blip_folder, one, *oracle, "--shard", "1/2")) == 0
    assert "part 1 of 2: 3 of 3 images are scored" in capsys.readouterr().out
    assert not (one / "report.json").exists()
    assert main(["evaluate", "merge", str(one)]) == 2
    assert "3 of 6 images have no result: 2007_1, 2007_3, 2007_5; run their shards" in capsys.readouterr().err
    assert main(arguments(voc, tiny_blip_folder, two, *oracle, "--shard", "2/2")) == 0
    assert main(["evaluate", "merge", str(one), str(two), "--out", str(tmp_path / "merged")]) == 0
    assert without_times(tmp_path / "merged") == without_times(whole)
    losses = read_report(whole)["losses"]
    assert losses["miou_with_true_names"] - losses["lost_to_naming"] == pytest.approx(
        read_report(whole)["score"]["miou"]
    )
    assert losses["lost_to_localisation"] == pytest.approx(1 - losses["miou_with_true_names"])
    assert main(arguments(voc, tiny_blip_folder, tmp_path / "other", "--shard", "2/2")) == 0
    capsys.readouterr()
    assert main(["evaluate", "merge", str(one), str(tmp_path / "other")]) == 2
    assert 'holds a run with names "given", and "truth"' in capsys.readouterr().err


def test_shards_over_copies_of_a_folder_make_the_whole(tmp_path):
    for part, name in enumerate(("here", "there"), 1):
        for key in "ab":
            save(tmp_path / f"{name}/images/{key}.png", np.zeros((4, 4, 3)))
            save(tmp_path / f"{name}/masks/{key}.png", np.eye(4))
            save(tmp_path / f"predictions/{key}.png", np.eye(4))
        (tmp_path / f"{name}/classes.txt").write_text("background\nline\n")
        given = ["--root", str(tmp_path / name), "--predictions", str(tmp_path / "predictions")]
        assert main(["evaluate", "folder", *given, "--shard", f"{part}/2", "--out", str(tmp_path / f"{part}")]) == 0
    assert main(["evaluate", "merge", str(tmp_path / "1"), str(tmp_path / "2"), "--out", str(tmp_path / "all")]) == 0
    assert read_report(tmp_path / "all")["score"]["images"] == 2
    assert read_report(tmp_path / "all")["settings"]["title"] == "here"


def test_the_report_is_one_page_that_needs_nothing_else(undisturbed):
    page, text = (undisturbed / "report.html").read_text(), (undisturbed / "report.md").read_text()
    for word in ('src="http', "href=", "<script", "url(", "@import"):
        assert word not in page
    assert page.count('src="data:image/jpeg;base64,') == 4 * 6  # two each of best, middle and worst
    assert "prefers-color-scheme: dark" in page
    for content in (page, text):
        assert "PnP-OVSS, BLIP large, 336 px" in content
        assert "the mean is over the classes in the truth or in the prediction" in content
        assert "threshold" in content
    assert read_report(undisturbed)["published"][0]["method"] == "CorrCLIPv2, CLIP L"
    assert {row["class"]: row["iou"] for row in read_report(undisturbed)["classes"]}["aeroplane"] is None


def test_drawn_scenes(tiny_blip_folder, tmp_path):
    small = ["--scenes", "2", "--scene-size", "32", "--model", str(tiny_blip_folder), "--preset", "mini", "--drop", "2"]
    assert main(["evaluate", "scenes", *small, "--crf-iterations", "1", "--out", str(tmp_path)]) == 0
    assert read_report(tmp_path)["score"]["images"] == 2
    assert "These numbers say nothing about photos" in (tmp_path / "report.html").read_text()


def test_the_report_says_how_well_confidences_order_regions(tmp_path, capsys):
    small = ["--scenes", "4", "--scene-size", "80", "--model", "mini-blip", "--device", "cpu", "--out", str(tmp_path)]
    assert main(["evaluate", "scenes", *small]) == 0
    found, content = read_report(tmp_path)["confidence"], (tmp_path / "report.md").read_text()
    records = [read_record(path) for path in sorted((tmp_path / "images").glob("*.json"))]
    assert found["regions"] == sum(len(record.confidence) for record in records)
    right = 0
    for record in records:
        counts = record.counts
        for name, sure in record.confidence.items():
            label, hit = 1 + THINGS.index(name), counts[1 + THINGS.index(name), 1 + THINGS.index(name)]
            right += hit / (counts[:-4, label].sum() + counts[label].sum() - hit) > 0.5
            assert 0 < sure <= 1
    assert found["right"] == pytest.approx(right / found["regions"])
    assert found["risk_at_coverage"]["100"] == pytest.approx(1 - found["right"])
    assert 0 < found["average_precision"] <= 1
    said = f"average precision {found['average_precision']:.3f}"
    assert f"confidence of {found['regions']} regions: {said}" in capsys.readouterr().out
    assert said in content
    assert said.split()[-1] in (tmp_path / "report.html").read_text()


@pytest.mark.slow
def test_absent_classes_are_not_named_where_that_is_asked(tmp_path):
    small = ["--scenes", "3", "--scene-size", "80", "--model", "mini-blip", "--device", "cpu", "--names", "given"]
    scores = {}
    for present in ("all", "auto"):
        out = tmp_path / present
        assert main(["evaluate", "scenes", *small, "--present", present, "--out", str(out)]) == 0
        scores[present] = read_report(out)
    assert scores["all"]["names"]["named_per_image"] == len(THINGS)
    assert scores["auto"]["names"]["precision"] > 0.9
    assert scores["auto"]["score"]["miou"] > scores["all"]["score"]["miou"]
    assert main(["evaluate", "scenes", *small, "--out", str(tmp_path / "auto")]) == 2


def test_label_maps_of_other_systems_have_no_confidence(voc, tmp_path):
    folder = predict(tmp_path / "other")
    assert (
        main(["evaluate", "voc21", "--root", str(voc), "--predictions", str(folder), "--out", str(tmp_path / "o")]) == 0
    )
    assert read_report(tmp_path / "o")["confidence"] is None


def test_names_from_files(voc, tmp_path):
    dataset = load_dataset("voc21", voc)
    vocabulary = benchmark_vocabulary("synonyms", dataset.classes, "voc")
    nothing = np.zeros((1, 1), dtype=np.uint8)

    def names(file: str, content: str) -> object:
        (tmp_path / file).write_text(content)
        return load_choice(str(tmp_path / file), dataset, vocabulary)[1]

    listed = names("n.json", json.dumps({KEYS[0]: ["Dog", "cat", "unicorn"], KEYS[1]: "[20: tv monitor], [90]"}))
    assert listed(KEYS[0], nothing) == ("cat", "dog")  # in the data set's order; what it has no class for is left out
    assert listed(KEYS[1], nothing) == ("tvmonitor",)
    with pytest.raises(InputError, match="expected a list of names for 2007_2, got None"):
        listed(KEYS[2], nothing)
    assert names("n.txt", "ship # a boat\nsheep\n")(KEYS[4], nothing) == ("boat", "sheep")
    with pytest.raises(InputError, match="the names .*n.txt hold 'unicorn', which is no class of voc21"):
        names("n.txt", "unicorn\n")


@pytest.mark.parametrize(("name", "reply", "standard", "theirs"), [
    # a name is all its synonyms, of any length
    ("ade150", "[2: 'building;edifice', 81: 'bus;autobus;coach;charabanc;double-decker;jitney;motorbus;motorcoach;"
     "omnibus;passenger;vehicle', 3: sky, 59: 'screen;door', 5: 'tree'], [90%, 100%, 80%, 75%, 70%]",
     ("building", "bus", "sky", "screen door"), ...),
    ("voc21", "[11: 'chair', 15: person], [90, 95]", ("diningtable", "person"), ...),  # the number counts
    ("object81", "[67: dining table, 13: 'stop sign', 12: 'sign'], [80, 100, 99]", ("dining table", "stop sign"), ...),
    ("context59", "['sky', 59: wood], [80, 90]", ("sky", "wood"), ...),  # where there is no number the name does
    ("stuff171", "[96: building-other, 182: wood]", (), ("building-other", "wood")),  # no confidence at all
    ("voc21", "[1: aeroplane], [60%]", (), ("aeroplane",)),
    ("voc21", "[], []", (), ("aeroplane",)),
    ("ade150", "", (), ("wall",)),
])  # fmt: skip
def test_a_reply_names_classes_by_their_numbers(tmp_path, name, reply, standard, theirs):
    words, background = DATASETS[name]
    dataset = Dataset(name, name, class_names(words), background, (), np.zeros(0, dtype=np.int64), words, "")
    (tmp_path / "n.json").write_text(json.dumps({"a": reply, "b": []}))
    nothing = np.zeros((1, 1), dtype=np.uint8)
    for vocabulary in ("plain", "joined"):
        asked = str(tmp_path / "n.json"), dataset, benchmark_vocabulary(vocabulary, dataset.classes, words)
        (title, choose), (their_title, their_choose) = load_choice(*asked), load_choice(*asked, "authors")
        assert choose("a", nothing) == standard
        assert their_choose("a", nothing) == (standard if theirs is ... else theirs)
        assert their_choose("b", nothing) == ()  # a list of one's own is no reply
        assert their_title == f"{title}, else {dataset.classes[0]}"


@pytest.mark.parametrize(("file", "name", "words", "average"), [
    ("voc_classification_noboundary.json", "voc21", "authors", 1.40),
    pytest.param("coco_object_classification_noboundary.json", "object81", "joined", 2.01, marks=pytest.mark.slow),
])  # fmt: skip
def test_the_authors_replies_keep_as_many_classes_as_theirs(file, name, words, average):
    root, path = shared(f"data/{name[:3].replace('obj', 'coco')}-dev"), shared(f"gpt4o/{file}")
    dataset = load_dataset(name, root)
    vocabulary = benchmark_vocabulary(words, dataset.classes, dataset.words)
    _, choose = load_choice(str(path), dataset, vocabulary, "authors")
    nothing = np.zeros((1, 1), dtype=np.uint8)
    kept = [len(choose(key, nothing)) for key in json.loads(path.read_text())]
    assert min(kept) == 1
    assert sum(kept) / len(kept) == pytest.approx(average, abs=0.005)


@pytest.mark.slow
def test_killed_at_any_moment_and_started_again_it_reports_the_same(tiny_blip_folder, tmp_path):
    keys = tuple(f"2007_{number:02}" for number in range(24))
    voc = make_voc(tmp_path / "data", keys)
    command = [
        sys.executable,
        "-m",
        "pnp_ovss",
        *arguments(voc, tiny_blip_folder, tmp_path / "killed", "--workers", "2"),
    ]
    for most in (1, 7, 15):
        process = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL, env=os.environ)
        while process.poll() is None and len(list(tmp_path.glob("killed/images/*.json"))) < most:
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert not (tmp_path / "killed/report.json").exists()
    assert subprocess.run(command, capture_output=True, check=False).returncode == 0
    assert main(arguments(voc, tiny_blip_folder, tmp_path / "undisturbed")) == 0
    assert without_times(tmp_path / "killed") == without_times(tmp_path / "undisturbed")
    for key in keys:
        again, once = (tmp_path / folder / f"images/{key}.png" for folder in ("killed", "undisturbed"))
        assert again.read_bytes() == once.read_bytes()
