"""The Label Studio backend, asked by HTTP as Label Studio asks it."""

import base64
import io
import json
import warnings
from http.server import BaseHTTPRequestHandler, HTTPServer

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("fastapi")

from starlette.testclient import TestClient

from local_server import running
from pnp_ovss import InputError
from pnp_ovss.apps import guard, pages
from pnp_ovss.apps.guard import Access
from pnp_ovss.apps.jobs import Models
from pnp_ovss.apps.label_studio import Backend, parse_interface, read_photo
from pnp_ovss.apps.service import create_app
from pnp_ovss.cli import main
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
    """Return what asks a backend below the service."""
    assert scene.things == NAMES
    folder = tmp_path_factory.mktemp("files")
    (folder / "upload").mkdir()
    (folder / "upload/scene 1.png").write_bytes(png(scene.image))
    models = Models([("pnp", "mini-blip")], "cpu", None, 10**6)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pages, "make_examples", list)
        app = create_app([models], Access(work_a_minute=10**6), Backend(segmenter, folder))
    with TestClient(app, base_url="http://127.0.0.1") as client:

        def ask(path: str, body: bytes | dict | None = None) -> tuple[int, dict]:
            content = json.dumps(body).encode() if isinstance(body, dict) else body
            address = f"/label-studio{path}"
            answer = client.get(address) if content is None else client.post(address, content=content)
            return answer.status_code, answer.json()

        yield ask


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


def test_a_photo_that_does_not_fit_into_the_memory_is_one_line(ask, inlined, monkeypatch):
    monkeypatch.setattr("pnp_ovss.segmenter.room", lambda budget: 0)
    status, answer = ask("/predict", request(inlined))
    assert status != 200
    assert answer["error"].startswith("task 0: the photo needs 0.2 GB of memory, and there is room for 0.0 GB; ")


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
        (request("/etc/passwd"), "is no file of Label Studio's below --label-studio; nothing is fetched"),
        (request("file:///etc/passwd"), "is no file of Label Studio's below --label-studio; nothing is fetched"),
        (request("http://127.0.0.1:1/x.png"), "is no file of Label Studio's below --label-studio; nothing is fetched"),
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


def test_a_request_that_is_too_long_is_refused(ask, monkeypatch):
    monkeypatch.setitem(guard.LIMITS, "/label-studio/predict", 1000)
    status, answer = ask("/predict", bytes(2000))
    assert (status, answer["error"]) == (413, "expected a request of at most 1000 bytes, got 2000")


def test_a_place_of_photos_that_is_none_is_named(capsys):
    assert main(["serve", "--label-studio", "/nonexistent"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith(
        "expected the address of Label Studio or the folder of its files, got --label-studio /nonexistent"
    )


@pytest.fixture
def studio(scene):
    """A Label Studio that has one photo, for those with its access token: its address, and what it was asked."""
    asked = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            known = self.path == "/data/upload/a.png" and self.headers["Authorization"] == "Token key"
            self.send_response(200 if known else 404)
            self.end_headers()
            self.wfile.write(png(scene.image) if known else b"")

        def log_message(self, *_):
            pass

    with running(HTTPServer(("127.0.0.1", 0), Handler)) as url:
        yield url, asked


def test_photos_come_from_the_label_studio_that_was_named_and_no_other(studio, scene):
    host, asked = studio
    for address in ("/data/upload/a.png", f"{host}/data/upload/a.png"):
        assert np.array_equal(read_photo(address, host, "key"), scene.image)
    assert asked == ["/data/upload/a.png"] * 2
    others = (
        "http://127.0.0.1:1/data/a.png",
        f"{host}@127.0.0.1:1/data/a.png",
        "//127.0.0.1:1/data/a.png",
        "/etc/passwd",
    )
    below = ("/api/projects", "/data/../api/x", "/data/%2e%2e/api/x", "file:///data/a.png", "http://[/data/a.png")
    for address in (*others, *below):
        with pytest.raises(InputError, match="nothing is fetched from elsewhere|cannot be read"):
            read_photo(address, host, "key")
    assert len(asked) == 2
    with pytest.raises(InputError, match="there is no photo|cannot be fetched"):
        read_photo("/data/upload/a.png", host, "wrong")


def test_no_file_outside_of_the_folder_is_read(scene, tmp_path):
    (tmp_path / "a.png").write_bytes(png(scene.image))
    assert read_photo("/data/a.png", tmp_path).shape == (112, 112, 3)
    with pytest.raises(InputError, match="--label-studio"):
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
