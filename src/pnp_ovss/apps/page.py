"""The page: photo and names on the left, what was found on the right. Gradio draws it."""

import html
import os
import socket
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import CancelledError
from functools import partial
from pathlib import Path
from typing import Any, get_args

import gradio as gr
import numpy as np
from jinja2 import Template
from PIL import Image

from pnp_ovss.apps.page_work import PageModels, WaitingLine, sweep_on, write_downloads
from pnp_ovss.errors import ConfigError, PnpError, one_line
from pnp_ovss.methods.pnp import PRESETS
from pnp_ovss.methods.presence import Present
from pnp_ovss.mini import HELD_OUT_SEED, draw
from pnp_ovss.pictures.figures import data_url, heat, paint, resized, share
from pnp_ovss.refine import REFINERS
from pnp_ovss.segmentation import Segmentation
from pnp_ovss.types import BACKGROUND, RGB, OnStep, Pass

PICTURE_SIDE, TILE_SIDE = 900, 420
"""Longer sides, in pixels, of pictures on the page; downloads have the photo's own size."""
OPACITY = 0.6
"""Of the labels over the photo, at first; at 1 there is nothing but labels."""
HIDDEN = np.uint8(110)
"""Grey of the patches that a pass did not have."""
TITLE = "# pnp-ovss\nName what is in a photo, and get a mask of each. "
MINI = "The small models know drawn scenes and **nothing about photos**; take `--model blip-large-flickr` for those."
LABELS = Template(Path(__file__).with_name("page.html").read_text(encoding="utf-8"), autoescape=True)


def build(models: PageModels) -> gr.Blocks:
    """Return the page. Its ``segment`` and ``name`` are the API as well."""
    line = WaitingLine()

    async def in_line(request: gr.Request, work: Callable[[OnStep], Any]) -> AsyncIterator[Any]:
        try:
            async for step in line.run(str(request.session_hash), work):
                yield step
        except CancelledError:
            yield "Cancelled."
        except PnpError as error:
            yield ""
            raise _error(str(error)) from error

    async def segment(
        photo: str | None, names: str, model: str, preset: str, refiners: list[str], present: str, request: gr.Request
    ) -> AsyncIterator[Any]:
        """Segment a photo into the classes named, which commas separate."""

        def work(on_step: OnStep) -> tuple[Any, ...]:
            chosen: Any = model, preset or "auto", refiners or [], on_step, present or "auto"
            found = models.segment(photo, names or "", *chosen)
            return _outputs(*found, Path(photo or ""))

        async for step in in_line(request, work):
            yield (step, *[gr.skip()] * (len(outputs) - 1)) if isinstance(step, str) else step

    async def name(photo: str | None, model: str, request: gr.Request) -> AsyncIterator[Any]:
        """Return the names of what the photo shows."""
        async for step in in_line(request, lambda _: models.name(models.photo(photo), model)):
            yield gr.skip() if isinstance(step, str) else ", ".join(step)

    async def leave(request: gr.Request) -> None:  # in the loop, as the line needs it
        line.cancel(str(request.session_hash))

    mini = all(model.startswith("mini-") for model in models.models)
    with gr.Blocks(title="pnp-ovss", analytics_enabled=False) as page:
        gr.Markdown(TITLE + MINI * mini)
        with gr.Row():
            with gr.Column(scale=2, min_width=300):
                inputs, suggest, run, cancel = _left(models)
            with gr.Column(scale=3, min_width=300):
                outputs = _right()
        photo, names, model, *_ = inputs
        start = [run.click, names.submit]
        gr.on(start, segment, inputs, outputs, api_name="segment", scroll_to_output=True, concurrency_limit=None)
        suggest.click(name, [photo, model], names, api_name="name", concurrency_limit=None)
        cancel.click(leave, None, None, api_visibility="private", queue=False)
        page.unload(leave)
    return page


def serve(models: PageModels, host: str, port: int | None) -> Any:
    """Serve the page beside what else runs; return it. Its ``close`` ends it, ``local_url`` is where it is.

    Its files lie in GRADIO_TEMP_DIR, which was set before Gradio was imported, and are removed as they get old.

    Raises: ConfigError if nothing can be served there.
    """
    try:
        socket.getaddrinfo(host, port)  # Gradio would take a host that does not exist for a hundred taken ports
        page = build(models)
        sweep_on(Path(os.environ["GRADIO_TEMP_DIR"]))
        # The fonts are those of the visitor's machine: nothing is fetched from elsewhere.
        theme = gr.themes.Soft(primary_hue="teal", font=["system-ui"], font_mono=["ui-monospace", "monospace"])
        private: Any = {"share": False, "run_history": False, "enable_monitoring": False, "max_file_size": "30mb"}
        style: Any = {"theme": theme, "css_paths": Path(__file__).with_name("page.css"), "footer_links": ["api"]}
        name = f"[{host}]" if ":" in host else host
        page.launch(server_name=name, server_port=port, quiet=True, prevent_thread_lock=True, **private, **style)
    except OSError as error:
        where = f"{host}, port {port} ({one_line(error)})"
        raise ConfigError(f"no page can be served on {where}; give another --host or --port") from error
    return page


def _left(models: PageModels) -> tuple[list[Any], gr.Button, gr.Button, gr.Button]:
    """Return photo, names and settings, and the buttons that name, segment and cancel."""
    sources: Any = ["upload", "clipboard"]
    photo = gr.Image(label="Photo", type="filepath", image_mode=None, sources=sources, height=300, elem_id="photo")
    _take_uploads_only(photo)
    example = "dog, traffic light, person=person|child"
    names = gr.Textbox(label="Names, commas between them", placeholder=example, max_lines=4, elem_id="names")
    suggest = gr.Button("Name them for me", elem_id="name")
    with gr.Row():
        run = gr.Button("Segment", variant="primary", min_width=120, elem_id="run")
        cancel = gr.Button("Cancel", min_width=120, elem_id="cancel")
    with gr.Accordion("Model and settings", open=False):
        model = gr.Dropdown(list(models.models), value=models.models[0], label="Model")
        preset = gr.Dropdown(["auto", *PRESETS], value="auto", label="Preset", info="auto: the model's own")
        refiners = gr.Dropdown(list(REFINERS), value=["blur", "crf"], multiselect=True, label="Refinement, in order")
        about = "auto: a name that the photo does not seem to show gets no mask"
        present = gr.Dropdown(list(get_args(Present)), value="auto", label="Names to look for", info=about)
    place = Path(tempfile.mkdtemp(dir=os.environ["GRADIO_TEMP_DIR"]))  # of which Gradio makes no copies
    scenes = [draw(HELD_OUT_SEED, index, 448) for index in (0, 3, 7, 9)]
    samples = [[_save(place, scene.caption, scene.image), ", ".join(scene.things)] for scene in scenes]
    gr.Examples(samples, [photo, names], label="Drawn samples", elem_id="samples")
    return [photo, names, model, preset, refiners, present], suggest, run, cancel


def _right() -> list[Any]:
    """Return what ``_outputs`` fills."""
    status = gr.Markdown("", elem_id="status")
    with gr.Tab("Labels"):
        picture = gr.HTML(elem_id="picture")
        with gr.Row():
            files = {"labels": "Label map, PNG", "coco": "COCO JSON", "zip": "All of it, ZIP"}
            downloads = [gr.DownloadButton(text, interactive=False, elem_id=key) for key, text in files.items()]
    with gr.Tab("Salience"):
        salience = gr.Gallery(label="Found before refinement", columns=2, height="auto", elem_id="salience")
    with gr.Tab("Passes"):
        passes = gr.Gallery(label="Seen and found in each pass", columns=2, height="auto", elem_id="passes")
    return [status, picture, salience, passes, *downloads]


def _take_uploads_only(photo: gr.Image) -> None:
    """Let the component take only files in Gradio's own folder: a request may name any file, or an address."""

    def uploaded(place: str) -> str:
        path = Path(place).resolve()
        if not (path.is_relative_to(Path(os.environ["GRADIO_TEMP_DIR"]).resolve()) and path.is_file()):
            raise _error("the photo is not among the uploads of this page; upload it again")
        return str(path)

    async def unchanged(place: str) -> str:
        return uploaded(place)

    # Gradio's own reader decodes the file here already, and raises what no visitor understands; the other one copies
    # a file of the machine, or fetches an address.
    photo.preprocess = lambda payload: payload and uploaded(payload.path or "")
    photo.async_move_resource_to_block_cache = unchanged


def _error(text: str) -> gr.Error:
    """Return what the page shows as an error: it takes the text for HTML."""
    return gr.Error(html.escape(text, quote=False), duration=None, print_exception=False)


def _outputs(result: Segmentation, passes: Sequence[Pass], path: Path) -> tuple[Any, ...]:
    """Return what each of the outputs shows for the photo at ``path``."""
    folder = Path(tempfile.mkdtemp(dir=os.environ["GRADIO_TEMP_DIR"]))
    photo, save, (height, width) = np.asarray(result.photo), partial(_save, folder), result.labels.shape
    small, tile, colours = resized(photo, PICTURE_SIDE), resized(photo, TILE_SIDE), result.colours
    painted = paint(small, resized(result.labels.astype(np.uint8), PICTURE_SIDE), colours, False, strength=1.0)
    urls = {"photo": data_url(Image.fromarray(small)), "painted": data_url(Image.fromarray(painted), "PNG")}
    classes = zip(result.classes, _notes(result), colours.tolist(), strict=True)
    maps = zip(result.classes[-len(result.salience) :], result.salience, strict=True)
    heats = [(save(f"salience-{index}", heat(tile, grid)), name) for index, (name, grid) in enumerate(maps)]
    steps = []
    for number, one in enumerate(passes, 1):
        visible, salience = one.visible[0].cpu().numpy(), one.maps[0].sum(0).cpu().numpy()
        large = Image.fromarray(visible).resize(tile.shape[1::-1], Image.Resampling.NEAREST)
        hidden = f", {(~visible).sum()} patches hidden" if not visible.all() else ""
        masked = np.where(np.asarray(large)[..., None], tile, HIDDEN)
        steps.append((save(f"saw-{number}", masked), f"pass {number} saw{hidden}"))
        steps.append((save(f"found-{number}", heat(tile, salience)), f"pass {number} found"))
    match = "" if result.match is None else f", match {result.match:.2f}"
    status = "\n\n".join([f"{width} x {height} pixels, {result.model}{match}", *map("**{}**".format, result.doubts)])
    files = [gr.DownloadButton(value=file, interactive=True) for file in write_downloads(result, path, folder)]
    return status, LABELS.render(urls, classes=classes, opacity=OPACITY), heats, steps, *files


def _notes(result: Segmentation) -> Iterator[str]:
    """Yield what the legend says of each class: its area, how sure its region is, or that it is absent."""
    absent = result.presence.absent if result.presence else ()
    for name, area, score in zip(result.classes, result.areas.values(), result.label_map().scores, strict=True):
        if name in absent and result.presence:
            yield f"absent: {result.presence.scores[name]:.2f}, where {result.presence.threshold:g} is needed"
        else:
            sure = f", confidence {score:.2f}" if area and name != BACKGROUND else ""
            yield share(area) + sure


def _save(folder: Path, name: str, picture: RGB) -> str:
    """Write a picture and return its path: those it is given in memory Gradio writes anew while others read them."""
    path = folder / f"{name}.png"
    Image.fromarray(picture).save(path)
    return str(path)
