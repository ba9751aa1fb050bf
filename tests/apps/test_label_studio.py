"""The Label Studio backend, asked by HTTP as Label Studio asks it."""

import base64
import io
import json
import socket
import threading
import urllib.error
import urllib.request
import warnings

import numpy as np
import pytest
from PIL import Image

from pnp_ovss import InputError, Segmenter
from pnp_ovss.apps import label_studio
from pnp_ovss.apps.label_studio import Backend, make_server, parse_interface, read_photo
from pnp_ovss.export.label_studio import brush, interface

NAMES = ("bird", "dog", "bus", "snowman")


def png(image: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format="PNG")
    return buffer.getvalue()


@pytest.fixture(scope="module")
def inlined(scene) -> str:
    return "data:image/png;base64," + base64.b64encode(png(scene.image)).decode()


@pytest.fixture(scope="module")
def ask(segmenter, scene, tmp_path_factory):
    """Return what asks a backend on a free port; ``ask.address`` is where that is."""
    assert scene.things == NAMES
    folder = tmp_path_factory.mktemp("files")
    (folder / "upload").mkdir()
    (folder / "upload/scene 1.png").write_bytes(png(scene.image))
    server = make_server(Backend(segmenter, folder), port=0)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    # No proxy: the address is this machine's own.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def ask(path: str, body: bytes | dict | None = None) -> tuple[int, dict]:
        content = json.dumps(body).encode() if isinstance(body, dict) else body
        request = urllib.request.Request(f"http://127.0.0.1:{server.server_port}{path}", content)
        try:
            with opener.open(request, timeout=120) as reply:
                return reply.status, json.load(reply)
        except urllib.error.HTTPError as error:
            with error:
                return error.code, json.load(error)

    ask.address = server.server_address
    yield ask
    server.shutdown()
    thread.join()
    server.server_close()


def request(*addresses: str, config: str = interface(NAMES)) -> dict:
    """Return a prediction request as Label Studio sends it."""
    return {
        "tasks": [{"id": number, "data": {"image": address}} for number, address in enumerate(addresses, start=1)],
        "model_version": "",
        "project": "7.1700000000",
        "label_config": config,
        "params": {"login": None, "password": None, "context": None},
    }


def test_each_task_gets_the_masks_of_its_photo(ask, inlined, masks):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        brush = pytest.importorskip("label_studio_sdk.converter.brush")
    addresses = inlined, "/data/upload/scene%201.png", "/data/local-files/?d=upload/scene%201.png"
    status, answer = ask("/predict", request(*addresses))
    assert status == 200
    assert len(answer["results"]) == 3
    for prediction in answer["results"]:
        assert prediction["model_version"].startswith("mini-blip")
        assert 0 <= prediction["score"] <= 1
        found = {}
        for region in prediction["result"]:
            assert (region["from_name"], region["to_name"], region["type"]) == ("label", "image", "brushlabels")
            pixels = brush.decode_rle(region["value"]["rle"]).reshape(112, 112, 4)
            found[region["value"]["brushlabels"][0]] = pixels[..., 3] > 0
        assert found.keys() == masks.keys()
        assert all(np.array_equal(found[name], masks[name]) for name in masks)


def test_objects_have_masks_of_their_own(segmenter, inlined, expected):
    (prediction,) = Backend(segmenter, instances=True).predict(request(inlined))
    objects = expected.instances()
    assert len(objects) > len(expected.to_hf())
    assert [region["value"]["rle"] for region in prediction["result"]] == [brush(one.mask) for one in objects]


def test_health_and_setup_are_answered(ask):
    assert ask("/health") == ask("/") == (200, {"status": "UP", "model_class": "pnp-ovss"})
    status, answer = ask("/setup", {"project": "7.17", "schema": interface(NAMES)})
    assert status == 200
    assert answer["model_version"].startswith("mini-blip")
    assert ask("/webhook", {"action": "ANNOTATION_CREATED"})[0] == 200
    assert ask("/train", {})[0] == 404


def test_a_task_that_cannot_be_used_says_why_and_the_others_go_on(ask, inlined):
    status, answer = ask("/predict", request("/data/upload/gone.png", inlined, "data:image/png;base64,AAAA"))
    assert status == 200
    gone, good, broken = answer["results"]
    assert gone["result"] == broken["result"] == []
    assert gone["error"].startswith("task 0: there is no photo")
    assert broken["error"].startswith("task 2: the inlined photo")
    assert len(good["result"]) > 0
    assert "error" not in good


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"[]", "expected a JSON object"),
        (b"{", "Expecting property name"),
        ({}, "lacks tasks or label_config"),
        (request() | {"tasks": 5}, "lacks tasks or label_config"),
        (request() | {"label_config": 5}, "lacks tasks or label_config"),
        (request() | {"tasks": [5, {"data": 5}, {}]}, "task 0: expected a photo in the task"),
        (request("/data/upload/gone.png"), "task 0: there is no photo"),
        (request("/data/../../etc/passwd"), "outside of the folder"),
        (request("/data/local-files/?d=../secret.png"), "outside of the folder"),
        (request("/data/local-files/?d=/etc/passwd"), "task 0: there is no photo"),
        (request("/etc/passwd"), "is no file of Label Studio's below --files, and nothing is fetched"),
        (request("file:///etc/passwd"), "is no file of Label Studio's below --files, and nothing is fetched"),
        (request("http://127.0.0.1:1/x.png"), "is no file of Label Studio's below --files, and nothing is fetched"),
        (request("data:image/png;base64,@@@"), "no base64"),
        (request("data:image/png;base64,AAAA"), "no picture"),
        (request("x", config="<View>"), "no XML"),
        (request("x", config="<View><Image name='i' value='$image'/></View>"), "expected BrushLabels"),
        (
            request("x", config="<View><Image value='$image'/><BrushLabels><Label value='a'/></BrushLabels></View>"),
            "a name",
        ),
        (request("x", config=interface(())), "hold no Label"),
    ],
)
def test_a_request_that_cannot_be_answered_gets_one_line(ask, body, message):
    status, answer = ask("/predict", body)
    assert status == 400
    assert message in answer["error"]
    assert "\n" not in answer["error"]


@pytest.mark.parametrize("length", ["-1", "1e3", "2000"])
def test_a_request_that_is_too_long_is_refused_unread(ask, monkeypatch, length):
    monkeypatch.setattr(label_studio, "LARGEST", 1000)
    with socket.create_connection(ask.address, timeout=60) as client:
        client.sendall(f"POST /predict HTTP/1.1\r\nContent-Length: {length}\r\n\r\n".encode())
        answer = b"".join(iter(lambda: client.recv(10_000), b""))
    assert answer.startswith(b"HTTP/1.0 413 ")
    assert b"expected a request of at most 1000 bytes" in answer


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--port", "99999"], "127.0.0.1:99999 cannot be served"),
        (["--files", "/nonexistent"], "got --files /nonexistent"),
        (["--host", "no.such.host.invalid"], "cannot be served"),
    ],
)
def test_a_backend_that_cannot_start_says_why(segmenter, monkeypatch, capsys, arguments, message):
    monkeypatch.setattr(Segmenter, "from_pretrained", lambda *_, **__: segmenter)
    assert label_studio.main(["--model", "mini-blip", *arguments]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line


def test_a_backend_may_be_stopped_while_it_loads(monkeypatch, capsys):
    def stopped(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(Segmenter, "from_pretrained", stopped)
    assert label_studio.main(["--model", "mini-blip"]) == 130
    assert capsys.readouterr().err == ""


def test_no_file_outside_of_the_folder_is_read(scene, tmp_path):
    (tmp_path / "a.png").write_bytes(png(scene.image))
    assert read_photo("/data/a.png", tmp_path).shape == (112, 112, 3)
    with pytest.raises(InputError, match="--files"):
        read_photo("/data/a.png", None)
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner/link.png").symlink_to(tmp_path / "a.png")
    with pytest.raises(InputError, match="outside"):
        read_photo("/data/link.png", tmp_path / "inner")


def test_the_brush_on_a_picture_is_used_whatever_else_the_interface_holds():
    text = """<View><Style><![CDATA[p > a {}]]></Style><Image name="pic" value="$photo"/>
    <Video name="film" value="$film"/>
    <BrushLabels name="a" toName="film"><Label value="cat"/></BrushLabels>
    <BrushLabels name="b" toName="pic"><Label value="hot dog"/><Label value="Background"/></BrushLabels></View>"""
    assert parse_interface(text) == ("b", "pic", "photo", {"hot dog": "hot dog"})


def test_labels_come_back_as_label_studio_keeps_them(segmenter, inlined, masks):
    first, *others = NAMES
    labels = f'<Label value="{first}" alias="T1"/>' + "".join(f'<Label value="{name}  "/>' for name in others)
    config = f'<View><Image name="i" value="$image"/><BrushLabels name="b" toName="i">{labels}</BrushLabels></View>'
    (prediction,) = Backend(segmenter).predict(request(inlined, config=config))
    stored = {first: "T1"} | {name: f"{name}  " for name in others}
    assert [region["value"]["brushlabels"] for region in prediction["result"]] == [[stored[name]] for name in masks]


def test_a_photo_whose_name_no_file_has_is_one_line(tmp_path):
    with pytest.raises(InputError, match="cannot be read .*; check the task"):
        read_photo("/data/local-files/?d=a%00b.png", tmp_path)
