import json
from hashlib import sha256
from pathlib import Path

import pytest

from pnp_ovss.data import load_dataset
from pnp_ovss.data.benchmarks import ABOUT
from pnp_ovss.data.whole import differences, digest_of_ids, find_dataset, unreadable
from shared import shared
from trees import coco, photo, save, voc


def published(monkeypatch: pytest.MonkeyPatch, words: str, **whole: object) -> None:
    monkeypatch.setitem(ABOUT[words], "whole", whole)


def test_a_data_set_is_the_published_one_by_number_and_ids(tmp_path, monkeypatch):
    dataset = load_dataset("voc21", voc(tmp_path))
    assert list(differences(dataset)) == ["expected 1449 images, got 1"]
    published(monkeypatch, "voc", images=[1], ids=digest_of_ids(dataset))
    assert list(differences(dataset)) == []
    published(monkeypatch, "voc", images=[1], ids="0" * 64)
    assert list(differences(dataset)) == ["its 1 images are not those of the published list"]
    published(monkeypatch, "voc", images=[5, 1])
    assert list(differences(dataset)) == []
    listed = tmp_path / "VOCdevkit/VOC2012/ImageSets/Segmentation/val.txt"
    listed.write_text("2007_1\n2007_1\n")
    [line] = differences(load_dataset("voc21", tmp_path))
    assert line.startswith("2007_1 is listed twice")


def test_the_ids_do_not_depend_on_the_order_of_the_list(tmp_path):
    photo(tmp_path / "images/b.jpg")
    photo(tmp_path / "images/a.jpg")
    (tmp_path / "masks").mkdir()
    assert digest_of_ids(load_dataset("voc21", tmp_path)) == sha256(b"a\nb").hexdigest()


@pytest.mark.parametrize(("file", "words"), [("voc", "voc"), ("coco_object", "coco-object")])
def test_the_published_ids_are_those_of_the_authors_replies(file, words):
    keys = json.loads(shared(f"gpt4o/{file}_classification_noboundary.json").read_text())
    whole = ABOUT[words]["whole"]
    assert (whole["images"], len(whole["ids"])) == ([len(keys)], 64)
    assert sha256("\n".join(sorted(keys)).encode()).hexdigest() == whole["ids"]


def test_images_that_cannot_be_read_are_named(tmp_path):
    root = voc(tmp_path, listed="2007_1\n2007_2\n2007_3\n2007_4\n") / "VOCdevkit/VOC2012"
    for key in ("2007_2", "2007_3", "2007_4"):
        photo(root / f"JPEGImages/{key}.jpg")
        save(root / f"SegmentationClass/{key}.png", [[0, 1, 2], [3, 4, 5]], "P")
    assert list(unreadable(load_dataset("voc21", tmp_path))) == [""] * 4
    (root / "JPEGImages/2007_2.jpg").write_bytes(b"no photo")
    (root / "SegmentationClass/2007_3.png").unlink()
    save(root / "SegmentationClass/2007_4.png", [[0, 77, 2], [3, 4, 5]], "P")
    found = list(unreadable(load_dataset("voc21", tmp_path)))
    assert [line.partition(":")[0] for line in found] == ["", "2007_2", "2007_3", "2007_4"]
    assert "there is no photo" in found[1]
    assert "there is no file" in found[2] or "cannot" in found[2]
    assert "unknown label id 77" in found[3]


def test_a_data_set_is_found_in_a_folder_of_its_own(tmp_path: Path):
    assert find_dataset("object81", coco(tmp_path))[1] == tmp_path
    (tmp_path / "data/coco").parent.mkdir()
    coco(tmp_path / "data/coco")
    assert find_dataset("object81", tmp_path / "data")[1] == tmp_path / "data/coco"
