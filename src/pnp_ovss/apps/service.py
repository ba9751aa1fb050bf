"""The service: segmentation over HTTP, the page, and Label Studio's back end, in one FastAPI application.

Nobody can make it fetch an address or read a file by a path. ``apps.guard`` stands before it.
"""

import asyncio
import json
import re
import shutil
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, FastAPI, File, Form, Query, Request, UploadFile
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response, StreamingResponse
from starlette.exceptions import HTTPException

from pnp_ovss._version import VERSION
from pnp_ovss.apps import label_studio, pages
from pnp_ovss.apps.guard import Access, Guard
from pnp_ovss.apps.jobs import Found, Job, Line, Models, Refused, make_ask, segmenting, settings_of
from pnp_ovss.apps.pages import HEAVY, TheLine, summary
from pnp_ovss.errors import PnpError
from pnp_ovss.export import FORMATS, export
from pnp_ovss.files import as_json, parse_json
from pnp_ovss.images import decode_image
from pnp_ovss.methods import METHODS
from pnp_ovss.models.releases import licence_of
from pnp_ovss.processes import this_process

POLL, MOST_PHOTOS = 0.05, 50
"""Seconds between two looks at a job; photos in one ZIP."""
router = APIRouter()


Text = Annotated[str, Form()]
Photo = Annotated[UploadFile | None, File(description="JPEG, PNG, WebP, TIFF, BMP or GIF")]
Of = Annotated[str, Form(description="the id of an earlier job, whose photo it is, in place of a file")]


def described(line: Line, job: Job) -> dict[str, Any]:
    """Return what is known of a job."""
    about: dict[str, Any] = {"id": job.id, "state": job.state, "name": job.name}
    if not job.over:
        step, done, total = job.step
        about |= {"before": line.before(job), "step": step, "done": done, "total": total}
    if job.error:
        about |= {"error": job.error, "field": job.about}
    if isinstance(job.answer, Found):
        about |= {"seconds": round(job.seconds, 3), "result": summary(job.answer)}
    elif job.answer is not None:
        about["names"] = job.answer
    return about


@router.get("/healthz")
async def healthz() -> dict[str, str]:
    """Say that the service is up. Needs no token."""
    return {"status": "ok", "version": VERSION}


@router.get("/metrics")
def metrics(request: Request, line: TheLine) -> Response:
    """Return counters as Prometheus reads them."""
    values = [("requests_total", f'status="{code}"', count) for code, count in sorted(request.app.state.counts.items())]
    values += [("jobs_total", f'end="{end}"', count) for end, count in line.ends.items()]
    jobs = list(line.jobs.values())
    states = [("waiting", ("waiting",)), ("working", ("working",)), ("kept", ("done", "failed", "cancelled"))]
    values += [("jobs", f'state="{name}"', sum(one.state in some for one in jobs)) for name, some in states]
    values += [("work_seconds_total", "", line.seconds), ("held_bytes", "", sum(one.size for one in jobs))]
    lines, kinds = list[str](), dict[str, str]()
    for name, label, value in values:
        if kinds.setdefault(name, label) == label:
            lines.append(f"# TYPE pnp_ovss_{name} {'counter' if name.endswith('_total') else 'gauge'}")
        lines.append(f"pnp_ovss_{name}{{{label}}} {value:g}" if label else f"pnp_ovss_{name} {value:g}")
    return Response("\n".join(lines) + "\n", media_type="text/plain; version=0.0.4")


@router.get("/api/methods")
def methods(request: Request) -> dict[str, Any]:
    """Return the methods, their models with licences, their settings, the export formats, the examples' ids."""
    offers, state = request.app.state.offers, request.app.state
    found = []
    for name in dict(offers):
        models = [model for method, model in offers if method == name]
        about = {"name": name, "about": METHODS[name].about, "source": METHODS[name].source, "models": models}
        about |= {"licences": {model: licence_of(model) for model in models}}
        found.append(about | {"presets": list(METHODS[name].presets), "settings": settings_of(name, models[0])})
    limits = {"megapixels": state.line.most_pixels // 10**6, "bytes": state.access.most_bytes}
    more = {"examples": state.examples, "limits": limits, "version": VERSION}
    return {"methods": found, "formats": ["files", *FORMATS], **more}


@router.post("/api/segment", status_code=202)
async def segment(
    request: Request, line: TheLine, classes: Text = "", photo: Photo = None, of: Of = "", method: Text = "",
    model: Text = "", preset: Text = "auto", present: Text = "auto", settings: Text = "{}",
) -> dict[str, Any]:  # fmt: skip
    """Segment a photo: the answer is a job, whose events or state say when it is done.

    ``classes``: names with commas, words of a class as in person=man|woman, or a JSON object of prompts and classes.
    ``settings``: a JSON object; GET /api/methods lists them. Without ``method`` and ``model`` the first ones are taken.
    """
    form = {"classes": classes, "method": method, "model": model, "preset": preset, "present": present}
    ask = await asyncio.to_thread(make_ask, request.app.state.offers, form | {"settings": settings})
    content, name, before = await _photo(line, photo, of)
    visitor: str = request.scope["visitor"]
    return described(line, line.put(Job(visitor, content, name, segmenting(ask, before), ask)))


@router.post("/api/name", status_code=202)
async def name(request: Request, line: TheLine, photo: Photo = None, of: Of = "", model: Text = "") -> dict[str, Any]:
    """Name what a photo shows: the answer is a job, which has the names once it is done."""
    known = [one for method, one in request.app.state.offers if method == "pnp"]
    if not known or (model and model not in known):
        raise Refused(f"no names by {model!r:.40}; models with a matching head: {', '.join(known) or 'none'}", "model")
    content, title, _ = await _photo(line, photo, of)
    chosen, visitor = model or known[0], request.scope["visitor"]
    return described(line, line.put(Job(visitor, content, title, lambda models, image, _: models.name(chosen, image))))


@router.get("/api/jobs/{key}")
def job(line: TheLine, key: str) -> dict[str, Any]:
    """Return the state of a job: its place in line, its step, its error or its result without masks."""
    return described(line, line.get(key))


@router.get("/api/jobs/{key}/events", response_class=StreamingResponse)
async def events(line: TheLine, key: str) -> Response:
    """Return the state of a job whenever it changes, until it is over, as server-sent events."""
    watched = line.get(key)

    async def follow() -> AsyncIterator[str]:
        last, over = "", False
        while not over:
            over = watched.over
            if (now := json.dumps(described(line, watched))) != last:
                yield f"data: {now}\n\n"
            last = now
            await asyncio.sleep(0 if over else POLL)

    return StreamingResponse(follow(), media_type="text/event-stream", headers={"X-Accel-Buffering": "no"})


@router.delete("/api/jobs/{key}")
def cancel(line: TheLine, key: str) -> dict[str, Any]:
    """Stop a job before its next step; forget one that is over."""
    asked = line.get(key)
    line.cancel(asked)
    return described(line, asked)


@router.get("/api/jobs/{key}/result")
def result(line: TheLine, key: str) -> Response:
    """Return the record of a result: settings, classes, areas, confidence, and masks as COCO's run lengths."""
    done, found = line.finished(key)
    with HEAVY:
        return Response(
            as_json(found.whole().record(Path(done.name).stem, done.name, done.seconds)), media_type="application/json"
        )


@router.post("/api/jobs/{key}/edit", status_code=201)
async def edit(request: Request, line: TheLine, key: str) -> dict[str, Any]:
    """Change a result: the answer is a new job, done already; the one before stays as it was, which undoes the change.

    The body is {"rename": NAME, "to": NEW}, {"region": [x, y], "to": CLASS}, where "background" deletes the region, or
    {"colour": NAME, "to": "#rrggbb"}.
    """
    change, (done, found) = parse_json(await request.body(), "the change"), line.finished(key)

    def make() -> dict[str, Any]:
        with HEAVY:
            made = replace(found.edited(change), located=found.located)  # what was looked at is the same
        changed = Job(request.scope["visitor"], done.content, done.name, None, done.ask, state="done")
        changed.answer, changed.view, changed.seconds = made, done.view, done.seconds
        return described(line, line.add(changed))

    return await asyncio.to_thread(make)


@router.get("/api/export/{form}")
def exported(line: TheLine, form: str, job: Annotated[list[str], Query()]) -> Response:
    """Return the results of these jobs in an export format, with their photos, as a ZIP; "files": as segment writes."""
    if form not in ("files", *FORMATS):
        raise Refused(f"there is no format {form!r:.40}; the formats are files, {', '.join(FORMATS)}", "format", 404)
    if len(job) > MOST_PHOTOS:
        raise Refused(f"expected at most {MOST_PHOTOS} photos, got {len(job)}", "job")
    chosen = [line.finished(key) for key in job]
    # By that name it is swept, should this process be killed.
    with HEAVY, tempfile.TemporaryDirectory(".part", f"pnp-ovss-{this_process()}-") as folder:
        _write(Path(folder, "out"), form, chosen, line.most_pixels)
        packed = shutil.make_archive(str(Path(folder, "packed")), "zip", Path(folder, "out"))
        content = Path(packed).read_bytes()
    headers = {"Content-Disposition": f'attachment; filename="pnp-ovss-{form}.zip"'}
    return Response(content, media_type="application/zip", headers=headers)


def _write(out: Path, form: str, chosen: Sequence[tuple[Job, Found]], most_pixels: int) -> None:
    names = _unique([done.name for done, _ in chosen])
    if form == "files":
        for (done, found), name in zip(chosen, names, strict=True):
            whole = found.whole(decode_image(done.content, "the photo", most_pixels))
            whole.save(out, Path(name).stem, name, done.seconds)
        return
    photos = {name: done.content for (done, _), name in zip(chosen, names, strict=True)}
    maps = [replace(found.whole().label_map(name), photo=name) for (_, found), name in zip(chosen, names, strict=True)]
    export(maps, form, out, fetch=photos.__getitem__)


def _unique(names: Sequence[str]) -> list[str]:
    """Return the names, with a number where one came before: files are called by them."""
    taken, found = set[str](), list[str]()
    for name in names:
        path, count = Path(name), 2
        while path.stem.casefold() in taken:
            path, count = Path(f"{Path(name).stem}-{count}{path.suffix}"), count + 1
        taken.add(path.stem.casefold())
        found.append(path.name)
    return found


async def _photo(line: Line, photo: UploadFile | None, of: str) -> tuple[bytes, str, Job | None]:
    """Return the file, its name, and the job whose photo it is, if any."""
    if of:
        before = line.get(of)
        return before.content, before.name, before
    if photo is None or not (content := await photo.read()):
        raise Refused("there is no photo yet; choose one, or take an example", "photo")
    name = re.sub(r"[^\w .()-]", "_", re.split(r"[/\\]", photo.filename or "")[-1])
    stem, suffix = Path(name).stem.strip(". ")[:60] or "photo", Path(name).suffix[:8]
    return content, f"{stem}{suffix}", None


def create_app(models: Sequence[Models], access: Access, backend: label_studio.Backend | None = None) -> FastAPI:
    """Return the service on these models, one a device, with the examples finished."""
    line = Line(models)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        line.close()

    app = FastAPI(title="pnp-ovss", version=VERSION, docs_url=None, redoc_url=None, lifespan=lifespan)
    app.root_path = access.root_path
    app.state.line, app.state.access, app.state.counts = line, access, {}
    app.state.offers, app.state.examples = tuple(models[0].methods), [line.add(job).id for job in pages.make_examples()]
    app.include_router(router)
    app.include_router(pages.router)
    if backend:
        app.include_router(label_studio.routes(backend))

    @app.exception_handler(PnpError)
    @app.exception_handler(RequestValidationError)
    @app.exception_handler(HTTPException)
    async def refused(_: Request, error: Exception) -> Response:
        message, field, status = str(error), getattr(error, "field", ""), getattr(error, "status", 400)
        if isinstance(error, RequestValidationError):
            field = str(error.errors()[0]["loc"][-1])
            message = f"{field}: {error.errors()[0]['msg']}"
        elif isinstance(error, HTTPException):
            message, status = str(error.detail), error.status_code
        return JSONResponse({"error": message[:500], "field": field}, status)

    app.add_middleware(Guard, access=access, counts=app.state.counts)
    return app
