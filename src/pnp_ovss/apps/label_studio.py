"""A Label Studio ML backend: brush masks for the classes of the project's own labelling interface.

``python -m pnp_ovss.apps.label_studio --files PHOTOS`` serves it. The protocol is that of Label Studio's ML
backends: GET /health, POST /setup, POST /predict. Python's own HTTP server carries it; it needs no other package.
"""

import argparse
import base64
import json
import sys
import threading
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, get_args
from urllib.parse import parse_qs, unquote, urlsplit

from pnp_ovss._version import VERSION
from pnp_ovss.errors import InputError, PnpError, one_line
from pnp_ovss.export.label_studio import prediction
from pnp_ovss.files import parse_json, reachable
from pnp_ovss.images import decode_image, read_image
from pnp_ovss.methods.presence import Present
from pnp_ovss.segmenter import Segmenter
from pnp_ovss.types import BACKGROUND, RGB

LARGEST = 64_000_000
"""Bytes of a request."""


def parse_interface(text: str) -> tuple[str, str, str, dict[str, str]]:
    """Return the first brush on a picture in a labelling interface: its name, its picture's, the entry of a task that
    has the photo, and the labels: by what annotators read, how Label Studio keeps it, alias or value.

    The model is asked for what annotators read. A label called "background" is left out.

    Raises: InputError if it is no interface with ``BrushLabels`` on an ``Image``.
    """
    try:
        root = ET.fromstring(text)
    except (ET.ParseError, ValueError) as error:
        raise InputError(f"expected Label Studio's labelling interface, got no XML ({one_line(error)})") from error
    images = {image.get("name"): image.get("value", "") for image in root.iter("Image")}
    brushes = (brush for brush in root.iter("BrushLabels") if brush.get("name") and brush.get("toName") in images)
    brush = next(brushes, None)
    if brush is None:
        raise InputError("expected BrushLabels on an Image in the labelling interface, each with a name; add them")
    values = {label.get("value", ""): label.get("alias") for label in brush.iter("Label")}
    named = {value.strip(): alias or value for value, alias in values.items()}
    labels = {name: kept for name, kept in named.items() if name.lower() not in ("", BACKGROUND)}
    if not labels:
        raise InputError("the BrushLabels of the labelling interface hold no Label; add one for each class")
    return brush.attrib["name"], brush.attrib["toName"], images[brush.attrib["toName"]].removeprefix("$"), labels


def read_photo(address: Any, files: Path | None) -> RGB:
    """Return the photo of a task: inlined as ``data:image/...;base64,``, or a file of Label Studio's below ``files``.

    Those are ``/data/local-files/?d=PATH`` and ``/data/PATH``. Nothing else is opened, and nothing is ever fetched.

    Raises: InputError if the photo is none of these, lies elsewhere or cannot be read.
    """
    if not isinstance(address, str):
        raise InputError("expected a photo in the task where the labelling interface looks for it; check its Image")
    if address.startswith("data:"):
        try:
            content = base64.b64decode(address.partition(";base64,")[2], validate=True)
        except ValueError as error:
            raise InputError("expected an inlined photo as data:image/png;base64,..., got no base64") from error
        return decode_image(content, "the inlined photo")
    photo = f"the photo {address[:80]!r}"
    if files is None or not address.startswith("/data/"):
        raise InputError(f"{photo} is no file of Label Studio's below --files, and nothing is fetched; inline it")
    parts = urlsplit(address)
    name = (parse_qs(parts.query).get("d") or [""])[0] or unquote(parts.path).removeprefix("/data/")
    with reachable(photo, "cannot be read", "check the task"):
        place = (files / name.lstrip("/")).resolve()
    if not place.is_relative_to(files.resolve()):
        raise InputError(f"{photo} lies outside of the folder given with --files; move it there")
    return read_image(place)


class Backend:
    """Answers requests with one segmenter, one at a time."""

    def __init__(self, segmenter: Segmenter, files: Path | None = None, instances: bool = False) -> None:
        self.segmenter, self.instances = segmenter, instances
        """``instances``: a mask for each object, not for each class."""
        self.files = files
        self.version = f"{segmenter.method.model} (pnp-ovss {VERSION})"
        self._lock = threading.Lock()

    def respond(self, path: str, content: bytes) -> tuple[int, dict[str, Any]]:
        """Return HTTP status and answer to a request."""
        try:
            body = parse_json(content or b"{}", "the request")
            match urlsplit(path).path.rstrip("/"):
                case "" | "/health":
                    return 200, {"status": "UP", "model_class": "pnp-ovss"}
                case "/setup" | "/webhook":  # annotations teach this model nothing
                    return 200, {"model_version": self.version}
                case "/predict":
                    return 200, {"results": self.predict(body), "model_version": self.version}
            return 404, {"error": "there is nothing here"}
        except PnpError as error:
            return 400, {"error": str(error)}

    def predict(self, body: dict[str, Any]) -> list[dict[str, Any]]:
        """Return a prediction for each task; that of a task that cannot be used is empty and has an "error".

        Raises: PnpError if the interface or all tasks cannot be used.
        """
        if not isinstance(body.get("tasks"), list) or not isinstance(body.get("label_config"), str):
            raise InputError("a prediction request lacks tasks or label_config; Label Studio's own requests have both")
        from_name, to_name, entry, labels = parse_interface(body["label_config"])
        found, stored = list[dict[str, Any]](), tuple(labels.values())
        for number, task in enumerate(body["tasks"]):
            try:
                data = task.get("data") if isinstance(task, dict) else None
                photo = read_photo(data.get(entry) if isinstance(data, dict) else None, self.files)
                with self._lock:
                    result = self.segmenter(photo, list(labels)).label_map(instances=self.instances)
                background = result.classes[: len(result.classes) - len(stored)]
                kept = replace(result, classes=background + stored)
                found.append(prediction(kept, stored, from_name, to_name))
            except InputError as error:
                found.append({"result": [], "error": f"task {number}: {error}"})
        if found and all("error" in one for one in found):
            raise InputError(found[0]["error"])
        return [one | {"model_version": self.version} for one in found]


def make_server(backend: Backend, host: str = "127.0.0.1", port: int = 9090) -> ThreadingHTTPServer:
    """Return a server that is bound; port 0 takes a free one. ``serve_forever`` runs it.

    Raises: InputError if the address cannot be had.
    """

    class Handler(BaseHTTPRequestHandler):
        timeout = 60  # seconds without a byte

        def do_POST(self) -> None:
            """Answer any request."""
            length = self.headers.get("Content-Length", "0")
            if length.isdecimal() and int(length) <= LARGEST:
                status, answer = backend.respond(self.path, self.rfile.read(int(length)))
            else:
                status, answer = 413, {"error": f"expected a request of at most {LARGEST} bytes, got {length[:20]}"}
            content = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST

        def log_message(self, format: str, *args: Any) -> None:
            """Say nothing: Label Studio asks for /health all the time."""

    try:
        return ThreadingHTTPServer((host, port), Handler)
    except (OSError, OverflowError, UnicodeError) as error:
        raise InputError(f"{host}:{port} cannot be served ({one_line(error)}); give another address") from error


def main(argv: Sequence[str] | None = None) -> int:
    """Serve until stopped; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m pnp_ovss.apps.label_studio", description=__doc__)
    parser.add_argument("--model", help="short name, hub id or local folder")
    parser.add_argument("--preset", default="auto", help="settings to start from")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda")
    parser.add_argument("--memory", help="what the process may hold, such as 4GB (default: most of what is left)")
    parser.add_argument("--present", choices=get_args(Present), default="auto", help="labels to look for in a photo")
    parser.add_argument("--instances", action="store_true", help="a mask for each object, not for each class")
    parser.add_argument("--files", type=Path, help="folder of the photos that Label Studio serves; no other is read")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: this machine only)")
    parser.add_argument("--port", type=int, default=9090, help="(default: 9090)")
    given = parser.parse_args(argv)
    try:
        if given.files is not None and not given.files.is_dir():
            raise InputError(f"expected the folder whose files Label Studio serves, got --files {given.files}")
        how: dict[str, Any] = {"memory": given.memory, "present": given.present}
        segmenter = Segmenter.from_pretrained(given.model, given.preset, given.device, **how)
        backend = Backend(segmenter, given.files, given.instances)
        with make_server(backend, given.host, given.port) as server:
            address = f"http://{given.host}:{server.server_port}"
            print(f"{address} is the address for Label Studio; Ctrl-C stops it", flush=True)
            server.serve_forever()
    except PnpError as error:
        print(f"pnp-ovss: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
