"""Photos by web address: single files, bounded, from the host that was named."""

import io
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pnp_ovss import InputError
from pnp_ovss.cli import main
from pnp_ovss.files import fetch
from pnp_ovss.images import Address, find_images, read_image
from terminal import errors_of

PHOTO = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)


@pytest.fixture
def server():
    """Serve ``/photos/dog.png``, a redirect to it, one to another host, and something endless; yields the address."""
    buffer = io.BytesIO()
    Image.fromarray(PHOTO).save(buffer, "PNG")
    asked: list[str | None] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.headers.get("Authorization"))
            path = self.path.partition("?")[0]
            places = {"/moved": "/photos/dog.png", "/away": "http://localhost.invalid/dog.png", "/file": "file:///etc"}
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
    thread = threading.Thread(target=served.serve_forever)
    thread.start()
    yield served
    served.shutdown()
    thread.join()
    served.server_close()


def address(server, path: str) -> str:
    return f"http://127.0.0.1:{server.server_port}{path}"


@pytest.mark.parametrize("path", ["/photos/dog.png", "/photos/dog.png?size=large", "/moved"])
def test_a_photo_is_read_from_its_address(server, path):
    assert np.array_equal(read_image(address(server, path)), PHOTO)


@pytest.mark.parametrize(
    ("path", "fault"),
    [
        ("/away", r"cannot be read \(it is on another host, localhost.invalid; give that address\)"),
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
