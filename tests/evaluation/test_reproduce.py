"""Published tables run again: every check, the table, what to look at, and a whole table that is killed on its way."""

import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from tqdm import tqdm

from hub_server import Repository, connected
from pnp_ovss.cli import main, reproduce as command
from pnp_ovss.data import DATASETS
from pnp_ovss.data.vocabulary import benchmark_vocabulary, class_names
from pnp_ovss.errors import ConfigError, InputError
from pnp_ovss.evaluation.reproduction import checks, plan as plans
from pnp_ovss.evaluation.reproduction.checks import Checks, Places, parts_of
from pnp_ovss.evaluation.reproduction.plan import TABLES, Cell, Row, chosen, columns_of, plan
from pnp_ovss.evaluation.reproduction.table import Outcome, look_at, outcomes, results, write_results
from pnp_ovss.methods import METHODS
from pnp_ovss.models.hub import SHORT_NAMES
from pnp_ovss.models.releases import RELEASES
from released import released, released_tcl, write_released
from reproductions import columns, make_blip, make_data, make_weights, pass_for_published
from tiny import tiny_clip
from trees import save

ROOT = Path(__file__).resolve().parents[2]
HERE = ("--data", "data", "--weights", "weights", "--device", "cpu")
TWO = ("--rows", "pnp-blip-336,pnp-blip-224", "--columns", "voc")


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data sets of two photos, replies, and a BLIP."""
    root = tmp_path_factory.mktemp("sources")
    make_data(root / "data")
    make_blip(root / "weights/blip-large-flickr")
    return root


@pytest.fixture
def desk(sources: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy to spoil, which passes for what was published."""
    shutil.copytree(sources, tmp_path, dirs_exist_ok=True)
    pass_for_published(monkeypatch, tmp_path / "data", tmp_path / "weights")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def reproduce(table: str = "table3", *more: str) -> int:
    return main(["reproduce", table, *HERE, "--out", "out", *more])


def read(path: str = "out/report.json") -> dict[str, Any]:
    return json.loads(Path(path).read_text())


def complaints(capsys: pytest.CaptureFixture[str]) -> list[str]:
    """Return the lines on stderr, without progress bars."""
    return [line for line in capsys.readouterr().err.splitlines() if line.startswith("pnp-ovss: ")]


def measured(path: str = "out/report.json") -> dict[str, dict[str, Any]]:
    return {one["cell"]: one for one in read(path)["cells"] if one["state"] == "measured"}


def without_times(path: Path) -> list[dict[str, Any]]:
    return [{name: value for name, value in one.items() if name != "seconds_per_image"} for one in read(path)["cells"]]


def test_cells_are_checked_run_and_compared_and_not_run_again(desk, capsys, monkeypatch):
    monkeypatch.setattr(command, "FIRST", 1)
    assert reproduce("table3", *TWO) == 0
    said = capsys.readouterr().out
    [seconds, minutes] = re.findall(r"pnp-blip-336/voc +2 +(\d+\.\d\d) +(\d+\.\d)\n", said)[0]
    assert float(minutes) == pytest.approx(2 * float(seconds) / 60, abs=0.06)
    assert re.search(r"about \d+ minutes with 1 model at a time\n", said)
    assert "ok: data voc21: 2 images in data" in said
    assert "0 of 2 cells are done before, 2 are to do" in said
    assert set(measured()) == {"pnp-blip-336/voc", "pnp-blip-224/voc"}
    cell = measured()["pnp-blip-336/voc"]
    own = read("out/cells/pnp-blip-336/voc/report.json")
    assert cell["ours"] == pytest.approx(100 * own["score"]["miou"])
    assert cell["difference"] == pytest.approx(cell["ours"] - 51.3)
    assert (cell["published"], cell["protocol"], cell["vocabulary"], cell["images"]) == (51.3, "authors", "authors", 2)
    assert cell["revision"].startswith("local-")
    assert cell["seconds_per_image"] > 0
    assert cell["marked"]
    assert own["settings"]["config"]["size"] == 336
    assert read("out/cells/pnp-blip-224/voc/report.json")["settings"]["config"]["size"] == 224
    states = {one["cell"]: (one["state"], one["why"]) for one in read()["cells"]}
    assert states["pnp-blip-336/ade"] == ("not measured", "")
    assert states["pacl/voc"] == ("cannot be run", "neither code nor weights exist")
    page = Path("out/report.html").read_text()
    assert f"51.3 / {cell['ours']:.1f} ({cell['difference']:+.1f})" in page
    assert 'href="cells/pnp-blip-336/voc/report.html"' in page
    assert f"| 51.3 / **{cell['ours']:.1f}** |" in Path("out/report.md").read_text()
    before = Path("out/report.json").read_bytes()
    assert reproduce("table3", *TWO) == 0
    assert "2 of 2 cells are done before, 0 are to do" in capsys.readouterr().out
    assert Path("out/report.json").read_bytes() == before


def test_a_cell_whose_data_or_weights_changed_is_looked_at_again(desk, monkeypatch, capsys):
    only = ("--rows", "pnp-blip-336", "--columns", "voc", "--limit", "1")
    assert reproduce("table3", *only) == 0
    assert measured()["pnp-blip-336/voc"]["differs"] == ["only the first 1 of 2 images"]
    assert reproduce("table3", *only[:-2]) == 0
    assert measured()["pnp-blip-336/voc"]["images"] == 2
    assert measured()["pnp-blip-336/voc"]["differs"] == []
    shutil.rmtree("weights/blip-large-flickr")
    make_blip(Path("weights/blip-large-flickr"))
    weights = Path("weights/blip-large-flickr/model.safetensors")
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
    assert reproduce("table3", *only[:-2]) == 1
    assert "pnp-blip-336/voc: out/cells/pnp-blip-336/voc holds a run with revision" in capsys.readouterr().err
    [why] = [one["why"] for one in read()["cells"] if one["cell"] == "pnp-blip-336/voc"]
    assert "holds a run with revision" in why


@pytest.mark.slow
def test_a_cell_whose_results_were_lost_is_done_again(desk):
    only, cell = ("--rows", "pnp-blip-224", "--columns", "voc"), Path("out/cells/pnp-blip-224/voc")
    assert reproduce("table3", *only) == 0
    whole = without_times(Path("out/report.json"))
    for lost in ("images/2007_000000.json", "images/2007_000001.png", "report.json", "report.html"):
        (cell / lost).unlink()
        assert reproduce("table3", *only) == 0
        assert without_times(Path("out/report.json")) == whole
        assert (cell / lost).exists()


def spoil_count(desk: Path) -> None:
    (desk / "data/VOCdevkit/VOC2012/ImageSets/Segmentation/val.txt").write_text("2007_000000\n")


def spoil_ids(desk: Path) -> None:
    base = desk / "data/VOCdevkit/VOC2012"
    for folder, end in (("JPEGImages", "jpg"), ("SegmentationClass", "png")):
        (base / f"{folder}/2007_000001.{end}").rename(base / f"{folder}/2007_000007.{end}")
    (base / "ImageSets/Segmentation/val.txt").write_text("2007_000000\n2007_000007\n")


def spoil_mask(desk: Path) -> None:
    save(desk / "data/VOCdevkit/VOC2012/SegmentationClass/2007_000001.png", [[77]])


def spoil_photo(desk: Path) -> None:
    (desk / "data/VOCdevkit/VOC2012/JPEGImages/2007_000001.jpg").unlink()


def replies(desk: Path) -> Path:
    return desk / "data" / columns()["voc"]["replies"]


def drop_reply(desk: Path) -> None:
    replies(desk).write_text(json.dumps({"2007_000000": ["cat"]}))


def change_config(desk: Path, **settings: Any) -> None:
    path = desk / "weights/blip-large-flickr/config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | settings))


def cut_weights(desk: Path) -> None:
    path = desk / "weights/blip-large-flickr/model.safetensors"
    path.write_bytes(path.read_bytes()[:1000])


def other_input(desk: Path) -> None:
    config = json.loads((desk / "weights/blip-large-flickr/config.json").read_text())
    change_config(desk, vision_config=config["vision_config"] | {"image_size": 48})


SPOILS = {
    "no data": (lambda desk: shutil.rmtree(desk / "data/VOCdevkit/VOC2012"), "LACKS: data voc21: .* fetch VOCtrainval"),
    "another count": (spoil_count, "DIFFERS: data voc21: expected 2 images, got 1"),
    "other ids": (spoil_ids, "DIFFERS: data voc21: its 2 images are not those of the published list"),
    "a damaged mask": (spoil_mask, "DIFFERS: data voc21: 1 of 2 images cannot be scored: 2007_000001: .*"),
    "a missing photo": (spoil_photo, "DIFFERS: data voc21: 1 of 2 images cannot be scored: .* there is no photo"),
    "no replies": (lambda desk: replies(desk).unlink(), "LACKS: names voc: there is no voc_classification_noboundary"),
    "other replies": (
        lambda desk: replies(desk).write_text('{"2007_000000": [], "2007_000001": []}'),
        "DIFFERS: names voc: .* is not the authors' file; 0.00 classes per image are named; expected 2.00$",
    ),
    "a missing reply": (drop_reply, "DIFFERS: names voc: .*; 1 images have no names: expected a list of names"),
    "no JSON": (lambda desk: replies(desk).write_text("{"), "LACKS: names voc: .* is no JSON"),
    "weights cut short": (cut_weights, "DIFFERS: weights blip-large-flickr: its weights have 0.0 MB; .* as float16"),
    "another model": (
        lambda desk: change_config(desk, model_type="clip"),
        "DIFFERS: weights blip-large-flickr: it is a model of kind 'clip'; expected 'blip'",
    ),
    "another input": (other_input, "DIFFERS: weights .*: its input has 48 pixels a side; expected 32"),
    "no weights": (
        lambda desk: (desk / "weights/blip-large-flickr/model.safetensors").unlink(),
        "LACKS: weights blip-large-flickr: expected model.safetensors or pytorch_model.bin, got neither",
    ),
}


@pytest.mark.parametrize("what", SPOILS)
def test_what_is_wrong_beforehand_is_one_line_and_nothing_is_run(desk, capsys, what):
    spoil, expected = SPOILS[what]
    assert reproduce("table3", *TWO, "--check") == 0
    assert complaints(capsys) == []
    spoil(desk)
    for more in (("--check",), ()):
        assert reproduce("table3", *TWO, *more) == 2
        line, *rest = complaints(capsys)
        assert re.search(expected, line), line
        assert len(rest) == (what == "other ids")  # the replies are of the others
    assert not (desk / "out").exists()


def test_coco_object_is_read_with_the_truth_that_a_row_was_scored_against(desk):
    cells = [cell for cell in plan("table3") if cell.name in ("pnp-blip-336/object", "tcl/object")]
    data = [one.text for one in islice(Checks(cells, Places(Path("data"), Path("out")))(), 2)]
    assert [text.partition(", ")[2] for text in data] == [
        "instances_val2017.json, painted, the earlier over the later", "things of stuffthingmaps PNG, val2017",
    ]  # fmt: skip
    shutil.rmtree("data/coco/stuffthingmaps")
    theirs, papers = islice(Checks(cells, Places(Path("data"), Path("out")))(), 2)
    assert (theirs.what, theirs.state) == ("data object81 (authors)", "ok")
    assert (papers.what, papers.state, papers.cells) == ("data object81", "differs", ("tcl/object",))
    assert papers.text.startswith("COCO-Stuff's masks, which papers score, are not there (")


def test_pnp_is_asked_with_its_authors_words():
    words = {cell.dataset: cell.vocabulary for cell in plan("table3") if cell.row.name == "pnp-blip-336"}
    assert words == {
        "voc21": "authors", "context59": "plain", "object81": "joined", "stuff171": "authors", "ade150": "authors",
    }  # fmt: skip


def test_weights_that_the_hub_does_not_have(desk, capsys, monkeypatch):
    with connected(monkeypatch, desk) as hub:
        shutil.move("weights/blip-large-flickr", "repository")
        assert reproduce("table3", *TWO, "--check") == 2
        assert "LACKS: weights blip-large-flickr: no folder here" in capsys.readouterr().err
        hub.repositories["Salesforce/blip-itm-large-flickr"] = Repository(desk / "repository")
        assert reproduce("table3", *TWO, "--check") == 0
        assert "MB, to fetch" in capsys.readouterr().out
        assert "model.safetensors" not in hub.fetched()
        expected = SHORT_NAMES["blip-large-flickr"]
        monkeypatch.setitem(SHORT_NAMES, "blip-large-flickr", replace(expected, millions=2 * expected.millions))
        assert reproduce("table3", *TWO, "--check") == 0  # as float16
        monkeypatch.setitem(SHORT_NAMES, "blip-large-flickr", replace(expected, millions=3 * expected.millions))
        assert reproduce("table3", *TWO, "--check") == 2
        assert "DIFFERS: weights blip-large-flickr: its weights have" in capsys.readouterr().err
        monkeypatch.setitem(SHORT_NAMES, "blip-large-flickr", expected)
        assert reproduce("table3", *TWO, "--limit", "1") == 0
        assert measured()["pnp-blip-336/voc"]["revision"] == "a" * 40


@pytest.mark.parametrize(("name", "value", "expected"), [
    ("available", lambda: 1000, "DIFFERS: memory: 1.0 GB needed, 0.0 MB left"),
    ("RESULT", 10**18, "DIFFERS: disk for results: 4000000000.0 GB needed in out"),
])  # fmt: skip
def test_too_little_room_is_told_beforehand(desk, capsys, monkeypatch, name, value, expected):
    monkeypatch.setattr(checks, name, value)
    assert reproduce("table3", *TWO, "--check") == 2
    assert expected in capsys.readouterr().err


def test_too_little_room_for_weights_counts_with_the_results_on_one_disk(desk, capsys, monkeypatch):
    with connected(monkeypatch, desk) as hub:
        hub.repositories["Salesforce/blip-itm-large-flickr"] = Repository(desk / "weights/blip-large-flickr")
        size = (desk / "weights/blip-large-flickr/model.safetensors").stat().st_size
        usage = shutil.disk_usage(desk)._replace(free=size + 4 * checks.RESULT - 1)
        monkeypatch.setattr(checks.shutil, "disk_usage", lambda place: usage)
        shutil.move("weights/blip-large-flickr", "elsewhere")
        hub.repositories["Salesforce/blip-itm-large-flickr"].folder = desk / "elsewhere"
        assert reproduce("table3", *TWO, "--check") == 2
        [line] = complaints(capsys)
        assert "DIFFERS: disk for weights: " in line


def test_a_device_that_is_not_there(desk, capsys):
    assert reproduce("table3", *TWO, "--check", "--device", "cuda:9") == 2
    assert "LACKS: device: device 'cuda:9' cannot be used here; give auto or cpu" in capsys.readouterr().err


@pytest.mark.parametrize(("free", "expected"), [(10**12, "ok"), (10**9, "differs")])
def test_the_memory_of_a_gpu_is_looked_at(desk, monkeypatch, free, expected):
    monkeypatch.setattr(checks, "resolve_device", lambda name: torch.device("cuda"))
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free, 2 * 10**12))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "a GPU")
    asked = Checks([find("pnp-blip-336/voc")], Places(desk / "data", desk / "out", weights=desk / "weights"))
    [found] = [finding for finding in asked() if finding.what == "device"]
    assert found.state == expected
    assert found.text.startswith("a GPU, ")


def test_cells_are_run_although_something_differs_and_the_report_says_so(desk, capsys):
    spoil_mask(desk)
    replies(desk).rename("data/voc.json")
    shutil.rmtree("data/ADEChallengeData2016")
    assert reproduce("table3", "--rows", "pnp-blip-336", "--columns", "voc,ade", "--anyway") == 1
    [cell] = measured().values()
    assert [line.partition(":")[0] for line in cell["differs"]] == ["data voc21"]
    assert (cell["images"], cell["failed"]) == (1, 1)
    assert cell["look_at"][:2] == [*cell["differs"], "1 images could not be scored"]
    [ade] = [one for one in read()["cells"] if one["cell"] == "pnp-blip-336/ade"]
    assert ade["why"].startswith("data ade150: there is no folder")
    assert "1 cells could not be run" in capsys.readouterr().err


def no_release(folder: Path) -> None:
    (folder / "model.safetensors").unlink()


def other_release(folder: Path) -> None:
    save_file({"nothing": torch.zeros(1)}, folder / "model.safetensors")


def no_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").write_text("{")


RELEASED = {
    "not there": (
        "segclip",
        no_release,
        "LACKS: weights segclip: .*: expected segclip.bin, or .* fetch it from",
    ),
    "another one": ("segclip", other_release, "LACKS: weights segclip: the checkpoint lacks clip.visual"),
    "no tokenizer": ("segclip", no_tokenizer, "LACKS: weights segclip: .*: the tokenizer cannot be read"),
    "no masker": ("tcl", no_release, "LACKS: weights tcl: .*: expected tcl.pth, or a folder with"),
    "another masker": ("tcl", other_release, "LACKS: weights tcl: weights/tcl holds no masker; take tcl.pth"),
}


@pytest.mark.parametrize("what", RELEASED)
def test_what_is_wrong_with_a_released_file(desk, capsys, monkeypatch, what):
    row, spoil, expected = RELEASED[what]
    released("segclip", desk / "weights/segclip")
    shutil.move(released_tcl(desk / "weights/clip-base") / "masker", desk / "weights/tcl")
    pass_for_published(monkeypatch, desk / "data", desk / "weights")
    only = ("--rows", row, "--columns", "voc", "--check")
    assert reproduce("table3", *only) == 0
    spoil(desk / "weights" / row)
    assert reproduce("table3", *only) == 2
    line = complaints(capsys)[-1]
    assert re.search(expected, line), line


def test_a_released_file_of_another_size(desk, capsys, monkeypatch):
    released("segclip", desk / "weights/segclip")
    monkeypatch.setitem(RELEASES, "segclip", replace(RELEASES["segclip"], pixels="224"))
    assert reproduce("table3", "--rows", "segclip", "--columns", "voc", "--check") == 2
    assert "DIFFERS: weights segclip: its input has 32 pixels a side; expected 224" in complaints(capsys)[-1]


def test_recos_photos_are_listed_and_its_models_made_beforehand(desk, capsys, monkeypatch):
    weights = desk / "weights"
    write_released(weights)
    for part in ("dense", "encoder"):
        (weights / part).rename(weights / f"reco-{part}")
    tiny_clip(weights / "clip-large-336")
    photo = weights / "archive/n01440764/n01440764_18.JPEG"
    photo.parent.mkdir(parents=True)
    Image.new("RGB", (40, 30)).save(photo)
    pass_for_published(monkeypatch, desk / "data", weights)
    only = ("--rows", "reco", "--columns", "context", "--check")
    assert reproduce("table3", *only) == 0
    assert "ok: weights archive: 1 photos, here" in capsys.readouterr().out
    photo.unlink()
    for part in ("dense", "encoder"):
        other_release(weights / f"reco-{part}")
    assert reproduce("table3", *only) == 2
    archive, *models = complaints(capsys)
    assert "LACKS: weights archive: no picture matches weights/archive/**/*" in archive
    assert [line.split(";")[0] for line in models] == [
        "pnp-ovss: LACKS: weights reco-dense: the checkpoint lacks visual.attnpool.positional_embedding",
        "pnp-ovss: LACKS: weights reco-encoder: the checkpoint lacks patch_embed.proj.weight",
    ]


def test_a_file_that_a_setting_names_is_looked_for_among_the_weights(desk, capsys, monkeypatch):
    row = Row("table3", "x", method="tcl", settings={"masker": "other.pth"})
    cell = replace(find("tcl/voc"), row=row)
    [part] = [part for part in parts_of(cell, Places(desk, desk, weights=desk / "weights")) if part.setting == "masker"]
    assert (part.name, part.place) == ("other.pth", "other.pth")
    found = Checks([cell], Places(desk, desk, weights=desk / "weights"))._weights(part, cell, ())
    assert (found.state, found.text) == ("lacks", "there is no other.pth; put it into the folder of --weights")
    (desk / "weights/other.pth").touch()
    [part] = [part for part in parts_of(cell, Places(desk, desk, weights=desk / "weights")) if part.setting == "masker"]
    assert part.place == str(desk / "weights/other.pth")


@pytest.mark.parametrize(("given", "message"), [
    (("table9",), "there is no table 'table9'; the tables are table3, field, ablation"),
    (("table3", "--rows", "pnp"), "the table has no row 'pnp'; its rows are pnp-blip-336, "),
    (("table3", "--columns", "city"), "the table has no column 'city'; its columns are voc, context, "),
    (("table3", "--rows", "pacl"), "none of these cells can be run; ask for other --rows or --columns"),
])  # fmt: skip
def test_wrong_use_is_one_line(desk, capsys, given, message):
    assert reproduce(*given) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert message in line


# The tables


@pytest.mark.parametrize("table", TABLES)
def test_every_cell_that_can_be_run_has_settings_and_checkpoints(table):
    cells = plan(table)
    assert len({cell.name for cell in cells}) == len(cells)
    for cell in cells:
        assert cell.dataset in DATASETS or cell.lacks
        assert cell.title
        for part in () if cell.lacks else parts_of(cell, Places(Path(), Path())):
            assert part.name in SHORT_NAMES or part.setting in ("model", *checks.FILES), part


def test_the_table_has_the_published_numbers_of_each_row():
    cells = {cell.name: cell for cell in plan("table3")}
    assert len({cell.row.name for cell in cells.values()}) == 21
    numbers = [cells[f"pnp-blip-336/{column}"].published for column in columns_of("table3")]
    assert numbers == [51.3, 28.0, 36.2, 17.9, 14.2]
    by_row = {"groupvit": "context60", "groupvit-by-tcl": "context60", "groupvit-by-clippy": "context59"}
    by_row |= dict.fromkeys(("tcl", "maskclip-trained-by-tcl", "viewco", "zeroseg", "zeroseg-star"), "context60")
    assert {row: cells[f"{row}/context"].dataset for row in by_row} == by_row
    assert "clippy/context" not in cells  # nothing was published
    assert cells["reco/stuff"].lacks == "its number is of 27 classes, into which 171 are merged"
    assert cells["clippy/ade"].lacks == "its settings on this data set were not published"
    assert [cell.published for cell in plan("ablation")] == [None] * 30  # no source of these is known here


def asked(row: str, dataset: str, table: str = "field") -> list[str]:
    """Return the words that a cell asks for, in the order of its classes, those of the background first."""
    cell = next(cell for cell in plan(table) if (cell.row.name, cell.dataset) == (row, dataset))
    info, (words, _) = METHODS[cell.row.method], DATASETS[dataset]
    method: Any = object.__new__(info.load.__self__)
    method.config = info.presets[f"{cell.row.method}/{dataset}"]
    vocabulary = benchmark_vocabulary(cell.vocabulary, class_names(words), words)
    background = vocabulary.words.get("background") or method._surroundings(vocabulary)
    return [*background, *(word for cls in class_names(words) for word in vocabulary.words[cls])]


def named(benchmark: str, **names: str) -> list[str]:
    """Return the names of the classes, some of them others."""
    return [names.get(name, name) for name in class_names(benchmark)]


split = str.split
GROUNDS = split("sky wall tree wood grass road sea river mountain sands desk building cloud floor hill rail")
VOC_GROUNDS = [*GROUNDS, *split("bed lamp door window wardrobe ceiling shelf curtain stair fence")]
CONTEXT_ALONE = split(
    "bag bed bedclothes bench book building cabinet ceiling cloth computer cup curtain door fence floor flower food"
    " grass ground keyboard light mountain mouse plate platform road rock shelves sidewalk sign sky snow track tree"
    " truck wall water window wood"
)
SHIP = {"boat": "ship", "diningtable": "table"}
PLANT = {"pottedplant": "plant", "tvmonitor": "monitor"}
POTTED = {"aeroplane": "airplane", "pottedplant": "potted plant", "tvmonitor": "tv monitor"}
TELEVISION = {"diningtable": "table", "pottedplant": "potted plant", "tvmonitor": "television monitor"}


@pytest.mark.parametrize(("row", "dataset", "background", "names"), [
    ("proxyclip", "voc21", VOC_GROUNDS, named("voc", **SHIP)),
    ("proxyclip", "voc20", [], named("voc", **SHIP)),
    ("proxyclip", "object81", GROUNDS, named("coco-object")),  # and "bed", which is a class as well
    ("corrclip", "voc21", VOC_GROUNDS, named("voc", **SHIP, person="people")),
    ("corrclip", "context60", ["background"], named("context", person="people")),
    ("corrclip", "object81", GROUNDS, named("coco-object", person="people")),
    ("groupvit-yfcc", "voc21", [], named("voc", **PLANT, diningtable="table")),
    ("groupvit-redcaps", "context60", [], named("context", **PLANT, aeroplane="airplane")),
    ("ovsegmentor", "voc21", [], named("voc", **PLANT, diningtable="table")),
    ("maskclip", "voc20", [], named("voc", **POTTED, diningtable="dining table")),
    ("maskclip", "context59", [], named("context", **POTTED)),
    ("clippy", "voc21", ["background", *CONTEXT_ALONE], named("voc", **TELEVISION)),
])  # fmt: skip
def test_a_cell_asks_for_the_words_of_the_official_code(row, dataset, background, names):
    words = asked(row, dataset)
    assert sorted(words[: -len(names)]) == sorted(background)
    assert words[-len(names) :] == names


def test_corrclips_numbers_are_of_metaclip():
    cells = [cell for cell in plan("field") if cell.row.name == "corrclip"]
    places = {(part.setting, part.place) for cell in cells for part in parts_of(cell, Places(Path(), Path()))}
    assert [place for setting, place in places if setting == "model"] == ["facebook/metaclip-b16-fullcc2.5b"]


def test_names_of_coco_stuff_are_those_of_the_official_code():
    words = asked("corrclip", "stuff171")
    assert (words[0], words[9], words[84]) == ("people", "trafficlight", "building-other")
    words = asked("maskclip", "stuff171", "table3")
    assert words == asked("maskclip", "stuff171")
    assert {"traffic light", "building", "tile ceiling", "brick wall", "wall", "solid", "blind window"} < {*words}
    assert not [word for word in words if "-" in word]


def test_a_row_whose_method_is_not_there_stands_with_its_published_number(monkeypatch):
    monkeypatch.setattr(plans, "METHODS", {name: info for name, info in METHODS.items() if name != "tcl"})
    [cell] = [cell for cell in plan("table3") if cell.name == "tcl/voc"]
    assert (cell.published, cell.lacks) == (55.0, "the method tcl is not part of this version")
    assert "| TCL with PAMR, 448 px | 55.0 / - |" in results("table3", [Outcome(cell)])


def test_rows_and_columns_are_chosen_by_name():
    cells = plan("table3")
    assert [cell.name for cell in chosen(cells, ["tcl"], ["voc", "ade"])] == ["tcl/voc", "tcl/ade"]
    assert chosen(cells, [], []) == cells
    with pytest.raises(ConfigError, match="no row 'tlc'"):
        chosen(cells, ["tlc"], [])


def test_scores_of_single_classes_are_of_classes_and_their_mean_is_the_published_score():
    [cell] = [cell for cell in plan("table3") if cell.name == "groupvit/voc"]
    assert len(cell.classes) == 21
    assert sum(cell.classes.values()) / 21 == pytest.approx(cell.published, abs=0.05)
    assert set(cell.classes) == {"background", *class_names("voc")}


def report_of(miou: float, **more: Any) -> dict[str, Any]:
    """A report of an evaluation with this score by all rules."""
    same = {"miou_by_protocol": {"standard": miou, "authors": miou}, "miou_by_meaning": {"truth": miou}}
    names = {"named_per_image": 1.0, "true_per_image": 1.0, "recall": 1.0, "precision": 1.0}
    made = {"method": "m", "model": "n", "revision": "r", "device": "cpu", "dtype": "auto", "version": "1"}
    made |= {"vocabulary": "plain", "names": "given"}
    score = {"miou": miou, "images": 4, "failed": 0}
    base = {"score": score, "also": same, "names": names, "losses": None, "classes": [], "seconds": {"read": 2.0}}
    return base | {"settings": made} | more


def find(name: str, table: str = "table3") -> Cell:
    return next(cell for cell in plan(table) if cell.name == name)


@pytest.mark.parametrize(("miou", "marked"), [(0.518, False), (0.5181, True), (0.508, False), (0.5079, True)])
def test_a_difference_above_half_a_point_is_marked(miou, marked):
    assert Outcome(find("pnp-blip-336/voc"), report_of(miou)).is_marked == marked


def test_what_to_look_at_names_rule_names_and_classes():
    also = {"miou_by_protocol": {"authors": 0.40, "standard": 0.512}, "miou_by_meaning": {"zero": 0.30, "one": None}}
    names = report_of(0)["names"] | {"named_per_image": 1.334}
    classes = [{"class": f"c{n}", "iou": n / 10} for n in range(7)] + [{"class": "none", "iou": None}]
    outcome = Outcome(find("pnp-blip-336/voc"), report_of(0.40, also=also, names=names, classes=classes), ("data: x",))
    lines = look_at(outcome)
    assert lines[0] == "data: x"
    assert lines[1] == "protocol: by protocol standard it would be 51.2, nearer to 51.3"
    assert lines[2] == "naming: 1.33 classes per image; the authors' names keep 1.40"
    assert "--oracle" in lines[3]
    assert lines[4].endswith("the lowest of ours are c0 0.0, c1 10.0, c2 20.0, c3 30.0, c4 40.0")
    losses = {"miou_with_true_names": 0.6, "lost_to_naming": 0.2, "lost_to_localisation": 0.4}
    lines = look_at(Outcome(find("pnp-blip-336/voc"), report_of(0.40, losses=losses)))
    assert "naming costs 20.0 points, localisation 40.0; with the true names it is 60.0" in lines
    assert not any("protocol:" in line for line in lines)  # no other rule is nearer


def test_what_to_look_at_compares_single_classes_where_they_are_published():
    classes = [{"class": name, "iou": iou / 100} for name, iou in find("groupvit/voc").classes.items()]
    classes[3]["iou"] -= 0.3
    classes[7]["iou"] += 0.1
    lines = look_at(Outcome(find("groupvit/voc"), report_of(0.4, classes=classes)))
    [line] = [line for line in lines if "bird" in line]
    assert "first author, github.com/NVlabs/GroupViT/issues/32): bird 21.6 (51.6), car 75.1 (65.1), " in line


# What stands in the docs


def test_the_page_of_results_has_what_the_tool_writes_while_nothing_is_measured(tmp_path):
    page = ROOT / "docs/results.md"
    copy = Path(shutil.copy(page, tmp_path))
    for table in TABLES:
        write_results(copy, table, outcomes(table, tmp_path / "none", {}))
    assert copy.read_text() == page.read_text(), "run: python -m tools.results"
    assert "51.3 / not measured" in page.read_text()


def test_the_page_of_results_gets_what_was_measured(tmp_path):
    page = Path(shutil.copy(ROOT / "docs/results.md", tmp_path))
    found = [Outcome(find("tcl/voc"), report_of(0.5512)), Outcome(find("tcl/ade"), report_of(0.3))]
    write_results(page, "table3", found)
    text = page.read_text()
    assert "| TCL with PAMR, 448 px | 55.0 / 55.1 |  |  |  | 17.1 / **30.0** |  |" in text
    assert "| tcl/voc | 55.0 | 55.1 | +0.1 | standard | plain | given | 4 | r | 0.5 |  |" in text
    assert text.count("not measured") == (ROOT / "docs/results.md").read_text().count("not measured") - results(
        "table3", outcomes("table3", tmp_path, {})
    ).count("not measured")
    write_results(page, "table3", found)
    assert page.read_text() == text
    page.write_text("nothing")
    with pytest.raises(InputError, match="has no place for table3; write '<!-- pnp-ovss reproduce table3"):
        write_results(page, "table3", found)


# Whole tables


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """All data sets and all weights of Table 3: the released files in a folder, the others on a hub of this machine."""
    root = tmp_path_factory.mktemp("world")
    with pytest.MonkeyPatch.context() as patch, connected(patch, root) as hub:
        patch.setattr(command, "FIRST", 1)
        make_data(root / "data", others=1, width=16)
        weights = make_weights(root / "weights")
        pass_for_published(patch, root / "data", weights)
        for name in [path.name for path in weights.iterdir() if path.name in SHORT_NAMES]:
            shutil.move(weights / name, root / "hub" / name)
            hub.repositories[str(SHORT_NAMES[name].source)] = Repository(root / "hub" / name)
        patch.chdir(root)
        yield root


def start(out: str) -> int:
    """Start Table 3 in a process of its own; return its number."""
    child = os.fork()
    if not child:
        code = 70
        try:
            sys.stdout = sys.stderr = open(f"{out}.log", "a", buffering=1)  # noqa: SIM115
            tqdm.set_lock(threading.RLock())  # its own is shared with processes that were killed
            code = main(["reproduce", "table3", *HERE, "--out", out])
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    return child


def wait(child: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


IN_PARTS = """
import sys
from pnp_ovss.cli import main, reproduce
reproduce.FIRST = reproduce.PART = 1
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.slow
def test_ray_does_parts_of_cells_side_by_side_with_the_same_result(desk):
    pytest.importorskip("ray")
    asked = ["reproduce", "table3", *HERE, *TWO, "--anyway", "--out"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    with tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True) as folder:  # a short path, for sockets
        environment |= {"RAY_TMPDIR": folder, "OMP_NUM_THREADS": "1"}
        for more in (["here"], ["out", "--engine", "ray", "--cluster", "local", "--models", "2"]):
            command = [sys.executable, "-c", IN_PARTS, *asked, *more]
            done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
            assert done.returncode == 0, done.stderr
    assert len(measured()) == 2
    assert without_times(Path("out/report.json")) == without_times(Path("here/report.json"))


@pytest.mark.slow
def test_the_whole_of_table_3_runs_and_kills_change_nothing(world):
    began = time.monotonic()
    assert wait(start("whole")) == 0, Path("whole.log").read_text()[-3000:]
    took = time.monotonic() - began
    able = {cell.name for cell in plan("table3") if not cell.lacks}
    assert set(measured("whole/report.json")) == able
    rng = random.Random(0)
    for _ in range(3):
        child = start("killed")
        signal.sigtimedwait([], rng.uniform(0.02, 0.1) * took)  # so soon that none is done before
        os.kill(child, signal.SIGKILL)
        assert wait(child) == -signal.SIGKILL
    assert wait(start("killed")) == 0, Path("killed.log").read_text()[-3000:]
    assert without_times(Path("killed/report.json")) == without_times(Path("whole/report.json"))
