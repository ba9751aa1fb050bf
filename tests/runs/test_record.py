"""Records: what ``segment`` and ``batch`` write is read again as the same label maps."""

import gc
import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pnp_ovss import Config, ConfigError, InputError, Segmentation
from pnp_ovss.data import rle
from pnp_ovss.files import Folder, Source
from pnp_ovss.refine.scores import ScoreMap
from pnp_ovss.runs import record
from pnp_ovss.runs.record import Results, check_places, check_same, load_results, make_record, write_result

CLASSES = ("background", "dog", "traffic light")


def segmentation(labels: np.ndarray, classes: tuple[str, ...] = CLASSES, **more) -> Segmentation:
    scores = np.zeros((len(classes), *labels.shape), np.float32)
    salience = np.zeros((len(classes) - (classes[0] == "background"), 2, 2), np.float32)
    return Segmentation(labels, classes, ScoreMap.of(scores), salience, 1.25, Config(), "mini-blip", "r", "0", **more)


LABELS = np.array([[0, 1, 1], [2, 1, 0]])


def blank(result: Segmentation) -> np.ndarray:
    return np.zeros((*result.labels.shape, 3), np.uint8)


def write(folder: Path, *photos: str) -> None:
    """Write a result as ``segment`` does, of a photo of each name, as wide as the name is long."""
    for photo in photos:
        result = segmentation(np.ones((1, len(photo)), np.int64))
        write_result(folder, Path(photo), blank(result), result, 0.0)


def batch(folder: Path, *keys: str, pack: str = "") -> None:
    """Write results as ``batch`` does, each as wide as its key is long; ``pack``: the number of a Parquet file."""
    folder.mkdir(exist_ok=True)
    (folder / "manifest.json").write_text('{"manifest": 1}')
    results = Results(Folder(folder))
    for key in keys:
        result = segmentation(np.ones((1, len(key)), np.int64), ("dog", "cat"))
        results.write(key, Source(f"{key}.jpg"), blank(result), result, 0.0)
    if pack:
        results.pack(f"shards/{pack}.parquet", keys)


def sizes(folder: Path) -> dict[str, tuple[int, ...]]:
    """Return the size of each label map."""
    return {label_map.key: label_map.values(label_map.names).shape for label_map in load_results(folder)}


def test_a_record_has_what_was_found_and_what_found_it():
    result = segmentation(LABELS, quality=np.array([0.5, 0.25]))
    record = make_record("a/dog", Source("photos/a/dog.jpg", 9, "1", "c0ffee"), blank(result), result, 1.23456)
    assert (record["key"], record["photo"]) == ("a/dog", "photos/a/dog.jpg")
    assert record["file"] == {"size": 9, "modified": "1", "sha256": "c0ffee"}
    assert (record["width"], record["height"]) == (3, 2)
    assert record["classes"] == list(CLASSES)
    assert record["areas"] == {"background": 0.333333, "dog": 0.5, "traffic light": 0.166667}
    assert record["quality"] == {"dog": 0.5, "traffic light": 0.25}
    assert (record["match"], record["seconds"]) == (1.25, 1.235)
    assert (record["model"], record["revision"], record["version"]) == ("mini-blip", "r", "0")
    assert record["config"]["threshold"] == Config().threshold
    assert [(part["class"], part["label"], part["area"]) for part in record["segments"]] == [
        ("dog", 1, 3),
        ("traffic light", 2, 1),
    ]
    for part in record["segments"]:
        mask = rle.decode(part["segmentation"], 2, 3)
        assert mask.tolist() == (part["label"] == LABELS).astype(int).tolist()


def test_without_a_background_the_first_class_has_a_segment():
    result = segmentation(np.array([[0, 1]]), ("dog", "background"))
    record = make_record("a", Source("a.jpg"), blank(result), result, 0.0)
    assert [part["class"] for part in record["segments"]] == ["dog", "background"]


def test_segment_and_batch_write_the_same_record(tmp_path):
    result = segmentation(LABELS)
    write_result(tmp_path / "segment", Path("dog.jpg"), blank(result), result, 0.5)
    Results(Folder(tmp_path / "batch")).write("dog", Source("dog.jpg"), blank(result), result, 0.5)
    one = json.loads((tmp_path / "segment/dog.json").read_text())
    two = json.loads((tmp_path / "batch/images/dog.json").read_text())
    assert one == two | {"labels": "dog.png", "overlay": "dog.overlay.png"}


def test_what_is_read_is_what_was_written(tmp_path):
    result = segmentation(LABELS)
    write_result(tmp_path, Path("photos/dog.PNG"), blank(result), result, 0.5)
    (found,) = load_results(tmp_path)
    assert (found.key, found.file_name, found.photo) == ("dog", "dog.PNG", "photos/dog.PNG")
    assert (found.classes, found.model) == (CLASSES, "mini-blip")
    assert found.values(found.names).tolist() == LABELS.tolist()
    assert found.values(("cow", "traffic light", "dog")).tolist() == [[0, 3, 3], [2, 3, 0]]


@pytest.mark.parametrize("kind", ["segment", "batch"])
def test_records_of_earlier_versions_are_read(tmp_path, kind):
    """Those of ``segment`` had no key and no segments, and no record named its method."""
    record = {"photo": "photos/dog.jpg", "width": 3, "height": 2, "classes": list(CLASSES), "model": "mini-blip"}
    folder = tmp_path if kind == "segment" else tmp_path / "images/deep"
    folder.mkdir(exist_ok=True, parents=True)
    if kind == "batch":
        (tmp_path / "manifest.json").write_text('{"manifest": 1}')
        record |= {"key": "deep/dog", "segments": []}
    (folder / "dog.json").write_text(json.dumps(record))
    Image.fromarray(LABELS.astype(np.uint8)).save(folder / "dog.png")
    (found,) = load_results(tmp_path)
    assert found.key == ("dog" if kind == "segment" else "deep/dog")
    assert found.values(found.names).tolist() == LABELS.tolist()


def change(folder: Path, **entries) -> None:
    record = folder / "dog.json"
    record.write_text(json.dumps(json.loads(record.read_text()) | entries))


@pytest.mark.parametrize(
    ("harm", "line"),
    [
        (lambda folder: (folder / "dog.png").unlink(), "the label map .*dog.png cannot be read"),
        (lambda folder: (folder / "dog.png").write_bytes(b"{}"), "the label map .*dog.png is no picture"),
        (lambda folder: Image.new("P", (2, 2)).save(folder / "dog.png"), "got \\(2, 2\\)"),
        (lambda folder: Image.new("L", (3, 2), 9).save(folder / "dog.png"), "labels up to 9"),
        (lambda folder: Image.new("RGB", (3, 2)).save(folder / "dog.png"), "got \\(2, 3, 3\\)"),
        (lambda folder: (folder / "notes.json").write_text("{}"), "notes.json is no record"),
        (lambda folder: (folder / "notes.json").write_text("[1"), "notes.json is no JSON"),
        (lambda folder: change(folder, classes=None), "dog.json is no record"),
        (lambda folder: change(folder, width="wide"), "dog.json is no record"),
        (lambda folder: [path.unlink() for path in folder.iterdir()], "holds no result"),
        (lambda folder: os.rename(folder, folder.with_name("moved")), "there is no folder"),
    ],
)
def test_what_is_missing_or_damaged_is_one_line(tmp_path, harm, line):
    result = segmentation(LABELS)
    write_result(tmp_path / "results", Path("dog.jpg"), blank(result), result, 0.5)
    harm(tmp_path / "results")
    with pytest.raises(InputError, match=line):
        sizes(tmp_path / "results")


def test_large_label_maps_are_read_without_a_warning(tmp_path, monkeypatch):
    write(tmp_path, "dog.jpg")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 4)  # Pillow warns from there on, and warnings are errors
    assert sizes(tmp_path) == {"dog": (1, 7)}


@pytest.mark.parametrize("change", [
    *({"height": height} for height in (10**9, 0, -1, None, "tall")),
    *({"classes": ["dog"], "values": [value]} for value in (256, -1, 2**31)),
])  # fmt: skip
def test_a_record_of_what_no_label_map_has_is_one_line(tmp_path, change):
    write(tmp_path, "dog.jpg")
    record = json.loads((tmp_path / "dog.json").read_text())
    (tmp_path / "dog.json").write_text(json.dumps(record | {"classes": [], "values": []} | change))
    with pytest.raises(InputError, match="dog.json is no record of a result"):
        load_results(tmp_path)


def test_photos_may_be_called_as_results_are(tmp_path):
    write(tmp_path, "x.overlay.png", "y.png.jpg", "manifest.jpg")
    assert [found.file_name for found in load_results(tmp_path)] == ["manifest.jpg", "x.overlay.png", "y.png.jpg"]
    assert sizes(tmp_path) == {"manifest": (1, 12), "x.overlay": (1, 13), "y.png": (1, 9)}


def test_results_of_segment_may_lie_beside_folders_of_any_name(tmp_path):
    write(tmp_path, "ab.jpg")
    for name in ("images", "shards"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "ab.jpg").write_bytes(b"a photo")
    assert sizes(tmp_path) == {"ab": (1, 6)}


def test_results_of_segment_and_batch_in_one_folder_are_all_read(tmp_path):
    write(tmp_path, "ab.jpg")
    batch(tmp_path, "c", "d/e")
    assert sizes(tmp_path) == {"ab": (1, 6), "c": (1, 1), "d/e": (1, 3)}


def test_packed_results_are_read_as_they_were_at_that_moment(tmp_path):
    pytest.importorskip("pyarrow")
    batch(tmp_path, "dog", "no/thing", pack="00000")
    before = load_results(tmp_path)
    batch(tmp_path, "a", "dogs", pack="00000")
    batch(tmp_path, "dog")  # done again, and newer than the packed one
    assert sizes(tmp_path) == {"a": (1, 1), "dog": (1, 3), "dogs": (1, 4), "no/thing": (1, 8)}
    assert {found.key: found.values(found.names).shape for found in before} == {"dog": (1, 3), "no/thing": (1, 8)}
    assert before[0].values(("dog", "cat")).tolist() == [[2, 2, 2]]


def test_each_parquet_file_is_read_once_and_label_maps_are_not_held(tmp_path, monkeypatch):
    pytest.importorskip("pyarrow")
    for number in range(20):
        batch(tmp_path, f"dog-{number:02}", pack=f"{number:05}")
    read, read_shard = [], record.read_shard
    monkeypatch.setattr(record, "read_shard", lambda *all: (read.append(all[1]), read_shard(*all))[1])
    found = load_results(tmp_path)
    assert len(found) == 20
    assert all((label_map.values(label_map.names) == 2).all() for label_map in [*found, *found[::-1]])
    assert sorted(read) == [f"shards/{number:05}.parquet" for number in range(20)]
    assert {type(part) for label_map in found for part in label_map.read.args} == {int, str}
    del found
    gc.collect()  # closes the temporary file without a warning


def test_a_packed_key_that_leads_out_of_the_folder_is_refused(tmp_path):
    pytest.importorskip("pyarrow")
    batch(tmp_path, "a/../../b", pack="00000")
    with pytest.raises(InputError, match="no record of a result"):
        load_results(tmp_path)


def test_a_photo_in_which_nothing_was_named_has_no_region(tmp_path):
    Results(Folder(tmp_path)).write("a", Source("a.jpg"), np.zeros((3, 4, 3), np.uint8), None, 0.0)
    (found,) = load_results(tmp_path)
    assert not found.values(()).any()
    assert found.values(()).shape == (3, 4)
    assert list(found.regions(())) == []


def test_the_first_setting_that_differs_is_named():
    before = {"model": "a", "config": {"layer": 1, "head": 2}, "names": {"classes": ["dog"]}}
    check_same("results", before, before)
    with pytest.raises(ConfigError, match="results holds a run with head 2, and 3 is asked for; give another --out"):
        check_same("results", before, {**before, "config": {"layer": 1, "head": 3}})
    with pytest.raises(ConfigError, match='with namer null, and "itm" is asked for'):
        check_same("results", before, {**before, "names": {"namer": "itm"}})


@pytest.mark.parametrize("name", ["a\ud83d.jpg", "a\0b.jpg"])
def test_a_photo_whose_name_no_file_has_is_one_line(name):
    with pytest.raises(InputError, match="has a name that no file has"):
        check_places(Path("out"), [Path(name)])
