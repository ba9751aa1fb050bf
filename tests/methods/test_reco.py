"""ReCo's archive, what photos have in common, and the command; its numbers are in test_table3.py."""

import logging
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from pnp_ovss import InputError, Segmenter, load_method
from pnp_ovss.cli import main
from pnp_ovss.methods import archive as archives
from pnp_ovss.methods.archive import Archive, centre
from pnp_ovss.methods.reco import common
from pnp_ovss.models.clip import DualEncoder
from released import write_released
from tiny import tiny_clip

PLAIN = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)


class Grey(DualEncoder):
    """Stands for a CLIP whose vectors are turned by how bright a photo is."""

    size, revision, dtype, device = 8, "grey", torch.float32, torch.device("cpu")
    mean, std = (0.0, 0.0, 0.0), (1 / 255, 1 / 255, 1 / 255)

    def __init__(self) -> None:
        self.batches: list[int] = []

    def encode_images(self, pixels: torch.Tensor) -> torch.Tensor:
        self.batches.append(len(pixels))
        angle = pixels.mean((1, 2, 3)) / 255
        return torch.stack([angle.cos(), angle.sin()], 1)


def write(folder: Path, levels: dict[str, int]) -> Path:
    folder.mkdir(exist_ok=True)
    for name, level in levels.items():
        Image.new("RGB", (20, 12), (level,) * 3).save(folder / f"{name}.png")
    return folder


def names(found: list[list[Any]]) -> list[list[str]]:
    return [[Path(file.place).stem for file in row] for row in found]


DARK, BRIGHT = torch.eye(2)


@pytest.fixture
def photos(tmp_path) -> Path:
    return write(tmp_path / "photos", {"a": 200, "b": 10, "c": 255, "d": 60, "e": 130})


@pytest.mark.parametrize("part", [2, 1024])
def test_the_nearest_photos_are_found_however_many_are_in_memory(photos, part, monkeypatch):
    monkeypatch.setattr(archives, "PART", part)
    monkeypatch.setattr(archives, "AT_ONCE", 2)
    monkeypatch.setattr(Grey, "revision", f"grey {part}")
    clip = Grey()
    assert names(Archive(str(photos)).nearest(torch.stack([DARK, BRIGHT]), 3, clip)) == [
        ["b", "d", "e"],
        ["c", "a", "e"],
    ]
    assert max(clip.batches) == 2
    assert names(Archive(str(photos)).nearest(DARK[None], 9, clip)) == [["b", "d", "e", "a", "c"]]
    assert sum(clip.batches) == 5  # the second archive found what the first one kept


def test_folders_within_the_archive_belong_to_it(photos):
    flat = Archive(str(photos)).files
    for name in ("x[1]", ".hidden"):
        (photos / name).mkdir()
    (photos / "a.png").rename(photos / "x[1]" / "a.PNG")
    (photos / "b.png").rename(photos / ".hidden" / "b.png")
    assert names([Archive(str(photos)).files]) == [["c", "d", "e", "a"]]
    assert names([flat]) == [["a", "b", "c", "d", "e"]]
    assert names([Archive(str(photos / "x[1]")).files]) == [["a"]]


def test_only_what_is_new_is_encoded(photos, monkeypatch):
    monkeypatch.setattr(archives, "PART", 2)
    clip, before = Grey(), Archive(str(photos))
    before.nearest(DARK[None], 1, clip)
    write(photos, {"f": 0})
    assert names(Archive(str(photos)).nearest(DARK[None], 1, clip)) == [["f"]]
    assert clip.batches == [2, 2, 1, 2]  # e has a new neighbour; a to d are as they were
    assert Archive(str(photos)).revision != before.revision
    os.rename(photos, photos.with_name("elsewhere"))
    assert Archive(str(photos.with_name("elsewhere"))).revision == Archive(str(photos.parent / "else*/*")).revision


def test_a_photo_that_changes_meanwhile_is_one_line(photos):
    archive = Archive(str(photos))
    write(photos, {"b": 90})
    with pytest.raises(InputError, match=r"b.png has changed since the archive was read; run the same command again$"):
        archive.nearest(DARK[None], 1, Grey())
    (photos / "a.png").unlink()
    with pytest.raises(InputError, match=r"a.png has changed"):
        archive.read(archive.files[0])


def test_a_photo_that_cannot_be_read_is_left_out_and_named(photos, caplog):
    (photos / "b.png").write_bytes(b"no picture")
    clip = Grey()
    with caplog.at_level(logging.WARNING):
        assert names(Archive(str(photos)).nearest(-DARK[None], 5, clip)) == [["c", "a", "e", "d"]]
    assert [record.getMessage() for record in caplog.records] == [
        f"{photos}: its 5 photos are encoded, once",
        f"{photos}/b.png is no picture; expected a JPEG, PNG, WebP, TIFF, BMP or GIF file; it is left out",
    ]
    Archive(str(photos)).nearest(DARK[None], 1, clip)
    assert clip.batches == [5, 5]  # tried again, for somebody may have mended it
    for file in photos.iterdir():
        file.write_bytes(b"")
    with pytest.raises(InputError, match="no photo of .*photos can be read; name others with --archive"):
        Archive(str(photos)).nearest(DARK[None], 1, clip)


def test_the_middle_of_a_photo_is_looked_at():
    photo = np.zeros((4, 10, 3), np.uint8)
    photo[:, 3:7], photo[0, 3] = (0, 100, 200), (50, 0, 0)
    square = centre(photo, 4, PLAIN, Image.Resampling.BILINEAR)
    assert square.shape == (3, 4, 4)
    assert square[:, 1, 1].tolist() == [0, 100, 200]
    assert square[:, 0, 0].tolist() == [50, 0, 0]
    tall = centre(photo.transpose(1, 0, 2), 4, PLAIN, Image.Resampling.BILINEAR)
    torch.testing.assert_close(tall, square.transpose(1, 2))


def test_what_photos_have_in_common_is_found():
    thing, *others = torch.eye(4)
    patches = torch.stack([torch.stack([3 * thing, others[0]]), torch.stack([others[1], thing])])
    torch.testing.assert_close(common(patches, torch.ones(2, 2)), thing)
    # Where the thing is not seen, each photo's most visible patch counts, by the length of its features.
    expected = torch.nn.functional.normalize(others[0] + others[1], dim=0)
    torch.testing.assert_close(common(patches, torch.tensor([[0.0, 1.0], [1.0, 0.0]])), expected)
    torch.testing.assert_close(common(patches[:1], torch.tensor([[0.1, 1.0]])), others[0])


def test_the_photos_i_to_2_i_stand_for_photo_i():
    draw = torch.Generator().manual_seed(0)
    patches, weights = torch.randn(5, 3, 8, generator=draw), torch.rand(5, 3, generator=draw)
    unit = torch.nn.functional.normalize(patches, dim=-1)
    seeds = []
    for own, features in zip(unit, patches, strict=True):
        reached = [
            np.mean(
                [
                    max(float(((unit[j] @ patch) * weights[j]).max()) for j in range(i, min(2 * i + 1, 5)))
                    for i in range(5)
                ]
            )
            for patch in own
        ]
        seeds.append(features[int(np.argmax(reached))])
    torch.testing.assert_close(common(patches, weights), torch.nn.functional.normalize(sum(seeds), dim=0))


@pytest.fixture(scope="module")
def parts(tmp_path_factory) -> dict[str, Path]:
    """The models of ReCo, and an archive."""
    root = tmp_path_factory.mktemp("reco")
    folders = {name: folder for name, folder in write_released(root).items() if name in ("dense", "encoder")}
    return folders | {
        "model": tiny_clip(root / "clip"),
        "archive": write(root / "photos", {"a": 20, "b": 90, "c": 250}),
    }


def make(parts: dict[str, Path], **settings: Any) -> Any:
    return load_method("reco", device="cpu", dtype="float32", short_side=64, photo_side=64, **parts | settings)


def test_each_word_of_the_context_is_told_from_those_before_it(parts, monkeypatch):
    method, asked = make(parts, context=("sky", "tree")), list[int]()
    look = method.look
    monkeypatch.setattr(
        method, "look", lambda photos, text, context: asked.append(len(context)) or look(photos, text, context)
    )
    vectors = method.looks(["dog", "Tree", "vegetation", "tree"])
    assert asked == [0, 1, 2, 1]  # sky, tree, dog, Tree
    assert torch.equal(vectors[2], vectors[3])  # vegetation looks like the context's tree
    assert make(parts, context=("sky",)).looks(["tree"]).shape == (1, len(vectors[0]))
    monkeypatch.setattr("pnp_ovss.methods.reco.common", None)  # all is known, and kept
    assert torch.equal(make(parts, context=("sky", "tree")).looks(["dog", "Tree", "vegetation", "tree"]), vectors)
    with pytest.raises(TypeError):
        make(parts, context=("sky", "tree"), retrieved=2).looks(["dog"])


def test_the_background_is_one_of_its_words_where_that_is_asked_for(parts):
    photo = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    settings = {"refiners": (), "context": (), "background": "always", "background_words": ("sky", "dog")}
    result = Segmenter(make(parts, **settings))(photo, ["cat", "dog"])
    assert result.classes == ("background", "cat", "dog")
    alone = Segmenter(make(parts, refiners=(), context=()))(photo, ["sky", "cat", "dog"])
    np.testing.assert_array_equal(result.scores, alone.scores)
    floor = Segmenter(make(parts, **settings, prob_threshold=1.0))(photo, ["cat", "dog"])
    assert not floor.labels.any()


def test_the_command_finds_words_in_an_archive(parts, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (60, 40), (90, 90, 30)).save("photo.png")
    given = [item for name, folder in parts.items() if name != "archive" for item in (f"--{name}", str(folder))]
    command = ["segment", "photo.png", "--classes", "dog, cat", "--method", "reco", "--present", "all", *given]
    few = ["--short-side", "64", "--photo-side", "64", "--context", "tree"]
    assert main([*command, *few, "--archive", str(parts["archive"])]) == 0
    assert "photo.png: " in capsys.readouterr().out
    for archive, fault in (
        ([], "expected a folder of unlabelled photos, in which the words are looked for, got 'archive'; name one with"),
        (["--archive", "nowhere"], "got 'nowhere'; name one with --archive"),
        (["--archive", str(tmp_path / "results")], f"no picture matches {tmp_path}/results/**/*"),
    ):
        (tmp_path / "results" / "photo.png").unlink(missing_ok=True)
        (tmp_path / "results" / "photo.overlay.png").unlink(missing_ok=True)
        assert main([*command, *few, *archive]) == 2
        error = capsys.readouterr().err
        assert fault in error
        assert len(error.splitlines()) == 1
