"""``pnp-ovss serve``: the method on a page of the browser."""

import argparse
import os
import signal
import tempfile
import threading

from pnp_ovss.cli.command import PROG, Command, natural, positive
from pnp_ovss.errors import ConfigError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of ``serve``."""
    parser.add_argument(
        "--model",
        action="append",
        metavar="NAME",
        help="short name, hub id or local folder; several times for a choice (default: the models in the box)",
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, ... (default: auto)")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: 127.0.0.1, this machine)")
    parser.add_argument("--port", type=natural, default=None, metavar="N", help="default: the first free from 7860 on")
    parser.add_argument(
        "--max-megapixels", type=positive, default=50, metavar="N", help="largest photo taken (default: 50)"
    )


def run(arguments: argparse.Namespace) -> int:
    """Serve the page until Ctrl-C; return the exit code."""
    if arguments.port is not None and not 0 < arguments.port < 65536:
        raise ConfigError(f"--port is {arguments.port}; a number from 1 to 65535 is wanted")
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # whatever ends it, no visitor's photo is left behind
    with tempfile.TemporaryDirectory(prefix="pnp-ovss-page-", ignore_cleanup_errors=True) as folder:
        os.environ["GRADIO_TEMP_DIR"] = folder  # read when Gradio is imported
        return _serve(arguments)


def _serve(arguments: argparse.Namespace) -> int:
    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")  # read when Gradio is imported
    for name in ("NO_PROXY", "no_proxy"):  # Gradio asks its own page whether it is there
        os.environ[name] = ",".join(filter(None, (os.environ.get(name), "127.0.0.1,localhost", arguments.host)))
    try:
        from pnp_ovss.apps.web.page import serve
    except ImportError as error:
        raise ConfigError(f"the page needs Gradio ({error}); install it with: pip install 'pnp-ovss[web]'") from error
    from pnp_ovss.apps.web.work import PageModels
    from pnp_ovss.models import MODELS

    models = arguments.model or [name for name in MODELS if name.startswith("mini-")]
    page_models = PageModels(models, arguments.device, arguments.max_megapixels * 1_000_000)
    for model in models:  # one that cannot be loaded is told here, not to the first visitor
        page_models.vlm(model)
    page = serve(page_models, arguments.host, arguments.port)
    print(f"the page is at {page.local_url} (Ctrl-C ends it)", flush=True)
    try:
        threading.Event().wait()
    except KeyboardInterrupt:
        print("the page is closed")
    finally:
        page.close()
    return 0


COMMAND = Command(
    usage="[--model NAME] [options]",
    summary="a page in the browser: photo and names in, masks out",
    description="""Serve a page on which to upload a photo, name classes or have them named, and look at the labels, the
salience of each class and every pass of Saliency DropOut; with downloads, and the same as an API for gradio_client.
Only this machine can reach it unless --host says otherwise. Needs the extra [web].""",
    example=f"{PROG} serve",
    add_arguments=add_arguments,
    run=run,
)
