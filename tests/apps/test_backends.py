"""The annotation back ends, asked as the tools ask them: by HTTP, through cvat-sdk's driver, as a zoo source."""

import base64
import importlib.util
import io
import json
import logging
import socket
import struct
import sys
import threading
import time
import types
import urllib.error
import urllib.request
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pnp_ovss import InputError, Segmenter, apps
from pnp_ovss.apps import label_studio
from pnp_ovss.apps.label_studio import Backend, make_server, parse_interface, read_photo
from pnp_ovss.export.label_studio import interface
from pnp_ovss.mini import draw

SCENE = draw(2, 1, 112)


@pytest.fixture(scope="module")
def segmenter() -> Segmenter:
    return Segmenter.from_pretrained("mini-blip")


@pytest.fixture(scope="module")
def truth(segmenter):
    """What the Python face finds in the scene."""
    return segmenter(SCENE.image, SCENE.things)


def masks(result) -> dict[str, np.ndarray]:
    found = {name: result.labels == index for index, name in enumerate(result.classes) if name != "background"}
    assert any(mask.any() for mask in found.values())
    return {name: mask for name, mask in found.items() if mask.any()}


def png(image: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format="PNG")
    return buffer.getvalue()


@pytest.fixture(scope="module")
def studio(segmenter, tmp_path_factory):
    """A backend on a free port, and the folder of its files; returns what asks it."""
    folder = tmp_path_factory.mktemp("files")
    (folder / "upload").mkdir()
    (folder / "upload/scene 1.png").write_bytes(png(SCENE.image))
    (folder / "upload/loop.png").symlink_to("loop.png")
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


def request(*addresses: str, config: str | None = None) -> dict:
    """Return a prediction request as Label Studio sends it."""
    return {
        "tasks": [{"id": number, "data": {"image": address}} for number, address in enumerate(addresses, start=1)],
        "model_version": "",
        "project": "7.1700000000",
        "label_config": interface(SCENE.things) if config is None else config,
        "params": {"login": None, "password": None, "context": None},
    }


def test_label_studio_is_answered(studio, truth):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        brush = pytest.importorskip("label_studio_sdk.converter.brush")
    inlined = "data:image/png;base64," + base64.b64encode(png(SCENE.image)).decode()
    addresses = inlined, "/data/upload/scene%201.png", "/data/local-files/?d=upload/scene%201.png"
    status, told = studio("/predict", request(*addresses))
    assert status == 200
    assert len(told["results"]) == 3
    for prediction in told["results"]:
        assert prediction["model_version"].startswith("mini-blip")
        assert 0 <= prediction["score"] <= 1
        found = {}
        for region in prediction["result"]:
            assert (region["from_name"], region["to_name"], region["type"]) == ("label", "image", "brushlabels")
            pixels = brush.decode_rle(region["value"]["rle"]).reshape(112, 112, 4)
            found[region["value"]["brushlabels"][0]] = pixels[..., 3] > 0
        wanted = masks(truth)
        assert found.keys() == wanted.keys()
        assert all(np.array_equal(found[name], wanted[name]) for name in wanted)


def test_label_studio_may_ask_how_it_is_and_set_up(studio):
    assert studio("/health") == studio("/") == (200, {"status": "UP", "model_class": "pnp-ovss"})
    status, told = studio("/setup", {"project": "7.17", "schema": interface(SCENE.things)})
    assert status == 200
    assert told["model_version"].startswith("mini-blip")
    assert studio("/webhook", {"action": "ANNOTATION_CREATED"})[0] == 200
    assert studio("/train", {})[0] == 404


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (b"[]", "no JSON object"),
        (b"{", "no JSON object"),
        (b'{"tasks": ' + b"[" * 100_000, "no JSON object"),
        ({}, "lacks tasks or label_config"),
        (request("/data/upload/gone.png"), "task 0: there is no photo"),
        (request("/data/../../etc/passwd"), "outside of the folder"),
        (request("/data/local-files/?d=../secret.png"), "outside of the folder"),
        (request("/data/local-files/?d=/etc/passwd"), "task 0: there is no photo"),
        (request("/data/upload/loop.png"), "is no file's name (Symlink loop"),
        (request("/data/\ud800"), "is no file's name ('utf-8' codec can't encode"),
        (request("/data/\0"), "is no file's name (embedded null byte)"),
        (request("/etc/passwd"), "is no file of Label Studio's, and nothing is fetched"),
        (request("file:///etc/passwd"), "is no file of Label Studio's, and nothing is fetched"),
        (request("http://127.0.0.1:1/x.png"), "is no file of Label Studio's, and nothing is fetched"),
        (request("http://["), "is no file of Label Studio's, and nothing is fetched"),
        (request("data:image/png;base64,@@@"), "no base64"),
        (request("data:image/png;base64,é"), "no base64"),
        (request("data:image/png;base64,AAAA"), "no picture"),
        (request("x", config="<View>"), "no XML"),
        (request("x", config='<!DOCTYPE a [<!ENTITY b "c">]><View/>'), "document type"),
        (request("x", config="<View><Image name='i' value='$image'/></View>"), "no BrushLabels"),
        (request("x", config="<View>\ud800</View>"), "no XML"),
        (
            request("x", config="<View><Image value='$image'/><BrushLabels><Label value='a'/></BrushLabels></View>"),
            "a name",
        ),
        (request("x", config=interface(())), "hold no Label"),
    ],
)
def test_a_request_that_cannot_be_answered_is_told_in_one_line(studio, body, told):
    status, answer = studio("/predict", body)
    assert status == 400
    assert told in answer["error"]
    assert "\n" not in answer["error"]


@pytest.mark.parametrize("length", ["9" * 5000, "-1", "1e3", "2000"])
def test_a_request_that_is_too_long_is_told(studio, monkeypatch, length):
    monkeypatch.setattr(label_studio, "LARGEST", 1000)
    head = f"POST /predict HTTP/1.1\r\nContent-Length: {length}\r\n\r\n".encode()
    with socket.create_connection(studio.address, timeout=60) as client:
        client.sendall(head + bytes(20_000_000))  # more than waits anywhere between the two
        answer = b"".join(iter(lambda: client.recv(10_000), b""))
    assert answer.startswith(b"HTTP/1.0 413 ")
    assert b"a request has a Content-Length of at most 1000 bytes" in answer


@pytest.mark.parametrize("body", [b"{", b""])
def test_a_client_that_leaves_is_forgotten(studio, capsys, body):
    threads = threading.active_count()
    with socket.create_connection(studio.address, timeout=60) as client:
        client.sendall(b"POST /setup HTTP/1.1\r\nContent-Length: 1000\r\n\r\n" + body)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # leaves without a farewell
    assert studio("/health")[0] == 200
    end = time.monotonic() + 60
    while threading.active_count() > threads and time.monotonic() < end:
        time.sleep(0.01)
    assert capsys.readouterr().err == ""


def test_a_fault_of_ours_keeps_its_traceback(studio, monkeypatch, capsys):
    monkeypatch.setattr(Backend, "answer", lambda *_: 1 / 0)
    with pytest.raises(OSError, match="closed connection"):
        studio("/health")
    assert "ZeroDivisionError" in capsys.readouterr().err


def start(*arguments: str) -> int:
    return label_studio.main(["--model", "mini-blip", *arguments])


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--port", "99999"], "--port is 99999; a number from 0 to 65535 is wanted"),
        (["--port", "-1"], "--port is -1; a number from 0 to 65535 is wanted"),
        (["--files", "/nonexistent"], "--files is /nonexistent, which is no folder"),
        (["--host", "no.such.host.invalid"], "cannot be served"),
        (["--host", "a..b"], "a..b:9090 cannot be served"),
    ],
)
def test_a_backend_that_cannot_start_says_why(segmenter, monkeypatch, capsys, arguments, told):
    monkeypatch.setattr(Segmenter, "from_pretrained", lambda *_: segmenter)
    assert start(*arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert told in line
    assert "cannot be served" not in told or line.endswith("give another --host or --port")


def test_a_backend_may_be_stopped_while_it_loads(monkeypatch, capsys):
    def stopped(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(Segmenter, "from_pretrained", stopped)
    assert start() == 130
    assert capsys.readouterr().err == ""


def test_without_files_no_path_is_read(tmp_path):
    (tmp_path / "a.png").write_bytes(png(SCENE.image))
    assert read_photo("/data/a.png", tmp_path).shape == (112, 112, 3)
    with pytest.raises(InputError, match="--files"):
        read_photo("/data/a.png", None)
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner/link.png").symlink_to(tmp_path / "a.png")
    with pytest.raises(InputError, match="outside"):
        read_photo("/data/link.png", tmp_path / "inner")


def test_the_interfaces_own_names_are_used():
    text = """<View><Image name="pic" value="$photo"/><BrushLabels name="b" toName="pic">
    <Label value="hot dog"/><Label value="Background"/></BrushLabels></View>"""
    found = parse_interface(text)
    assert (found.from_name, found.to_name, found.data, found.names) == ("b", "pic", "photo", ("hot dog",))


def test_the_brush_on_a_picture_is_used_whatever_else_the_interface_holds():
    text = """<View><Style><![CDATA[p > a {}]]></Style><Image name="pic" value="$photo"/>
    <Video name="film" value="$film"/>
    <BrushLabels name="a" toName="film"><Label value="cat"/></BrushLabels>
    <BrushLabels name="b" toName="pic"><Label value="dog"/></BrushLabels></View>"""
    found = parse_interface(text)
    assert (found.from_name, found.to_name, found.data, found.names) == ("b", "pic", "photo", ("dog",))


def test_label_studio_is_answered_by_the_labels_as_it_keeps_them(segmenter, truth):
    first, *others = SCENE.things
    labels = f'<Label value="{first}" alias="T1"/>' + "".join(f'<Label value="{name}  "/>' for name in others)
    config = f'<View><Image name="i" value="$image"/><BrushLabels name="b" toName="i">{labels}</BrushLabels></View>'
    inlined = "data:image/png;base64," + base64.b64encode(png(SCENE.image)).decode()
    (told,) = Backend(segmenter).predict(request(inlined, config=config))
    stored = {first: "T1"} | {name: f"{name}  " for name in others}
    assert [region["value"]["brushlabels"] for region in told["result"]] == [[stored[name]] for name in masks(truth)]


class Tasks:
    """Stands in for a CVAT server: keeps what is uploaded."""

    logger = logging.getLogger("cvat")

    def __init__(self) -> None:
        self.tasks = self.api = self
        self.shapes: list = []

    def partial_update_annotations(self, action, task, *, patched_labeled_data_request) -> None:
        assert (action, task) == ("create", 5)
        self.shapes = patched_labeled_data_request.shapes


@pytest.fixture
def annotate(segmenter, monkeypatch):
    """Run the function through cvat-sdk's driver on a task with one photo, the labels in another order."""
    auto = pytest.importorskip("cvat_sdk.auto_annotation")
    models = pytest.importorskip("cvat_sdk.models")
    from pnp_ovss.apps import cvat

    def run(threshold: float | None = None, polygons: bool = False) -> tuple[list, dict[int, str]]:
        kind = "polygon" if polygons else "mask"
        labels = [
            models.Label(id=90 + index, name=name, attributes=[], sublabels=[], type=kind)
            for index, name in enumerate(reversed(SCENE.things))
        ]
        media = types.SimpleNamespace(load_image=lambda: Image.fromarray(SCENE.image))
        sample = types.SimpleNamespace(frame_name="a.png", frame_index=3, media=media)
        task = types.SimpleNamespace(labels=labels, samples=[sample])
        monkeypatch.setattr("cvat_sdk.auto_annotation.driver.TaskDataset", lambda *_, **__: task)
        client = Tasks()
        function = cvat.Function(segmenter, tuple(SCENE.things))
        auto.annotate_task(client, 5, function, conf_threshold=threshold, conv_mask_to_poly=polygons)
        return client.shapes, {label.id: label.name for label in labels}

    return run


def test_cvat_annotates_a_task(annotate, truth):
    decode = pytest.importorskip("cvat_sdk.masks").decode_mask
    shapes, names = annotate()
    found = {names[shape.label_id]: decode(shape.points, image_width=112, image_height=112) for shape in shapes}
    wanted = masks(truth)
    assert found.keys() == wanted.keys()
    assert all(np.array_equal(found[name], wanted[name]) for name in wanted)
    assert {(shape.frame, shape.source, shape.type.value) for shape in shapes} == {(3, "auto", "mask")}


def test_cvat_may_ask_for_polygons_and_a_threshold(annotate, truth):
    from pnp_ovss.data import rle

    shapes, names = annotate(polygons=True)
    found = {}
    for shape in shapes:
        assert shape.type.value == "polygon"
        found.setdefault(names[shape.label_id], np.zeros((112, 112), np.uint8))
        found[names[shape.label_id]] |= rle.decode([list(shape.points)], 112, 112)
    assert all(np.array_equal(found[name], mask) for name, mask in masks(truth).items())
    scores = sorted(entry["score"] for entry in truth.to_hf())
    assert len(annotate(threshold=1.0)[0]) == sum(score >= 1.0 for score in scores)
    assert len(annotate(threshold=scores[0])[0]) == len(scores)


def test_cvats_command_line_finds_what_it_calls(tiny_blip_folder):
    pytest.importorskip("cvat_sdk")
    from pnp_ovss.apps import cvat

    function = cvat.create("dog, traffic light", model=str(tiny_blip_folder), preset="mini")
    assert [(label.name, label.id) for label in function.spec.labels] == [("dog", 1), ("traffic light", 2)]
    with pytest.raises(InputError, match="class 'background' is there by itself; leave it out"):
        cvat.create("Background, dog", model="mini-blip")


def pictures() -> list:
    """Pictures that are more than 8-bit RGB: of 16 bits, of floats, half transparent, turned by its EXIF."""
    grey = np.asarray(Image.fromarray(SCENE.image).convert("L"))
    half = np.dstack([SCENE.image, np.full((112, 112), 255, np.uint8)])
    half[:, 56:] = 0
    turned = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(SCENE.image).save(turned, format="PNG", exif=exif)
    return [
        pytest.param(Image.fromarray(grey.astype(np.uint16) * 257), np.dstack([grey] * 3), id="16 bits"),
        pytest.param(Image.fromarray(grey.astype(np.float32) / 255), np.dstack([grey] * 3), id="floats"),
        pytest.param(Image.fromarray(half), np.where(half[..., 3:] > 0, SCENE.image, 255), id="transparent"),
        pytest.param(Image.open(turned), SCENE.image, id="turned"),
    ]


@pytest.mark.parametrize(("picture", "seen"), pictures())
def test_cvats_photos_are_seen_as_everywhere(segmenter, monkeypatch, picture, seen):
    auto = pytest.importorskip("cvat_sdk.auto_annotation")
    from pnp_ovss.apps import cvat

    context = type("Context", (auto.DetectionFunctionContext,), {})
    for name, value in (("frame_name", "a"), ("conf_threshold", None), ("conv_mask_to_poly", False)):
        setattr(context, name, value)
    context.__abstractmethods__ = frozenset()
    shown = []
    look = segmenter.see
    monkeypatch.setattr(segmenter, "see", lambda photos, classes: [shown.extend(photos), look(photos, classes)][1])
    cvat.Function(segmenter, tuple(SCENE.things)).detect(context(), picture)
    assert np.array_equal(shown[0], seen)


@pytest.fixture
def zoo(monkeypatch):
    """Load the zoo source from its folder as FiftyOne does, with stand-ins for the two of its names that it uses."""
    fiftyone, core, models = (types.ModuleType(name) for name in ("fiftyone", "fiftyone.core", "fiftyone.core.models"))
    fiftyone.Segmentation = type("Segmentation", (types.SimpleNamespace,), {})
    models.Model = type("Model", (), {})
    fiftyone.core, core.models = core, models
    for module in (fiftyone, core, models):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    folder = Path(apps.__file__).parent / "fiftyone"
    spec = importlib.util.spec_from_file_location(
        "zoo_source", folder / "__init__.py", submodule_search_locations=[str(folder)]
    )
    source = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "zoo_source", source)
    spec.loader.exec_module(source)
    monkeypatch.delitem(sys.modules, "zoo_source.zoo")
    return folder, source


def test_fiftyones_zoo_model_keeps_its_numbers(zoo, truth):
    folder, source = zoo
    (entry,) = json.loads((folder / "manifest.json").read_text())["models"]
    source.download_model(entry["base_name"], "nowhere")
    model = source.load_model(entry["base_name"], "nowhere", classes=list(SCENE.things), model="mini-blip")
    assert model.media_type == "image"
    assert model.mask_targets == dict(enumerate(("background", *SCENE.things)))
    mask = model.predict(SCENE.image).mask
    assert mask.dtype == np.uint8
    for number, name in model.mask_targets.items():
        assert np.array_equal(mask == number, truth.labels == truth.classes.index(name)), name


def test_fiftyone_is_told_what_it_gave_wrong(zoo):
    _, source = zoo
    for classes, told in (("dog", "one text, 'dog'"), (["background", "dog"], "is there by itself"), ([], "no class")):
        with pytest.raises(InputError, match=told):
            source.load_model("pnp-ovss", "nowhere", classes=classes, model="mini-blip")
    model = source.load_model("pnp-ovss", "nowhere", classes=["dog"], model="mini-blip")
    for kind in (np.uint16, np.float32):
        with pytest.raises(InputError, match=f"a photo came as {kind.__name__} array of shape .8, 9, 3.; uint8"):
            model.predict(np.zeros((8, 9, 3), kind))
    assert model.predict(np.zeros((8, 9), np.uint16)).mask.shape == (8, 9)
