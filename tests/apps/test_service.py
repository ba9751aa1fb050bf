"""The service over HTTP: what it answers, and what it refuses."""

import asyncio
import base64
import io
import json
import logging
import socket
import threading
import time
import zipfile
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("fastapi")

from starlette.testclient import TestClient

from pnp_ovss import InputError, Segmenter
from pnp_ovss.apps import guard, jobs, pages
from pnp_ovss.apps.guard import Access, Guard
from pnp_ovss.apps.jobs import Found, Job, Line, Models, Refused, make_ask
from pnp_ovss.apps.service import create_app
from pnp_ovss.cli import main
from pnp_ovss.cli.serve import _offers as offers
from pnp_ovss.export import FORMATS
from pnp_ovss.methods import METHODS
from pnp_ovss.mini import HELD_OUT_SEED, draw
from pnp_ovss.types import ignore

SCENE = draw(HELD_OUT_SEED, 3, 112)  # a sail boat and an ice cream
NAMES = ", ".join(SCENE.things)
OFFERS = [("pnp", "mini-blip"), ("naclip", "mini-clip"), ("sclip", "mini-clip")]
ACCESS = Access(root_path="", requests_a_minute=10**6, work_a_minute=10**6)


def png(image=SCENE.image) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format="PNG")
    return buffer.getvalue()


@pytest.fixture(scope="module")
def models() -> Models:
    return Models(OFFERS, "cpu", None, 2_000_000)


@pytest.fixture(scope="module")
def make(models):
    """Return what makes a client of the service with other access."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pages, "EXAMPLES", (3,))
        patch.setattr(pages, "draw", lambda seed, index, size: draw(seed, index, 112))
        clients = []

        def make(access: Access = ACCESS) -> TestClient:
            if clients:
                patch.setattr(pages, "make_examples", list)
            clients.append(TestClient(create_app([models], access), base_url="http://127.0.0.1:7860"))
            return clients[-1].__enter__()

        yield make
        for client in clients:
            client.__exit__(None, None, None)


@pytest.fixture(scope="module")
def client(make) -> TestClient:
    return make()


@pytest.fixture(scope="module")
def expected():
    return Segmenter.from_pretrained("mini-blip", device="cpu", present="auto")(SCENE.image, SCENE.things)


def wait(client, answer) -> dict:
    """Return the job of an answer once it is over."""
    assert answer.status_code == 202, answer.text
    *_, last = client.get(f"/api/jobs/{answer.json()['id']}/events").text.strip().split("\n\n")
    return json.loads(last.removeprefix("data: "))


def segment(client, names=NAMES, photo=None, name="scene.png", **fields) -> dict:
    files = {"photo": (name, png() if photo is None else photo)} if "of" not in fields else None
    return wait(client, client.post("/api/segment", data={"classes": names, **fields}, files=files))


@pytest.fixture(scope="module")
def done(client) -> dict:
    return segment(client)


def test_a_photo_gives_what_python_gives(client, done, expected):
    assert done["state"] == "done"
    assert [one["name"] for one in done["result"]["classes"]] == list(expected.classes)
    with Image.open(io.BytesIO(client.get(f"/api/jobs/{done['id']}/labels.png").content)) as picture:
        assert np.array_equal(np.asarray(picture), expected.labels)
    view = client.get(f"/api/jobs/{done['id']}/view")
    assert (view.headers["x-height"], view.headers["x-width"]) == ("112", "112")
    assert view.content == expected.labels.astype(np.uint8).tobytes()
    record = client.get(f"/api/jobs/{done['id']}/result").json()
    wanted = json.loads(json.dumps(expected.record("scene", "scene.png", 0.0)))
    assert record | {"seconds": 0.0} == wanted


def test_salience_passes_and_overlay_are_pictures(client, done, expected):
    assert done["result"]["passes"] == [expected.config.drop * number for number in range(expected.config.passes)]
    assert done["result"]["salience"] == list(SCENE.things)
    for place in ("overlay.png", "photo.jpg", "salience/1", "passes/3/saw", "passes/0/found"):
        Image.open(io.BytesIO(client.get(f"/api/jobs/{done['id']}/{place}").content)).verify()
    for place in ("salience/2", "passes/4/saw", "passes/-1/saw"):
        assert client.get(f"/api/jobs/{done['id']}/{place}").status_code == 404
    saw = np.asarray(Image.open(io.BytesIO(client.get(f"/api/jobs/{done['id']}/passes/1/saw").content)), dtype=int)
    grey = (np.abs(saw - int(pages.HIDDEN)).max(axis=2) < 12).mean()
    assert grey > np.float64(expected.config.drop) / expected.salience[0].size / 2


def test_every_format_holds_the_photo_and_its_masks(client, done, expected):
    for form in ("files", *FORMATS):
        answer = client.get(f"/api/export/{form}", params={"job": [done["id"], done["id"]]})
        with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
            names = archive.namelist()
            assert archive.testzip() is None
        assert any("scene-2" in name for name in names), form
    answer = client.get("/api/export/coco", params={"job": done["id"]})
    with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
        (data,) = (json.loads(archive.read(name)) for name in archive.namelist() if name.endswith(".json"))
        assert archive.read("images/scene.png") == png()
    assert [one["name"] for one in data["categories"]] == list(expected.classes[1:])
    assert client.get("/api/export/nope", params={"job": done["id"]}).status_code == 404


def test_an_example_is_there_and_can_be_taken(client):
    (key,) = client.get("/api/methods").json()["examples"]
    example = client.get(f"/api/jobs/{key}").json()
    assert example["state"] == "done"
    assert any(one["area"] for one in example["result"]["classes"][1:])
    again = segment(client, ", ".join(example["result"]["salience"]), of=key)
    assert again["result"]["classes"] == example["result"]["classes"]
    client.delete(f"/api/jobs/{key}")
    assert client.get(f"/api/jobs/{key}").json()["state"] == "done"  # nobody can take it from the others


def test_every_method_that_is_offered_runs(client):
    offered = client.get("/api/methods").json()
    assert [(one["name"], model) for one in offered["methods"] for model in one["models"]] == OFFERS
    for one in offered["methods"]:
        assert one["licences"] == dict.fromkeys(one["models"], "Apache-2.0")
        job = segment(client, method=one["name"], model=one["models"][0])
        assert (job["state"], job["result"]["method"]) == ("done", one["name"])


def test_names_are_found(client):
    job = wait(client, client.post("/api/name", files={"photo": ("a.png", png())}))
    assert set(job["names"]) == {*SCENE.things, *SCENE.stuff}


def test_an_ontology_and_settings_are_taken(client):
    ontology = json.dumps({SCENE.things[0]: "thing", SCENE.things[1]: "thing"})
    job = segment(client, ontology, settings='{"passes": 1, "refiners": [], "threshold": 0.5}')
    assert [one["name"] for one in job["result"]["classes"]] == ["background", "thing"]
    assert job["result"]["passes"] == [0]


def test_only_what_changed_is_computed(client, done, models, monkeypatch):
    attended = []
    vlm = models.methods["pnp", "mini-blip"].backbone
    attend = vlm.attend
    monkeypatch.setattr(vlm, "attend", lambda *given, **named: attended.append(1) or attend(*given, **named))
    plain = segment(client, of=done["id"], settings='{"refiners": []}')
    assert plain["result"]["classes"] != done["result"]["classes"]
    assert attended == []  # the class maps are those of before
    back = segment(client, of=plain["id"])
    assert back["result"] == done["result"]
    assert attended == []
    segment(client, of=done["id"], settings='{"passes": 2}')
    assert len(attended) == 2


def edited(client, key, **change):
    return client.post(f"/api/jobs/{key}/edit", json=change)


def labels_of(client, key) -> np.ndarray:
    view = client.get(f"/api/jobs/{key}/view")
    return np.frombuffer(view.content, np.uint8).reshape(int(view.headers["x-height"]), -1)


def test_a_class_is_renamed_and_recoloured_and_the_result_before_stays(client, done):
    boat, cone = SCENE.things
    renamed = edited(client, done["id"], rename=boat, to="Segelschiff").json()
    assert [one["name"] for one in renamed["result"]["classes"]] == ["background", "Segelschiff", cone]
    assert np.array_equal(labels_of(client, renamed["id"]), labels_of(client, done["id"]))
    assert client.get(f"/api/jobs/{done['id']}").json()["result"] == done["result"]
    painted = edited(client, renamed["id"], colour="Segelschiff", to="#010203").json()
    assert painted["result"]["classes"][1]["colour"] == "#010203"
    with Image.open(io.BytesIO(client.get(f"/api/jobs/{painted['id']}/labels.png").content)) as picture:
        assert picture.getpalette()[3:6] == [1, 2, 3]
    assert client.get(f"/api/jobs/{painted['id']}/result").json()["classes"][1] == "Segelschiff"
    assert painted["result"]["passes"] == done["result"]["passes"]


def test_a_region_is_deleted_and_given_to_another_class(client, done):
    before = labels_of(client, done["id"])
    y, x = (int(value) for value in np.argwhere(before == 1)[0])
    gone = edited(client, done["id"], region=[x, y], to="background").json()
    after = labels_of(client, gone["id"])
    assert after[y, x] == 0
    assert set(before[before != after].tolist()) == {1}
    given = labels_of(client, edited(client, done["id"], region=[x, y], to=SCENE.things[1]).json()["id"])
    assert (given[before != after] == 2).all()
    fresh = edited(client, done["id"], region=[x, y], to="new thing").json()
    assert fresh["result"]["classes"][-1]["name"] == "new thing"
    assert (labels_of(client, fresh["id"])[before != after] == 3).all()


@pytest.mark.parametrize(
    "change",
    [
        {"rename": "zebra", "to": "dog"},
        {"rename": SCENE.things[0], "to": SCENE.things[1].upper()},
        {"rename": SCENE.things[0], "to": "background"},
        {"rename": "background", "to": "dog"},
        {"rename": SCENE.things[0], "to": "x" * 81},
        {"rename": SCENE.things[0], "to": 5},
        {"region": [-1, 0], "to": "dog"},
        {"region": [0, 112], "to": "dog"},
        {"region": [0.5, 1], "to": "dog"},
        {"region": "/etc/passwd", "to": "dog"},
        {"colour": SCENE.things[0], "to": "url(x)"},
        {"colour": SCENE.things[0], "to": "#00000g"},
        {},
    ],
)
def test_a_change_that_cannot_be_made_is_one_line(client, done, change):
    answer = edited(client, done["id"], **change)
    assert answer.status_code == 400
    assert answer.json()["error"]
    assert "\n" not in answer.json()["error"]


ODD = ("/etc/passwd", "file:///etc/passwd", "http://127.0.0.1:1/a.png", "../../../etc/passwd", "\\\\host\\share")


@pytest.mark.parametrize("odd", ODD)
def test_no_field_is_a_path_or_an_address(client, done, monkeypatch, odd):
    def fail(*given, **named):
        raise AssertionError(f"was opened: {given}")

    monkeypatch.setattr("urllib.request.OpenerDirector.open", fail)
    monkeypatch.setattr("fsspec.open", fail)
    monkeypatch.setattr(socket.socket, "connect", fail)
    files = {"photo": (odd, png())}
    for name in ("method", "model", "preset", "present", "settings"):
        answer = client.post("/api/segment", data={"classes": NAMES, name: odd}, files=files)
        assert answer.status_code == 400, name
        assert answer.json()["field"] == name
    for setting in ("regions_folder", "regions", "proxy", "templates", "background_words", "size", "max_pixels"):
        given = {"classes": NAMES, "settings": json.dumps({setting: odd})}
        answer = client.post("/api/segment", data=given, files=files)
        assert (answer.status_code, answer.json()["field"]) == (400, "settings"), setting
    assert client.post("/api/segment", data={"classes": NAMES, "of": odd}).status_code == 404
    assert client.post("/api/segment", data={"classes": NAMES, "photo": odd}).status_code == 400
    assert client.post("/api/name", data={"model": odd}, files=files).status_code == 400
    assert segment(client, odd)["field"] == "classes"
    named = segment(client, name=odd)["name"]
    assert not set(named) & set("/\\:")
    assert client.get(f"/static/{odd}").status_code == 404
    assert client.get("/api/export/coco", params={"job": odd}).status_code == 404


def test_foreign_job_ids_open_nothing(client, done):
    other = f"{done['id'][:-1]}{'y' if done['id'].endswith('x') else 'x'}"
    for place in ("", "/events", "/result", "/labels.png", "/view", "/photo.jpg", "/salience/0", "/passes/0/saw"):
        assert client.get(f"/api/jobs/{other}{place}").status_code == 404
    assert client.delete("/api/jobs/nobody").status_code == 404
    assert edited(client, "nobody", rename="a", to="b").status_code == 404
    assert client.get("/api/export/coco", params={"job": [done["id"], "nobody"]}).status_code == 404
    assert len({Job("", b"", "", ignore).id for _ in range(100)}) == 100
    assert len(done["id"]) == 24  # 144 bits


@pytest.mark.parametrize(
    ("photo", "message"),
    [(b"no picture", "is no picture"), (b"\x89PNG\r\n\x1a\n rest is missing", "the photo"), (b"", "there is no photo")],
)
def test_a_photo_that_is_none_is_named(client, photo, message):
    answer = client.post("/api/segment", data={"classes": NAMES}, files={"photo": ("a.png", photo)})
    told = answer.json() if answer.status_code == 400 else wait(client, answer)
    assert told["field"] == "photo"
    assert message in told["error"]


def test_100_megapixels_are_refused_before_they_are_decoded(client, monkeypatch):
    buffer = io.BytesIO()
    Image.new("1", (10_000, 10_000)).save(buffer, format="PNG")
    monkeypatch.setattr(Image.Image, "convert", lambda *_: pytest.fail("was decoded"))
    job = segment(client, photo=buffer.getvalue())
    assert (job["state"], job["field"]) == ("failed", "photo")
    assert "more than 2 million pixels" in job["error"]


def test_a_gigabyte_is_refused_unread(make, client):
    answer = client.post("/api/segment", content=b"x", headers={"Content-Length": str(10**9)})
    assert answer.status_code == 413
    assert client.post("/api/jobs/x/edit", content=bytes(200_000)).status_code == 413
    head = b'--x\r\nContent-Disposition: form-data; name="photo"; filename="a.png"\r\n\r\n'
    parts, form = iter([head, *[bytes(10**5)] * 10]), {"Content-Type": "multipart/form-data; boundary=x"}
    small = make(replace(ACCESS, most_bytes=10**5))
    assert small.post("/api/segment", content=parts, headers=form).status_code == 413  # of no length said beforehand


@pytest.mark.parametrize(
    ("path", "content", "kind"),
    [
        ("/api/segment", b"--x\r\nno header\r\n", "multipart/form-data; boundary=x"),
        ("/api/segment", b"\xff\x00", "multipart/form-data"),
        ("/api/segment", b"{", "application/json"),
        ("/api/name", b"", "multipart/form-data; boundary=\r"),
        ("/api/jobs/{id}/edit", b"{", "application/json"),
        ("/api/jobs/{id}/edit", b"[1]", "application/json"),
        ("/api/jobs/{id}/edit", b'{"a": NaN}', "application/json"),
        ("/api/jobs/{id}/edit", b"[" * 50_000, "application/json"),
    ],
)
def test_a_malformed_request_is_400_and_one_line_of_log(client, done, caplog, path, content, kind):
    with caplog.at_level(logging.INFO, "pnp_ovss"):
        answer = client.post(path.format(**done), content=content, headers={"Content-Type": kind})
    assert answer.status_code == 400
    assert answer.json()["error"]
    (line,) = (one for one in caplog.records if one.name.startswith("pnp_ovss"))
    assert "\n" not in line.getMessage()
    assert done["id"] not in line.getMessage()  # who reads the log has no result


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"classes": ""}, "classes"),
        ({"classes": "dog, Dog"}, "classes"),
        ({"classes": ",".join(f"thing {number}" for number in range(61))}, "classes"),
        ({"classes": "x" * 81}, "classes"),
        ({"classes": '{"a": 5}'}, "classes"),
        ({"method": "pnp", "model": "mini-clip"}, "model"),
        ({"preset": "released"}, "settings"),
        ({"settings": '{"passes": 10000}'}, "settings"),
        ({"settings": '{"crf_iterations": 1e9}'}, "settings"),
        ({"settings": '{"layer": 16}'}, "settings"),
        ({"settings": '{"refiners": ["sharpen"]}'}, "settings"),
        ({"settings": '{"refiners": ["prompts"]}'}, "settings"),  # it would load a model
        ({"settings": '{"refiners": [["blur"]]}'}, "settings"),
        ({"settings": "[]"}, "settings"),
    ],
)
def test_a_request_that_cannot_be_answered_names_the_field(client, fields, field):
    given = {"classes": NAMES} | fields
    answer = client.post("/api/segment", data=given, files={"photo": ("a.png", png())})
    told = answer.json() if answer.status_code == 400 else wait(client, answer)
    assert told["field"] == field, told
    assert told["error"]


def test_names_with_markup_are_text(client, done):
    markup = "<img src=x onerror=alert(1)>"
    renamed = edited(client, done["id"], rename=SCENE.things[0], to=markup)
    assert renamed.headers["content-type"] == "application/json"
    assert renamed.json()["result"]["classes"][1]["name"] == markup
    assert renamed.headers["x-content-type-options"] == "nosniff"
    job = segment(client, name='"><script>alert(1)</script>.png')
    assert "<" not in job["name"]


def test_the_page_may_run_its_own_scripts_alone(client):
    page = client.get("/")
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "http" not in policy
    for name, content in pages.STATIC.items():
        assert client.get(f"/static/{name}").content == content
        text = content.decode().replace("http://www.w3.org/2000/svg", "")
        assert "http://" not in text
        assert "https://" not in text
        assert " style=" not in text
        assert "innerHTML" not in text
    assert "/api/segment" in client.get("/docs").text
    assert client.get("/openapi.json").json()["info"]["title"] == "pnp-ovss"


def test_health_and_metrics_are_for_machines(client, done):
    assert client.get("/healthz").json()["status"] == "ok"
    lines = client.get("/metrics").text.splitlines()
    values = dict(line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
    assert float(values['pnp_ovss_jobs_total{end="done"}']) >= 1
    assert float(values['pnp_ovss_requests_total{status="200"}']) >= 1
    assert float(values["pnp_ovss_held_bytes"]) > 0


def test_without_its_token_nothing_is_answered(make):
    client = make(replace(ACCESS, host="0.0.0.0", token="sesame"))
    assert client.get("/healthz").status_code == 200
    basic = base64.b64encode(b"user:wrong").decode()
    for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": f"Basic {basic}"}, {"Cookie": "token=x"}):
        for path in ("/", "/api/methods", "/metrics", "/docs", "/openapi.json", "/static/app.js"):
            assert client.get(path, headers=headers).status_code == 401, (path, headers)
    assert client.get("/?token=wrong").status_code == 401
    assert client.get("/api/methods", headers={"Authorization": "Bearer sesame"}).status_code == 200
    basic = base64.b64encode(b"user:sesame").decode()
    assert client.get("/api/methods", headers={"Authorization": f"Basic {basic}"}).status_code == 200
    entered = client.get("/?token=sesame", follow_redirects=False)
    assert (entered.status_code, entered.headers["location"]) == (303, "/")
    cookie = entered.headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=strict" in cookie
    assert client.get("/").status_code == 200  # the client keeps the cookie


def test_other_pages_and_names_of_hosts_are_refused(make, client):
    photo = {"photo": ("a.png", png())}
    for origin in ("https://evil.example", "null", "http://127.0.0.1:1"):
        answer = client.post("/api/segment", data={"classes": NAMES}, files=photo, headers={"Origin": origin})
        assert answer.status_code == 403, origin
        assert "access-control-allow-origin" not in client.get("/api/methods", headers={"Origin": origin}).headers
    assert client.get("/api/methods", headers={"Host": "evil.example"}).status_code == 403
    assert client.get("/api/methods", headers={"Host": "["}).status_code == 403
    assert client.get("/api/methods", headers={"Host": "localhost:7860"}).status_code == 200
    friend = make(replace(ACCESS, cors=("https://friend.example",)))
    asked = friend.post(
        "/api/segment", data={"classes": NAMES}, files=photo, headers={"Origin": "https://friend.example"}
    )
    assert asked.status_code == 202
    assert asked.headers["access-control-allow-origin"] == "https://friend.example"
    preflight = friend.options("/api/segment", headers={"Origin": "https://friend.example"})
    assert preflight.status_code == 204


def test_who_asks_too_often_has_to_wait_whatever_the_headers_say(make, monkeypatch):
    monkeypatch.setattr(guard, "time", SimpleNamespace(monotonic=lambda: 0.0))  # all in one minute
    client = make(replace(ACCESS, requests_a_minute=5))
    codes = [client.get("/api/methods", headers={"X-Forwarded-For": f"10.0.0.{one}"}).status_code for one in range(8)]
    assert codes == [200] * 5 + [429] * 3
    proxied = make(replace(ACCESS, requests_a_minute=5, proxied=True))
    codes = [
        proxied.get("/api/methods", headers={"X-Forwarded-For": f"1.1.1.1, 10.0.0.{one % 2}"}).status_code
        for one in range(12)
    ]
    assert codes == [200] * 10 + [429] * 2  # the last one is what the proxy itself saw


def test_behind_a_proxy_it_lies_below_a_path(make):
    client = make(replace(ACCESS, root_path="/segment", proxied=True))
    assert client.get("/segment/api/methods").status_code == 200
    assert client.get("/api/methods").status_code == 200  # of a proxy that takes the path away


@pytest.mark.slow
def test_the_log_of_many_bad_requests_is_short(caplog):
    async def never(*_):
        raise AssertionError("got through")

    async def main():
        before = Guard(never, Access(), {})
        headers = [(b"host", b"evil.example")]
        scope = {"type": "http", "method": "GET", "headers": headers, "query_string": b"", "client": ("1.2.3.4", 5)}
        sent = []

        async def send(message):
            sent.append(message)

        for number in range(10_000):
            await before(scope | {"path": f"/{'x' * 5000}\n{number}"}, never, send)
        assert sum(one.get("status") == 403 for one in sent) == 10_000

    with caplog.at_level(logging.INFO, "pnp_ovss"):
        asyncio.run(main())
    assert len(caplog.text.encode()) < 500_000
    assert all(len(line) < 300 for line in caplog.text.splitlines())


def test_a_bug_is_one_line_and_500(client, caplog, monkeypatch):
    monkeypatch.setattr(pages, "heat", lambda *_: 1 // 0)
    key = client.get("/api/methods").json()["examples"][0]
    with caplog.at_level(logging.INFO, "pnp_ovss"):
        answer = client.get(f"/api/jobs/{key}/salience/0")
    assert answer.status_code == 500
    assert "ZeroDivisionError" in caplog.text
    assert "Traceback" not in caplog.text
    assert "Zero" not in answer.text


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.org"])
def test_others_are_let_in_by_a_token_or_on_purpose(capsys, host):
    assert main(["serve", "--host", host]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line == f"pnp-ovss: {host} lets others in; give --token TEXT that they have to know, or --public"


def test_an_address_that_cannot_be_had_is_named(capsys):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert main(["serve", "--port", str(port)]) == 2
    assert f"no page can be served on 127.0.0.1, port {port} (" in capsys.readouterr().err
    assert main(["serve", "--host", "nope.invalid", "--public"]) == 2
    assert "give another --host or --port" in capsys.readouterr().err


def test_methods_are_offered_on_the_models_that_they_can_run():
    by_itself = offers((), ())
    assert all(model.startswith("mini-") for _, model in by_itself)  # nothing is fetched unless a name asks for it
    assert by_itself[0] == ("pnp", "mini-blip")
    assert {"clip", "naclip", "sclip"} <= {method for method, _ in by_itself}
    assert offers((), ["blip-large-flickr"]) == [("pnp", "blip-large-flickr")]
    assert {method for method, _ in offers((), ["clip-base"])} < {*METHODS} - {
        "pnp",
        "groupvit",
        "clippy",
        "proxyclip",
        "tcl",
    }
    assert offers(["pnp", "naclip"], ["mini-blip"]) == [("pnp", "mini-blip"), ("naclip", "mini-clip")]
    assert offers(["sclip"], ["blip-large-flickr"]) == [("sclip", "clip-base")]
    assert offers(["groupvit"], ()) == [("groupvit", "groupvit-yfcc")]
    assert offers(["reco"], ()) == [("reco", "clip-large-336")]
    assert offers(["segclip"], ["some/segclip.bin"]) == [("segclip", "some/segclip.bin")]


# The line.


class Slow:
    """Work of ``steps`` steps, each when ``gate`` is open; ``taken`` holds the steps taken."""

    def __init__(self, steps: int = 1) -> None:
        self.taken: list[int] = []
        self.gate, self.started, self._steps = threading.Event(), threading.Event(), steps

    def __call__(self, models, photo, on_step) -> str:
        for step in range(self._steps):
            on_step("step", step, self._steps)
            self.started.set()
            assert self.gate.wait(20)
            self.taken.append(step)
        return "done"


@pytest.fixture
def line():
    models = Models([], "cpu", None, 10**6)
    line = Line([models])
    yield line
    line.close()


def put(line, work, visitor="a") -> Job:
    return line.put(Job(visitor, png(), "a.png", work))


def over(job: Job) -> str:
    end = time.monotonic() + 20
    while not job.over and time.monotonic() < end:
        time.sleep(0.005)
    return job.state


def test_jobs_take_turns_in_the_order_they_came(line):
    works = Slow(), Slow(), Slow()
    taken = [put(line, work, visitor) for work, visitor in zip(works, "abc", strict=True)]
    assert works[0].started.wait(20)
    assert [line.before(job) for job in taken] == [0, 1, 2]
    assert taken[0].step == ("step", 0, 1)
    works[0].gate.set()
    assert works[1].started.wait(20)
    assert [line.before(job) for job in taken] == [0, 0, 1]
    works[1].gate.set()
    works[2].gate.set()
    assert [over(job) for job in taken] == ["done"] * 3


def test_cancelled_it_stops_at_the_next_step_or_leaves_the_line(line):
    first, second = Slow(3), Slow()
    working, waiting = put(line, first), put(line, second)
    assert first.started.wait(20)
    line.cancel(waiting)
    assert waiting.state == "cancelled"
    line.cancel(working)
    first.gate.set()
    assert over(working) == "cancelled"
    assert first.taken == [0]
    assert not second.started.is_set()
    third = Slow()
    third.gate.set()
    assert over(put(line, third)) == "done"  # and all goes on


def test_a_line_is_as_long_as_it_may_be(line):
    gate = Slow()
    first = [put(line, gate) for _ in range(jobs.MOST_OF_ONE)]
    with pytest.raises(Refused, match="too many of your requests"):
        put(line, gate)
    more = [put(line, gate, f"a {one}") for one in range(jobs.MOST_OF_ADDRESS - len(first))]
    with pytest.raises(Refused, match="too many of your requests"):  # another visitor at the same address
        put(line, gate, "a other")
    more += [put(line, gate, f"{one}") for one in range(jobs.MOST_WAITING - jobs.MOST_OF_ADDRESS)]
    with pytest.raises(Refused, match=f"{jobs.MOST_WAITING} requests are waiting already") as refused:
        put(line, gate, "other")
    assert refused.value.status == 503
    for job in more:
        line.cancel(job)
    gate.gate.set()


def test_what_takes_too_long_is_stopped(line, monkeypatch):
    monkeypatch.setattr(jobs, "LONGEST", 0.0)
    job = put(line, Slow())
    assert over(job) == "failed"
    assert "it took more than 0 seconds" in job.error


def test_a_bug_ends_the_job_and_not_the_line(line, caplog):
    job = put(line, lambda *_: 1 // 0)
    assert over(job) == "failed"
    assert "ZeroDivisionError" in job.error
    assert "test_service.py" in caplog.text
    work = Slow()
    work.gate.set()
    assert over(put(line, work)) == "done"


def test_old_jobs_go_and_of_too_many_the_oldest(line, monkeypatch):
    def add(age: float, content: bytes = b"x" * 100) -> Job:
        job = Job("", content, "", ignore, state="done")
        job.begun = time.monotonic() - age
        line.jobs[job.id] = job
        return job

    old, first, second = add(jobs.KEEP + 1), add(30), add(20)
    example = add(9 * jobs.KEEP)
    example.stays = True
    line.sweep()
    assert set(line.jobs) == {example.id, first.id, second.id}
    with pytest.raises(Refused) as refused:
        line.get(old.id)
    assert refused.value.status == 404
    monkeypatch.setattr(jobs, "MOST_HELD", 150)
    line.sweep()
    assert set(line.jobs) == {example.id, second.id}


def test_a_result_is_kept_small_and_comes_back_whole(expected):
    found = Found.of(expected, None)
    assert len(found.labels) < 3000
    assert np.array_equal(found.whole().labels, expected.labels)
    assert found.whole(SCENE.image).overlay().tobytes() == expected.overlay().tobytes()


def test_a_photo_that_does_not_fit_into_the_memory_is_refused(models):
    ask = make_ask(OFFERS, {"classes": NAMES})
    small = Models.__new__(Models)
    small.__dict__ |= vars(models) | {"memory": 10**6}
    with pytest.raises(InputError, match="^the photo needs 0.. GB of memory, and there is room for 0.0 GB; raise"):
        small.segment(ask, SCENE.image, ignore)
