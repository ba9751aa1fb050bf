"""``pnp-ovss serve``: the page, the same over HTTP, and Label Studio's back end."""

import logging
import signal
import socket
import sys
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any

from pnp_ovss.cli import OUTPUT, say
from pnp_ovss.cli.flags import Count, Memory, Name, value
from pnp_ovss.errors import ConfigError, import_extra, one_line
from pnp_ovss.files import sweep
from pnp_ovss.methods import METHODS, method_info
from pnp_ovss.methods.presence import Present
from pnp_ovss.models.hub import MODELS, SHORT_NAMES, find_folder, read_settings
from pnp_ovss.models.releases import RELEASES

EXAMPLE = "serve"
FIRST, PORTS = 7860, 100
"""Ports that are tried where none is given."""
LOOPBACK = ("127.0.0.1", "localhost", "::1")


def command(
    model: Annotated[list[str], value("NAME")] | None = None,
    method: Annotated[list[str], value("|".join(METHODS))] | None = None,
    device: Annotated[list[str], value("NAME")] | None = None,
    host: Name = "127.0.0.1",
    port: Annotated[int, value("N", min=1, max=65535)] | None = None,
    token: Annotated[str, value("TEXT", envvar="PNP_OVSS_TOKEN")] | None = None,
    public: bool = False,
    cors: Annotated[list[str], value("ORIGIN")] | None = None,
    root_path: Annotated[str, value("PATH")] = "",
    label_studio: Annotated[str, value("ADDRESS|DIR")] | None = None,
    label_studio_key: Annotated[str, value("TEXT", envvar="LABEL_STUDIO_API_KEY")] = "",
    instances: bool = False,
    present: Present = "auto",
    max_megapixels: Count = 50,
    memory: Memory | None = None,
) -> int:
    """Serve a page on which to choose a photo, name classes or have them named, and look at the labels.

    The same is there over HTTP, described at /docs. Needs the extra [serve].

    Args:
        model: short name, hub id or local folder; several times for a choice (default: the bundled ones)
        method: several times for a choice (default: all that the models can run without a further one)
        device: auto, cpu, cuda, cuda:1, mps, ...; several times for a line that several devices work on
        host: address to listen on; 127.0.0.1 is this machine alone
        port: default: the first free from 7860 on
        token: what visitors have to know, if the host is not this machine alone; the page opens as /?token=TEXT
        public: let everybody in without a token
        cors: another page that may ask, such as https://example.org; several times for several
        root_path: where a reverse proxy has the service, such as /segment, or / for its root
        label_studio: be a back end of Label Studio as well, at /label-studio; the photos are those of the Label Studio
            at this address, or files in this folder
        label_studio_key: its access token, with which photos are read
        instances: Label Studio gets a mask for each object, not for each class
        present: auto: Label Studio gets no mask of labels that the photo does not seem to show; all: of each
        max_megapixels: largest photo taken
        memory: what the process may hold, such as 4GB (default: most of what the machine or its container has left); a
            photo that needs more is refined at fewer pixels
    """
    if host not in LOOPBACK and not token and not public:
        raise ConfigError(f"{host} lets others in; give --token TEXT that they have to know, or --public")
    photos = _label_studio(label_studio)
    sweep(Path(tempfile.gettempdir()))  # what servers that were killed left there while they packed a ZIP
    uvicorn: Any = import_extra("uvicorn", "serve", "the service")
    import_extra("fastapi", "serve", "the service")
    from pnp_ovss.apps.guard import Access
    from pnp_ovss.apps.jobs import Models
    from pnp_ovss.apps.label_studio import Backend
    from pnp_ovss.apps.service import create_app
    from pnp_ovss.segmenter import Segmenter

    with _listen(host, port) as listener:
        offers = _offers(method or (), model or ())
        models = [Models(offers, one, memory, max_megapixels * 1_000_000) for one in device or ["auto"]]
        access = Access(host, token or "", public, tuple(cors or ()), root_path.rstrip("/"), bool(root_path))
        first = next(iter(models[0].methods.values()))
        turn = models[0].turn
        segmenter = Segmenter(first, memory, present)
        backend = Backend(segmenter, photos, label_studio_key, turn, instances) if photos else None
        settings = {"log_config": None, "access_log": False, "proxy_headers": False, "server_header": False}
        config = uvicorn.Config(
            create_app(models, access, backend), limit_concurrency=500, timeout_graceful_shutdown=2, **settings
        )
        _log()
        name = f"[{host}]" if ":" in host else host
        where = f"http://{name}:{listener.getsockname()[1]}{access.root_path}/"
        say(f"the page is at {where} (Ctrl-C ends it)")
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        with suppress(KeyboardInterrupt):
            uvicorn.Server(config).run(sockets=[listener])
    say("the page is closed")
    return 0


def _offers(methods: Sequence[str], models: Sequence[str]) -> list[tuple[str, str]]:
    """Return the pairs of method and model: each method on those of the models that it can run, or on its own."""
    families, small = {name: _family(name) for name in models}, all(name.startswith("mini-") for name in models)
    on_attention = {model.family for model in MODELS.values()}
    found = list[tuple[str, str]]()
    for name in methods or METHODS:
        info = method_info(name)
        own = _family(info.checkpoint) if info.checkpoint in SHORT_NAMES else info.checkpoint
        mine = on_attention if info.checkpoint in MODELS else {own}
        given = [model for model in models if families[model] in mine]
        if methods and not given and models:
            given = [info.mini if small and info.mini else info.checkpoint]
        elif not models and info.mini:
            given = [model for model in SHORT_NAMES if model.startswith("mini-") and _family(model) in mine]
        elif not models and methods:
            given = [info.checkpoint]
        if methods or not {"proxy", "masker", "archive"} & {
            entry.name for entry in fields(info.config)
        }:  # a further model
            found += [(name, model) for model in given]
    return found


def _family(name: str) -> str:
    """Return a model's family: as it is listed, as its files say, or by its name where they are not here.

    That of a released file is the method it is for.
    """
    for kind, release in RELEASES.items():
        if Path(name).name == release.file:
            return kind
    known = SHORT_NAMES.get(name)
    folder = None if known else find_folder(name)
    if folder:
        return str(read_settings(folder / "config.json", name).get("model_type"))
    return known.family if known else "clip" if "clip" in name.lower() else "blip"


def _label_studio(place: str | None) -> Path | str | None:
    if place is None or place.startswith(("http://", "https://")):
        return place
    if not Path(place).is_dir():
        raise ConfigError(
            f"expected the address of Label Studio or the folder of its files, got --label-studio {place}"
        )
    return Path(place)


def _listen(host: str, port: int | None) -> socket.socket:
    """Return a socket that listens. Raises: ConfigError if there is none to be had."""
    try:
        kind = socket.getaddrinfo(host, port or FIRST, type=socket.SOCK_STREAM)[0][0]
        for one in () if port else range(FIRST, FIRST + PORTS):
            with suppress(OSError):
                return socket.create_server((host, one), family=kind, backlog=512)
        return socket.create_server((host, port or FIRST), family=kind, backlog=512)
    except (OSError, UnicodeError) as error:
        where = f"{host}, port {port or FIRST} ({one_line(error)})"
        raise ConfigError(f"no page can be served on {where}; give another --host or --port") from error


def _log() -> None:
    """Write the service's lines to stderr, errors alone if the output is to be quiet."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%Y-%m-%d %H:%M:%S"))
    logger = logging.getLogger("pnp_ovss.apps")
    logger.handlers, logger.propagate = [handler], False
    logger.setLevel(logging.ERROR if OUTPUT.quiet else logging.INFO)
