"""The page in a browser: the command as people run it, used as people use it."""

import io
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
from scipy.ndimage import binary_erosion

from pnp_ovss import Segmenter
from pnp_ovss.mini import HELD_OUT_SEED, draw

pytestmark = pytest.mark.slow

httpx = pytest.importorskip("httpx2")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = ("--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update")
SCENE = draw(HELD_OUT_SEED, 3, 112)  # a sail boat and an ice cream
NAMES = ", ".join(SCENE.things)
BOAT, CONE = SCENE.things
SHIFT = """window.shift = 0;
const add = list => { for (const one of list.getEntries()) if (!one.hadRecentInput) window.shift += one.value; };
new PerformanceObserver(add).observe({ type: "layout-shift", buffered: true });"""


def png(image=SCENE.image) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format="PNG")
    return buffer.getvalue()


@pytest.fixture(scope="module")
def expected():
    return Segmenter.from_pretrained("mini-blip", device="cpu", present="auto")(SCENE.image, SCENE.things)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A folder of photos."""
    folder = tmp_path_factory.mktemp("photos")
    for index in range(8):
        (folder / f"scene-{index}.png").write_bytes(png(draw(HELD_OUT_SEED, 3 + index, 112).image))
    return folder


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """The command as people run it: its address, and the process for its memory."""
    pytest.importorskip("uvicorn")
    temporary = tmp_path_factory.mktemp("server")
    # A shell that starts the tests in the background has them ignore Ctrl-C, and what they start as well.
    command = (
        "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from pnp_ovss.cli import main; sys.exit(main())"
    )
    arguments = ["serve", "--model", "mini-blip", "--model", "mini-clip", "--method", "pnp", "--method", "naclip"]
    arguments += ["--device", "cpu", "--max-megapixels", "2", "--port", str(free_port())]
    environment = os.environ | {"TMPDIR": str(temporary), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    with (temporary / "errors.txt").open("w") as errors:
        process = subprocess.Popen(
            [sys.executable, "-c", command, *arguments],
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env=environment,
        )
        try:
            line = process.stdout.readline()
            found = re.search(r"http://127\.0\.0\.1:\d+/", line)
            assert found, line + (temporary / "errors.txt").read_text()
            yield found[0], process
        finally:
            process.send_signal(signal.SIGINT)
            assert process.wait(60) == 0
            process.stdout.close()
        log = (temporary / "errors.txt").read_text()
        assert "bug" not in log
        assert all(re.match(r"\d{4}-\d\d-\d\d ", line) for line in log.splitlines())
        assert [path.name for path in temporary.iterdir()] == ["errors.txt"]  # nothing of a visitor's is left


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api")
    if CHROMIUM is None:
        pytest.skip("needs Chromium")
    with playwright.sync_playwright() as session:
        started = session.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield started
        started.close()


WIDE, PHONE = {"width": 1280, "height": 900}, {"width": 390, "height": 844}


@pytest.fixture
def open_page(browser, server):
    """Return what opens the page in a window of its own, which asks nobody but the server, and has no errors."""
    contexts, asked, faults = [], [], []

    def open_page(view=WIDE, dark=False, context=None, wait=True):
        if context is None:
            context = browser.new_context(viewport=view, color_scheme="dark" if dark else "light")
            contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(30_000)
        page.on("request", lambda request: asked.append(request.url))
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("dialog", lambda dialog: faults.append(dialog.message))
        page.add_init_script(SHIFT)
        page.goto(server[0])
        if wait:
            page.wait_for_selector("#photo:not([hidden])")
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert [url for url in asked if not url.startswith((server[0], "data:", "blob:"))] == []
    assert faults == []


@pytest.fixture
def tab(open_page):
    return open_page()


def until(look, seconds: float = 30) -> None:
    """Wait until ``look()`` is true."""
    end = time.monotonic() + seconds
    while not (got := look()):
        assert time.monotonic() < end, got
        time.sleep(0.02)


def status(tab) -> str:
    return tab.inner_text("#status")


def segment(tab, file: Path | None = None, names: str = NAMES) -> None:
    if file:
        tab.set_input_files("#files", file)
    tab.fill("#classes", names)
    tab.click("#run")
    until(lambda: "pixels in" in status(tab))


def within(labels: np.ndarray, label: int) -> tuple[int, int]:
    """Return row and column of a pixel within a class's region, off its border."""
    places = np.argwhere(binary_erosion(labels == label, iterations=3))
    y, x = places[len(places) // 2]
    return int(y), int(x)


def spot(tab, labels: np.ndarray, label: int) -> tuple[float, float]:
    """Return where such a pixel is in the window."""
    y, x = within(labels, label)
    box = tab.locator("#labels").bounding_box()
    return box["x"] + box["width"] * (x + 0.5) / labels.shape[1], box["y"] + box["height"] * (y + 0.5) / labels.shape[0]


def drawn(tab, labels: np.ndarray, label: int) -> list[int]:
    """Return what is drawn there, as red, green, blue and alpha."""
    look = "place => [...document.getElementById('labels').getContext('2d').getImageData(...place, 1, 1).data]"
    return tab.evaluate(look, within(labels, label)[::-1])


def names_shown(tab) -> list[str]:
    return tab.evaluate("() => [...document.querySelectorAll('#legend li')].map(one => one.dataset.name)")


def may_download(tab) -> bool:
    return tab.get_attribute("#download", "href") is not None


@pytest.mark.parametrize(("view", "dark"), [(WIDE, False), (PHONE, False), (WIDE, True), (PHONE, True)])
def test_it_opens_with_a_result_at_once_and_nothing_jumps(open_page, view, dark):
    seconds = []
    for _ in range(3):
        begun = time.monotonic()
        tab = open_page(view, dark)
        seconds.append(time.monotonic() - begun)
    assert min(seconds) < 2
    assert names_shown(tab)
    assert may_download(tab)
    assert tab.evaluate("() => document.documentElement.dataset.theme") == ("dark" if dark else "light")
    tab.wait_for_timeout(300)
    assert tab.evaluate("() => window.shift") < 0.1
    assert tab.evaluate("() => document.documentElement.scrollWidth") == view["width"]
    picture, run = tab.locator("#frame").bounding_box(), tab.locator("#run").bounding_box()
    assert picture["y"] < run["y"]
    if view == PHONE:  # the result comes first
        assert picture["y"] + picture["height"] < view["height"]
    assert tab.locator(".primary:visible").count() == 1


def test_hover_hide_isolate_recolour_and_compare_with_the_photo(tab, folder, expected):
    segment(tab, folder / "scene-0.png")
    assert names_shown(tab) == list(SCENE.things)
    tab.mouse.move(*spot(tab, expected.labels, 1))
    tab.wait_for_selector("#bubble:not([hidden])")
    assert tab.inner_text("#bubble") == f"{BOAT}, confidence {expected.confidence[0]:.2f}"
    tab.mouse.move(2, 2)
    tab.wait_for_selector("#bubble", state="hidden")
    colours = [expected.colours[label].tolist() for label in (1, 2)]
    assert [drawn(tab, expected.labels, label) for label in (1, 2)] == [[*colours[0], 255], [*colours[1], 255]]
    tab.locator(".who").nth(0).click()
    assert (drawn(tab, expected.labels, 1)[3], drawn(tab, expected.labels, 2)[3]) == (0, 255)
    assert tab.locator(".who").nth(0).get_attribute("aria-pressed") == "false"
    tab.get_by_role("button", name=f"{BOAT} alone").click()
    assert drawn(tab, expected.labels, 1) == [*colours[0], 255]
    assert drawn(tab, expected.labels, 2)[3] == 150  # dimmed, as the photo is
    tab.get_by_role("button", name=f"{BOAT} alone").click()
    tab.locator(".who").nth(0).click()
    tab.get_by_role("button", name=f"Edit {BOAT}").click()
    tab.fill("#edit-colour", "#ff00aa")
    tab.click("#edit-save")
    until(lambda: drawn(tab, expected.labels, 1) == [255, 0, 170, 255])
    tab.fill("#split", "40")
    assert (
        tab.evaluate("() => getComputedStyle(document.getElementById('labels')).clipPath") == "inset(0px 0px 0px 40%)"
    )
    tab.wait_for_selector("#divider:not([hidden])")
    tab.fill("#opacity", "0.3")
    assert tab.evaluate("() => document.getElementById('labels').style.opacity") == "0.3"


def test_zoom_and_keyboard(tab, expected, folder):
    segment(tab, folder / "scene-0.png")
    before = tab.locator("#labels").bounding_box()
    tab.click("#in")
    after = tab.locator("#labels").bounding_box()
    assert after["width"] == pytest.approx(1.5 * before["width"])
    tab.focus("#frame")
    tab.keyboard.press("0")
    assert tab.locator("#labels").bounding_box() == before
    x, y = spot(tab, expected.labels, 2)
    frame = tab.locator("#frame").bounding_box()
    across, down = x - frame["x"] - frame["width"] / 2, y - frame["y"] - frame["height"] / 2
    for steps, keys in ((across, ("ArrowLeft", "ArrowRight")), (down, ("ArrowUp", "ArrowDown"))):
        for _ in range(round(abs(steps) / 14)):
            tab.keyboard.press(keys[steps > 0])
    assert CONE in status(tab)  # a screen reader says it
    tab.keyboard.press("Enter")
    assert tab.inner_text("#region-title") == f"Region of {CONE}"
    tab.keyboard.press("Escape")
    tab.get_by_role("tab", name="Labels").focus()
    tab.keyboard.press("ArrowRight")
    assert tab.locator("#panel-salience img").count() == 2
    assert tab.locator("#salience img").nth(0).get_attribute("alt") == f"Salience of {BOAT}"
    tab.keyboard.press("ArrowRight")
    assert tab.locator("#passes img").count() == 2 * expected.config.passes


def jobs_done(server) -> float:
    text = httpx.get(f"{server[0]}metrics").text
    return float(re.search(r'pnp_ovss_jobs_total\{end="done"\} (\S+)', text)[1])


def test_a_class_is_renamed_without_the_model_and_a_synonym_asks_it_again(tab, server, folder):
    segment(tab, folder / "scene-0.png")
    before = jobs_done(server)
    markup = "<img src=x onerror=alert(1)>"
    for name in (markup, "yacht"):
        tab.get_by_role("button", name="Edit ").first.click()
        tab.fill("#edit-name", name)
        if name == markup:  # = would be taken for words
            tab.click("#edit-save")
            assert "without" in tab.inner_text("#error-edit")
            tab.keyboard.press("Escape")
            continue
        tab.click("#edit-save")
        until(lambda: names_shown(tab) == ["yacht", CONE])
    assert jobs_done(server) == before
    assert tab.input_value("#classes") == f"yacht={BOAT}, {CONE}"
    tab.click("#undo")
    until(lambda: names_shown(tab) == [BOAT, CONE])
    assert tab.input_value("#classes") == NAMES
    tab.get_by_role("button", name="Edit ").first.click()
    tab.fill("#edit-words", f"{BOAT}, car")
    tab.click("#edit-save")
    until(lambda: jobs_done(server) == before + 1)
    assert tab.input_value("#classes") == f"{BOAT}={BOAT}|car, {CONE}"


def test_a_region_is_deleted_given_away_and_brought_back(tab, folder, expected):
    segment(tab, folder / "scene-0.png")
    place = spot(tab, expected.labels, 1)
    tab.mouse.click(*place)
    tab.click("#region-delete")
    until(lambda: drawn(tab, expected.labels, 1)[3] == 0)
    tab.click("#undo")
    until(lambda: drawn(tab, expected.labels, 1)[3] == 255)
    assert tab.is_disabled("#undo")
    tab.mouse.click(*place)
    tab.fill("#region-to", "<b>regatta</b>")
    tab.click("#region-save")
    until(lambda: "<b>regatta</b>" in names_shown(tab))
    with tab.expect_download() as download:
        tab.select_option("#format", "result")
        tab.click("#download")
    record = json.loads(Path(download.value.path()).read_text())
    assert record["classes"][-1] == "<b>regatta</b>"
    assert record["areas"]["<b>regatta</b>"] > 0


def test_downloads_are_those_of_the_photo(tab, folder, expected):
    segment(tab, folder / "scene-0.png")
    with tab.expect_download() as download:
        tab.click("#download")
    assert download.value.suggested_filename == "scene-0.png"
    with Image.open(download.value.path()) as picture:
        assert np.array_equal(np.asarray(picture), expected.labels)


def test_the_same_photo_two_ways_side_by_side(tab, folder):
    segment(tab, folder / "scene-0.png")
    tab.get_by_role("tab", name="Compare").click()
    tab.click("#compare")
    until(lambda: tab.locator("#columns figure").count() == 2)
    captions = tab.locator("#columns figcaption").all_inner_texts()
    assert captions[0].startswith("pnp on mini-blip")
    assert captions[1].startswith("naclip on mini-clip")
    assert all(re.search(r"\d\.\d\d s: ", one) for one in captions)
    tab.locator("#columns button").nth(1).click()
    until(lambda: "by naclip on mini-clip" in status(tab))


def test_a_folder_of_photos_has_a_strip_and_one_zip(tab, folder):
    tab.set_input_files("#files", sorted(folder.iterdir()))
    tab.fill("#classes", NAMES)
    tab.click("#run")
    until(lambda: status(tab) == "8 of 8 photos are done.", 120)
    assert tab.locator("#strip button").count() == 8
    tab.locator("#strip button").nth(5).click()
    until(lambda: tab.get_attribute("#photo", "alt") == "The photo scene-5.png")
    tab.select_option("#format", "coco")
    with tab.expect_download() as download:
        tab.click("#download")
    with zipfile.ZipFile(download.value.path()) as archive:
        assert sum(name.startswith("images/scene-") for name in archive.namelist()) == 8


def test_after_an_error_or_with_a_new_photo_nothing_of_the_last_one_is_left(tab, folder, tmp_path):
    broken = tmp_path / "broken.png"
    broken.write_text("no picture")
    large = tmp_path / "large.png"
    Image.new("1", (10_000, 10_000)).save(large)
    for file, names, field, message in (
        (broken, NAMES, "photo", "is no picture"),
        (large, NAMES, "photo", "more than 2 million pixels"),
        (folder / "scene-1.png", "zebra", "classes", "cannot know 'zebra'"),
        (folder / "scene-1.png", "", "classes", "at least one class"),
    ):
        segment(tab, folder / "scene-0.png")
        assert may_download(tab)
        tab.set_input_files("#files", file)
        until(lambda: not may_download(tab))  # the new photo alone clears them
        assert names_shown(tab) == []
        assert tab.evaluate("() => document.getElementById('labels').hidden")
        tab.fill("#classes", names)
        tab.click("#run")
        until(lambda field=field, message=message: message in tab.inner_text(f"#error-{field}"))
        assert tab.get_attribute({"photo": "#files", "classes": "#classes"}[field], "aria-invalid") == "true"
        assert names_shown(tab) == []
        assert not may_download(tab)
        assert tab.locator("#salience img, #passes img").count() == 0
    tab.set_input_files("#files", folder / "scene-0.png")
    assert tab.inner_text("#error-classes") == ""
    assert not may_download(tab)


def test_cancelled_it_stops_and_starts_again(tab, tmp_path):
    photo = tmp_path / "large.png"
    Image.fromarray(draw(HELD_OUT_SEED, 3, 1000).image).save(photo)
    tab.set_input_files("#files", photo)
    tab.fill("#classes", NAMES)
    for _ in range(2):
        tab.click("#run")
        until(lambda: " of " in status(tab))
        tab.click("#cancel")
        until(lambda: status(tab) == "Cancelled.", 5)
        assert not may_download(tab)
    tab.click("#run")
    until(lambda: "1000 \u00d7 1000 pixels" in status(tab), 90)


def test_a_reload_keeps_the_result_and_two_tabs_are_apart(open_page, folder):
    first = open_page()
    second = open_page(context=first.context)
    segment(first, folder / "scene-0.png")
    segment(second, folder / "scene-1.png", ", ".join(draw(HELD_OUT_SEED, 4, 112).things))
    for tab, name in ((first, "scene-0.png"), (second, "scene-1.png")):
        tab.reload()
        until(lambda tab=tab, name=name: tab.get_attribute("#photo", "alt") == f"The photo {name}")
        assert may_download(tab)
    first.click("#run")
    first.reload()  # in the middle of it
    first.wait_for_selector("#photo:not([hidden])")
    segment(first, folder / "scene-0.png")


def test_an_example_can_be_taken_and_named(tab):
    tab.locator("#examples button").nth(1).click()
    until(lambda: tab.get_attribute("#examples button:nth-child(2)", "aria-pressed") == "true")
    before = names_shown(tab)
    assert before
    tab.fill("#classes", "")
    tab.click("#name")
    until(lambda: tab.input_value("#classes") != "")
    assert set(before) <= {name.strip() for name in tab.input_value("#classes").split(",")}
    tab.click("#run")
    until(lambda: "pixels in" in status(tab))


@pytest.mark.parametrize(("view", "dark"), [(WIDE, False), (PHONE, False), (WIDE, True)])
def test_axe_finds_no_serious_violation(open_page, view, dark):
    script = os.environ.get("AXE_CORE")  # axe.min.js of the npm package axe-core
    if not script:
        pytest.skip("needs AXE_CORE=.../axe.min.js")
    tab = open_page(view, dark)
    tab.evaluate(Path(script).read_text())
    for name in ("Labels", "Salience", "Passes", "Compare"):
        tab.get_by_role("tab", name=name).click()
        if name == "Compare":
            tab.evaluate("() => { for (const one of document.querySelectorAll('details')) one.open = true; }")
        tab.wait_for_timeout(300)
        found = tab.evaluate("() => axe.run()")["violations"]
        serious = [
            (one["id"], [node["target"] for node in one["nodes"]])
            for one in found
            if one["impact"] in ("serious", "critical")
        ]
        assert serious == [], name
    tab.get_by_role("tab", name="Labels").click()
    tab.get_by_role("button", name="Edit ").first.click()
    assert [
        one["id"] for one in tab.evaluate("() => axe.run()")["violations"] if one["impact"] in ("serious", "critical")
    ] == []


# Many at once.


def memory(process) -> float:
    """Return the resident memory of the server, in MB."""
    place = Path(f"/proc/{process.pid}/status")
    if not place.exists():
        pytest.skip("needs /proc")
    return int(re.search(r"VmRSS:\s+(\d+)", place.read_text())[1]) / 1024


def test_twenty_visitors_at_once_are_served_and_hear_their_place(server, expected):
    def visit(number: int) -> tuple[set[int], bytes]:
        with httpx.Client(base_url=server[0], timeout=120) as client:
            client.get("/")
            answer = client.post("/api/segment", data={"classes": NAMES}, files={"photo": (f"{number}.png", png())})
            assert answer.status_code == 202, answer.text
            lines = client.get(f"/api/jobs/{answer.json()['id']}/events").text.strip().split("\n\n")
            states = [json.loads(line.removeprefix("data: ")) for line in lines]
            labels = client.get(f"/api/jobs/{states[-1]['id']}/view").content
            client.delete(f"/api/jobs/{states[-1]['id']}")
            return {one["before"] for one in states if one["state"] == "waiting"}, labels

    def all_at_once() -> list[tuple[set[int], bytes]]:
        with ThreadPoolExecutor(20) as pool:
            return list(pool.map(visit, range(20)))

    all_at_once()
    before = memory(server[1])
    answers = all_at_once()
    assert all(labels == expected.labels.astype(np.uint8).tobytes() for _, labels in answers)
    assert max(max(places, default=0) for places, _ in answers) > 5
    assert memory(server[1]) < before + 30


def test_fifty_slow_uploads_stop_nobody(server):
    host, port = re.search(r"//(.*):(\d+)/", server[0]).groups()
    head = f"POST /api/segment HTTP/1.1\r\nHost: {host}:{port}\r\nContent-Length: 1000000\r\n"
    head += "Content-Type: multipart/form-data; boundary=x\r\n\r\n--x"
    slow = [socket.create_connection((host, int(port)), timeout=60) for _ in range(50)]
    try:
        for one in slow:
            one.sendall(head.encode())
        begun = time.monotonic()
        assert httpx.get(f"{server[0]}healthz").status_code == 200
        assert time.monotonic() - begun < 2
        answer = httpx.post(f"{server[0]}api/segment", data={"classes": NAMES}, files={"photo": ("a.png", png())})
        assert '"state": "done"' in httpx.get(f"{server[0]}api/jobs/{answer.json()['id']}/events", timeout=60).text
        assert b" 408 " in slow[0].recv(100)  # it has had its time
    finally:
        for one in slow:
            one.close()
