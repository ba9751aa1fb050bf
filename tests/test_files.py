"""Files are whole or not there."""

import os
from pathlib import Path

import pytest
from PIL import Image

from pnp_ovss import InputError, files
from pnp_ovss.files import (
    Folder,
    check_folder,
    parse_json,
    read_bytes,
    read_json,
    read_text,
    save_png,
    write_bytes,
    write_text,
)


def test_folders_are_made_and_nothing_else_is_left(tmp_path):
    write_bytes(tmp_path / "new" / "deep" / "file.bin", b"\x00\x01")
    assert (tmp_path / "new/deep/file.bin").read_bytes() == b"\x00\x01"
    assert [path.name for path in tmp_path.rglob("*")] == ["new", "deep", "file.bin"]


def test_a_file_is_replaced_whole(tmp_path):
    write_text(tmp_path / "file.txt", "a long first content")
    write_text(tmp_path / "file.txt", "naïve 犬")
    assert (tmp_path / "file.txt").read_text(encoding="utf-8") == "naïve 犬"


def test_what_utf_8_cannot_hold_is_escaped(tmp_path):
    write_text(tmp_path / "file.txt", "\udc80")
    assert (tmp_path / "file.txt").read_text(encoding="utf-8") == "\\udc80"


def test_a_picture_comes_back_as_it_was(tmp_path):
    save_png(tmp_path / "picture.png", Image.new("RGB", (3, 2), (1, 2, 3)))
    with Image.open(tmp_path / "picture.png") as image:
        assert (image.format, image.size, image.getpixel((2, 1))) == ("PNG", (3, 2), (1, 2, 3))


def test_the_file_has_the_permissions_of_any_new_file(tmp_path):
    (tmp_path / "usual").touch()
    write_bytes(tmp_path / "ours", b"")
    assert os.stat(tmp_path / "ours").st_mode == os.stat(tmp_path / "usual").st_mode


@pytest.mark.parametrize("fault", [OSError(28, "No space left on device"), KeyboardInterrupt()])
@pytest.mark.parametrize("step", ["write", "replace"])
def test_a_write_that_fails_leaves_the_old_file_and_nothing_beside(tmp_path, monkeypatch, fault, step):
    path = tmp_path / "file.txt"
    write_text(path, "old")

    class Full:
        def __init__(self, *arguments):
            self.file = open(*arguments)  # noqa: SIM115

        def __enter__(self):
            return self

        def __exit__(self, *said):
            self.file.close()

        def write(self, content):
            self.file.write(content[:1])
            raise fault

    def refuse(source, target):
        raise fault

    if step == "write":
        monkeypatch.setattr(files, "open", Full, raising=False)
    else:
        monkeypatch.setattr(files.os, "replace", refuse)
    with pytest.raises(InputError if isinstance(fault, OSError) else KeyboardInterrupt) as refusal:
        write_text(path, "new")
    if isinstance(fault, OSError):
        said = f"{path} cannot be written (no space left on device); choose another place or make room"
        assert str(refusal.value) == said
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["file.txt"]


def test_a_long_name_can_be_written(tmp_path):
    write_text(tmp_path / ("n" * 255), "whole")
    assert (tmp_path / ("n" * 255)).read_text() == "whole"


def test_the_content_is_on_the_disk_before_the_name(tmp_path, monkeypatch):
    steps, fsync, replace = [], os.fsync, os.replace
    monkeypatch.setattr(files.os, "fsync", lambda file: (steps.append(("fsync", os.fstat(file).st_size)), fsync(file)))
    monkeypatch.setattr(files.os, "replace", lambda *all: (steps.append(("replace",)), replace(*all)))
    write_bytes(tmp_path / "file", b"abc")
    assert steps == [("fsync", 3), ("replace",)]


def test_no_file_is_one_thing_and_no_answer_another(tmp_path, monkeypatch):
    folder = Folder(tmp_path / "run")
    assert folder.read("file") is None
    folder.write("file", b"abc")
    folder.write("deep/file", b"abcd")
    assert folder.read("file") == b"abc"
    assert folder.read("file/below") is None
    assert folder.names("deep") == ["file"]
    assert folder.names("nowhere") == []
    folder.remove("file")
    folder.remove("file")
    assert folder.read("file") is None

    def broken(*all, **more):
        raise ConnectionError("the network\nis gone")

    monkeypatch.setattr(folder.files, "cat_file", broken)
    with pytest.raises(InputError, match=r"run/file cannot be reached \(the network is gone\); check the path"):
        folder.read("file")


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (None, "cannot be read \\(no such file or directory\\); check the path"),
        (b"{", "is no JSON \\(Expecting property name"),
        (b"\xff", "is no JSON"),
        (b"[1]", "expected a JSON object in .*x.json, got list; check the file"),
        (b'{"a":' * 100_000, "is no JSON \\(maximum recursion depth exceeded.*; check the file"),
        (
            b'{"a":' * 60 + b"1" + b"}" * 60,
            "expected at most 50 levels in the JSON of .*x.json, got more; check the file",
        ),
    ],
)
def test_json_that_cannot_be_used_is_one_line(tmp_path, content, line):
    if content is not None:
        (tmp_path / "x.json").write_bytes(content)
    with pytest.raises(InputError, match=line):
        read_json(tmp_path / "x.json")


def test_no_more_is_read_than_is_wanted(tmp_path):
    (tmp_path / "x.json").write_bytes(b'{"a": 1}')
    assert read_json(tmp_path / "x.json", most=8) == {"a": 1}
    for endless in (tmp_path / "x.json", Path("/dev/zero")):
        with pytest.raises(InputError, match=f"^expected at most 0 MB in {endless}, got more; check the path$"):
            read_bytes(endless, most=7)


def test_text_in_another_encoding_is_one_line(tmp_path):
    (tmp_path / "x.txt").write_bytes("dog, größer".encode("latin-1"))
    with pytest.raises(InputError, match=r"x.txt is no text in UTF-8 \(.*\); save it as UTF-8$"):
        read_text(tmp_path / "x.txt")


def test_json_may_start_with_a_byte_order_mark(tmp_path):
    (tmp_path / "x.json").write_bytes(b'\xef\xbb\xbf{"a": 1}')
    assert read_json(tmp_path / "x.json") == {"a": 1}


def test_a_folder_is_where_its_place_says(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for place in ("run", "other/../run", f"file://{tmp_path}/other/../run/"):
        assert Folder(place).root == str(tmp_path / "run")
    assert Folder("memory://bucket/run").root == "/bucket/run"


@pytest.mark.parametrize("place", ["file/out", "file", "folder/../file/out"])
def test_a_folder_that_cannot_be_is_reported(tmp_path, place):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    with pytest.raises(InputError) as refusal:
        check_folder(tmp_path / place, "--out")
    said = f"the folder {tmp_path / place} cannot be written (not a directory); give another one with --out"
    assert str(refusal.value) == said
    with pytest.raises(InputError, match="cannot be written"):
        write_text(tmp_path / place / "name", "content")


def test_checking_a_folder_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for folder in (tmp_path, tmp_path / "not/there/yet", Path("also/not"), Path(".")):
        check_folder(folder, "--out")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity"])
def test_json_has_no_such_number(number):
    with pytest.raises(InputError, match=f"a.json is no JSON \\({number} is no number of JSON\\)"):
        parse_json(f'{{"height": {number}}}'.encode(), "a.json")
