"""A key, a token or a password is in nothing that a command prints or writes, whoever repeats it."""

import base64
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import quote

import pytest

from chat_server import KEY, Chat, serve
from pnp_ovss.cli import main
from pnp_ovss.errors import InputError
from pnp_ovss.files import Folder
from pnp_ovss.naming.openai import OpenAI

pytestmark = pytest.mark.usefixtures("loaded_once")
PASSWORD = "hunter2-and-more"
SMALL = ("--size", "32", "--layer", "0", "--head", "1", "--drop", "2", "--refine", "blur")


@pytest.fixture
def chat(desk, monkeypatch) -> Iterator[Chat]:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setattr("openai._base_client.INITIAL_RETRY_DELAY", 0.01)
    with serve() as chat:
        yield chat


@pytest.fixture
def everything(desk, capfd) -> Callable[[], str]:
    """Return all that was printed, and all that was written below the working folder."""

    def read() -> str:
        files = [path for path in sorted(desk.rglob("*")) if path.is_file() and "photos" not in path.parts]
        content = [f"{path.relative_to(desk)} {path.read_bytes().decode(errors='replace')}" for path in files]
        return "\n".join([*capfd.readouterr(), *content])

    return read


def parts(secret: str) -> set[str]:
    """Return all pieces of a secret that give it away."""
    return {secret[at : at + 8].lower() for at in range(len(secret) - 7)}


def escaped(key: str) -> str:
    return "".join(f"\\u{ord(letter):04x}" for letter in key)


ECHOES: dict[str, Callable[[str], str]] = {
    "whole": str,
    "lower": str.lower,
    "upper": str.upper,
    "half": lambda key: key[:14] + "*" * 9,
    "url": lambda key: f"http://me:{key}@host/?key={quote(key)}",
    "base64": lambda key: base64.b64encode(f"Bearer {key}".encode()).decode(),
}


def name(chat: Chat, *more: str) -> int:
    Path("pets.txt").write_text("dog\ncat\n")
    flags = ["--namer", "openai", "--vocabulary", "pets.txt", "--cache", "cache", "--base-url", chat.url]
    return main(["name", "photos", *flags, "--calls", "1", "--tries", "2", "--out", "names.json", *more])


@pytest.mark.parametrize("way", ["400", "401", "403", "404", "429", "500", "quota", "filter", "refusal", "reply"])
@pytest.mark.parametrize("echo", ECHOES)
def test_a_server_that_repeats_the_key(chat, everything, way, echo):
    chat.script, chat.echo = [f"echo {way}"] * 20, ECHOES[echo]
    code = name(chat)
    assert code in ((0,) if way in ("filter", "refusal", "reply") else (1, 2))
    assert chat.keys == {f"Bearer {KEY}"}
    text = everything()
    assert "x" * 40 in text
    assert not [part for part in parts(KEY) if part in text.lower()]
    assert base64.b64encode(KEY[:12].encode()).decode() not in text


def test_a_server_that_repeats_the_key_and_lets_wait(chat, everything):
    chat.script, chat.retry_after = ["echo 429"] * 20, "0"
    assert name(chat) == 1
    assert not [part for part in parts(KEY) if part in everything().lower()]


def test_a_reply_that_names_the_key_without_a_vocabulary(chat, everything):
    chat.script = ["echo reply"] * 20
    flags = ["--namer", "openai", "--cache", "cache", "--base-url", chat.url, "--calls", "1", "--out", "names.json"]
    assert main(["name", "photos", *flags]) == 0
    text = everything()
    assert "dog" in text
    assert not [part for part in parts(KEY) if part in text.lower()]


def test_a_key_given_in_python_is_known_as_well(chat, monkeypatch, tmp_path):
    monkeypatch.delenv("OPENAI_API_KEY")
    namer = OpenAI(tmp_path, "m", chat.url.replace("//", f"//me:{PASSWORD}@"), "another-key-0123456789")
    assert str(InputError(f"another-key-0123456789 {PASSWORD}")) == "... ..."
    assert PASSWORD not in repr(namer)


URLS = [
    f"ftp://me:{PASSWORD}@127.0.0.1:9/photos",
    f"http://me:{PASSWORD}@127.0.0.1:9/photos/a.jpg?signature={PASSWORD}",
    f"nowhere://me:{PASSWORD}@host/photos",
    f"s3://{PASSWORD}@bucket/a/b.jpg",
]


@pytest.mark.parametrize("url", URLS)
@pytest.mark.parametrize("command", ["segment", "batch", "batch to", "export", "evaluate", "tune", "name"])
def test_a_url_with_a_password(desk, no_model, everything, command, url, tiny_blip_folder):
    Path("results").mkdir()
    record = {"key": "dog", "photo": url, "width": 4, "height": 4, "classes": ["dog"]}
    Path("results/dog.json").write_text(json.dumps(record | {"photo": "photos/dog.jpg"}))
    classes, model = ["--classes", "dog"], ["--model", str(tiny_blip_folder)]
    lines = {
        "segment": ["segment", url, *classes, *model],
        "batch": ["batch", url, *classes, *model, "--out", "run"],
        "batch to": ["batch", "photos", *classes, *model, "--out", url],
        "export": ["export", "results", "--to", "yolo", "--photos", url],
        "evaluate": ["evaluate", "voc21", "--root", url, "--names", "truth", *model],
        "tune": ["tune", "--images", url, "--names", "itm", *model],
        "name": ["name", url, "--namer", "given", "--names", "dog"],
    }
    assert main(lines[command]) != 0
    text = everything()
    assert PASSWORD not in text
    assert "me:" not in text


def test_a_storage_of_a_study_with_a_password():
    pytest.importorskip("optuna")
    from pnp_ovss.tuning.search import open_study, storage_url

    url = storage_url(f"mysql+nodriver://me:{PASSWORD}@host/{PASSWORD}", Path())
    with pytest.raises(InputError, match="^the study cannot be read or written") as caught:
        open_study(url, {}, {})
    assert PASSWORD not in str(caught.value)


def test_a_place_is_recorded_without_its_password_and_the_run_goes_on(desk, everything, tiny_blip_folder):
    place = f"memory://me:{PASSWORD}@bucket/photos"
    photos = Folder(place)
    try:
        for path in Path("photos").iterdir():
            photos.write(path.name, path.read_bytes())
        photos.write("broken.jpg", b"no picture")
        run = ["batch", place, "--classes", "dog", "--model", str(tiny_blip_folder), *SMALL, "--out", "run"]
        assert main(run) == 1
        assert json.loads(Path("run/images/dog.json").read_text())["photo"] == "memory:///bucket/photos/dog.jpg"
        assert json.loads(Path("run/faults/broken.json").read_text())["photo"].endswith("//bucket/photos/broken.jpg")
        before = Path("run/images/dog.png").stat().st_mtime_ns
        assert main(run) == 1
        assert Path("run/images/dog.png").stat().st_mtime_ns == before
        assert main(["export", "run", "--to", "yolo", "--photos", place]) == 0
        assert Path("export/yolo/images/dog.jpg").read_bytes() == Path("photos/dog.jpg").read_bytes()
    finally:
        photos.files.rm("/", recursive=True)
    text = everything()
    assert PASSWORD not in text
    assert "me:" not in text
