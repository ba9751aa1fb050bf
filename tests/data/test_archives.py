"""The benchmarks' archives: from a server that breaks off, lies or is gone, into folders that the evaluation reads."""

import errno
import io
import os
import re
import shutil
import tarfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from archive_server import Server, archives, bundle, serve, sources, tar
from pnp_ovss.cli import data as command, main
from pnp_ovss.data import IGNORE, archives as fetching, load_dataset
from pnp_ovss.data.archives import HIDDEN, SOURCES, Archive, get, is_here
from pnp_ovss.errors import InputError
from terminal import errors_of

VOC = "VOCtrainval_11-May-2012.tar"
PHOTO = "VOCdevkit/VOC2012/JPEGImages/2007_1.jpg"


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> dict[str, bytes]:
    return archives(tmp_path_factory.mktemp("archives"))


@pytest.fixture
def server(made, monkeypatch) -> Iterator[Server]:
    for variable in ("no_proxy", "NO_PROXY"):
        monkeypatch.setenv(variable, "127.0.0.1,localhost")
    monkeypatch.setattr(fetching, "PAUSES", (0.0, 0.0))
    monkeypatch.setattr(os, "sync", lambda: None)  # of the whole machine, which may have much to write
    with serve() as running:
        running.files = dict(made)
        monkeypatch.setattr(command, "SOURCES", sources(running))
        yield running


def voc(server: Server, **changes) -> Archive:
    return replace(sources(server)["voc"].archives[0], **changes)


def left(folder: Path) -> list[str]:
    """Return what lies in a folder, and is no file of a data set."""
    return sorted(path.name for path in folder.rglob("*") if HIDDEN in path.parts and path.is_file())


@pytest.mark.parametrize(("source", "name", "expected"), [
    ("voc", "voc21", {"2007_1": [[0, 15, IGNORE], [20, 1, 0]]}),
    ("context", "context60", {"2008_7": [[1, 0, 0], [1, 0, 0]]}),
    ("coco", "object81", {"000000000002": [[1, 12, 80, 0, 0, 0]] * 5}),
    ("coco", "stuff171", {"000000000001": [[1, 12, 80, 81, 171, IGNORE]] * 5}),
    ("panoptic", "panoptic133", {"000000000002": [[133] * 6] * 5}),
    ("ade", "ade150", {"ADE_validation_1": [[IGNORE, 1, 150]]}),
])  # fmt: skip
def test_a_data_set_is_fetched_into_the_layout_that_its_loader_reads(server, tmp_path, capsys, source, name, expected):
    assert main(["data", "get", source, "--to", str(tmp_path), "--quiet"]) == 0
    dataset = load_dataset(name, tmp_path)
    truths = {sample.key: dataset.truth(sample).tolist() for sample in dataset.samples if sample.photo().any()}
    assert truths == truths | expected
    names = [archive.name for archive in SOURCES[source].archives]
    assert left(tmp_path) == sorted(f"{name}.json" for name in names)
    assert not [
        path
        for path in tmp_path.rglob("*")
        if re.search("training|/train2017|_train2017|zip$", str(path.relative_to(tmp_path)))
    ]
    asked = len(server.asked)
    assert main(["data", "get", source, "--to", str(tmp_path)]) == 0
    assert len(server.asked) == asked == len(names)
    said = capsys.readouterr().out
    assert all(f"{name}: all of it is there" in said for name in names)
    assert f"pnp-ovss evaluate {SOURCES[source].data_sets.split(',')[0]} --root {tmp_path}" in said


def test_data_sets_share_a_folder_and_what_they_have_in_common(server, tmp_path):
    assert main(["data", "get", *SOURCES, "--to", str(tmp_path), "--quiet"]) == 0
    assert len([name for name, *_ in server.asked if name == "val2017.zip"]) == 1
    for source in SOURCES.values():
        for name in source.data_sets.split(", "):
            assert load_dataset(name, tmp_path).samples


def test_only_what_the_scoring_needs_is_unpacked(server, tmp_path):
    get(voc(server), tmp_path)
    assert sorted(path.relative_to(tmp_path).as_posix() for path in (tmp_path / "VOCdevkit").rglob("*.*")) == [
        "VOCdevkit/VOC2012/ImageSets/Segmentation/val.txt", PHOTO, "VOCdevkit/VOC2012/SegmentationClass/2007_1.png",
    ]  # fmt: skip


def test_the_table_has_an_official_address_for_everything_and_invents_nothing():
    lengths = {"md5": 32, "sha1": 40, "sha256": 64}
    for source in SOURCES.values():
        assert source.title
        assert source.licence
        for archive in source.archives:
            assert all(re.fullmatch(rf"https?://[\w./:-]+/{re.escape(archive.name)}", one) for one in archive.places)
            algorithm, _, digest = archive.digest.partition(":")
            assert not digest or (len(digest) == lengths[algorithm] and int(digest, 16) and archive.source)
            assert digest or archive.name.endswith(".zip")  # which has checksums of its own
            assert archive.take or archive.name.endswith(".json")


def test_the_list_says_address_size_checksum_and_licence_and_what_is_not_known(server, tmp_path, capsys):
    get(sources(server)["ade"].archives[0], tmp_path)
    assert main(["data", "list", "--to", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert f"{VOC}: 0.00 GB ({len(server.files[VOC])} bytes); md5 " in said
    assert "stuffthingmaps_trainval2017.zip: size not known exactly: 659 MB" in said
    assert re.search("ADEChallengeData2016.zip: size not known; sha1 .*; in the folder", said)
    assert said.count("licence: ") == len(SOURCES)
    assert said.count("in the folder") == 1


def test_a_broken_download_goes_on_where_it_ended(server, tmp_path):
    server.cut = [1000, 3000]
    heard: list[tuple[str, int, int]] = []
    assert get(voc(server), tmp_path, lambda *step: heard.append(step))
    size = len(server.files[VOC])
    assert [(asked, sent) for _, asked, sent in server.asked] == [
        (None, 1000), ("bytes=1000-", 3000), ("bytes=4000-", size - 4000),
    ]  # fmt: skip
    assert ("fetch", 1000, size) in heard
    assert heard[-1] == ("unpack", 3, 3)
    assert (tmp_path / PHOTO).is_file()


def test_a_line_that_breaks_often_brings_all_of_it_in_the_end(server, tmp_path):
    server.cut = [500, 0, 0, *[500] * 12, 0, 0]
    get(voc(server), tmp_path)
    assert sum(sent for *_, sent in server.asked) == len(server.files[VOC])
    assert len(server.asked) == 18


def test_an_address_that_has_become_another_file_is_passed_over(server, tmp_path):
    server.files["gone"] = b"<html>this domain is for sale</html>"
    get(voc(server, places=(f"{server.url}/gone", f"{server.url}/{VOC}")), tmp_path)
    assert [name for name, *_ in server.asked] == ["gone", VOC]


def test_a_download_that_an_earlier_run_began_goes_on(server, tmp_path):
    server.cut = [700] + [0] * 3
    with pytest.raises(InputError, match=f"{VOC} cannot be fetched .*try again later, or put {VOC} into {tmp_path}"):
        get(voc(server), tmp_path)
    assert not (tmp_path / "VOCdevkit").exists()
    server.asked.clear()
    get(voc(server), tmp_path)
    assert [asked for _, asked, _ in server.asked] == ["bytes=700-"]


def test_an_archive_that_moved_to_another_host_is_followed_and_goes_on_there(server, tmp_path):
    """As host.robots.ox.ac.uk does to another of Oxford's."""
    server.cut = [700]
    get(voc(server, places=(f"{server.url}/moved/{VOC}",)), tmp_path)
    assert [asked for _, asked, _ in server.asked] == [None, "bytes=700-"]


def test_bytes_that_are_all_there_are_not_fetched_again(server, tmp_path):
    (tmp_path / HIDDEN).mkdir()
    (tmp_path / HIDDEN / f"{VOC}.fetched").write_bytes(server.files[VOC])
    get(voc(server), tmp_path)
    assert [sent for *_, sent in server.asked] == [0]


@pytest.mark.parametrize("changes", [{}, {"size": None}, {"size": None, "digest": ""}])
def test_a_server_that_knows_no_ranges_begins_anew(server, tmp_path, changes):
    server.cut, server.ranges = [1000], False
    get(voc(server, **changes), tmp_path)
    assert [sent for *_, sent in server.asked] == [1000, len(server.files[VOC])]


def test_an_archive_that_changed_meanwhile_is_not_glued_to_what_came_before(server, tmp_path):
    server.cut = [1000] + [0] * 3
    with pytest.raises(InputError):
        get(voc(server, digest="", size=None), tmp_path)
    server.tag = '"2"'
    get(voc(server, digest="", size=None), tmp_path)
    assert server.asked[-1] == (VOC, "bytes=1000-", len(server.files[VOC]))


@pytest.mark.parametrize("tag", ['W/"1"', ""])
def test_without_a_checksum_a_server_has_to_say_that_its_file_is_the_same_one(server, tmp_path, tag):
    server.cut, server.tag = [1000], tag
    get(voc(server, digest="", size=None), tmp_path)
    assert [asked for _, asked, _ in server.asked] == [None, None]


def test_without_a_checksum_nothing_is_taken_for_the_beginning_of_another_addresss_file(server, tmp_path):
    server.cut, other = [1000] + [0] * 3, f"{server.url}/other"
    server.files["other"] = server.files[VOC]
    get(voc(server, digest="", places=(f"{server.url}/{VOC}", other)), tmp_path)
    assert server.asked[-1] == ("other", None, len(server.files[VOC]))
    shutil.rmtree(tmp_path / "VOCdevkit")  # with one, the bytes that are there count
    server.cut = [1000] + [0] * 3
    get(voc(server, places=(f"{server.url}/{VOC}", other)), tmp_path)
    assert server.asked[-1] == ("other", "bytes=1000-", len(server.files[VOC]) - 1000)


@pytest.mark.parametrize(("changes", "spoil", "message"), [
    ({}, {"status": 404}, f"{VOC} cannot be fetched .http://127.0.0.1:\\d+/{VOC}: the server answered 404.; try again"),
    ({}, {"status": 503}, "the server answered 503"),
    ({"places": ("http://127.0.0.1:9/x", "http://127.0.0.1:9/y")}, {}, "/x: .*refused; .*/y: .*refused"),
    ({"size": 7}, {}, f"/{VOC}: it has another file, of \\d+ bytes and not 7.; try again later, or put {VOC} into"),
    ({"size": 7}, {"length": False}, f"expected {VOC} with 7 bytes, got \\d+: it was altered, or is damaged; fetch"),
    ({"digest": "md5:" + "0" * 32}, {}, f"expected {VOC} with md5 0+, got [0-9a-f]{{32}}: it was altered, or is damag"),
    ({"size": None, "digest": ""}, {"files": {VOC: b"<html>"}}, f"{VOC} cannot be unpacked .*fetch it again"),
    ({"take": ("VOCdevkit/VOC2013/",)}, {}, f"expected VOCdevkit/VOC2013/ in {VOC}, got no such file: it was changed"),
])  # fmt: skip
def test_what_goes_wrong_is_one_line_and_nothing_is_unpacked(
    server, tmp_path, monkeypatch, capsys, changes, spoil, message
):
    for name, what in spoil.items():
        setattr(server, name, getattr(server, name) | what if name == "files" else what)
    archive = voc(server, **changes)
    monkeypatch.setitem(command.SOURCES, "voc", replace(SOURCES["voc"], archives=(archive,)))
    assert main(["data", "get", "voc", "--to", str(tmp_path), "--quiet"]) == 2
    [line] = errors_of(capsys)
    assert re.search(message, line), line
    assert len(server.asked) == (3 if 503 in spoil.values() else len(server.asked) and 1)
    assert [path.name for path in tmp_path.iterdir()] == [HIDDEN]
    assert "take" in changes or left(tmp_path) == []  # bytes of another file would only be in the way


def test_a_damaged_zip_without_a_known_checksum_is_found_by_its_own(server, tmp_path):
    archive = next(one for one in sources(server)["coco"].archives if one.name.startswith("stuff"))
    content = bytearray(server.files[archive.name])
    content[content.rindex(b"IDAT") + 6] ^= 1
    server.files[archive.name] = bytes(content)
    with pytest.raises(InputError, match="cannot be unpacked .Bad CRC-32 for file 'val2017/0"):
        get(archive, tmp_path)
    assert not (tmp_path / "stuffthingmaps").exists()
    assert left(tmp_path) == []


def test_without_room_there_is_one_line_and_what_came_stays(server, tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: shutil._ntuple_diskusage(9, 9, 0))
    with pytest.raises(
        InputError, match=r"expected 0.00 GB free in .*, got 0.00; make room or give another folder with"
    ):
        get(voc(server), tmp_path)
    monkeypatch.undo()
    write = os.write

    class Full(io.FileIO):
        def write(self, chunk):
            write(self.fileno(), bytes(chunk)[:500])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(fetching, "open", lambda path, mode: Full(path, mode), raising=False)
    with pytest.raises(InputError, match="cannot be written .no space left on device.; make room"):
        get(voc(server), tmp_path)
    monkeypatch.undo()
    get(voc(server), tmp_path)
    assert server.asked[-1][1] == "bytes=500-"


@pytest.mark.parametrize("name", ["VOCdevkit/VOC2012/JPEGImages/../../../../evil", "/VOCdevkit/evil"])
@pytest.mark.parametrize("ending", ["tar", "zip"])
def test_no_file_of_an_archive_lands_elsewhere(server, tmp_path, name, ending):
    folder = tmp_path / "a/b"
    folder.mkdir(parents=True)
    content = {"tar": tar, "zip": bundle}[ending]({name: b"evil"})
    archive = Archive(f"a.{ending}", take=(name.rpartition("/")[0],))
    (folder / archive.name).write_bytes(content)
    with pytest.raises(InputError, match=f"holds {name}, which would lie outside the folder; fetch the official one"):
        get(archive, folder)
    assert [path.name for path in tmp_path.rglob("*") if path.name == "evil"] == []


def test_links_and_rights_of_an_archive_are_not_made(tmp_path):
    with tarfile.open(tmp_path / "a.tar", "w") as made:
        for name, kind in (("x/link", tarfile.SYMTYPE), ("x/hard", tarfile.LNKTYPE), ("x/file", tarfile.REGTYPE)):
            entry = tarfile.TarInfo(name)
            entry.type, entry.linkname, entry.mode = kind, "/etc/passwd", 0o6777
            made.addfile(entry)
    get(Archive("a.tar", take=("x/",)), tmp_path)
    [file] = (tmp_path / "x").iterdir()
    assert (file.name, oct(file.stat().st_mode & 0o7777)) == ("file", "0o755")


def test_an_archive_that_lies_in_the_folder_is_taken_and_stays(server, tmp_path):
    (tmp_path / VOC).write_bytes(server.files[VOC])
    assert get(voc(server), tmp_path)
    assert server.asked == []
    assert (tmp_path / VOC).is_file()
    (tmp_path / VOC).write_bytes(server.files[VOC][:-1])
    shutil.rmtree(tmp_path / "VOCdevkit")
    with pytest.raises(InputError, match=f"expected {VOC} with \\d+ bytes, got"):
        get(voc(server), tmp_path)
    assert (tmp_path / VOC).is_file()


def test_a_folder_that_others_fill_may_be_read_only(server, tmp_path, monkeypatch):
    get(voc(server), tmp_path)
    monkeypatch.setattr(os, "access", lambda *asked: False)  # root may write anywhere
    monkeypatch.setattr(fetching, "hold", None)
    assert not get(voc(server), tmp_path)


@pytest.mark.parametrize("spoil", [
    lambda folder: (folder / PHOTO).unlink(),
    lambda folder: (folder / PHOTO).write_bytes(b"short"),
    lambda folder: (folder / HIDDEN / f"{VOC}.json").write_text("{"),
])  # fmt: skip
def test_a_tree_that_is_not_whole_any_more_is_fetched_again(server, tmp_path, spoil):
    get(voc(server), tmp_path)
    spoil(tmp_path)
    assert not is_here(voc(server), tmp_path)
    assert get(voc(server), tmp_path)
    assert is_here(voc(server), tmp_path)


def test_ctrl_c_says_that_the_same_command_goes_on(server, tmp_path, monkeypatch, capsys):
    def stop(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(fetching, "_unpack", stop)
    assert main(["data", "get", "voc", "--to", str(tmp_path), "--quiet"]) == 130
    assert errors_of(capsys) == ["pnp-ovss: stopped; the same command goes on"]
    monkeypatch.undo()
    monkeypatch.setattr(command, "SOURCES", sources(server))
    assert main(["data", "get", "voc", "--to", str(tmp_path), "--quiet"]) == 0
    assert [sent for *_, sent in server.asked] == [len(server.files[VOC]), 0]


@pytest.mark.parametrize(("arguments", "message"), [
    (["get", "vox", "--to", "x"], "no data set 'vox'; expected voc, context, coco, panoptic, ade"),
    (["get", "voc"], "expected data sets and a folder: pnp-ovss data get voc --to DIR; they are voc,"),
    (["get", "--to", "x"], "expected data sets and a folder"),
])  # fmt: skip
def test_wrong_use_is_one_line(arguments, message, capsys):
    assert main(["data", *arguments]) == 2
    [line] = errors_of(capsys)
    assert message in line
