"""The page: photo and names on the left, what was found on the right. Gradio draws it."""

import html
import io
import os
import socket
import tempfile
from collections.abc import AsyncIterator, Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
from PIL import Image

from pnp_ovss.apps.web.work import KEEP, Cancelled, PageModels, WaitingLine, sweep_on, write_downloads
from pnp_ovss.errors import ConfigError, PnpError, one_line
from pnp_ovss.methods.pnp import PRESETS
from pnp_ovss.mini import HELD_OUT_SEED, draw
from pnp_ovss.pictures import class_colours
from pnp_ovss.pictures.overlay import paint
from pnp_ovss.pictures.sheet import heat
from pnp_ovss.pictures.text import resized, share
from pnp_ovss.refine import REFINERS
from pnp_ovss.segmentation import Segmentation
from pnp_ovss.types import RGB, OnStep, Pass

PICTURE_SIDE, TILE_SIDE = 900, 420
"""Longer sides, in pixels, of pictures on the page; downloads have the photo's own size."""
OPACITY = 0.6
"""Of the labels over the photo, at first; at 1 there is nothing but labels."""
SAMPLES = (0, 3, 7, 9)
UPLOAD = "30mb"
VISITORS = 64
"""Whose results are held at the same time; the oldest is forgotten first."""
MINI = (
    "This page has the small models that come along. They know the 26 names of drawn scenes and **nothing about "
    "photos**; start it with a published one for those: `pnp-ovss serve --model blip-large-flickr`."
)


def build(models: PageModels) -> gr.Blocks:
    """Return the page. Its ``segment`` and ``name`` are the API as well."""
    line = WaitingLine()

    async def in_line(request: gr.Request, work: Callable[[OnStep], Any]) -> AsyncIterator[Any]:
        try:
            async for step in line.run(str(request.session_hash), work):
                yield step
        except Cancelled:
            yield "Cancelled."
        except PnpError as error:
            yield ""
            raise _error(str(error)) from error

    async def segment(
        photo: str | None, names: str, model: str, preset: str, refiners: list[str], request: gr.Request,
        opacity: float = OPACITY,
    ) -> AsyncIterator[dict[Any, Any]]:  # fmt: skip
        """Segment a photo into the classes named, which commas separate."""

        def work(on_step: OnStep) -> tuple[Any, ...]:
            found = models.segment(photo, names or "", model, preset or "auto", refiners or [], on_step)
            return _rendered(*found, Path(photo or ""), opacity)

        async for step in in_line(request, work):
            yield {outputs[1]: step} if isinstance(step, str) else dict(zip(outputs, step, strict=True))

    async def name(photo: str | None, model: str, request: gr.Request) -> AsyncIterator[Any]:
        """Return the names of what the photo shows."""
        async for step in in_line(request, lambda _: models.name(models.photo(photo), model)):
            yield gr.skip() if isinstance(step, str) else ", ".join(step)

    async def leave(request: gr.Request) -> None:  # in the loop, as the line needs it
        line.cancel(str(request.session_hash))

    mini = all(model.startswith("mini-") for model in models.models)
    with gr.Blocks(title="pnp-ovss", analytics_enabled=False) as page:
        gr.Markdown("# pnp-ovss\nName what is in a photo, and get a mask of each. " + MINI * mini)
        with gr.Row():
            with gr.Column(scale=2, min_width=300):
                inputs, suggest, run, cancel = _inputs(models)
            with gr.Column(scale=3, min_width=300):
                outputs, opacity = _outputs()
        photo, names, model, *_ = inputs
        in_own_line: dict[str, Any] = {"concurrency_limit": None}
        gr.on(
            [run.click, names.submit], segment, [*inputs, opacity], outputs, api_name="segment", scroll_to_output=True,
            **in_own_line,
        )  # fmt: skip
        suggest.click(name, [photo, model], names, api_name="name", **in_own_line)
        cancel.click(leave, None, None, api_visibility="private", queue=False)
        page.unload(leave)
        opacity.input(
            _blended, [outputs[0], opacity], outputs[2], api_visibility="private", show_progress="hidden",
            trigger_mode="always_last",
        )  # fmt: skip
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
        page.launch(
            server_name=f"[{host}]" if ":" in host else host, server_port=port, quiet=True, prevent_thread_lock=True,
            max_file_size=UPLOAD, state_session_capacity=VISITORS, footer_links=["api"], run_history=False,
            enable_monitoring=False, css_paths=Path(__file__).parent / "page.css", theme=theme, share=False,
        )  # fmt: skip
    except OSError as error:
        raise ConfigError(
            f"no page can be served on {host}, port {port} ({one_line(error)}); give another --host or --port"
        ) from error
    return page


def _inputs(models: PageModels) -> tuple[list[Any], gr.Button, gr.Button, gr.Button]:
    """Return photo, names and settings, and the buttons that name, segment and cancel."""
    photo = gr.Image(
        label="Photo", type="filepath", image_mode=None, sources=["upload", "clipboard"], height=300, elem_id="photo",
        placeholder="Drop a photo here, or press to choose one",
    )  # fmt: skip
    _take_uploads_only(photo)
    names = gr.Textbox(
        label="Names", placeholder="dog, traffic light, person=person|child", lines=1, max_lines=4, elem_id="names",
        info="separated by commas; Enter starts",
    )  # fmt: skip
    suggest = gr.Button("Name them for me", elem_id="name")
    with gr.Row():
        run = gr.Button("Segment", variant="primary", min_width=120, elem_id="run")
        cancel = gr.Button("Cancel", min_width=120, elem_id="cancel")
    with gr.Accordion("Model and settings", open=False):
        model = gr.Dropdown(list(models.models), value=models.models[0], label="Model")
        preset = gr.Dropdown(["auto", *PRESETS], value="auto", label="Preset", info="auto: the model's own")
        refiners = gr.Dropdown(
            list(REFINERS), value=["blur", "crf"], multiselect=True, label="Refinement, in this order"
        )
    with tempfile.TemporaryDirectory(prefix="pnp-ovss-") as place:  # Gradio keeps copies
        gr.Examples(_samples(Path(place)), [photo, names], label="Drawn samples", elem_id="samples")
    return [photo, names, model, preset, refiners], suggest, run, cancel


def _outputs() -> tuple[list[Any], gr.Slider]:
    """Return what ``_rendered`` fills, and the opacity."""
    state = gr.State(None, time_to_live=KEEP)
    status = gr.Markdown("", elem_id="status")
    with gr.Tab("Labels"):
        picture = gr.Image(
            label="Labels", type="pil", format="png", interactive=False, elem_id="picture",
            buttons=["fullscreen"], alt_text="The photo under the colours of its classes",
        )  # fmt: skip
        opacity = gr.Slider(0, 1, value=OPACITY, step=0.05, label="Opacity of the labels", elem_id="opacity")
        legend = gr.HTML(elem_id="legend")
        with gr.Row():
            labels = gr.DownloadButton("Label map, PNG", interactive=False, elem_id="labels")
            coco = gr.DownloadButton("COCO JSON", interactive=False, elem_id="coco")
            packed = gr.DownloadButton("All of it, ZIP", interactive=False, elem_id="zip")
    with gr.Tab("Salience"):
        salience = gr.Gallery(label="Found before refinement", columns=2, height="auto", elem_id="salience")
    with gr.Tab("Passes"):
        passes = gr.Gallery(label="Seen and found in each pass", columns=2, height="auto", elem_id="passes")
    return [state, status, picture, legend, salience, passes, labels, coco, packed], opacity


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


def _samples(folder: Path) -> list[list[str]]:
    """Draw the samples into the folder; return them with their names."""
    rows = []
    for index in SAMPLES:
        scene = draw(HELD_OUT_SEED, index, 448)
        rows.append([_file(folder, f"scene-{index}", scene.image), ", ".join(scene.things)])
    return rows


def _error(text: str) -> gr.Error:
    """Return what the page shows as an error: it takes the text for HTML."""
    return gr.Error(html.escape(text, quote=False), duration=None, print_exception=False)


def _rendered(result: Segmentation, passes: Sequence[Pass], path: Path, opacity: float) -> tuple[Any, ...]:
    """Return what each of the outputs shows for the photo at ``path``."""
    folder = Path(tempfile.mkdtemp(dir=os.environ["GRADIO_TEMP_DIR"]))
    photo, file, (height, width) = np.asarray(result.photo), partial(_file, folder), result.labels.shape
    downloads = [gr.DownloadButton(value=file, interactive=True) for file in write_downloads(result, path, folder)]
    small, labels = resized(photo, PICTURE_SIDE), resized(result.labels.astype(np.uint8), PICTURE_SIDE)
    painted = paint(small, labels, class_colours(result.classes), background=False, strength=1.0)
    state = _packed(small, "JPEG"), _packed(painted, "PNG")
    tile = resized(photo, TILE_SIDE)
    maps = zip(result.classes[-len(result.salience) :], result.salience, strict=True)
    heats = [(file(f"salience-{index}", heat(tile, grid)), name) for index, (name, grid) in enumerate(maps)]
    steps = []
    for number, one in enumerate(passes, 1):
        visible, salience = one.visible[0].cpu().numpy(), one.maps[0].sum(0).cpu().numpy()
        hidden = f", {(~visible).sum()} patches hidden" if not visible.all() else ""
        steps.append((file(f"saw-{number}", _masked(tile, visible)), f"pass {number} saw{hidden}"))
        steps.append((file(f"found-{number}", heat(tile, salience)), f"pass {number} found"))
    status = f"{width} x {height} pixels, {result.model}, match {result.match:.2f}"
    picture = file("picture", np.asarray(_blended(state, opacity)))
    return state, status, picture, _legend(result), heats, steps, *downloads


def _blended(state: tuple[bytes, bytes] | None, opacity: float | None) -> Image.Image | None:
    """Return the photo under its labels at this opacity."""
    if state is None:
        return None
    photo, painted = (Image.open(io.BytesIO(picture)) for picture in state)
    return Image.blend(photo, painted, OPACITY if opacity is None else min(1.0, max(0.0, opacity)))


def _file(folder: Path, name: str, picture: RGB) -> str:
    """Write a picture and return its path: those it is given in memory Gradio writes anew while others read them."""
    path = folder / f"{name}.png"
    Image.fromarray(picture).save(path)
    return str(path)


def _packed(picture: RGB, kind: str) -> bytes:
    file = io.BytesIO()
    Image.fromarray(picture).save(file, kind)
    return file.getvalue()


def _legend(result: Segmentation) -> str:
    rows = [
        f'<li><span class="chip" style="background: rgb({r}, {g}, {b})"></span>{html.escape(name)} '
        f'<span class="area">{html.escape(share(result.areas[name]))}</span></li>'
        for name, (r, g, b) in zip(result.classes, class_colours(result.classes).tolist(), strict=True)
    ]
    return f'<ul class="legend">{"".join(rows)}</ul>'


def _masked(photo: RGB, visible: np.ndarray) -> RGB:
    """Return the photo with hidden patches in grey."""
    large = Image.fromarray(visible).resize(photo.shape[1::-1], Image.Resampling.NEAREST)
    return np.where(np.asarray(large)[..., None], photo, np.uint8(110))
