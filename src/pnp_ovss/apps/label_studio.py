"""A Label Studio ML backend: brush masks for the classes of the project's own labelling interface.

``python -m pnp_ovss.apps.label_studio --files PHOTOS`` serves it. The protocol is that of Label Studio's ML
backends: GET /health, POST /setup, POST /predict. Python's own HTTP server carries it; it needs no other package.
"""

import argparse
import base64
import json
import os
import re
import socket
import sys
import threading
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from dataclasses import dataclass, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from pnp_ovss._version import VERSION
from pnp_ovss.config import DEFAULT_MODEL
from pnp_ovss.errors import InputError, PnpError, one_line
from pnp_ovss.export.label_studio import prediction
from pnp_ovss.export.results import all_names, in_memory
from pnp_ovss.images import decode_image, read_image, shown
from pnp_ovss.segmenter import Segmenter
from pnp_ovss.types import BACKGROUND, RGB

LARGEST = 64_000_000
"""Bytes of a request."""


@dataclass(frozen=True)
class Interface:
    """What a labelling interface asks for: which brush, on which picture, of which classes."""

    from_name: str
    to_name: str
    data: str
    """The task's entry with the photo."""
    names: tuple[str, ...]
    """What annotators read on the labels, and the model is asked for."""
    labels: tuple[str, ...]
    """How Label Studio keeps each: by its alias, if it has one, else letter for letter."""


def parse_interface(text: str) -> Interface:
    """Return the first brush on a picture in a labelling interface; a label called "background" is left out.

    Raises: InputError if it is no interface with ``BrushLabels`` on an ``Image``.
    """
    if "<!DOCTYPE" in text:  # which could make a short text a very long one
        raise InputError("the labelling interface declares a document type; Label Studio's own XML is wanted")
    try:
        root = ET.fromstring(text)
    except (ET.ParseError, ValueError) as error:
        raise InputError(
            f"the labelling interface is no XML ({one_line(error)}); Label Studio's own is wanted"
        ) from error
    pictures = {name: picture.get("value", "") for picture in root.iter("Image") if (name := picture.get("name"))}
    brushes = (tag for tag in root.iter("BrushLabels") if tag.get("name") and tag.get("toName") in pictures)
    brush = next(brushes, None)
    if brush is None:
        raise InputError(
            "the labelling interface has no BrushLabels on an Image, each with a name; add them to the "
            "project's settings"
        )
    labels = [(label.get("value", "").strip(), label.attrib) for label in brush.iter("Label")]
    asked = [(name, told) for name, told in labels if name and name.casefold() != BACKGROUND]
    if not asked:
        raise InputError("the labelling interface's BrushLabels hold no Label; add one for each class to look for")
    return Interface(
        from_name=brush.attrib["name"],
        to_name=brush.attrib["toName"],
        data=pictures[brush.attrib["toName"]].removeprefix("$"),
        names=tuple(name for name, _ in asked),
        labels=tuple(told.get("alias") or told["value"] for _, told in asked),
    )


def read_photo(address: Any, files: Path | None) -> RGB:
    """Return the photo of a task: inlined as ``data:image/...;base64,``, or a file of Label Studio's below ``files``.

    Those are ``/data/local-files/?d=PATH`` and ``/data/PATH``. Nothing else is opened, and nothing is ever fetched.

    Raises: InputError if the photo is none of these, lies elsewhere or cannot be read.
    """
    if not isinstance(address, str):
        raise InputError("a task has no photo where the labelling interface looks for it; check its Image value")
    if address.startswith("data:"):
        _, _, content = address.partition(";base64,")
        try:
            return decode_image(base64.b64decode(content, validate=True), "the inlined photo")
        except ValueError as error:
            raise InputError("the inlined photo is no base64; data:image/png;base64,... is wanted") from error
    told = f"the photo {address[:80]!r}"
    if not address.startswith("/data/"):
        raise InputError(f"{told} is no file of Label Studio's, and nothing is fetched; upload it there, or inline it")
    if files is None:
        raise InputError(f"{told} is not among the files served; start the backend with --files")
    try:
        parts = urlsplit(address)
        name = (parse_qs(parts.query).get("d") or [""])[0] or unquote(parts.path).removeprefix("/data/")
        root, place = files.resolve(), (files / name.lstrip("/")).resolve()
    except (OSError, RuntimeError, ValueError) as error:  # a loop of links, a name that no file can have
        raise InputError(f"{told} is no file's name ({one_line(error)}); check the task") from error
    if root not in place.parents:
        raise InputError(f"{told} lies outside of the folder given with --files; move it there")
    return read_image(place)


class Backend:
    """Answers requests with one segmenter, one at a time."""

    def __init__(self, segmenter: Segmenter, files: Path | None = None) -> None:
        self.segmenter = segmenter
        self.files = files
        self.version = f"{segmenter.vlm.name} (pnp-ovss {VERSION})"
        self._lock = threading.Lock()

    def answer(self, path: str, body: dict[str, Any]) -> dict[str, Any] | None:
        """Return the answer to a request, None if there is no such path.

        Raises: PnpError if it cannot be answered.
        """
        if path in ("/", "/health"):
            return {"status": "UP", "model_class": "pnp-ovss"}
        if path == "/setup":
            return {"model_version": self.version}
        if path == "/predict":
            return {"results": self.predict(body), "model_version": self.version}
        if path == "/webhook":  # annotations teach this model nothing
            return {"status": "ok"}
        return None

    def predict(self, body: dict[str, Any]) -> list[dict[str, Any]]:
        """Return a prediction for each task.

        Raises: PnpError if the interface or a task cannot be used.
        """
        tasks, config = body.get("tasks"), body.get("label_config")
        if not isinstance(tasks, list) or not isinstance(config, str):
            raise InputError("a prediction request lacks tasks or label_config; Label Studio's own requests have both")
        interface = parse_interface(config)
        found = []
        for number, task in enumerate(tasks):
            data = task.get("data") if isinstance(task, dict) else None
            address = data.get(interface.data) if isinstance(data, dict) else None
            try:
                photo = read_photo(address, self.files)
            except InputError as error:
                raise InputError(f"task {number}: {error}") from error
            with self._lock:
                result = in_memory(self.segmenter(photo, interface.names))
            unasked = len(result.classes) - len(interface.names)  # the background, or none
            result = replace(result, classes=result.classes[:unasked] + interface.labels)
            told = prediction(result, all_names([result]), interface.from_name, interface.to_name)
            found.append(told | {"model_version": self.version})
        return found


def make_server(backend: Backend, host: str = "127.0.0.1", port: int = 9090) -> ThreadingHTTPServer:
    """Return a server that is bound; port 0 takes a free one. ``serve_forever`` runs it.

    Raises: InputError if the address cannot be had.
    """

    class Handler(BaseHTTPRequestHandler):
        timeout = 60  # seconds without a byte

        def do_GET(self) -> None:
            """Answer /health."""
            self._reply({})

        def do_POST(self) -> None:
            """Answer /setup, /predict, /webhook."""
            length = self.headers.get("Content-Length", "")
            if not (re.fullmatch("[0-9]{1,9}", length) and int(length) <= LARGEST):
                self._refuse_size()
                return
            try:
                body = json.loads(self.rfile.read(int(length)) or b"{}")
            except (ValueError, RecursionError):
                body = None
            if isinstance(body, dict):
                self._reply(body)
            else:
                self._send(400, {"error": "the request is no JSON object"})

        def _reply(self, body: dict[str, Any]) -> None:
            path = self.path.partition("?")[0]
            try:
                answer = backend.answer(path.rstrip("/") or "/", body)
            except PnpError as error:
                self._send(400, {"error": str(error)})
                return
            self._send(200 if answer is not None else 404, answer or {"error": "there is nothing here"})

        def _refuse_size(self) -> None:
            self._send(413, {"error": f"a request has a Content-Length of at most {LARGEST} bytes"})
            self.connection.shutdown(socket.SHUT_WR)
            for _ in range(256):  # closed with bytes unread, the connection would break before the answer
                if not self.rfile.read(1 << 20):
                    break

        def _send(self, status: int, content: dict[str, Any]) -> None:
            text = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, format: str, *args: Any) -> None:
            """Say nothing: Label Studio asks for /health all the time."""

    try:
        return _Server((host, port), Handler)
    except (OSError, OverflowError, ValueError) as error:
        raise InputError(
            f"{host}:{port} cannot be served ({one_line(error)}); give another --host or --port"
        ) from error


class _Server(ThreadingHTTPServer):
    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of a client that left; a bug keeps its traceback."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


def main(argv: Sequence[str] | None = None) -> int:
    """Serve until stopped; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m pnp_ovss.apps.label_studio", description=__doc__)
    parser.add_argument("--model", default=DEFAULT_MODEL, help="short name, hub id or local folder")
    parser.add_argument("--preset", default="auto", help="settings to start from")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda")
    parser.add_argument("--files", type=Path, help="folder of the photos that Label Studio serves; no other is read")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: this machine only)")
    parser.add_argument("--port", type=int, default=9090, help="(default: 9090)")
    arguments = parser.parse_args(argv)
    try:
        with _open(arguments) as server:
            address = f"http://{arguments.host}:{server.server_port}"
            print(f"{address} is the address for Label Studio; Ctrl-C stops it", flush=True)
            server.serve_forever()
    except PnpError as error:
        print(f"pnp-ovss: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    return 0


def _open(arguments: argparse.Namespace) -> ThreadingHTTPServer:
    """Return the server; what can be wrong without the model is found before it is loaded or even fetched."""
    files: Path | None = arguments.files
    if not 0 <= arguments.port <= 65535:
        raise InputError(f"--port is {arguments.port}; a number from 0 to 65535 is wanted")
    if files is not None and not os.path.isdir(files):
        raise InputError(f"--files is {shown(files)}, which is no folder; give the one whose files Label Studio serves")
    segmenter = Segmenter.from_pretrained(arguments.model, arguments.preset, arguments.device)
    return make_server(Backend(segmenter, files), arguments.host, arguments.port)


if __name__ == "__main__":
    sys.exit(main())
