"""The page: the work behind it, its API over HTTP, and a browser that uses it."""

import asyncio
import gc
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import warnings
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pnp_ovss import Config, ConfigError, InputError, Segmenter
from pnp_ovss.apps.page_work import KEEP, MOST_NAMES, PageModels, sweep, write_downloads
from pnp_ovss.mini import HELD_OUT_SEED, draw
from pnp_ovss.types import ignore

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning")  # Gradio's client's

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
SCENE = draw(HELD_OUT_SEED, 3, 112)  # a sail boat and an ice cream
NAMES = ", ".join(SCENE.things)


@pytest.fixture(scope="module")
def models() -> PageModels:
    return PageModels(["mini-blip"], "cpu", most_pixels=2_000_000)


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


@pytest.mark.slow
def test_the_page_keeps_no_history_and_reports_to_nobody(models, tmp_path, monkeypatch):
    """Gradio's run history would write with the hub token of whoever serves the page."""
    gradio = pytest.importorskip("gradio")
    from pnp_ovss.apps import page

    given = {}
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    monkeypatch.setattr(page, "build", lambda _: gradio.Blocks(analytics_enabled=False))
    monkeypatch.setattr(page, "sweep_on", lambda _: None)
    monkeypatch.setattr(gradio.Blocks, "launch", lambda _, **settings: given.update(settings))
    with warnings.catch_warnings(action="ignore", category=ResourceWarning):  # Gradio leaves an event loop open
        page.serve(models, "127.0.0.1", None)
        asyncio.set_event_loop(None)
        gc.collect()
    assert (given["run_history"], given["enable_monitoring"], given["share"]) == (False, False, False)


def test_a_photo_is_refused_before_it_is_decoded(models, tmp_path, large_file, monkeypatch):
    (tmp_path / "no.png").write_text("no picture")
    monkeypatch.setattr(Image.Image, "convert", lambda *_: pytest.fail("was decoded"))
    with pytest.raises(InputError, match="there is no photo yet"):
        models.photo(None)
    with pytest.raises(InputError, match="the photo is no picture"):
        models.photo(str(tmp_path / "no.png"))
    with pytest.raises(InputError, match="more than 2 million pixels"):
        models.photo(str(large_file))


def test_a_visitor_hears_of_every_step(models, scene_file, expected):
    steps = []
    result, passes = models.segment(
        str(scene_file), NAMES, "mini-blip", "auto", ["blur", "crf"], lambda *step: steps.append(step)
    )
    count = expected.config.passes
    assert steps[:count] == [("pass", done, count) for done in range(count)]
    assert len(steps) > count + expected.config.crf_iterations  # refinement can be left between its steps as well
    assert np.array_equal(result.labels, expected.labels)
    assert result.config == expected.config
    assert [int((~one.visible).sum()) for one in passes] == [expected.config.drop * k for k in range(count)]
    summed = sum(one.maps[0] for one in passes)
    np.testing.assert_allclose(summed, expected.salience, rtol=1e-4, atol=1e-7)
    assert all(not one.maps[0].sum(0)[~one.visible[0]].any() for one in passes)


def test_cancelled_the_next_pass_never_starts(models, scene_file, monkeypatch):
    class Stop(Exception):
        pass

    def on_step(name, done, total):
        if done == 1:
            raise Stop

    attended = []
    vlm = models.vlm("mini-blip")
    attend = vlm.attend
    monkeypatch.setattr(vlm, "attend", lambda *given, **named: attended.append(1) or attend(*given, **named))
    with pytest.raises(Stop):
        models.segment(str(scene_file), NAMES, "mini-blip", "auto", [], on_step)
    assert len(attended) == 1
    models.segment(str(scene_file), NAMES, "mini-blip", "auto", [], ignore)  # and all goes on
    assert len(attended) == 5


def test_a_class_may_have_several_words(models, scene_file):
    things = "=".join((SCENE.things[0], f"{SCENE.things[0]}|car"))
    result, passes = models.segment(str(scene_file), f"{things}, {SCENE.things[1]}", "mini-blip", "auto", [], ignore)
    assert result.classes == ("background", *SCENE.things)
    assert passes[0].maps.shape[1] == 3


@pytest.mark.parametrize(
    ("names", "model", "preset", "refiners", "message"),
    [
        (NAMES, "mini-blip", "auto", ["sharpen"], "sharpen"),
        (NAMES, "mini-blip", "released", [], "layer"),
        ("zebra", "mini-blip", "auto", [], "cannot know 'zebra'"),
        (" , \n", "mini-blip", "auto", [], "at least one|no class|got none"),
        (",".join(f"thing {k}" for k in range(MOST_NAMES + 1)), "mini-blip", "auto", [], f"got {MOST_NAMES + 1}; name"),
    ],
)
def test_what_the_page_lacks_is_said(models, scene_file, names, model, preset, refiners, message):
    with pytest.raises((ConfigError, InputError), match=message):
        models.segment(str(scene_file), names, model, preset, refiners, ignore)


def test_a_photo_that_does_not_fit_into_the_memory_is_refused(scene_file):
    page = PageModels(["mini-blip"], memory=10**6)
    with pytest.raises(InputError, match="^the photo needs 0.. GB of memory, and there is room for 0.0 GB; raise"):
        page.segment(str(scene_file), NAMES, "mini-blip", "auto", [], ignore)


def test_names_found_by_the_model_are_those_of_the_scene(models):
    assert set(models.name(SCENE.image, "mini-blip")) == {*SCENE.things, *SCENE.stuff}


def test_downloads_hold_the_result(tmp_path, expected):
    labels, coco, packed = write_downloads(expected, Path("somewhere/coco.png"), tmp_path)
    with Image.open(labels) as picture:
        assert np.array_equal(np.asarray(picture), expected.labels)
    data = json.loads(Path(coco).read_text())
    assert [entry["name"] for entry in data["categories"]] == list(expected.classes[1:])
    assert data["images"][0]["file_name"] == "coco.png"
    with zipfile.ZipFile(packed) as archive:
        assert {"coco.png", "coco.overlay.png", "coco.json", "coco.coco.json"} <= set(archive.namelist())
        assert archive.read("coco.png") == Path(labels).read_bytes()
        assert json.loads(archive.read("coco.json"))["classes"] == list(expected.classes)


def test_old_files_go_and_of_too_many_the_oldest(tmp_path):
    now = time.time()
    for name, age in (("own", 9 * KEEP), ("old", 2 * KEEP), ("first", 30), ("second", 20)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "picture.png").write_bytes(b"x" * 1000)
        os.utime(tmp_path / name / "picture.png", (now - age, now - age))
    own = {tmp_path / "own/picture.png"}

    def left() -> list[str]:
        return sorted(path.parent.name for path in tmp_path.rglob("*.png"))

    sweep(tmp_path, own)
    assert left() == ["first", "own", "second"]
    sweep(tmp_path, own, most=1500)
    assert left() == ["own", "second"]


def test_a_host_that_does_not_exist_is_named(models):
    pytest.importorskip("gradio")
    from pnp_ovss.apps.page import serve

    with pytest.raises(ConfigError, match=r"^no page can be served on nope.invalid, .* give another --host or --port$"):
        serve(models, "nope.invalid", None)


@pytest.mark.slow
def test_a_port_that_is_taken_is_named():
    pytest.importorskip("gradio")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        command = [sys.executable, "-m", "pnp_ovss", "serve", "--model", "mini-blip", "--port", str(port)]
        done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert f"no page can be served on 127.0.0.1, port {port} " in line


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
    status, page, salience, passes, labels, *_ = ask(client, scene_file)
    assert "112 x 112 pixels, mini-blip" in status
    with Image.open(labels if isinstance(labels, str) else labels["value"]) as picture:
        assert np.array_equal(np.asarray(picture), expected.labels)
    assert all(name in page for name in expected.classes)
    assert len(salience) == len(SCENE.things)
    assert len(passes) == 2 * Config.from_preset("mini").passes


@pytest.mark.slow
@pytest.mark.parametrize(
    ("names", "changes", "message"),
    [
        ("", {}, "at least one|no class|got none"),
        ("zebra", {}, "cannot know 'zebra'"),
        ("dog, Dog", {}, "named twice"),
        (NAMES, {"model": "blip-large-flickr"}, "not in the list of choices"),
        (NAMES, {"preset": "/etc/x.json"}, "not in the list of choices"),
        (NAMES, {"refiners": ["crf", "sharpen"]}, "not in the list of choices"),
    ],
)
def test_errors_reach_the_client(client, scene_file, names, changes, message):
    from gradio_client.exceptions import AppError

    with pytest.raises(AppError, match=message):
        ask(client, scene_file, names, **changes)


@pytest.mark.slow
def test_large_and_broken_files_are_named(server, client, scene_file, large_file, tmp_path):
    from gradio_client.exceptions import AppError

    ask(client, scene_file)
    before = memory(server[1])
    with pytest.raises(AppError, match="more than 2 million pixels"):
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
        asked = {"data": [{"path": str(path)}, NAMES, "mini-blip", "auto", ["blur"], "auto"]}
        event = httpx.post(f"{server[0]}gradio_api/call/segment", json=asked).json()["event_id"]
        answer = httpx.get(f"{server[0]}gradio_api/call/segment/{event}", timeout=60).text
        assert "event: error" in answer
        assert "the photo is not among the uploads of this page" in answer


@pytest.mark.slow
def test_twenty_at_once_are_answered_or_refused(server, scene_file, expected):
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
    assert memory(server[1]) < before + 90  # MB; what a model and its settings keep


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
def tab(browser, server, request):
    """The page in a window of its own, which asks nobody but the server."""
    page = browser.new_page(viewport=getattr(request, "param", {"width": 1280, "height": 900}))
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
    tab.wait_for_selector(f"#picture .legend :text('{SCENE.things[0]}')")
    tab.fill("#picture input[type=range]", "0.3")
    assert tab.evaluate("document.querySelector('#picture img + img').style.opacity") == "0.3"
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
def test_the_samples_can_be_seen(tab):
    tab.wait_for_function("document.querySelectorAll('#samples img').length == 4")
    tab.wait_for_function("[...document.querySelectorAll('#samples img')].every(image => image.naturalWidth)")


@pytest.mark.slow
@pytest.mark.parametrize("tab", [{"width": 390, "height": 844}], indirect=True)
def test_on_a_phone_a_sample_is_segmented_and_nothing_sticks_out(tab):
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
        tab.wait_for_selector("#status :text-matches('pass|refine|crf|pixels')")

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
@pytest.mark.parametrize("when", ["pass", "crf"])
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
                    const status = document.querySelector("#status").textContent;
                    if (!status.includes(when)) return requestAnimationFrame(look);
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
def test_bad_files_are_named_on_the_page(tab, large_file, tmp_path):
    broken = tmp_path / "broken.png"
    broken.write_text("no picture")
    for file, message in (
        (broken, "the photo is no picture"),
        (large_file, "more than 2 million pixels"),
    ):
        tab.set_input_files("#photo input[type=file]", file)
        tab.wait_for_timeout(1000)
        tab.fill("#names textarea", NAMES)
        tab.click("#run")
        tab.wait_for_selector(f"text={message}")
        tab.reload()
        tab.wait_for_selector("#run")
