"""What the service does for its visitors: jobs, the line before the models, and results as long as they are kept.

Nothing is written to a disk: a job holds the file that was sent and what was found in it, packed.
"""

import io
import logging
import secrets
import threading
import time
import traceback
import zlib
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import CancelledError
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, Literal, get_args, get_origin

import numpy as np
import torch
from PIL import Image

from pnp_ovss.data.vocabulary import load_vocabulary, parse_classes
from pnp_ovss.errors import ConfigError, InputError, PnpError
from pnp_ovss.files import parse_json
from pnp_ovss.images import decode_image
from pnp_ovss.methods import DEFAULT_METHOD, Method, load_method, method_info, resolve_config
from pnp_ovss.methods.on_clip import WindowMaps
from pnp_ovss.methods.presence import Present
from pnp_ovss.naming import Options, load_namer, name_photo
from pnp_ovss.parts import find_parts
from pnp_ovss.pictures.figures import resized
from pnp_ovss.refine import REFINERS, RefinementSettings
from pnp_ovss.refine.scores import ScoreMap
from pnp_ovss.segmentation import Segmentation
from pnp_ovss.segmenter import Located, Segmenter
from pnp_ovss.types import BACKGROUND, RGB, OnStep, Vocabulary, fold, spaced

LOG = logging.getLogger(__name__)
MOST_NAMES, LONGEST_NAME = 60, 80
MOST_WAITING, MOST_OF_ADDRESS, MOST_OF_ONE = 32, 24, 4
"""Jobs in the line, and those from one address and of one visitor among them."""
KEEP, LONGEST = 3600.0, 300.0
"""Seconds until a job is forgotten, and until one that runs is stopped."""
MOST_HELD, MOST_JOBS = 1_000_000_000, 2000
"""Bytes and number of all jobs that are kept; of more, the oldest go."""
FIXED = ("size", "short_side", "long_side", "crop", "stride", "max_pixels")
"""Settings that decide what a photo costs: they are the server's own."""
VIEW = 1280
"""Longest side of a photo on the page, in pixels."""
OFFERED = tuple(name for name in REFINERS if name != "prompts")
"""The refiners that load no model."""
STUB = np.zeros((1, 1, 3), np.uint8)


class Refused(InputError):
    """A request that cannot be answered: ``field`` says which part of it is wrong, ``status`` is that of HTTP."""

    def __init__(self, message: str, field: str = "", status: int = 400) -> None:
        super().__init__(message)
        self.field, self.status = field, status


@dataclass(frozen=True)
class Ask:
    """What a visitor asks for: everything but the photo."""

    words: dict[str, tuple[str, ...]]
    method: str
    model: str
    config: Any
    present: str


@dataclass(frozen=True)
class Found:
    """A result as it is kept: its labels are packed, its photo is in the file, and no scores are held."""

    segmentation: Segmentation
    labels: bytes
    located: Located | None = None

    @classmethod
    def of(cls, result: Segmentation, located: Located | None) -> "Found":
        """Return a result as it is kept."""
        labels, count = result.labels, len(result.classes)
        channels = torch.zeros(1, 1, 1).expand(count, *labels.shape)
        empty = ScoreMap(channels, tuple((number,) for number in range(count)))
        held = replace(result, labels=np.broadcast_to(np.int32(0), labels.shape), score_map=empty, photo=None)
        packed = zlib.compress(np.ascontiguousarray(labels, np.uint8).tobytes(), 1)
        if located and located.maps and isinstance(located.maps, WindowMaps):
            located = replace(located, maps=replace(located.maps, photo=STUB))
        return cls(held, packed, located and replace(located, photo=STUB))

    def whole(self, photo: RGB | None = None) -> Segmentation:
        """Return the segmentation with its labels, and with the photo where it is given."""
        shape = self.segmentation.labels.shape
        labels = np.frombuffer(zlib.decompress(self.labels), np.uint8).reshape(shape).astype(np.int32)
        return replace(self.segmentation, labels=labels, photo=photo)

    def edited(self, change: Mapping[str, Any]) -> "Found":
        """Return the result after one change of its label map; nothing is computed anew.

        A change is ``{"rename": NAME, "to": NEW}``, ``{"colour": NAME, "to": "#rrggbb"}``, or ``{"region": [x, y],
        "to": CLASS}``: the connected part of a class around that pixel; "background" deletes it. Raises: Refused.
        """
        target = change.get("to")
        if not isinstance(target, str) or not 0 < len(target := spaced(target)) <= LONGEST_NAME:
            raise Refused(f"expected a name of at most {LONGEST_NAME} characters, got {target!r:.40}", "to")
        result = self.whole()
        match change:
            case {"rename": str(name)}:
                return Found.of(_renamed(result, name, target), None)
            case {"region": [int(x), int(y)]}:
                return Found.of(_reassigned(result, x, y, target), None)
            case {"colour": str(name)} if name in result.classes:
                if len(target) != 7 or target[0] != "#" or set(target[1:].lower()) - set("0123456789abcdef"):
                    raise Refused(f"expected a colour such as #ff8000, got {target!r}", "to")
                colour = bytes.fromhex(target[1:])
                colours = result.palette.colours | {fold(name): (colour[0], colour[1], colour[2])}
                return Found.of(replace(result, palette=replace(result.palette, colours=colours)), None)
        raise Refused('expected "rename", "region" or "colour" with what is there, and "to"', "change")


@dataclass(eq=False)
class Job:
    """A request that takes time, and its answer. ``work(models, photo, on_step)`` makes that, and is let go then."""

    visitor: str
    content: bytes
    name: str
    """Of the photo's file."""
    work: Callable[["Models", RGB, OnStep], Any] | None
    ask: Ask | None = None
    id: str = field(default_factory=lambda: secrets.token_urlsafe(18))
    state: Literal["waiting", "working", "done", "failed", "cancelled"] = "waiting"
    step: tuple[str, int, int] = ("", 0, 1)
    error: str = ""
    about: str = ""
    """What of the request the error is about."""
    answer: Any = None
    """Names, or ``Found``."""
    view: bytes = b""
    """The photo as a page shows it: JPEG."""
    begun: float = field(default_factory=time.monotonic)
    seconds: float = 0.0
    cancelled: bool = False
    stays: bool = False
    """Whether it is an example, which is never forgotten."""

    @property
    def over(self) -> bool:
        """Whether nothing more will happen."""
        return self.state not in ("waiting", "working")

    @property
    def size(self) -> int:
        """Bytes that it holds, about."""
        return len(self.content) + len(self.view) + len(getattr(self.answer, "labels", b""))

    def on_step(self, name: str, done: int, total: int) -> None:
        """Note the step; raise CancelledError once the job is cancelled, InputError when it takes too long."""
        if self.cancelled:
            raise CancelledError
        if time.monotonic() - self.begun > LONGEST:
            raise Refused(
                f"it took more than {LONGEST:.0f} seconds; take a smaller photo or other settings", "settings"
            )
        self.step = name, done, total


class Models:
    """The methods that are offered, as pairs of method and model, each loaded once and on one device."""

    def __init__(self, offers: Sequence[tuple[str, str]], device: str, memory: int | None, most_pixels: int) -> None:
        self.device, self.memory, self.most_pixels = device, memory, most_pixels
        self.methods: dict[tuple[str, str], Method] = {}
        self.turn = threading.Lock()
        """Held while a model works."""
        for method, model in offers:
            kind: Any = getattr(method_info(method).load, "__self__", None)
            loaded: list[Any] = [one for (_, name), one in self.methods.items() if name == model]
            if loaded and method != DEFAULT_METHOD:  # a CLIP is shared
                config = resolve_config(model, method=method)
                self.methods[method, model] = kind.on(loaded[0].backbone, config, device, "auto")
            else:
                self.methods[method, model] = load_method(method, model, device)

    def segmenter(self, ask: Ask) -> Segmenter:
        """Return a segmenter with the settings that are asked for, on a model that is loaded."""
        loaded: Any = self.methods[ask.method, ask.model]
        more = [loaded.dino] if hasattr(loaded, "dino") else []
        return Segmenter(type(loaded)(loaded.backbone, ask.config, *more), self.memory, ask.present)

    def segment(self, ask: Ask, photo: RGB, on_step: OnStep, before: Job | None = None) -> Found:
        """Return what is found in the photo. ``before``: an earlier job on it, whose class maps may be those asked for.

        Raises: Refused, another PnpError for a fault of the photo, and what ``on_step`` raises.
        """
        located, part = _same(before, ask) if before else None, "settings"
        try:
            segmenter, part = self.segmenter(ask), "classes"
            if located is None:
                (located,) = segmenter.locate([photo], [Vocabulary(ask.words)], on_step)
        except PnpError as error:
            raise error if isinstance(error, Refused) else Refused(str(error), part) from error
        if located.maps and isinstance(located.maps, WindowMaps):
            located = replace(located, maps=replace(located.maps, photo=photo))
        located = replace(located, photo=photo)
        return Found.of(segmenter.refine(located, on_step), located)

    def name(self, model: str, photo: RGB) -> tuple[str, ...]:
        """Return the classes, of the few names it knows or of COCO's objects, that the model's matching head finds."""
        method: Any = self.methods[DEFAULT_METHOD, model]
        vlm = method.backbone
        vocabulary = Vocabulary.of(vlm.known) if vlm.known else load_vocabulary("coco-object")
        return name_photo(load_namer("itm", Options(vlm=lambda: vlm)), photo, vocabulary)


class Line:
    """Jobs in the order in which they came, a thread for each device that works on them, and those that are over."""

    def __init__(self, models: Sequence[Models]) -> None:
        self.jobs: dict[str, Job] = {}
        self.most_pixels = models[0].most_pixels
        self.ends = dict.fromkeys(("done", "failed", "cancelled"), 0)
        self.seconds = 0.0
        self._waiting: deque[Job] = deque()
        self._change = threading.Condition()
        self._closed = False
        self._threads = [threading.Thread(target=self._serve, args=[one], daemon=True) for one in models]
        for thread in self._threads:
            thread.start()

    def put(self, job: Job) -> Job:
        """Put a job into the line. Raises: Refused if too many wait already, or too many of this visitor's."""
        with self._change:
            self.sweep()
            running = [one for one in self.jobs.values() if not one.over]
            near = [one for one in running if one.visitor.split()[:1] == job.visitor.split()[:1]]
            if sum(one.visitor == job.visitor for one in near) >= MOST_OF_ONE or len(near) >= MOST_OF_ADDRESS:
                raise Refused("too many of your requests are not done yet; wait for them", status=429)
            if len(running) >= MOST_WAITING:
                raise Refused(f"{MOST_WAITING} requests are waiting already; try again in a minute", status=503)
            self.jobs[job.id] = job
            self._waiting.append(job)
            self._change.notify()
        return job

    def add(self, job: Job) -> Job:
        """Keep a job that is over already."""
        with self._change:
            self.sweep()
            self.jobs[job.id] = job
        return job

    def get(self, key: str) -> Job:
        """Return a job. Raises: Refused if there is none, or it was forgotten."""
        with self._change:
            self.sweep()
            job = self.jobs.get(key)
        if job is None:
            raise Refused("there is no such job; results are kept for an hour", "job", 404)
        return job

    def finished(self, key: str) -> tuple[Job, Found]:
        """Return a job and its result. Raises: Refused if it has none."""
        job = self.get(key)
        if job.state != "done" or not isinstance(job.answer, Found):
            raise Refused(f"this job has no result: it is {job.state}", "job", 409)
        return job, job.answer

    def before(self, job: Job) -> int:
        """Return how many jobs come before this one: those that wait for longer, and those at work."""
        with self._change:
            waiting = list(self._waiting)
            working = sum(one.state == "working" for one in self.jobs.values())
            return waiting.index(job) + working if job in waiting else 0

    def cancel(self, job: Job) -> None:
        """Stop a job at its next step, or take it out of the line; one that is over is forgotten."""
        with self._change:
            job.cancelled = True
            if job in self._waiting:
                self._waiting.remove(job)
                job.state = "cancelled"
                self.ends["cancelled"] += 1
            elif job.over and not job.stays:
                self.jobs.pop(job.id, None)

    def sweep(self) -> None:
        """Forget the jobs that are old, and the oldest of too many."""
        over = sorted((one for one in self.jobs.values() if one.over and not one.stays), key=lambda one: one.begun)
        held, count, now = sum(one.size for one in over), len(over), time.monotonic()
        for job in over:
            if job.begun < now - KEEP or held > MOST_HELD or count > MOST_JOBS:
                del self.jobs[job.id]
                held, count = held - job.size, count - 1

    def close(self) -> None:
        """Cancel everything and end the threads."""
        with self._change:
            self._closed = True
            for job in self.jobs.values():
                job.cancelled = True
            self._change.notify_all()
        for thread in self._threads:
            thread.join(30)

    def _serve(self, models: Models) -> None:
        while True:
            with self._change:
                self._change.wait_for(lambda: self._waiting or self._closed)
                if self._closed:
                    return
                job = self._waiting.popleft()
                job.state, job.begun = "working", time.monotonic()
            end = perform(job, models)
            with self._change:
                job.seconds, job.begun = time.monotonic() - job.begun, time.monotonic()
                self.seconds += job.seconds
                self.ends[end] += 1
                job.state = end


def perform(job: Job, models: Models) -> Literal["done", "failed", "cancelled"]:
    """Do a job's work and fill in its answer, or its error; return how it ended."""
    try:
        photo = decode_image(job.content, "the photo", models.most_pixels)
        job.view = view(photo)
        with models.turn:
            job.answer = job.work and job.work(models, photo, job.on_step)
        return "done"
    except CancelledError:
        return "cancelled"
    except PnpError as error:
        job.error, job.about = str(error), getattr(error, "field", "photo")
    except Exception as error:  # a bug must not end the line
        job.error = f"a bug in pnp-ovss: {type(error).__name__}; the server's log says more"
        log_bug(error)
    finally:
        job.work = None  # it may hold an earlier job
    return "failed"


def segmenting(ask: Ask, before: Job | None = None) -> Callable[[Models, RGB, OnStep], Found]:
    """Return the work of a job that segments."""
    return lambda models, photo, on_step: models.segment(ask, photo, on_step, before)


def make_ask(offers: Sequence[tuple[str, str]], form: Mapping[str, str]) -> Ask:
    """Return what a form asks for; ``offers`` are the pairs of method and model that may be asked for.

    Nothing in a form is ever a path, an address or the name of something to fetch: settings are numbers, yes or no, and
    choices from lists, and those that decide what a photo costs are left out. Raises: Refused, which names the field.
    """
    method = form.get("method") or offers[0][0]
    known = [name for one, name in offers if one == method]
    if not known:
        raise Refused(f"there is no method {method!r:.40}; take one of {', '.join(dict(offers))}", "method")
    model = form.get("model") or known[0]
    if model not in known:
        raise Refused(f"{method} has no model {model!r:.40} here; take one of {', '.join(known)}", "model")
    preset, present = form.get("preset") or "auto", form.get("present") or "auto"
    if preset not in ("auto", *method_info(method).presets):
        raise Refused(f"{method} has no preset {preset!r:.40}; take auto", "preset")
    if present not in get_args(Present):
        raise Refused(f"expected auto or all as present, got {present!r:.40}", "present")
    part = "classes"
    try:
        words, part = _classes(form.get("classes") or ""), "settings"
        settings = parse_json((form.get("settings") or "{}").encode(errors="replace"), "the settings")
        config = resolve_config(model, preset, None, method, **_allowed(method, settings))
    except PnpError as error:
        raise Refused(str(error), part) from error
    own, texts = resolve_config(model, method=method), [entry.name for entry in fields(config) if entry.type is str]
    if any(getattr(config, name) != getattr(own, name) for name in texts):  # texts name models and folders
        raise Refused(f"the preset {preset} asks for a model that is not loaded here; take auto", "preset")
    return Ask(words, method, model, config, present)


def settings_of(method: str, model: str) -> list[dict[str, Any]]:
    """Return the settings that a visitor may change: name, meaning, default, bounds or choices."""
    config = resolve_config(model, method=method)
    found: list[dict[str, Any]] = []
    for entry in fields(config):
        default, kinds = getattr(config, entry.name), (entry.type, *get_args(entry.type))
        about: dict[str, Any] = {"name": entry.name, "help": entry.metadata["help"], "default": default}
        if entry.name in FIXED:
            continue
        if entry.name == "refiners":
            found.append(about | {"choices": list(OFFERED), "many": True})
        elif bool in kinds:
            found.append(about)
        elif int in kinds or float in kinds:
            high = entry.metadata["high"] if float in kinds else min(entry.metadata["high"], max(16, 4 * default))
            found.append(about | {"low": entry.metadata["low"], "high": high})
        elif get_origin(entry.type) is Literal:
            found.append(about | {"choices": list(get_args(entry.type))})
    return found


def view(photo: RGB) -> bytes:
    """Return the photo as a page shows it, JPEG, at most ``VIEW`` pixels wide and high."""
    return as_jpeg(photo if max(photo.shape) <= VIEW else resized(photo, VIEW))


def as_jpeg(picture: RGB) -> bytes:
    """Return the picture as JPEG."""
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "JPEG", quality=88)
    return buffer.getvalue()


def log_bug(error: BaseException) -> None:
    """Say where a bug is, in one line."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    LOG.error("bug: %s at %s:%s: %.100r", type(error).__name__, last.filename, last.lineno, str(error))


def _classes(text: str) -> dict[str, tuple[str, ...]]:
    """Return the classes of a text as the command line takes it, or of a JSON object, and their words."""
    given = parse_json(text.encode(errors="replace"), "the ontology") if text.lstrip().startswith("{") else None
    vocabulary = parse_classes(text) if given is None else Vocabulary.of(given)
    if (count := len(vocabulary.flat)) > MOST_NAMES:
        raise InputError(f"expected at most {MOST_NAMES} words, got {count}; name fewer")
    if longest := [word for word in (*vocabulary.classes, *vocabulary.flat) if len(word) > LONGEST_NAME]:
        raise InputError(f"expected names of at most {LONGEST_NAME} characters, got {longest[0]!r:.40}")
    return vocabulary.words


def _allowed(method: str, given: Mapping[str, Any]) -> dict[str, Any]:
    known = {one["name"]: one for one in settings_of(method, method_info(method).mini or "")}
    for name, value in given.items():
        if name not in known:
            raise ConfigError(f"there is no setting {name!r:.40} to change; the settings are {', '.join(known)}")
        if isinstance(value, int | float) and not known[name].get("low", value) <= value <= known[name].get(
            "high", value
        ):
            most = known[name]["high"]
            raise ConfigError(f"expected {name} from {known[name]['low']:g} to {most:g}, got {value!r:.40}")
        if "many" in known[name] and not (isinstance(value, list) and {*map(str, value)} <= {*OFFERED}):
            raise ConfigError(f"expected a list of some of {', '.join(OFFERED)}, got {value!r:.40}")
    return dict(given)


def _same(before: Job, ask: Ask) -> Located | None:
    """Return the class maps of an earlier job if they are those that are asked for."""
    last, refinement = before.ask, {entry.name for entry in fields(RefinementSettings)}
    if last is None or not isinstance(before.answer, Found):
        return None
    mine, theirs = ({k: v for k, v in asdict(one.config).items() if k not in refinement} for one in (ask, last))
    same = replace(ask, config=None) == replace(last, config=None) and mine == theirs
    return before.answer.located if same else None


def _renamed(result: Segmentation, name: str, target: str) -> Segmentation:
    if name not in result.classes or name == BACKGROUND:
        raise Refused(f"there is no class {name!r:.40} to rename", "rename")
    if fold(target) in map(fold, (BACKGROUND, *(one for one in result.classes if one != name))):
        raise Refused(f"there is a class {target!r} already; give the regions to it instead", "to")

    def new(one: str) -> str:
        return target if one == name else one

    presence, palette = result.presence, result.palette
    if presence:
        presence = replace(presence, scores={new(one): score for one, score in presence.scores.items()})
    colours = {fold(target) if one == fold(name) else one: colour for one, colour in palette.colours.items()}
    classes = tuple(map(new, result.classes))
    return replace(result, classes=classes, presence=presence, palette=replace(palette, colours=colours))


def _reassigned(result: Segmentation, x: int, y: int, target: str) -> Segmentation:
    height, width = result.labels.shape
    if not (0 <= x < width and 0 <= y < height):
        raise Refused(f"expected a pixel of the photo, {width} x {height}, got {x}, {y}", "region")
    parts = find_parts(result.labels)
    inside = parts.index == parts.index[y, x]
    known = {fold(name): name for name in result.classes}
    name = known.get(fold(target), target)
    if fold(name) == BACKGROUND and name not in result.classes:
        result = result.among((BACKGROUND, *result.classes))
    elif name not in result.classes:
        if len(result.classes) > MOST_NAMES:
            raise Refused(f"expected at most {MOST_NAMES} classes", "to")
        result = result.among((*result.classes, name))
    labels = result.labels.copy()
    labels[inside] = result.classes.index(name)
    return replace(result, labels=labels)
