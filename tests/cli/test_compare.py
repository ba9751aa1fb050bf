"""``pnp-ovss compare``: one picture and one table of several methods."""

import csv

import numpy as np
import pytest
from PIL import Image

from pnp_ovss import Segmenter
from pnp_ovss.cli import main
from pnp_ovss.evaluation.metrics import Confusion
from pnp_ovss.mini import THINGS, draw
from pnp_ovss.pictures import class_colours
from pnp_ovss.pictures.comparison import TILE, Column, comparison_sheet
from terminal import errors_of

METHODS = "clip=mini-clip,naclip/voc20=mini-clip"


@pytest.fixture
def photo(tmp_path):
    path = tmp_path / "photo.png"
    Image.fromarray(draw(2, 0, 64).image).save(path)
    return path


def table(folder) -> list[dict[str, str]]:
    with (folder / "comparison.csv").open() as file:
        return list(csv.DictReader(file))


def test_scenes_are_scored(tmp_path, capsys):
    out = tmp_path / "out"
    assert (
        main(["compare", "scenes", "--methods", "sclip", "--scenes", "2", "--scene-size", "64", "--out", str(out)]) == 0
    )
    segmenter, pooled = Segmenter.from_pretrained("mini-clip", method="sclip"), Confusion.empty(1 + len(THINGS))
    names = ("background", *THINGS)
    for scene in (draw(2, index, 64) for index in range(2)):
        result = segmenter(scene.image, scene.things)
        prediction = np.array([names.index(name) for name in result.classes])[result.labels]
        pooled += Confusion.of(scene.things_mask(), prediction, len(names))
    (row,) = table(out)
    assert row["mIoU"] == f"{100 * pooled.miou():.1f}"
    assert (row["method"], row["checkpoint"]) == ("sclip", "mini-clip")
    assert float(row["seconds"]) > 0
    assert row["mIoU"] in capsys.readouterr().out


def test_photos_have_no_score_and_presets_and_checkpoints_can_be_named(tmp_path, photo):
    out = tmp_path / "out"
    flags = ["--methods", METHODS, "--classes", "rocket, cactus", "--out", str(out)]
    assert main(["compare", str(photo), *flags]) == 0
    rows = table(out)
    assert [row["method"] for row in rows] == ["clip", "naclip/voc20"]
    assert "mIoU" not in rows[0]
    with Image.open(out / "comparison.png") as picture:
        assert picture.width > 3 * TILE  # the photo and two methods


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["PHOTO", "--methods", "sclap", "--classes", "dog"], "there is no method 'sclap'"),
        (["PHOTO", "--methods", "sclip/voc2=mini-clip", "--classes", "dog"], "there is no preset 'voc2'"),
        (["PHOTO", "--methods", "sclip=mini-clip"], "give either --classes"),
        (["nowhere.png", "--methods", "sclip=mini-clip", "--classes", "dog"], "there is no photo nowhere.png"),
        (["PHOTO", "--methods", "sclip=nowhere", "--classes", "dog"], "nowhere"),
    ],
)
def test_what_is_wrong_is_one_line_and_nothing_is_written(tmp_path, photo, capsys, given, message):
    out = tmp_path / "out"
    args = [str(photo) if text == "PHOTO" else text for text in given]
    assert main(["compare", *args, "--out", str(out)]) == 2
    (line,) = errors_of(capsys)
    assert message in line
    assert not out.exists()


def test_a_sheet_has_a_column_for_each_method_with_its_labels_painted():
    photos = [np.full((60, 80, 3), 90, dtype=np.uint8)]
    labels = np.zeros((60, 80), dtype=np.int64)
    labels[:, :40] = 1
    sheet = comparison_sheet(photos, [Column("one", "0.1 s", [labels])], ("background", "dog"))
    wide = comparison_sheet(photos, [Column("one", "", [labels]), Column("two", "", [labels])], ("background", "dog"))
    assert wide.width > sheet.width
    colour = class_colours(("background", "dog"))[1]
    pixels = np.asarray(sheet).reshape(-1, 3)
    painted = (np.abs(pixels - (0.45 * 90 + 0.55 * colour)) < 2).all(1).sum()
    assert painted > TILE * TILE / 4  # half of the photo's tile
    assert (pixels == colour).all(1).any()  # its chip in the legend
