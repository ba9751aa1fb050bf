"""The page: the work behind it, its API over HTTP, and a browser that uses it."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pnp_ovss import Config, ConfigError, InputError, Segmenter
from pnp_ovss.apps.web.files import Files
from pnp_ovss.apps.web.studio import MOST_NAMES, Studio, View, split, write_downloads
from pnp_ovss.mini import HELD_OUT_SEED, draw

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning")  # Gradio's client's

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
SCENE = draw(HELD_OUT_SEED, 3, 112)  # a sail boat and an ice cream
NAMES = ", ".join(SCENE.things)


@pytest.fixture(scope="module")
def studio() -> Studio:
    return Studio(["mini-blip"], "cpu", most_pixels=2_000_000)


@pytest.fixture(scope="module")
def expected():
    return Segmenter.from_pretrained("mini-blip", device="cpu")(SCENE.image, SCENE.things)


@pytest.fixture(scope="module")
def scene_file(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("photos") / "scene.png"
    Image.fromarray(SCENE.image).save(path)
    return path


@pytest.fixture(scope="module")
def large_file(tmp_path_factory) -> Path:
    """100 million pixels in a few hundred kilobytes."""
    path = tmp_path_factory.mktemp("photos") / "large.png"
    Image.new("1", (10_000, 10_000)).save(path)
    return path


def test_names_are_split_at_commas_and_lines():
    assert split("dog, traffic light\n cat,,") == ["dog", "traffic light", "cat"]
    with pytest.raises(InputError, match="no class is named yet"):
        split(" , \n")
    with pytest.raises(InputError, match=f"{MOST_NAMES + 1} classes are named; {MOST_NAMES} at most"):
        split(",".join(f"thing {k}" for k in range(MOST_NAMES + 1)))


def test_a_photo_is_refused_before_it_is_decoded(studio, tmp_path, large_file, monkeypatch):
    (tmp_path / "no.png").write_text("no picture")
    monkeypatch.setattr(Image.Image, "convert", lambda *_: pytest.fail("was decoded"))
    with pytest.raises(InputError, match="there is no photo yet"):
        studio.photo(None)
    with pytest.raises(InputError, match="the photo is no picture"):
        studio.photo(str(tmp_path / "no.png"))
    with pytest.raises(InputError, match="10000 x 10000 pixels, more than 2 million"):
        studio.photo(str(large_file))
    with pytest.raises(InputError, match="no longer there"):
        studio.photo(str(tmp_path / "gone.png"))


def test_steps_come_one_by_one_and_the_view_at_last(studio, expected):
    *steps, view = studio.segment(SCENE.image, "scene.png", NAMES, "mini-blip", "auto", ["blur", "crf"])
    passes = expected.config.passes
    assert steps[: passes + 1] == [(done, passes) for done in range(passes + 1)]
    assert set(steps[passes + 1 :]) == {(passes, passes)}  # refinement, which can be left between its steps as well
    assert len(steps) > passes + expected.config.crf_iterations
    assert np.array_equal(view.result.labels, expected.labels)
    assert view.result.config == expected.config
    hidden = [int((~one.visible).sum()) for one in view.passes]
    assert hidden == [expected.config.drop * k for k in range(passes)]
    summed = sum(one.found for one in view.passes)
    np.testing.assert_allclose(summed, expected.salience.sum(0), rtol=1e-4, atol=1e-7)
    assert all(not one.found[~one.visible].any() for one in view.passes)


def test_closed_early_the_next_pass_never_starts(studio, monkeypatch):
    looked = []
    vlm = studio.vlm("mini-blip")
    attend = vlm.attend
    monkeypatch.setattr(vlm, "attend", lambda *given, **named: looked.append(1) or attend(*given, **named))
    steps = studio.segment(SCENE.image, "scene.png", NAMES, "mini-blip", "auto", [])
    assert next(steps) == (0, 4)
    assert next(steps) == (1, 4)
    steps.close()
    assert len(looked) == 1
    assert len(list(studio.segment(SCENE.image, "scene.png", NAMES, "mini-blip", "auto", []))) == 6  # and all goes on


def test_what_the_page_lacks_is_told(studio):
    for model, preset, refiners, told in (
        ("../../etc", "auto", [], "no model '../../etc'"),
        ("mini-blip", "/etc/x.json", [], "no preset '/etc/x.json'"),
        ("mini-blip", "auto", ["sharpen"], "sharpen"),
        ("mini-blip", "auto", ["crf"] * 1000, "a refiner is named twice"),
        ("mini-blip", "released", [], "layer is 7"),
    ):
        with pytest.raises(ConfigError, match=told):
            list(studio.segment(SCENE.image, "scene.png", NAMES, model, preset, refiners))
    with pytest.raises(InputError, match="cannot know 'zebra'"):
        list(studio.segment(SCENE.image, "scene.png", "zebra", "mini-blip", "auto", []))


def test_a_photo_and_names_that_take_too_much_memory_are_refused(studio):
    photo = np.zeros((1000, 12_000, 3), np.uint8)
    names = ", ".join(f"thing {k}" for k in range(20))
    with pytest.raises(
        InputError, match="^12 million pixels in 20 classes are too much for this page; name 15 at most"
    ):
        next(studio.segment(photo, "x", names, "mini-blip", "auto", []))


def test_files_go_when_they_are_old_and_all_of_them_in_the_end(monkeypatch):
    monkeypatch.setenv("GRADIO_TEMP_DIR", "as it was before")  # and is again afterwards
    files = Files(keep=60)
    assert os.environ["GRADIO_TEMP_DIR"] == str(files.folder)
    (files.folder / "sample.png").touch()
    files.sweep_from_now()
    for name, age in (("old", 100), ("new", 10)):
        (files.folder / name).mkdir()
        (files.folder / name / "picture.png").touch()
        then = time.time() - age
        os.utime(files.folder / name / "picture.png", (then, then))
    os.utime(files.folder / "sample.png", (0, 0))
    files.sweep()
    assert {path.name for path in files.folder.rglob("*.png")} == {"sample.png", "picture.png"}
    assert not (files.folder / "old/picture.png").exists()
    then = time.time() - 100
    os.utime(files.folder / "old", (then, then))
    files.sweep()
    assert not (files.folder / "old").exists()
    for name, age in (("first", 30), ("second", 20)):
        (files.folder / name).write_bytes(b"x" * 1000)
        then = time.time() - age
        os.utime(files.folder / name, (then, then))
    files.sweep(most=1500)  # not old, but too much: the oldest go
    assert {path.name for path in files.folder.iterdir()} == {"sample.png", "new", "second"}
    files.close()
    assert not files.folder.exists()


def test_a_place_where_nothing_can_be_served_is_told_at_once():
    pytest.importorskip("gradio")
    from pnp_ovss.apps.web.page import _free_port

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=f"^no page can be served on 127.0.0.1, port {port} \\(address already"):
            _free_port("127.0.0.1", [port])
        free = free_port()
        assert _free_port("127.0.0.1", [port, free]) == free
    with pytest.raises(ConfigError, match="give another --host or --port$"):
        _free_port("nope.invalid", [7860])


def test_names_found_by_the_model_are_those_of_the_scene(studio):
    assert set(studio.name(SCENE.image, "mini-blip")) == {*SCENE.things, *SCENE.stuff}


def test_downloads_hold_the_result(tmp_path, expected):
    labels, coco, packed = write_downloads(View(SCENE.image, "scene.png", expected, ()), tmp_path)
    with Image.open(labels) as picture:
        assert np.array_equal(np.asarray(picture), expected.labels)
    told = json.loads(coco.read_text())
    assert [entry["name"] for entry in told["categories"]] == list(expected.classes[1:])
    assert told["images"][0]["file_name"] == "scene.png"
    with zipfile.ZipFile(packed) as archive:
        assert sorted(archive.namelist()) == ["coco.json", "labels.png", "overlay.png", "record.json"]
        assert archive.read("labels.png") == labels.read_bytes()
        assert json.loads(archive.read("record.json"))["classes"] == list(expected.classes)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """The command as people run it: its address, and the process for its memory."""
    pytest.importorskip("gradio")
    folder = tmp_path_factory.mktemp("server")
    # A shell that starts the tests in the background has them ignore Ctrl-C, and what they start as well.
    command = (
        "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from pnp_ovss.cli import main; sys.exit(main())"
    )
    arguments = ["serve", "--model", "mini-blip", "--device", "cpu", "--max-megapixels", "2"]
    environment = os.environ | {"TMPDIR": str(folder), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    with (folder / "errors.txt").open("w") as errors:
        process = subprocess.Popen(
            [sys.executable, "-c", command, *arguments, "--port", str(free_port())],
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env=environment,
        )
        try:
            line = process.stdout.readline()
            found = re.search(r"http://127\.0\.0\.1:\d+/", line)
            assert found, line + (folder / "errors.txt").read_text()
            yield found[0], process
        finally:
            print((folder / "errors.txt").read_text())
            process.send_signal(signal.SIGINT)
            assert process.wait(60) == 0
            process.stdout.close()
        assert [path.name for path in folder.iterdir()] == ["errors.txt"]  # nothing of a visitor's is left


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@pytest.fixture(scope="module")
def client(server):
    from gradio_client import Client

    return Client(server[0], verbose=False)


def ask(client, file: Path, names: str = NAMES, **changes):
    from gradio_client import handle_file

    given = {"model": "mini-blip", "preset": "auto", "refiners": ["blur", "crf"]} | changes
    return client.predict(photo=handle_file(file), names=names, **given, api_name="/segment")


@pytest.mark.slow
def test_the_api_gives_what_python_gives(client, scene_file, expected):
    status, _, legend, salience, passes, labels, _, _ = ask(client, scene_file)
    assert "112 x 112 pixels, mini-blip" in status
    with Image.open(labels if isinstance(labels, str) else labels["value"]) as picture:
        assert np.array_equal(np.asarray(picture), expected.labels)
    assert all(name in legend for name in expected.classes)
    assert len(salience) == len(SCENE.things)
    assert len(passes) == 2 * Config.from_preset("mini").passes


@pytest.mark.slow
@pytest.mark.parametrize(
    ("names", "changes", "told"),
    [
        ("", {}, "no class is named yet"),
        ("zebra", {}, "cannot know 'zebra'"),
        ("dog, Dog", {}, "named twice"),
        (NAMES, {"model": "blip-large-flickr"}, "not in the list of choices|no model"),
    ],
)
def test_errors_reach_whoever_asked(client, scene_file, names, changes, told):
    from gradio_client.exceptions import AppError

    with pytest.raises(AppError, match=told):
        ask(client, scene_file, names, **changes)


@pytest.mark.slow
def test_large_and_broken_files_are_told(server, client, scene_file, large_file, tmp_path):
    from gradio_client.exceptions import AppError

    ask(client, scene_file)
    before = memory(server[1])
    with pytest.raises(AppError, match="10000 x 10000 pixels"):
        ask(client, large_file)
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"\x89PNG\r\n\x1a\n rest is missing")
    with pytest.raises(AppError, match="the photo is|Cannot"):
        ask(client, broken)
    assert memory(server[1]) < before + 30  # MB; decoded, the large one has 300


@pytest.mark.slow
def test_no_file_of_the_server_can_be_read(server, client, scene_file, tmp_path):
    import httpx
    from gradio_client.exceptions import AppError

    for path in ("/etc/passwd", str(tmp_path / "secret"), "../../../etc/passwd"):
        assert httpx.get(f"{server[0]}gradio_api/file={path}").status_code in (403, 404)
    given = {"path": "/etc/passwd", "meta": {"_type": "gradio.FileData"}}  # as if it had been uploaded
    with pytest.raises((AppError, ValueError, OSError)):
        client.predict(photo=given, names=NAMES, api_name="/segment")
    os.mkfifo(tmp_path / "fifo")  # who reads it waits for ever
    address = f"{server[0]}config"
    for path in (scene_file, tmp_path / "fifo", "/dev/zero", tmp_path, address):  # without the mark Gradio looks for
        asked = {"data": [{"path": str(path)}, NAMES, "mini-blip", "auto", ["blur"], 0.0]}
        event = httpx.post(f"{server[0]}gradio_api/call/segment", json=asked).json()["event_id"]
        answer = httpx.get(f"{server[0]}gradio_api/call/segment/{event}", timeout=60).text
        assert "event: error" in answer
        assert "the photo is not among the uploads of this page" in answer


@pytest.mark.slow
def test_twenty_at_once_are_answered_or_told_to_come_again(server, scene_file, expected):
    from gradio_client import Client
    from gradio_client.exceptions import AppError

    clients = [Client(server[0], verbose=False) for _ in range(20)]

    def one(client):
        try:
            return ask(client, scene_file, refiners=["blur"])
        except AppError as error:
            return str(error)

    for client in clients[:4]:
        one(client)
    before = memory(server[1])
    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(one, clients))
    answered = [answer for answer in answers if not isinstance(answer, str)]
    assert len(answered) >= 17  # one at work, 16 waiting
    assert all("too many at once: 16 are waiting" in answer for answer in answers if isinstance(answer, str))
    assert memory(server[1]) < before + 60  # MB


def memory(process) -> float:
    """Return the resident memory of the server, in MB."""
    status = Path(f"/proc/{process.pid}/status")
    if not status.exists():
        pytest.skip("needs /proc")
    return int(re.search(r"VmRSS:\s+(\d+)", status.read_text())[1]) / 1024


FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api")
    if CHROMIUM is None:
        pytest.skip("needs Chromium")
    with playwright.sync_playwright() as session:
        started = session.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield started
        started.close()


@pytest.fixture
def tab(browser, server):
    """The page in a window of its own, which asks nobody but the server."""
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.set_default_timeout(60_000)
    asked = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(server[0])
    page.wait_for_selector("#run")
    yield page
    page.close()
    assert [url for url in asked if not url.startswith((server[0], "data:", "blob:"))] == []


def upload(tab, file: Path) -> None:
    tab.set_input_files("#photo input[type=file]", file)
    tab.wait_for_selector("#photo img")


@pytest.mark.slow
def test_a_visitor_uploads_names_looks_and_downloads(tab, scene_file, expected, tmp_path):
    upload(tab, scene_file)
    tab.fill("#names textarea", NAMES)
    tab.press("#names textarea", "Enter")  # by keyboard
    tab.wait_for_selector("#picture img")
    tab.wait_for_selector(f"#legend :text('{SCENE.things[0]}')")
    first = tab.get_attribute("#picture img", "src")
    tab.fill("#opacity input[type=number]", "0.3")
    tab.press("#opacity input[type=number]", "Enter")
    tab.wait_for_function("before => document.querySelector('#picture img').getAttribute('src') != before", arg=first)
    with tab.expect_download() as download:
        tab.click("#labels")
    download.value.save_as(tmp_path / "labels.png")
    with Image.open(tmp_path / "labels.png") as picture:
        assert np.array_equal(np.asarray(picture), expected.labels)
    for name, pictures in (("Salience", len(SCENE.things)), ("Passes", 2 * expected.config.passes)):
        tab.get_by_role("tab", name=name).click()
        tab.wait_for_function(
            "([id, count]) => document.querySelectorAll(`#${id} img`).length == count", arg=[name.lower(), pictures]
        )


@pytest.mark.slow
def test_on_a_phone_a_sample_is_segmented_and_nothing_sticks_out(tab):
    tab.set_viewport_size({"width": 390, "height": 844})
    tab.click("#samples tbody tr")
    tab.wait_for_selector("#photo img")
    tab.click("#run")
    tab.wait_for_selector("#picture img")
    for name in ("Salience", "Passes", "Labels"):
        tab.get_by_role("tab", name=name).click()
        tab.wait_for_timeout(300)
        assert tab.evaluate("document.documentElement.scrollWidth") == 390, name


@pytest.mark.slow
def test_named_for_the_visitor(tab, scene_file):
    upload(tab, scene_file)
    tab.click("#name")
    tab.wait_for_function("document.querySelector('#names textarea').value.includes(',')")
    assert set(tab.input_value("#names textarea").split(", ")) == {*SCENE.things, *SCENE.stuff}


@pytest.mark.slow
def test_a_reload_in_the_middle_does_no_harm(tab, scene_file):
    def start() -> None:
        tab.click("#run")
        tab.wait_for_selector("#status :text-matches('pass|Refining|pixels')")

    def prepare() -> None:
        upload(tab, scene_file)
        tab.fill("#names textarea", NAMES)

    prepare()
    start()
    tab.reload()
    tab.wait_for_selector("#run")
    prepare()
    tab.click("#run")
    tab.wait_for_selector("#picture img")


@pytest.mark.slow
@pytest.mark.parametrize("when", ["pass", "Refining"])
def test_cancelled_it_stops_and_starts_again(tab, tmp_path, when):
    photo = tmp_path / "large.png"
    Image.fromarray(draw(HELD_OUT_SEED, 3, 1000).image).save(photo)
    upload(tab, photo)
    tab.fill("#names textarea", NAMES)
    for _ in range(2):
        tab.evaluate(  # in the page itself, for a pass is over in no time
            """when => new Promise(done => {
                document.querySelector("#run").click();
                const look = () => {
                    const told = document.querySelector("#status").textContent;
                    if (!told.includes(when)) return requestAnimationFrame(look);
                    document.querySelector("#cancel").click();
                    done();
                };
                look();
            })""",
            when,
        )
        tab.wait_for_selector("#status :text('Cancelled.')", timeout=5000)
        assert tab.get_by_text("Error", exact=True).count() == 0
    tab.click("#run")
    tab.wait_for_selector("#status :text('1000 x 1000 pixels')")
    tab.wait_for_selector("#picture img")


@pytest.mark.slow
def test_bad_files_are_told_on_the_page(tab, large_file, tmp_path):
    broken = tmp_path / "broken.png"
    broken.write_text("no picture")
    for file, told in ((broken, "the photo is no picture"), (large_file, "10000 x 10000 pixels, more than 2 million")):
        tab.set_input_files("#photo input[type=file]", file)
        tab.wait_for_timeout(1000)
        tab.fill("#names textarea", NAMES)
        tab.click("#run")
        tab.wait_for_selector(f"text={told}")
        tab.reload()
        tab.wait_for_selector("#run")
