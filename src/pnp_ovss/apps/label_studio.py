"""A Label Studio ML backend: brush masks for the classes of the project's own labelling interface.

``pnp-ovss serve --label-studio PLACE`` has it below /label-studio. The protocol is that of Label Studio's ML backends:
GET /health, POST /setup, POST /predict.
"""

import asyncio
import base64
import threading
import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urljoin, urlsplit

from pnp_ovss._version import VERSION
from pnp_ovss.errors import InputError, one_line
from pnp_ovss.export.label_studio import prediction
from pnp_ovss.files import parse_json, reachable
from pnp_ovss.images import decode_image, read_image
from pnp_ovss.segmenter import Segmenter
from pnp_ovss.types import BACKGROUND, RGB
from pnp_ovss.web import Web

BELOW = ("/data/", "/tasks/")
"""Where Label Studio has the photos of tasks."""


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


def read_photo(address: Any, place: Path | str | None, key: str = "") -> RGB:
    """Return the photo of a task: inlined as ``data:image/...;base64,``, or one of Label Studio's.

    ``place`` is where those are: a folder, in which ``/data/local-files/?d=PATH`` and ``/data/PATH`` are files, or the
    address of Label Studio, which is asked for them with the access token ``key``. Nothing else is opened or fetched.

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
    if isinstance(place, str):
        return _fetch(address, place, key, photo)
    if place is None or not address.startswith("/data/"):
        raise InputError(f"{photo} is no file of Label Studio's below --label-studio; nothing is fetched: inline it")
    parts = urlsplit(address)
    name = (parse_qs(parts.query).get("d") or [""])[0] or unquote(parts.path).removeprefix("/data/")
    with reachable(photo, "cannot be read", "check the task"):
        path = (place / name.lstrip("/")).resolve()
    if not path.is_relative_to(place.resolve()):
        raise InputError(f"{photo} lies outside of the folder given with --label-studio; move it there")
    return read_image(path)


def _fetch(address: str, host: str, key: str, photo: str) -> RGB:
    """Return a photo of the Label Studio at ``host``."""
    with reachable(photo, "cannot be read", "check the task"):
        full = urlsplit(urljoin(f"{host.rstrip('/')}/", address))
        there = full.scheme, full.netloc
    if there != urlsplit(host)[:2] or not full.path.startswith(BELOW) or ".." in unquote(full.path):
        raise InputError(f"{photo} is no photo of {host}, and nothing is fetched from elsewhere; inline it")
    headers = {"Authorization": f"Token {key}"} if key else {}
    with reachable(photo, "cannot be fetched", "check --label-studio and its access token"):
        content = Web().cat_file(full.geturl(), headers=headers)
    return decode_image(content, photo)


class Backend:
    """Makes predictions with one segmenter, while ``turn`` is held; ``place``, ``key``: see ``read_photo``."""

    def __init__(
        self,
        segmenter: Segmenter,
        place: Path | str | None = None,
        key: str = "",
        turn: Any = None,
        instances: bool = False,
    ) -> None:
        self.segmenter, self.place, self.key, self.instances = segmenter, place, key, instances
        """``instances``: a mask for each object, not for each class."""
        self.turn = turn or threading.Lock()
        self.version = f"{segmenter.method.model} (pnp-ovss {VERSION})"

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
                photo = read_photo(data.get(entry) if isinstance(data, dict) else None, self.place, self.key)
                with self.turn:
                    result = self.segmenter(photo, list(labels)).label_map(instances=self.instances)
                background = result.classes[: len(result.classes) - len(stored)]
                kept = replace(result, classes=background + stored)
                found.append(prediction(kept, stored, from_name, to_name))
            except InputError as error:
                found.append({"result": [], "error": f"task {number}: {error}"})
        if found and all("error" in one for one in found):
            raise InputError(found[0]["error"])
        return [one | {"model_version": self.version} for one in found]


def routes(backend: Backend) -> Any:
    """Return the routes, a FastAPI router, that Label Studio asks below the service's address and /label-studio."""
    from fastapi import APIRouter, Request

    found = APIRouter(prefix="/label-studio", tags=["Label Studio"])

    @found.get("/health")
    @found.get("/", include_in_schema=False)
    async def health() -> dict[str, str]:
        """Say that the back end is up."""
        return {"status": "UP", "model_class": "pnp-ovss"}

    @found.post("/setup")
    @found.post("/webhook", include_in_schema=False)
    async def setup() -> dict[str, str]:  # annotations teach this model nothing
        """Return the version of the model."""
        return {"model_version": backend.version}

    @found.post("/predict")
    async def predict(request: Request) -> dict[str, Any]:
        """Return brush masks for the tasks of a project."""
        body = parse_json(await request.body(), "the request")
        return {"results": await asyncio.to_thread(backend.predict, body), "model_version": backend.version}

    return found
