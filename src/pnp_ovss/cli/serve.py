"""``pnp-ovss serve``: the method on a page of the browser."""

import os
import signal
import tempfile
import threading
from pathlib import Path
from typing import Annotated

from pnp_ovss.apps.page_work import PageModels
from pnp_ovss.cli import say
from pnp_ovss.cli.flags import Count, Memory, Name, value
from pnp_ovss.errors import import_extra
from pnp_ovss.files import sweep
from pnp_ovss.models import MODELS
from pnp_ovss.processes import this_process

EXAMPLE = "serve"


def command(
    model: Annotated[list[str], value("NAME")] | None = None,
    device: Name = "auto",
    host: Name = "127.0.0.1",
    port: Annotated[int, value("N", min=1, max=65535)] | None = None,
    max_megapixels: Count = 50,
    memory: Memory | None = None,
) -> int:
    """Serve a page on which to upload a photo, name classes or have them named, and look at the labels.

    It shows the salience of each class and every pass of Saliency DropOut as well, has downloads, and is an API for
    gradio_client. Needs the extra [web].

    Args:
        model: short name, hub id or local folder; several times for a choice (default: those in the box)
        device: auto, cpu, cuda, cuda:1, mps, ...
        host: address to listen on; 127.0.0.1 is this machine alone
        port: default: the first free from 7860 on
        max_megapixels: largest photo taken
        memory: what the process may hold, such as 4GB (default: most of what the machine or its container has left); a
            photo that needs more is refined at fewer pixels
    """
    models = model or [name for name in MODELS if name.startswith("mini-")]
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # whatever ends it, no visitor's photo is left behind
    sweep(Path(tempfile.gettempdir()))  # those of servers that were killed
    ours = f"pnp-ovss-{this_process()}-"  # swept as well, should this one be killed
    with tempfile.TemporaryDirectory(".part", ours, ignore_cleanup_errors=True) as folder:
        # Gradio reads these when it is imported.
        os.environ["GRADIO_TEMP_DIR"] = folder
        os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
        for name in ("NO_PROXY", "no_proxy"):  # it asks its own page whether it is there
            os.environ[name] = ",".join(filter(None, (os.environ.get(name), "127.0.0.1,localhost", host)))
        import_extra("gradio", "web", "the page")
        from pnp_ovss.apps.page import serve

        page_models = PageModels(models, device, max_megapixels * 1_000_000, memory)
        for name in models:  # one that cannot be loaded is found here, not by the first visitor
            page_models.vlm(name)
        page = serve(page_models, host, port)
        say(f"the page is at {page.local_url} (Ctrl-C ends it)")
        try:
            threading.Event().wait()
        except KeyboardInterrupt:
            print("the page is closed")
        finally:
            page.close()
    return 0
