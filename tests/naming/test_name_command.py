"""``pnp-ovss name``, and ``segment`` where a namer gives the classes, with a model of random weights."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pnp_ovss.cli import main
from pnp_ovss.data.vocabulary import BENCHMARKS
from pnp_ovss.images import read_image
from pnp_ovss.naming import NAMERS

PHOTO = np.random.default_rng(0).integers(0, 255, (40, 30, 3), dtype=np.uint8)


def test_the_help_names_every_namer(capsys):
    main(["name", "--help"])
    text = "".join(capsys.readouterr().out.split())
    assert all(name in text for name in (*NAMERS, *BENCHMARKS))


@pytest.fixture
def desk(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("photos").mkdir()
    for seed, name in enumerate(("a.jpg", "b.png")):
        noise = np.random.default_rng(seed).integers(0, 256, (40, 50, 3), dtype=np.uint8)
        Image.fromarray(noise).save(Path("photos") / name)
    Path("pets.txt").write_text("dog\ncat\ntraffic light\n")
    return tmp_path


def test_name_with_the_model_that_segments(desk, tiny_blip_folder, capsys):
    flags = ["--vocabulary", "pets.txt", "--model", str(tiny_blip_folder), "--keep", "0", "--out", "names.json"]
    assert main(["name", "photos", *flags]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2
    assert lines[0].startswith("photos/a.jpg: ")
    assert all(name in lines[0] for name in ("dog", "cat", "traffic light"))
    record = json.loads(Path("names.json").read_text())
    assert record["namer"] == f"itm by {tiny_blip_folder}"
    assert set(record["photos"]) == {"a", "b"}


def test_a_photo_that_cannot_be_read_is_reported_and_the_others_are_named(desk, capsys):
    Path("photos/c.jpg").write_text("no picture")
    assert main(["name", "photos", "--namer", "given", "--names", "dog,cat"]) == 1
    out, err = capsys.readouterr()
    assert out.splitlines() == ["photos/a.jpg: dog 100 %, cat 100 %", "photos/b.png: dog 100 %, cat 100 %"]
    assert "pnp-ovss: photos/c.jpg is no picture" in err
    assert err.splitlines()[-1] == "pnp-ovss: 1 of 3 photos got no names"


@pytest.mark.parametrize(
    ("flags", "line"),
    [
        (["--namer", "gpt"], "pnp-ovss: no namer 'gpt'; the namers are given, openai, clip, itm, caption, cached"),
        (["--vocabulary", "nope"], "pnp-ovss: there is no vocabulary nope; give one of voc,"),
        (["--keep", "70"], "pnp-ovss: "),
        (["--out", "photos"], "pnp-ovss: photos is a folder; name the .json file that is to be written"),
        (["--namer", "given", "--names", "a", "--dry-run"], "pnp-ovss: --dry-run is for --namer openai; the other"),
        (["--namer", "clip", "--namer-model", "./none"], "pnp-ovss: no model './none': expected a folder"),
        (["--namer", "cached"], "pnp-ovss: the cached namer needs a file or folder; give one with --names-from"),
    ],
)
def test_wrong_use_is_one_line(desk, capsys, flags, line):
    assert main(["name", "photos", *flags]) == 2
    (text,) = capsys.readouterr().err.splitlines()
    assert text.startswith(line)


def test_two_photos_of_one_name_are_reported(desk, capsys):
    Path("other").mkdir()
    Image.fromarray(PHOTO).save("other/a.png")
    assert main(["name", "photos", "other", "--namer", "given", "--names", "dog"]) == 2
    assert "photos/a.jpg and other/a.png have one name; name them one after the other" in capsys.readouterr().err


# Segment, with classes named on the way.

SMALL = ("--size", "32", "--layer", "0", "--head", "1", "--drop", "2", "--refine", "blur")


def segment(model: Path, *flags: str) -> int:
    return main(["segment", "photos", "--classes", "auto", "--model", str(model), *SMALL, *flags])


def test_classes_are_named_by_the_model_that_segments(desk, tiny_blip_folder, capsys):
    assert segment(tiny_blip_folder, "--vocabulary", "pets.txt", "--keep", "0") == 0
    for photo in ("a", "b"):
        record = json.loads(Path(f"results/{photo}.json").read_text())
        assert set(record["classes"]) == {"background", "dog", "cat", "traffic light"}


def test_each_photo_gets_its_own_names(desk, tiny_blip_folder, capsys):
    Path("names.json").write_text('{"a": ["dog"], "b": [], "c": ["cat", "dog"]}')
    Image.fromarray(PHOTO).save("photos/c.png")
    Image.fromarray(PHOTO).save("photos/d.png")
    flags = ("--namer", "cached", "--names-from", "names.json", "--batch-size", "4")
    assert segment(tiny_blip_folder, *flags) == 1
    out, err = capsys.readouterr()
    assert "photos/b.png: nothing was named, nothing is written" in out
    assert "2 photos in results: for each a label map" in out
    assert "names.json has nothing for 'd'" in err
    assert err.splitlines()[-1] == "pnp-ovss: 1 of 4 photos could not be read or named"
    assert json.loads(Path("results/a.json").read_text())["classes"] == ["background", "dog"]
    assert json.loads(Path("results/c.json").read_text())["classes"] == ["background", "cat", "dog"]
    assert not Path("results/b.png").exists()


def test_a_wrong_namer_is_reported_before_the_model_is_fetched(desk, capsys):
    assert segment(Path("nobody/nothing"), "--namer", "gpt") == 2
    assert capsys.readouterr().err.startswith("pnp-ovss: no namer 'gpt'; the namers are given")


def test_names_that_cannot_be_used_are_reported_for_their_photo_and_the_others_are_done(desk, tiny_blip_folder, capsys):
    Path("names.json").write_text(
        json.dumps({"a": ["dog"], "b": ["cat", "Cat", "Background"], "c": [" ".join(["dog"] * 600)]})
    )
    Image.fromarray(PHOTO).save("photos/c.png")
    flags = ("--namer", "cached", "--names-from", "names.json", "--batch-size", "4")
    assert segment(tiny_blip_folder, *flags) == 1
    err = capsys.readouterr().err.splitlines()
    assert any(line.startswith("pnp-ovss: photos/c.png: ") for line in err)
    assert err[-1] == "pnp-ovss: 1 of 3 photos could not be read or named"
    assert json.loads(Path("results/a.json").read_text())["classes"] == ["background", "dog"]
    assert json.loads(Path("results/b.json").read_text())["classes"] == ["background", "cat"]
    assert not Path("results/c.json").exists()


def test_a_run_that_is_stopped_leaves_the_names_of_a_whole_one(desk, capsys, monkeypatch):
    flags = ["--namer", "given", "--names", "dog", "--out", "names.json"]
    assert main(["name", "photos", *flags]) == 0
    whole = Path("names.json").read_text()

    def stop_at_b(path):
        if "b.png" in str(path):
            raise KeyboardInterrupt
        return read_image(path)

    monkeypatch.setattr("pnp_ovss.cli.name.read_image", stop_at_b)
    assert main(["name", "photos", *flags]) == 130
    assert Path("names.json").read_text() == whole
    assert set(json.loads(Path("names.partial.json").read_text())["photos"]) == {"a"}
    assert "the names so far are in names.partial.json" in capsys.readouterr().err
    Path("names.json").unlink()
    assert main(["name", "photos", *flags]) == 130
    assert set(json.loads(Path("names.json").read_text())["photos"]) == {"a"}


def test_what_a_namer_lacks_is_reported_before_the_model_is_fetched(desk, capsys):
    model = Path("nobody/nothing")
    for flags, line in (
        (("--namer", "itm"), "itm by nobody/nothing needs a vocabulary to choose from; give --vocabulary coco-object"),
        (("--namer", "given"), "the given namer needs names"),
        (("--namer", "cached", "--names-from", "nowhere.json"), "there is no nowhere.json"),
        (("--vocabulary", "nope"), "there is no vocabulary nope"),
    ):
        assert segment(model, *flags) == 2
        assert capsys.readouterr().err.startswith(f"pnp-ovss: {line}")
        assert main(["batch", "photos", "--classes", "auto", "--model", str(model), *flags]) == 2
        assert capsys.readouterr().err.startswith(f"pnp-ovss: {line}")
        assert not Path("results").exists()


def test_a_killed_run_loses_few_names(desk, monkeypatch):
    for index in range(12):
        Image.fromarray(PHOTO).save(f"photos/c{index}.png")

    def die(path):
        if "c9" in str(path):
            raise RuntimeError("killed")
        return read_image(path)

    monkeypatch.setattr("pnp_ovss.cli.name.read_image", die)
    with pytest.raises(RuntimeError, match="killed"):
        main(["name", "photos", "--namer", "given", "--names", "dog", "--out", "names.json"])
    assert len(json.loads(Path("names.json").read_text())["photos"]) == 10
