"""Many photos: every one once, whatever stops the run, with the labels that ``segment`` gives."""

import json
import os
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from company import tell_company
from pnp_ovss import Config, InputError, files
from pnp_ovss.cli import main
from pnp_ovss.data import rle
from pnp_ovss.files import Folder, Source, fetch
from pnp_ovss.methods import resolve_config
from pnp_ovss.models.hub import Checkpoint
from pnp_ovss.parts import find_objects
from pnp_ovss.refine.tidy import LEAST
from pnp_ovss.runs import batch as runs
from pnp_ovss.runs.batch import ClassSource, Job, find_photos, open_run
from pnp_ovss.runs.record import LISTED, Results
from pnp_ovss.segmenter import Segmenter
from pnp_ovss.types import Vocabulary
from terminal import errors_of

pytestmark = pytest.mark.usefixtures("loaded_once")
SMALL = ("--size", "32", "--layer", "0", "--head", "1", "--drop", "2", "--refine", "blur")
GIVEN = ("--namer", "given", "--names", "dog")
NAMES = {"a": ["dog"], "b": ["cat", "traffic light"], "deep/down/c": ["sky", "dog"], "deep/e": ["boat"]}


@pytest.fixture
def desk(tmp_path, monkeypatch) -> Path:
    """A folder to work in, with five photos of several sizes in folders, one of them broken."""
    monkeypatch.chdir(tmp_path)
    places = ("a.jpg", "b.png", "deep/down/c.jpg", "deep/e.png")
    for seed, name in enumerate(places):
        place = Path("photos") / name
        place.parent.mkdir(parents=True, exist_ok=True)
        noise = np.random.default_rng(seed).integers(0, 256, (20 + 3 * seed, 30 - seed, 3), dtype=np.uint8)
        Image.fromarray(noise).save(place)
    Path("photos/deep/broken.jpg").write_bytes(b"no picture")
    Path("photos/notes.txt").write_text("no photo")
    Path("photos/.hidden.png").write_bytes(b"")
    return tmp_path


@pytest.fixture
def batch(desk, tiny_blip_folder):
    """Run ``batch`` with a random model; returns the exit code."""

    def run(*arguments: str, photos: str = "photos", classes: tuple[str, ...] = ("--classes", "dog, cat")) -> int:
        return main(["batch", photos, *classes, "--model", str(tiny_blip_folder), *SMALL, *arguments])

    return run


def records(folder: str = "results") -> dict[str, dict]:
    """Return the records by key, without the time they took."""
    found = {}
    for path in (Path(folder) / "images").rglob("*.json"):
        told = json.loads(path.read_text())
        assert path == Path(folder) / "images" / f"{told['key']}.json"
        found[told["key"]] = {name: value for name, value in told.items() if name != "seconds"}
    return found


def labels(key: str, folder: str = "results") -> np.ndarray:
    with Image.open(Path(folder) / "images" / f"{key}.png") as image:
        assert image.mode == "P"
        return np.array(image)


@pytest.fixture
def names_file(desk) -> tuple[str, str]:
    Path("names.json").write_text(json.dumps(NAMES))
    return "--classes-file", "names.json"


# What a run writes.


def test_every_photo_gets_what_segment_gives_it(batch, names_file, tiny_blip_folder):
    assert batch("--batch-size", "3", classes=names_file) == 1
    found = records()
    assert sorted(found) == sorted(NAMES)
    segmenter = Segmenter.from_pretrained(tiny_blip_folder, size=32, layer=0, head=1, drop=2, refiners=("blur",))
    for key, names in NAMES.items():
        photo = next(Path("photos").glob(f"{key}.*"))
        alone = segmenter(photo, names)
        record = found[key]
        values = np.array(record["values"])
        assert labels(key).tolist() == values[alone.labels].tolist()
        assert record["photo"] == str(Path("photos").absolute() / photo.relative_to("photos"))
        assert (record["height"], record["width"]) == alone.labels.shape
        assert record["classes"] == ["background", *names]
        assert record["revision"] == alone.revision
        assert record["config"]["head"] == 1
        for part in record["segments"]:
            mask = rle.decode(part["segmentation"], *part["segmentation"]["size"])
            assert mask.tolist() == alone[part["class"]].astype(int).tolist()
            assert part["label"] == values[1 + names.index(part["class"])]
            assert part["area"] == mask.sum()
        there = set(np.unique(values[alone.labels]).tolist()) - {0}
        assert {part["label"] for part in record["segments"]} == there


def test_a_class_has_one_value_in_a_run_whoever_names_it(batch, names_file):
    assert batch(classes=names_file) == 1
    given = {}
    for record in records().values():
        for name, value in zip(record["classes"], record["values"], strict=True):
            assert given.setdefault(name, value) == value
    assert sorted(given.values()) == list(range(6))
    assert json.loads(Path("results/state/classes.json").read_text()) == {n: v for n, v in given.items() if v}
    before = records()
    Path("results/images/b.json").unlink()
    Path("results/images/a.json").unlink()
    assert batch(classes=names_file) == 1
    assert records() == before


def test_overlays_are_written_where_they_are_asked_for(batch):
    assert batch("--overlays") == 1
    found = {path.relative_to("results/overlays").as_posix() for path in Path("results/overlays").rglob("*.*")}
    assert found == {f"{key}.png" for key in NAMES}
    with Image.open("results/overlays/a.png") as picture:
        assert min(picture.size) > 200


def test_objects_one_by_one_are_recorded_and_bind_the_run(batch, capsys):
    bare = ("--present", "all", "--background", "never")  # a class in every pixel
    assert batch("--instances", "--overlays", *bare) == 1
    found = records()
    assert all(record["instances"] for record in found.values())
    parts = [find_objects(labels(key), False, LEAST * labels(key).size) for key in found]
    assert [len(record["segments"]) for record in found.values()] == [len(one.labels) for one in parts]
    assert sum(len(one.labels) for one in parts) > sum(len(set(one.labels.tolist())) for one in parts)
    assert batch(*bare) == 2
    assert "holds a run with instances true, and null is asked for" in errors_of(capsys)[-1]


def test_a_broken_photo_is_reported_and_does_not_stop_the_run(batch, capsys):
    assert batch() == 1
    assert sorted(records()) == sorted(NAMES)
    out = "faults/ in results says why, and a next run tries again"
    assert errors_of(capsys) == [
        "pnp-ovss: deep/broken: the file is no picture; expected a JPEG, PNG, WebP, TIFF, BMP or GIF file",
        f"pnp-ovss: 1 of 5 photos could not be done; {out}",
    ]
    fault = json.loads(Path("results/faults/deep/broken.json").read_text())
    assert fault["key"] == "deep/broken"
    assert "is no picture" in fault["fault"]


def test_a_mended_photo_is_done_by_the_next_run(batch, capsys):
    assert batch() == 1
    Image.new("RGB", (9, 7), "red").save("photos/deep/broken.jpg")
    before = {path: path.stat().st_mtime_ns for path in Path("results/images").rglob("*.*")}
    assert batch() == 0
    assert "5 of 5 photos are done, in results" in capsys.readouterr().out
    assert sorted(records()) == sorted([*NAMES, "deep/broken"])
    assert not list(Path("results/faults").rglob("*.json"))
    assert {path: path.stat().st_mtime_ns for path in before} == before


@pytest.fixture
def located(monkeypatch) -> list[tuple[tuple[int, ...], tuple[str, ...]]]:
    """The size and classes of every photo that the model sees."""
    locate, seen = Segmenter.locate, []

    def locating(self, photos, vocabularies, *more):
        found = locate(self, photos, vocabularies, *more)
        seen.extend((photo.shape, one.classes) for photo, one in zip(photos, vocabularies, strict=True))
        return found

    monkeypatch.setattr(Segmenter, "locate", locating)
    return seen


def fail_at(monkeypatch, call: int, fault: BaseException, step: str = "locate") -> None:
    """Let the segmenter fail at its n-th call."""
    usual, calls = getattr(Segmenter, step), []

    def called(self, *arguments):
        calls.append(arguments)
        if len(calls) == call:
            raise fault
        return usual(self, *arguments)

    monkeypatch.setattr(Segmenter, step, called)


def test_a_run_that_died_goes_on_with_what_is_missing(batch, located):
    Path("photos/deep/broken.jpg").unlink()
    with pytest.MonkeyPatch.context() as patch:
        fail_at(patch, 4, RuntimeError("power cut"))
        with pytest.raises(RuntimeError, match="power cut"):
            batch("--batch-size", "1")
    first, seen = records(), len(located)
    assert seen == 3
    assert len(first) == 3  # nothing that the model was done with is lost
    assert batch("--batch-size", "1") == 0
    assert len(located) == seen + 4 - len(first)
    assert batch("--batch-size", "1", "--out", "whole") == 0
    assert records() == records("whole")


def listed(folder: str = "results") -> list[str]:
    return json.loads(Path(folder, LISTED).read_text())["photos"]


@pytest.fixture
def crowd(batch, monkeypatch) -> Callable[..., int]:
    """Run ``batch`` over eight photos, one of them broken, three at a time; records tell the company of each."""
    for seed in range(3):
        noise(seed, f"photos/later-{seed}.png")
    tell_company(monkeypatch)
    return partial(batch, "--batch-size", "3", "--present", "all")


@pytest.mark.slow
@pytest.mark.parametrize("step", ["locate", "refine_all"])
def test_a_photo_has_the_same_company_wherever_the_run_was_stopped(crowd, step, monkeypatch):
    assert crowd("--out", "whole") == 1
    assert len({record["match"] for record in records("whole").values()}) == 3
    for call in range(1, 4 if step == "locate" else 8):
        out = f"stopped-{call}"
        with monkeypatch.context() as patch:
            fail_at(patch, call, RuntimeError("power cut"), step)
            with pytest.raises(RuntimeError, match="power cut"):
                crowd("--out", out)
        before = {path: path.stat().st_mtime_ns for path in Path(out).rglob("images/**/*.*")}
        assert len(listed(out)) == 8
        refined, refine = [], Segmenter.refine_all
        with monkeypatch.context() as patch:
            patch.setattr(
                Segmenter, "refine_all", lambda *all, keep=refined, usual=refine: (keep.append(0), usual(*all))[1]
            )
            assert crowd("--out", out) == 1
        assert records(out) == records("whole")
        assert {path: path.stat().st_mtime_ns for path in before} == before
        assert len(refined) == 7 - len(before) // 2


def test_photos_that_come_or_go_while_a_run_is_stopped_concern_their_own_batch_alone(crowd, monkeypatch):
    assert crowd("--out", "whole") == 1  # a, b, deep/broken; deep/down/c, deep/e, later-0; later-1, later-2
    with monkeypatch.context() as patch:
        fail_at(patch, 2, RuntimeError("power cut"), "refine_all")
        with pytest.raises(RuntimeError, match="power cut"):
            crowd()
    noise(8, "photos/0-new.png")
    os.remove("photos/b.png")
    assert {"a", "b"} & {*records()} == {"a"}
    assert crowd() == 1
    found, whole = records(), records("whole")
    same = [key for key in found if found[key] == whole.get(key)]
    assert sorted(same) == ["a", "deep/down/c", "deep/e", "later-0"]
    assert sorted(set(found) - set(same)) == ["0-new", "later-1", "later-2"]
    assert len({found[key]["match"] for key in ("0-new", "later-1", "later-2")}) == 1


def test_what_comes_after_all_was_done_has_only_its_own_company(crowd, located):
    assert crowd() == 1
    assert listed() == sorted([*NAMES, "deep/broken", "later-0", "later-1", "later-2"])
    noise(9, "photos/deep/broken.jpg")
    assert crowd() == 0
    assert listed() == []
    assert len(located) == 7 + 3
    noise(7, "photos/a-new.png")
    noise(8, "photos/c-new.png")
    assert crowd() == 0
    assert listed() == []
    assert len(located) == 7 + 3 + 2


@pytest.mark.parametrize("content", [b'{"photos": 5}', b"{}", b"[1", b""])
def test_where_the_list_is_lost_all_photos_are_company(crowd, content):
    assert crowd() == 1
    before = records()
    os.remove("results/images/deep/e.json")
    Path("results", LISTED).write_bytes(content)
    assert crowd() == 1
    assert records() == before
    assert listed() == sorted([*NAMES, "deep/broken", "later-0", "later-1", "later-2"])


@pytest.mark.parametrize(("classes", "size"), [(("--classes", "dog"), 4), (("--classes", "auto", *GIVEN), 1)])
def test_photos_that_share_their_classes_go_four_at_a_time_on_a_cpu(batch, monkeypatch, classes, size):
    sizes, locate = [], Segmenter.locate

    def locating(self, photos, *all):
        sizes.append(len(photos))
        return locate(self, photos, *all)

    monkeypatch.setattr(Segmenter, "locate", locating)
    os.remove("photos/deep/broken.jpg")
    assert batch("--device", "cpu", classes=classes) == 0
    assert max(sizes) == size


def test_on_a_gpu_they_go_sixteen_at_a_time():
    job = Job("results", ClassSource(Vocabulary.of(["dog"])), "mini-blip")
    assert [job.sized(on_gpu).batch for on_gpu in (False, True)] == [4, 16]
    assert replace(job, batch=3).sized(True).batch == 3
    assert replace(job, classes=ClassSource(namer="given")).sized(True).batch == 1


def test_a_run_that_died_after_a_record_leaves_no_fault(batch, monkeypatch):
    assert batch() == 1
    Image.new("RGB", (9, 7), "red").save("photos/deep/broken.jpg")
    write = Folder.write

    def die(self, name, content):
        write(self, name, content)
        if name == "images/deep/broken.json":
            raise RuntimeError("power cut")

    with monkeypatch.context() as patch:
        patch.setattr(Folder, "write", die)
        with pytest.raises(RuntimeError, match="power cut"):
            batch()
    assert batch() == 0
    assert list(Path("results/faults").rglob("*.json")) == []


def test_a_photo_without_its_record_is_done_again(batch):
    batch()
    Path("results/images/deep/e.json").unlink()
    Path("results/images/deep/e.png").write_bytes(b"half")
    batch()
    assert labels("deep/e").shape == (29, 27)


def test_another_setting_is_refused(batch, capsys):
    batch()
    capsys.readouterr()
    assert batch("--threshold", "0.5") == 2
    assert errors_of(capsys) == [
        "pnp-ovss: results holds a run with threshold 0.15, and 0.5 is asked for; give another --out, or the settings "
        "of that run"
    ]
    assert batch(classes=("--classes", "cat, dog")) == 2
    assert 'with classes ["dog", "cat"], and ["cat", "dog"] is asked for' in errors_of(capsys)[0]


TOO_LONG = "dog " * 600


def test_a_mistyped_command_does_not_bind_the_corrected_one(batch, capsys):
    assert batch(classes=("--classes", TOO_LONG)) == 2  # found out by the model, after the manifest is written
    assert Path("results/manifest.json").exists()
    assert batch() == 1
    assert "cat" in json.loads(Path("results/manifest.json").read_text())["settings"]["names"]["classes"]
    assert batch(classes=("--classes", "dog")) == 2
    assert 'and ["dog"] is asked for' in errors_of(capsys)[-1]


def test_packed_results_bind_a_run_of_files(batch, capsys):
    pytest.importorskip("pyarrow")
    Path("photos/deep/broken.jpg").unlink()
    assert batch("--format", "parquet") == 0
    assert batch() == 2
    assert 'with format "parquet", and "files" is asked for' in errors_of(capsys)[-1]


def test_a_setting_is_checked_before_a_model_is_fetched(batch, monkeypatch, capsys):
    monkeypatch.setattr(runs, "find", lambda *all: pytest.fail("fetched"))
    assert batch("--refine", "blur,magic") == 2
    assert "no refiner 'magic'; the refiners are" in errors_of(capsys)[0]


def test_workers_take_the_commit_and_the_settings_of_the_manifest(desk, tiny_blip_folder, monkeypatch):
    preset = Path("preset.json")
    preset.write_text(Config(layer=0, head=1).to_json())
    fetched = Checkpoint(tiny_blip_folder, "somebody/blip", "c0ffee")
    monkeypatch.setattr(runs, "find", lambda name, revision: fetched)
    classes = ClassSource(Vocabulary.of(["dog"]))
    job = Job("results", classes, "somebody/blip", str(preset), revision="main", settings={"drop": 2})
    opened = open_run(job, "files", 256, {"a": Source("a.jpg")})
    preset.unlink()
    settings = json.loads(Path("results/manifest.json").read_text())["settings"]
    assert opened.job.revision == settings["revision"] == "c0ffee"
    found = resolve_config(opened.job.model, opened.job.preset, **opened.job.settings)
    assert found == Config(layer=0, head=1, drop=2)
    monkeypatch.setattr(runs, "find", lambda name, revision: replace(fetched, revision="local-123456789abc"))
    assert open_run(replace(job, out="other", preset="auto"), "files", 256, {}).job.revision is None


def test_ctrl_c_is_one_line(batch, monkeypatch, capsys):
    fail_at(monkeypatch, 4, KeyboardInterrupt())
    assert batch("--batch-size", "1") == 130
    done = len(records())
    assert errors_of(capsys)[-1] == f"pnp-ovss: stopped; {done} of 5 photos are done; the same command goes on"
    assert done == 3


# Names.


def test_photos_without_names_in_the_file_are_faults(batch, names_file, capsys):
    Path("names.json").write_text(json.dumps({"a": ["dog"], "b": []}))
    assert batch(classes=names_file) == 1
    assert "names.json has nothing for 'deep/e'" in capsys.readouterr().err
    found = records()
    assert sorted(found) == ["a", "b"]
    assert found["b"]["classes"] == found["b"]["segments"] == []
    assert not Path("results/images/b.png").exists()


def test_a_name_that_only_one_photo_has_wrong_costs_only_that_photo(batch, names_file):
    Path("names.json").write_text(json.dumps(NAMES | {"a": [TOO_LONG]}))
    assert batch("--batch-size", "4", classes=names_file) == 1
    assert sorted(records()) == sorted(set(NAMES) - {"a"})
    assert "the class names make 605 tokens" in json.loads(Path("results/faults/a.json").read_text())["fault"]


def test_a_name_that_all_photos_have_wrong_stops_the_run(batch, capsys):
    assert batch(classes=("--classes", TOO_LONG)) == 2
    assert "the class names make 605 tokens" in errors_of(capsys)[-1]


def test_a_namer_names_every_photo(batch):
    arguments = ("--namer", "given", "--names", "dog, traffic light")
    assert batch(*arguments, classes=("--classes", "auto")) == 1
    assert {tuple(record["classes"]) for record in records().values()} == {("background", "dog", "traffic light")}


def test_a_list_of_somebody_s_own_is_not_cut(batch, names_file, located):
    many = [f"n{number}" for number in range(30)]
    Path("names.json").write_text(json.dumps({"a": many, "b": [f"n{number}" for number in range(256)]}))
    assert batch(classes=names_file) == 1
    assert [classes for _, classes in located] == [tuple(many)]
    fault = json.loads(Path("results/faults/b.json").read_text())["fault"]
    assert fault == "b: expected at most 255 classes in a label map, got 256; name fewer"


# Which photos.


def test_keys_are_paths_below_what_was_named(desk):
    out = Folder("results")
    root = str(desk / "photos")
    assert list(find_photos(["photos"], out)) == ["a", "b", "deep/broken", "deep/down/c", "deep/e"]
    status = os.stat("photos/a.jpg")
    assert find_photos(["photos/a.jpg"], out) == {"a": Source(f"{root}/a.jpg", status.st_size, str(status.st_mtime_ns))}
    assert list(find_photos(["photos/**/*.png"], out)) == ["b", "deep/e"]
    assert list(find_photos(["photos/deep", "photos/a.jpg"], out)) == [
        "a",
        "broken",
        "down/c",
        "e",
    ]
    assert len(find_photos(["photos", "photos"], out)) == 5


def test_two_photos_of_one_key_are_refused(desk):
    Image.new("RGB", (2, 2)).save("photos/a.png")
    with pytest.raises(InputError, match=r"a\.jpg and .*a\.png would both be written as a; rename one"):
        find_photos(["photos"], Folder("results"))


@pytest.mark.parametrize("out", ["photos", "photos/deep/results"])
def test_results_among_the_photos_are_refused(batch, out, capsys):
    assert batch("--out", out) == 2
    assert "would lie among the photos of photos; give another --out" in errors_of(capsys)[0]
    assert not list(Path("photos").rglob("manifest.json"))


@pytest.mark.parametrize(("photos", "out"), [
    ("photos/images", "photos"), ("photos/images/*.png", "photos"), ("photos/images/x.png", "photos"),
    ("photos/*/*.png", "photos"), ("photos", "elsewhere/../photos/results"), ("elsewhere/../photos", "photos/results"),
])  # fmt: skip
def test_results_that_would_replace_or_become_photos_are_refused(batch, photos, out, capsys):
    Path("photos/images").mkdir()
    Image.new("RGB", (9, 7), "red").save("photos/images/x.png")
    assert batch("--out", out, photos=photos) == 2
    assert f"would lie among the photos of {photos}; give another --out" in errors_of(capsys)[0]
    assert np.array(Image.open("photos/images/x.png")).shape == (7, 9, 3)


def test_results_may_lie_beside_the_photos_of_a_glob_that_does_not_go_down(desk):
    assert list(find_photos(["photos/*.*g"], Folder("photos/results"))) == ["a", "b"]


@pytest.mark.parametrize(("photos", "message"), [
    ("nowhere", "there is no photo in nowhere"),
    ("nowhere/*.jpg", "there is no photo in nowhere/*.jpg"),
    ("empty", "there is no photo in empty"),
    ("odd://place/x", "odd://place/x cannot be reached (Protocol not known: odd)"),
])  # fmt: skip
def test_what_holds_no_photo_is_reported(batch, photos, message, capsys):
    Path("empty").mkdir()
    assert batch(photos=photos) == 2
    assert errors_of(capsys)[0].startswith(f"pnp-ovss: {message}")


def test_a_missing_file_is_a_fault(batch):
    assert batch(photos="photos/none.jpg") == 1
    assert "there is no photo" in json.loads(Path("results/faults/none.json").read_text())["fault"]


def test_photos_and_results_behind_addresses(batch):
    import fsspec

    store = fsspec.filesystem("memory")
    try:
        for path in Path("photos").rglob("*.*"):
            if path.is_file():
                store.pipe_file(f"/bucket/photos/{path.relative_to('photos')}", path.read_bytes())
        assert batch("--out", "memory://bucket/run", photos="memory://bucket/photos") == 1
        assert batch() == 1
        kept = sorted(name for name in store.find("/bucket/run/images"))
        assert kept == sorted(f"/bucket/run/images/{key}.{end}" for key in NAMES for end in ("json", "png"))
        for key in NAMES:
            assert store.cat_file(f"/bucket/run/images/{key}.png") == Path(f"results/images/{key}.png").read_bytes()
        store.rm_file("/bucket/run/images/a.json")
        assert batch("--out", "memory://bucket/run", photos="memory://bucket/photos") == 1
        assert store.isfile("/bucket/run/images/a.json")
    finally:
        store.rm("/bucket", recursive=True)


class Refusal(Exception):
    """What object stores raise: of a class of their own."""


def test_what_an_object_store_raises_is_reported(batch, monkeypatch, capsys):
    from fsspec.implementations.memory import MemoryFileSystem as Store

    def refuse(*all, **more):
        raise Refusal("Unable to locate\ncredentials")

    with monkeypatch.context() as patch:
        patch.setattr(Store, "info", refuse)
        assert batch(photos="memory://bucket/photos") == 2
        assert "memory://bucket/photos cannot be reached (Unable to locate credentials); check" in errors_of(capsys)[0]
        patch.setattr(Store, "cat_file", refuse)
        assert batch("--out", "memory://bucket/run") == 2
        assert "cannot be reached (Unable to locate credentials); check the path" in errors_of(capsys)[0]
        with pytest.raises(InputError, match=r"x\.png cannot be read \(Unable to locate credentials\); check the path"):
            fetch("memory://bucket/x.png")


def test_few_photos_are_held_at_a_time(desk, monkeypatch, batch):
    for number in range(40):
        Image.new("RGB", (8, 8), (number, 0, 0)).save(f"photos/many-{number:02}.png")
    read, held = [], []
    write, read_photo = Results.write, runs.read_photo
    monkeypatch.setattr(runs, "read_photo", lambda *all: (read.append(all), read_photo(*all))[1])

    def writing(self, *all):
        held.append(len(read) - len(held))
        return write(self, *all)

    monkeypatch.setattr(Results, "write", writing)
    assert batch("--batch-size", "2") == 1
    assert len(read) == 45
    assert max(held) <= 12


def test_a_worker_loads_its_model_once(batch, monkeypatch):
    loads = []
    make = Segmenter.from_pretrained
    monkeypatch.setattr(Segmenter, "from_pretrained", lambda *all, **more: (loads.append(all), make(*all, **more))[1])
    batch()
    batch()  # only the broken photo is left, and it needs none
    assert len(loads) == 1


# Parquet.


def rows(folder: str = "results") -> list[dict]:
    parquet = pytest.importorskip("pyarrow.parquet")
    found = [row for path in sorted(Path(folder, "shards").glob("*")) for row in parquet.read_table(path).to_pylist()]
    return [{name: value for name, value in row.items() if name != "seconds"} for row in found]


def test_parquet_holds_what_the_files_hold(batch):
    pytest.importorskip("pyarrow")
    assert batch("--out", "files") == 1
    assert batch("--format", "parquet", "--rows", "2") == 1
    packed = {row["key"]: row for row in rows()}
    assert sorted(packed) == sorted(NAMES)
    assert len(rows()) == len(NAMES)
    assert not [path for path in Path("results/images").rglob("*") if path.is_file()]
    for key, record in records("files").items():
        row = packed[key]
        assert row["labels"] == Path(f"files/images/{key}.png").read_bytes()
        same = ("photo", "width", "height", "refined", "classes", "match", "model", "version")
        assert [row[name] for name in same] == [record[name] for name in same]
        assert row["areas"] == list(record["areas"].values())
        assert [part["counts"] for part in row["segments"]] == [
            part["segmentation"]["counts"] for part in record["segments"]
        ]
        assert json.loads(row["config"]) == record["config"]


def test_parquet_goes_on_and_takes_more_photos(batch, monkeypatch):
    pytest.importorskip("pyarrow")
    pack = Results.pack
    monkeypatch.setattr(Results, "pack", lambda *all: (_ for _ in ()).throw(RuntimeError("power cut")))
    with pytest.raises(RuntimeError, match="power cut"):
        batch("--format", "parquet", "--rows", "2")
    assert not Path("results/shards").exists()
    monkeypatch.setattr(Results, "pack", pack)
    Image.new("RGB", (9, 7), "red").save("photos/deep/broken.jpg")
    Image.new("RGB", (9, 7), "red").save("photos/z.jpg")
    assert batch("--format", "parquet", "--rows", "2") == 0
    assert sorted(row["key"] for row in rows()) == sorted([*NAMES, "deep/broken", "z"])
    before = rows()
    assert batch("--format", "parquet", "--rows", "2") == 0
    assert rows() == before


def test_a_result_both_packed_and_loose_counts_once(batch):
    pytest.importorskip("pyarrow")
    with pytest.MonkeyPatch.context() as patch:
        remove = Folder.remove  # died between writing the shard and tidying up
        patch.setattr(Folder, "remove", lambda self, name: None if "images/" in name else remove(self, name))
        batch("--format", "parquet")
    assert len(rows()) == len(list(Path("results/images").rglob("*.json"))) == 4
    batch("--format", "parquet")
    assert sorted(row["key"] for row in rows()) == sorted(NAMES)
    assert not list(Path("results/images").rglob("*.json"))


def test_label_maps_left_by_a_run_that_died_while_it_packed_are_removed(batch):
    pytest.importorskip("pyarrow")
    remove = Folder.remove
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Folder, "remove", lambda self, name: None if name.endswith(".png") else remove(self, name))
        batch("--format", "parquet")
    own = Path("results/images/my own.png")
    own.touch()
    assert len(list(Path("results/images").rglob("*.png"))) == 5
    batch("--format", "parquet")
    assert list(Path("results/images").rglob("*.png")) == [own]
    assert len(rows()) == 4


def test_a_shard_cut_short_is_reported(batch, capsys):
    pytest.importorskip("pyarrow")
    assert batch("--format", "parquet") == 1
    (shard,) = Path("results/shards").glob("*")
    shard.write_bytes(shard.read_bytes()[:-9])
    assert batch("--format", "parquet") == 2
    assert errors_of(capsys)[-1] == (
        "pnp-ovss: results/shards/00000.parquet is no whole Parquet file of a run; remove it, and its photos are done "
        "again"
    )


@pytest.mark.parametrize("name", ["a\0b.png", "x" * 300 + ".png", "~\0/x.png"])
def test_a_place_that_no_file_can_have_is_a_fault_or_one_line(batch, name, capsys):
    assert batch(photos=name) in (1, 2)
    assert all(line.isprintable() for line in errors_of(capsys))


@pytest.mark.parametrize(("arguments", "module", "message"), [
    (("--format", "parquet"), "pyarrow", "Parquet needs pyarrow"),
    (("--engine", "ray"), "ray.data", "--engine ray needs ray"),
])  # fmt: skip
def test_what_is_not_installed_is_reported(batch, arguments, module, message, monkeypatch, capsys):
    monkeypatch.setitem(__import__("sys").modules, module, None)
    assert batch(*arguments) == 2
    (line,) = errors_of(capsys)
    assert line.startswith(f"pnp-ovss: {message}, which is not installed; run pip install 'pnp-ovss[batch]'")
    assert not os.path.exists("results/manifest.json")


def test_a_name_that_parquet_cannot_hold_costs_its_photo_alone(batch, names_file):
    pytest.importorskip("pyarrow")
    Path("names.json").write_text(json.dumps(NAMES | {"a": ["caf\udce9"]}))
    assert batch("--format", "parquet", classes=names_file) == 1
    assert sorted(row["key"] for row in rows()) == sorted(set(NAMES) - {"a"})
    assert "is no Unicode" in json.loads(Path("results/faults/a.json").read_text())["fault"]


def test_names_that_parquet_cannot_hold_are_reported_before_anything_is_done(batch, capsys):
    pytest.importorskip("pyarrow")
    assert batch("--format", "parquet", classes=("--classes", "caf\udce9")) == 2
    assert errors_of(capsys) == [
        "pnp-ovss: the class name 'caf\\udce9' is no Unicode, which no model can read; write it anew"
    ]
    fault = "is no UTF-8, which Parquet needs; rename it, or take --format files"
    os.rename("photos/a.jpg", "photos/a\udce9.jpg")
    assert batch("--format", "parquet") == 2
    assert errors_of(capsys) == [f"pnp-ovss: '{os.getcwd()}/photos/a\\udce9.jpg' {fault}"]
    assert not Path("results/manifest.json").exists()
    assert batch() == 1
    assert "a\udce9" in records()


def test_a_damaged_manifest_is_reported(batch, capsys):
    Path("results").mkdir()
    Path("results/manifest.json").write_text('{"format": 1}')
    assert batch() == 2
    assert errors_of(capsys) == ["pnp-ovss: results holds no run of batch that can be read; give another --out"]


def test_a_batch_gives_each_photo_the_labels_it_gets_alone(batch, names_file):
    for size in (1, 2, 5):
        assert batch("--batch-size", str(size), "--out", f"by-{size}", classes=names_file) == 1
        for key in NAMES:
            assert labels(key, f"by-{size}").tolist() == labels(key, "by-1").tolist()


@pytest.mark.parametrize("step", ["locate", "refine_all"])
def test_a_full_gpu_is_one_line(batch, monkeypatch, capsys, step):
    fail_at(monkeypatch, 1, torch.OutOfMemoryError("full"), step)
    assert batch() == 2
    assert errors_of(capsys)[-1].startswith("pnp-ovss: the GPU is full; use a smaller --batch-size")


# A result belongs to what a photo's file held.


def noise(seed: int, place: str = "photos/a.jpg", size: tuple[int, int] = (20, 30)) -> None:
    """Put another photo in the place of one."""
    Path(place).parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)).save(place)


FORMATS = pytest.mark.parametrize("format", ["files", "parquet"])


@pytest.fixture
def whole(batch) -> Callable[..., int]:
    """Run ``batch`` over photos that can all be read."""
    pytest.importorskip("pyarrow")
    Path("photos/deep/broken.jpg").unlink()
    return partial(batch)


def results(format: str, folder: str = "results") -> dict[str, dict]:
    """Return what is known of each photo, by key, without the time it took and where the photo was."""
    if format == "parquet":
        found = {row["key"]: row for row in rows(folder)}
        assert len(rows(folder)) == len(found)
    else:
        found = {key: record | {"labels": labels(key, folder).tolist()} for key, record in records(folder).items()}
    return {key: {**row, "photo": "", "file": row["file"]["sha256"]} for key, row in found.items()}


@FORMATS
def test_a_photo_that_was_replaced_is_done_anew(whole, located, capsys, format):
    assert whole("--format", format) == 0
    noise(7)
    noise(8, "photos/deep/e.png", (9, 9))
    del located[:]
    capsys.readouterr()
    assert whole("--format", format) == 0
    assert "2 photos changed since and are done anew\n" in capsys.readouterr().out
    assert len(located) == 2
    assert whole("--format", format, "--out", "fresh") == 0
    assert results(format) == results(format, "fresh")
    assert whole("--format", format) == 0
    assert "anew" not in capsys.readouterr().out
    assert len(located) == 2 + 4


@FORMATS
def test_photos_of_other_folders_with_equal_names_are_done_anew(whole, capsys, format):
    assert whole("--format", format) == 0
    noise(9, "others/a.jpg")
    assert whole("--format", format, photos="others") == 0
    assert "1 photo changed since and is done anew\n" in capsys.readouterr().out
    assert whole("--format", format, "--out", "fresh", photos="others") == 0
    assert results(format)["a"] == results(format, "fresh")["a"]
    assert sorted(results(format)) == sorted(NAMES)


@FORMATS
def test_photos_that_moved_or_were_touched_are_not_done_anew_and_read_once_more(whole, located, format, monkeypatch):
    assert whole("--format", format) == 0
    before = results(format)
    os.rename("photos", "moved")
    for path in Path("moved").rglob("*.*"):
        os.utime(path, (0, 0))
    read = []
    monkeypatch.setattr(files, "sha256", lambda content: (read.append(content), sha256(content))[1])
    assert whole("--format", format, photos="moved") == 0
    assert (len(located), len(read)) == (4, 4)
    assert results(format) == before
    if format == "files":  # the index has the new places now
        assert whole("--format", format, photos="moved") == 0
        assert len(read) == 4


def test_a_photo_of_equal_size_that_is_put_back_later_is_noticed(whole):
    """A, then B, then A again; nothing says so but the time and the content."""
    noise(1, "photos/a.bmp")
    Path("photos/a.jpg").unlink()
    first = Path("photos/a.bmp").read_bytes()
    assert whole() == 0
    one = results("files")["a"]
    noise(2, "photos/a.bmp")
    assert os.path.getsize("photos/a.bmp") == len(first)
    assert whole() == 0
    two = results("files")["a"]
    Path("photos/a.bmp").write_bytes(first)
    assert whole() == 0
    assert results("files")["a"] == one != two


@pytest.mark.parametrize("harm", [
    lambda record, labels: record.write_bytes(b""),
    lambda record, labels: record.write_bytes(record.read_bytes()[:40]),
    lambda record, labels: record.write_text('{"photo": "a.jpg"}'),
    lambda record, labels: record.write_text('[]'),
    lambda record, labels: record.write_text(record.read_text().replace('"sha256"', '"sha"')),
    lambda record, labels: labels.unlink(),
    lambda record, labels: labels.write_bytes(b""),
])  # fmt: skip
@pytest.mark.parametrize("index", [True, False])
def test_a_damaged_result_is_not_done(whole, capsys, harm, index):
    assert whole() == 0
    before = results("files")
    harm(Path("results/images/deep/e.json"), Path("results/images/deep/e.png"))
    if not index:
        [path.unlink() for path in Path("results/state").glob("*")]
    assert whole() == 0
    assert "1 photo had a damaged record and is done anew" in capsys.readouterr().out
    assert results("files") == before


def test_a_run_that_goes_on_opens_only_the_records_that_its_index_lacks(whole, monkeypatch):
    assert whole() == 0
    opened = []
    read = Folder.read
    monkeypatch.setattr(Folder, "read", lambda self, name: (opened.append(name), read(self, name))[1])
    assert whole() == 0
    assert not [name for name in opened if name.startswith("images/")]
    (index,) = Path("results/state").glob("index-*.json")
    index.write_bytes(index.read_bytes()[:-9])  # damaged: as good as absent
    assert whole() == 0
    assert len([name for name in opened if name.startswith("images/")]) == 4
    del opened[:]
    assert whole() == 0
    assert not [name for name in opened if name.startswith("images/")]


def test_photos_in_an_object_store_are_known_by_what_it_says_of_them(whole, located, monkeypatch):
    import fsspec

    store = fsspec.filesystem("memory")
    try:
        for name in ("a", "b"):
            noise(5, f"{name}.png")
            store.pipe_file(f"/bucket/photos/{name}.png", Path(f"{name}.png").read_bytes())
        there = {"photos": "memory://bucket/photos"}
        assert whole(**there) == 0
        read = []
        monkeypatch.setattr(files, "sha256", lambda content: (read.append(content), sha256(content))[1])
        assert whole(**there) == 0
        assert (len(located), len(read)) == (2, 0)
        store.pipe_file("/bucket/photos/a.png", Path("a.png").read_bytes())  # the same again
        noise(6, "b.png", (10, 10))
        store.pipe_file("/bucket/photos/b.png", Path("b.png").read_bytes())
        assert whole(**there) == 0
        assert (len(located), len(read)) == (3, 2)  # a to compare, b to segment
    finally:
        store.rm("/bucket", recursive=True)


def test_a_link_is_what_it_points_to(whole, located):
    noise(1, "one.bmp")
    Path("photos/link.bmp").symlink_to(Path("one.bmp").absolute())
    assert whole() == 0
    noise(2, "one.bmp")
    assert whole() == 0
    assert len(located) == 5 + 1


def test_a_changed_photo_that_cannot_be_read_keeps_no_result(whole):
    pytest.importorskip("pyarrow")
    for format in ("files", "parquet"):
        noise(3)
        assert whole("--format", format, "--out", format) == 0
        Path("photos/a.jpg").write_bytes(b"no picture")
        assert whole("--format", format, "--out", format) == 1
        assert sorted(results(format, format)) == sorted(set(NAMES) - {"a"})
        assert Path(format, "faults/a.json").exists()


def test_results_of_an_earlier_format_are_refused(whole, capsys):
    assert whole() == 0
    manifest = Path("results/manifest.json")
    manifest.write_text(manifest.read_text().replace('"manifest": 2', '"manifest": 1'))
    assert whole() == 2
    assert errors_of(capsys) == ["pnp-ovss: results holds no run of batch that can be read; give another --out"]


def test_parquet_files_are_filled_one_after_the_other(whole):
    whole("--format", "parquet", "--rows", "3")
    assert {path.name: len(pq_keys(path)) for path in sorted(Path("results/shards").glob("*"))} == {
        "00000.parquet": 3, "00001.parquet": 1,
    }  # fmt: skip
    for number in range(5):
        noise(number, f"photos/z{number}.png", (4, 4))
    noise(9)  # leaves the first file, and its place goes to another
    whole("--format", "parquet", "--rows", "3")
    found = {path.name: pq_keys(path) for path in sorted(Path("results/shards").glob("*"))}
    assert {name: len(keys) for name, keys in found.items()} == {
        "00000.parquet": 2, "00001.parquet": 3, "00002.parquet": 3, "00003.parquet": 1,
    }  # fmt: skip
    assert sorted(key for keys in found.values() for key in keys) == sorted(
        [*NAMES, *(f"z{number}" for number in range(5))]
    )


def pq_keys(path: Path) -> list[str]:
    from pyarrow import parquet

    return parquet.read_table(path)["key"].to_pylist()


def test_each_parquet_file_is_written_once_and_loose_results_are_listed_once(whole, monkeypatch):
    for number in range(30):
        noise(number, f"photos/z{number:02}.png", (4, 4))
    packed, listed = [], []
    pack, sizes = Results.pack, Folder.sizes
    monkeypatch.setattr(Results, "pack", lambda self, name, keys: (packed.append(name), pack(self, name, keys))[1])
    monkeypatch.setattr(Folder, "sizes", lambda self, below: (listed.append(below), sizes(self, below))[1])
    assert whole("--format", "parquet", "--rows", "2") == 0
    assert packed == [f"shards/{number:05}.parquet" for number in range(17)]
    assert listed.count("images") <= 2
