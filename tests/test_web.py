"""Photos by web address: single files, bounded, from the host that was named."""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.request import Request

import numpy as np
import pytest
from PIL import Image

from local_server import running
from pnp_ovss import InputError
from pnp_ovss.cli import main
from pnp_ovss.files import fetch
from pnp_ovss.images import Address, find_images, read_image
from pnp_ovss.web import _SameHost
from terminal import errors_of

PHOTO = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)


@contextmanager
def serving(other: str = "http://localhost.invalid") -> Iterator[ThreadingHTTPServer]:
    """Serve ``/photos/dog.png``, a redirect to it, one to it on another host, and something endless."""
    buffer = io.BytesIO()
    Image.fromarray(PHOTO).save(buffer, "PNG")
    asked: list[str | None] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.headers.get("Authorization"))
            path = self.path.partition("?")[0]
            places = {"/moved": "/photos/dog.png", "/away": f"{other}/photos/dog.png", "/file": "file:///etc"}
            if path in places:
                self.send_response(302)
                self.send_header("Location", places[path])
                self.end_headers()
            elif path == "/photos/dog.png":
                self.send_response(200)
                self.end_headers()
                self.wfile.write(buffer.getvalue())
            elif path == "/endless":
                self.send_response(200)
                self.end_headers()
                for _ in range(300):
                    self.wfile.write(bytes(2**10))
            else:
                self.send_error(500 if path == "/broken" else 404)

        def log_message(self, *arguments):
            pass

    served = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    served.asked = asked
    with running(served):
        yield served


@pytest.fixture
def server():
    with serving() as served:
        yield served


def address(server, path: str) -> str:
    return f"http://127.0.0.1:{server.server_port}{path}"


@pytest.mark.parametrize("path", ["/photos/dog.png", "/photos/dog.png?size=large", "/moved"])
def test_a_photo_is_read_from_its_address(server, path):
    assert np.array_equal(read_image(address(server, path)), PHOTO)


@pytest.mark.parametrize(
    ("path", "fault"),
    [
        ("/away", r"cannot be read \(it is on another host, http://localhost.invalid; give that address\)"),
        ("/file", r"cannot be read \(the server answered 302\)"),
        ("/nothing", "^there is no photo http://127.0.0.1"),
        ("/broken", r"cannot be read \(the server answered 500\)"),
        ("/endless", r"cannot be read \(it has more than 0 MB\)"),
    ],
)
def test_what_is_no_photo_is_one_line(server, monkeypatch, path, fault):
    monkeypatch.setattr("pnp_ovss.web.MOST_BYTES", 100_000)
    with pytest.raises(InputError, match=fault):
        fetch(address(server, path))


def test_a_user_goes_into_a_header(server):
    read_image(address(server, "/photos/dog.png").replace("//", "//me:secret%21@"))
    assert server.asked == ["Basic bWU6c2VjcmV0IQ=="]


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_no_redirect_to_another_host_or_port_is_followed(server, host):
    with serving(f"http://{host}:{server.server_port}") as first:
        with pytest.raises(InputError, match=rf"another host, http://{host}:{server.server_port}; give that address"):
            fetch(address(first, "/away").replace("//", "//me:secret@"))
        assert len(first.asked) == 1
    assert server.asked == []


@pytest.mark.parametrize(("before", "after", "followed"), [
    ("https://a.org/1", "https://a.org/2", True),
    ("http://a.org/1", "https://a.org/2", True),
    ("https://a.org/1", "http://a.org/2", False),
    ("https://a.org/1", "https://a.org:444/2", False),
    ("https://a.org/1", "https://b.a.org/2", False),
])  # fmt: skip
def test_a_redirect_stays_on_its_host_and_is_not_less_safe(before, after, followed):
    def redirect():
        return _SameHost().redirect_request(Request(before), io.BytesIO(), 302, "", {}, after)

    if followed:
        assert redirect().full_url == after
    else:
        with pytest.raises(OSError, match="another host"):
            redirect()


def test_results_are_called_by_the_name_in_the_address():
    places = ["https://a.org/x/My%20dog.final.jpg?w=1", "http://b.org", "HTTPS://c.org/cat"]
    found = find_images([*places, places[0]])
    assert [place.stem for place in found] == ["My dog.final", "photo", "cat"]
    assert all(isinstance(place, Address) for place in found)


def test_segment_and_batch_take_addresses(server, tmp_path, monkeypatch, tiny_blip_folder, capsys):
    monkeypatch.chdir(tmp_path)
    small = ["--size", "32", "--layer", "0", "--head", "1", "--drop", "2", "--refine", "blur"]
    more = ["--classes", "dog", "--model", str(tiny_blip_folder), *small]
    assert main(["segment", address(server, "/photos/dog.png?key=12345678"), *more]) == 0
    assert "12345678" not in Path("results/dog.json").read_text() + capsys.readouterr().out
    assert main(["segment", address(server, "/nothing"), *more]) == 2
    assert errors_of(capsys)[0].startswith("pnp-ovss: there is no photo http://127.0.0.1")
    assert main(["batch", address(server, "/photos/dog.png"), *more, "--out", "many"]) == 0
    assert Path("many/images/dog.png").read_bytes() == Path("results/dog.png").read_bytes()
