"""The page, and the pictures that it shows of a result; the service has its routes."""

import io
import time
from pathlib import Path
from threading import Semaphore
from typing import Annotated, Any, Literal

import numpy as np
from fastapi import APIRouter, Depends, HTTPException, Request
from fastapi.responses import HTMLResponse, Response
from jinja2 import Template
from PIL import Image

from pnp_ovss._version import VERSION
from pnp_ovss.apps.jobs import VIEW, Found, Job, Line, Models, Refused, as_jpeg, make_ask, perform, segmenting
from pnp_ovss.files import as_png
from pnp_ovss.images import decode_image
from pnp_ovss.mini import HELD_OUT_SEED, draw
from pnp_ovss.pictures.figures import heat, resized
from pnp_ovss.types import BACKGROUND, RGB

PAGE = Path(__file__).with_name("page")
KINDS = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
STATIC = {path.name: path.read_bytes() for path in sorted(PAGE.iterdir()) if path.suffix in KINDS}
"""The page's files. No others are read."""
TILE, HIDDEN = 420, np.uint8(110)
"""Longer side of a picture of salience, in pixels; grey of a patch that a pass did not have."""
EXAMPLES = (3, 5, 2, 12)
"""Drawn scenes that everybody finds on the page."""
HEAVY = Semaphore(2)
"""Pictures and files that are made at a time, beside what the models do."""
router = APIRouter()


def the_line(request: Request) -> Line:
    """Return the line of the application that was asked."""
    line: Line = request.app.state.line
    return line


TheLine = Annotated[Line, Depends(the_line)]


@router.get("/", response_class=HTMLResponse, include_in_schema=False)
def page() -> Response:
    """Return the page."""
    return Response(STATIC["index.html"], media_type="text/html")


@router.get("/docs", response_class=HTMLResponse, include_in_schema=False)
def docs(request: Request) -> str:
    """Return a page of all that can be asked over HTTP."""
    text: str = Template(STATIC["api.html"].decode(), autoescape=True).render(
        api=request.app.openapi(), version=VERSION
    )
    return text


@router.get("/static/{name}", include_in_schema=False)
def static(name: str) -> Response:
    """Return a file of the page."""
    if name not in STATIC:
        raise HTTPException(404, "there is nothing here")
    return Response(STATIC[name], media_type=KINDS[Path(name).suffix])


def summary(found: Found) -> dict[str, Any]:
    """Return a result without its masks: classes with area, confidence and colour, and what was looked at."""
    result, (height, width) = found.whole(), found.segmentation.labels.shape
    presence, maps = result.presence, result.salience
    first, rows = len(result.classes) - len(maps), []
    absent = presence.absent if presence else ()
    notes = zip(result.classes, result.areas.values(), result.label_map().scores, result.colours.tolist(), strict=True)
    for name, area, sure, colour in notes:
        row = {"name": name, "area": round(area, 6), "colour": f"#{bytes(colour).hex()}"}
        row["confidence"] = round(sure, 3) if area and sure and name != BACKGROUND else None
        row["presence"] = round(presence.scores[name], 3) if presence and name in presence.scores else None
        rows.append(row | {"absent": name in absent})
    passes = found.located.maps.passes if found.located and found.located.maps else ()
    about = {"width": width, "height": height, "classes": rows, "salience": list(result.classes[first:])}
    about["passes"] = [int((~one.visible[0]).sum()) for one in passes]
    about |= {"match": result.match, "doubts": list(result.doubts), "refined": list(result.refined)}
    return about | {"method": result.method, "model": result.model, "present": presence and presence.choice}


@router.get("/api/jobs/{key}/{picture}")
def picture(line: TheLine, key: str, picture: Literal["photo.jpg", "view", "labels.png", "overlay.png"]) -> Response:
    """Return the photo and the labels as the page shows them (a byte per pixel), or label map and overlay in full."""
    done, found = line.finished(key)
    with HEAVY:
        match picture:
            case "photo.jpg":
                return Response(done.view, media_type="image/jpeg")
            case "view":
                labels = found.whole().labels.astype(np.uint8)
                small = labels if max(labels.shape) <= VIEW else resized(labels, VIEW)
                size = {"X-Height": str(small.shape[0]), "X-Width": str(small.shape[1])}
                return Response(small.tobytes(), media_type="application/octet-stream", headers=size)
            case "labels.png":
                return Response(as_png(found.whole().label_png()), media_type="image/png")
        photo = decode_image(done.content, "the photo", line.most_pixels)
        return Response(as_png(found.whole(photo).overlay()), media_type="image/png")


@router.get("/api/jobs/{key}/salience/{number}")
def salience(line: TheLine, key: str, number: int) -> Response:
    """Return the class map of a class, before refinement, as heat over the photo."""
    done, found = line.finished(key)
    return Response(as_jpeg(heat(_tile(done), _nth(found.segmentation.salience, number))), media_type="image/jpeg")


@router.get("/api/jobs/{key}/passes/{number}/{side}")
def one_pass(line: TheLine, key: str, number: int, side: Literal["saw", "found"]) -> Response:
    """Return what a pass of Saliency DropOut saw of the photo, or the salience that it found."""
    done, found = line.finished(key)
    one = _nth(found.located.maps.passes if found.located and found.located.maps else (), number)
    tile, visible = _tile(done), one.visible[0].cpu().numpy()
    large = Image.fromarray(visible).resize(tile.shape[1::-1], Image.Resampling.NEAREST)
    saw = np.where(np.asarray(large)[..., None], tile, HIDDEN)
    drawn = saw if side == "saw" else heat(tile, one.maps[0].sum(0).cpu().numpy())
    return Response(as_jpeg(drawn), media_type="image/jpeg")


def _nth(values: Any, number: int) -> Any:
    if not 0 <= number < len(values):
        raise Refused("there is no such picture", "job", 404)
    return values[number]


def _tile(job: Job) -> RGB:
    return resized(np.asarray(Image.open(io.BytesIO(job.view)).convert("RGB")), TILE)


def make_examples() -> list[Job]:
    """Return the finished examples: drawn scenes, and what the small bundled model finds in them."""
    small, done = Models([("pnp", "mini-blip")], "cpu", None, 10**6), []
    for index in EXAMPLES:
        scene = draw(HELD_OUT_SEED, index, 512)
        ask = make_ask([("pnp", "mini-blip")], {"classes": ", ".join(scene.things)})
        job = Job("", as_png(Image.fromarray(scene.image)), f"scene {index}.png", segmenting(ask), ask, stays=True)
        job.id = f"example-{index}"
        job.state, job.seconds = perform(job, small), time.monotonic() - job.begun
        done.append(job)
    return done
