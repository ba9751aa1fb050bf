"""The page: photo and names on the left, what was found on the right. Gradio draws it and queues the work."""

import errno
import html
import io
import socket
import tempfile
from collections.abc import AsyncIterator, Generator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import gradio as gr
import numpy as np
from PIL import Image

from pnp_ovss.apps.web.files import KEEP, Files
from pnp_ovss.apps.web.studio import Studio, View, write_downloads
from pnp_ovss.apps.web.worker import Cancelled, Worker
from pnp_ovss.config import PRESETS
from pnp_ovss.errors import ConfigError, PnpError, one_line
from pnp_ovss.mini import HELD_OUT_SEED, draw
from pnp_ovss.pictures import class_colours
from pnp_ovss.pictures.overlay import paint
from pnp_ovss.pictures.sheet import heat
from pnp_ovss.pictures.text import share
from pnp_ovss.refine import REFINERS
from pnp_ovss.types import RGB

SHOWN_SIDE = 900
"""Longer side, in pixels, of pictures on the page; downloads have the photo's own size."""
TILE_SIDE = 420
OPACITY = 0.6
"""Of the labels over the photo, at first; at 1 there is nothing but labels."""
SAMPLES = (0, 3, 7, 9)
WAITING = 16
"""Requests that may wait for their turn; further ones are told to come again."""
UPLOAD = "30mb"
LONGEST_TOLD = 600
"""Characters of an error."""
VISITORS = 64
"""Whose results are held at the same time; the oldest is forgotten first."""
CSS = """
.gradio-container {max-width: 1240px !important; margin: auto}
.legend {display: flex; flex-wrap: wrap; gap: .35rem 1.2rem; margin: 0; padding: .2rem 0; list-style: none}
.legend li {display: flex; align-items: center; gap: .45rem; margin: 0}
.legend .chip {width: .95rem; height: .95rem; border-radius: .25rem; flex: none}
.legend .area {opacity: .7; font-variant-numeric: tabular-nums}
#status {min-height: 1.6rem; font-weight: 600}
#salience .grid-wrap, #passes .grid-wrap {height: auto; max-height: none; overflow: visible}
#samples thead {display: none}
#samples tbody {display: grid; grid-template-columns: repeat(4, minmax(0, 1fr)); gap: .5rem}
#samples tr, #samples td {display: block; border: none; padding: 0; min-width: 0; background: none; text-align: center}
#samples td {font-size: .85rem}
#samples .container {width: 100%; height: auto; aspect-ratio: 1}
#samples .table-wrap, #samples .container {border: none}
@media (max-width: 640px) {.gradio-container {padding: .5rem !important}}
"""
FONTS = ["system-ui", "sans-serif"]
"""Those of the visitor's machine: nothing is fetched from elsewhere."""


class Shown(NamedTuple):
    """What a visitor looks at, kept for the opacity slider: photo and labels in colour, small, as files."""

    photo: bytes
    painted: bytes


def build(studio: Studio, files: Files) -> gr.Blocks:
    """Return the page. Its ``segment`` and ``name`` are the API as well."""

    def uploaded(place: str) -> str:
        """Return the path of a file that lies in the page's own folder: a request may name any, or an address."""
        path = Path(place).resolve()
        if not (path.is_relative_to(files.folder) and path.is_file()):
            raise _error("the photo is not among the uploads of this page; upload it again")
        return str(path)

    async def kept(place: str) -> str:
        """Take the place of what copies a file of the machine, or fetches an address, for whoever asks."""
        return uploaded(place)

    with gr.Blocks(title="pnp-ovss", analytics_enabled=False) as page:
        gr.Markdown("# pnp-ovss\nName what is in a photo, and get a mask of each. " + _about(studio))
        shown = gr.State(None, time_to_live=KEEP)
        with gr.Row():
            with gr.Column(scale=2, min_width=300):
                photo = gr.Image(
                    label="Photo",
                    type="filepath",
                    image_mode=None,
                    sources=["upload", "clipboard"],
                    height=300,
                    elem_id="photo",
                    placeholder="Drop a photo here, or press to choose one",
                )
                # Gradio's own reader decodes the file here already, and raises what no visitor understands.
                photo.preprocess = lambda payload: payload and uploaded(payload.path or "")
                photo.async_move_resource_to_block_cache = kept
                names = gr.Textbox(
                    label="Names", placeholder="dog, traffic light", lines=1, max_lines=4, elem_id="names",
                    info="separated by commas; Enter starts",
                )  # fmt: skip
                suggest = gr.Button("Name them for me", elem_id="name")
                with gr.Row():
                    run = gr.Button("Segment", variant="primary", min_width=120, elem_id="run")
                    cancel = gr.Button("Cancel", min_width=120, elem_id="cancel")
                with gr.Accordion("Model and settings", open=False):
                    model = gr.Dropdown(list(studio.models), value=studio.models[0], label="Model")
                    preset = gr.Dropdown(["auto", *PRESETS], value="auto", label="Preset", info="auto: the model's own")
                    refiners = gr.Dropdown(
                        list(REFINERS), value=["blur", "crf"], multiselect=True, label="Refinement, in this order"
                    )
                with tempfile.TemporaryDirectory(prefix="pnp-ovss-") as folder:  # Gradio keeps copies
                    gr.Examples(_samples(Path(folder)), [photo, names], label="Drawn samples", elem_id="samples")
            with gr.Column(scale=3, min_width=300):
                status = gr.Markdown("", elem_id="status")
                with gr.Tabs():
                    with gr.Tab("Labels"):
                        picture = gr.Image(
                            label="Labels", type="pil", format="png", interactive=False, elem_id="picture",
                            buttons=["fullscreen"], alt_text="The photo under the colours of its classes",
                        )  # fmt: skip
                        opacity = gr.Slider(
                            0, 1, value=OPACITY, step=0.05, label="Opacity of the labels", elem_id="opacity"
                        )
                        legend = gr.HTML(elem_id="legend")
                        with gr.Row():
                            labels = gr.DownloadButton("Label map, PNG", interactive=False, elem_id="labels")
                            coco = gr.DownloadButton("COCO JSON", interactive=False, elem_id="coco")
                            packed = gr.DownloadButton("All of it, ZIP", interactive=False, elem_id="zip")
                    with gr.Tab("Salience"):
                        gr.Markdown("Where each class is found, before refinement.")
                        salience = gr.Gallery(show_label=False, columns=2, height="auto", elem_id="salience")
                    with gr.Tab("Passes"):
                        gr.Markdown("Saliency DropOut: what each pass was shown, and what it found.")
                        passes = gr.Gallery(show_label=False, columns=2, height="auto", elem_id="passes")
        found = [shown, status, picture, legend, salience, passes, labels, coco, packed]
        asked = [photo, names, model, preset, refiners, opacity]
        worker = Worker(WAITING)

        def segmented(photo: str | None, opacity: float, *settings: Any) -> Generator[dict[Any, Any], None, None]:
            for step in studio.segment(studio.photo(photo), Path(photo or "").name, *settings):
                if not isinstance(step, View):
                    yield {status: _progress(*step)}
                    continue
                with tempfile.TemporaryDirectory(prefix="pnp-ovss-") as folder:
                    # Gradio has copied the files by the time it asks for what comes next.
                    yield dict(zip(found, _found(step, opacity, Path(folder)), strict=True))

        async def segment(
            photo: str | None,
            names: str,
            model: str,
            preset: str,
            refiners: list[str],
            request: gr.Request,
            opacity: float = OPACITY,
        ) -> AsyncIterator[dict[Any, Any]]:
            """Segment a photo into the classes named, which commas separate."""
            work = segmented(photo, opacity, names or "", model, preset or "auto", refiners or [])
            try:
                async for step in worker.turn(_visitor(request), work):
                    yield {status: _waiting(step)} if isinstance(step, int) else step
            except Cancelled:
                yield {status: "Cancelled."}
            except PnpError as error:
                yield {status: ""}
                raise _error(str(error)) from error

        def named(photo: str | None, model: str) -> Generator[str, None, None]:
            yield ", ".join(studio.name(studio.photo(photo), model))

        async def name(photo: str | None, model: str, request: gr.Request) -> AsyncIterator[Any]:
            """Return the names of what the photo shows."""
            try:
                async for step in worker.turn(_visitor(request), named(photo, model)):
                    yield gr.skip() if isinstance(step, int) else step
            except Cancelled:
                yield gr.skip()
            except PnpError as error:
                raise _error(str(error)) from error

        async def leave(request: gr.Request) -> None:  # in the loop, as the worker wants it
            worker.cancel(_visitor(request))

        own_line = {"concurrency_limit": None}
        gr.on([run.click, names.submit], segment, asked, found, api_name="segment", scroll_to_output=True, **own_line)
        suggest.click(name, [photo, model], names, api_name="name", **own_line)
        cancel.click(leave, None, None, api_visibility="private", queue=False)
        page.unload(leave)
        opacity.input(
            _painted, [shown, opacity], picture, api_visibility="private", show_progress="hidden",
            trigger_mode="always_last",
        )  # fmt: skip
    return page


def serve(studio: Studio, files: Files, host: str, port: int | None) -> Any:
    """Serve the page beside what else runs; return it. Its ``close`` ends it, ``local_url`` is where it is.

    Raises: ConfigError if nothing can be served there.
    """
    page = build(studio, files)
    files.sweep_from_now()
    page.launch(
        server_name=f"[{host}]" if ":" in host else host,
        server_port=_free_port(host, range(7860, 7960) if port is None else (port,)),
        share=False,
        quiet=True,
        prevent_thread_lock=True,
        max_file_size=UPLOAD,
        state_session_capacity=VISITORS,
        footer_links=["api"],
        css=CSS,
        theme=gr.themes.Soft(primary_hue="teal", font=FONTS, font_mono=["ui-monospace", "monospace"]),
        ssr_mode=False,
    )
    return page


def _free_port(host: str, ports: Sequence[int]) -> int:
    fault: OSError | None = None
    for port in ports:
        try:
            family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
            with socket.socket(family, kind, protocol) as trial:
                trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                trial.bind(address)
            return port
        except OSError as error:
            fault = error
            if error.errno != errno.EADDRINUSE:
                break
    told = one_line(fault)
    raise ConfigError(
        f"no page can be served on {host}, port {port} ({told}); give another --host or --port"
    ) from fault


def _error(text: str) -> gr.Error:
    """Return what the page shows as an error: it takes the text for HTML."""
    short = text if len(text) <= LONGEST_TOLD else text[: LONGEST_TOLD - 3] + "..."
    return gr.Error(html.escape(short, quote=False), duration=None, print_exception=False)


def _about(studio: Studio) -> str:
    if all(model.startswith("mini-") for model in studio.models):
        return (
            "This page has the small models that come along. They know the 26 names of drawn scenes and **nothing "
            "about photos**; start it with a published one for those: `pnp-ovss serve --model blip-large-flickr`."
        )
    return "The masks come from a vision-language model that never saw one."


def _samples(folder: Path) -> list[list[str]]:
    """Draw the samples into the folder; return them with their names."""
    rows = []
    for index in SAMPLES:
        scene = draw(HELD_OUT_SEED, index, 448)
        Image.fromarray(scene.image).save(folder / f"scene-{index}.png")
        rows.append([str(folder / f"scene-{index}.png"), ", ".join(scene.things)])
    return rows


def _progress(done: int, passes: int) -> str:
    return f"Looking: pass {done + 1} of {passes}" if done < passes else "Refining the masks"


def _waiting(before: int) -> str:
    return f"Waiting: {before} before you" if before > 1 else "Waiting: one before you"


def _visitor(request: gr.Request) -> str:
    return str(request.session_hash)


def _found(view: View, strength: float, folder: Path) -> tuple[Any, ...]:
    """Return what each of the components shows; the downloads lie in ``folder``."""
    result = view.result
    files = [gr.DownloadButton(value=str(path), interactive=True) for path in write_downloads(view, folder)]
    small, labels = _fitted(view.photo, SHOWN_SIDE), _fitted(result.labels.astype(np.uint8), SHOWN_SIDE)
    painted = paint(small, labels, class_colours(result.classes), background=False, strength=1.0)
    shown = Shown(_packed(small, "JPEG"), _packed(painted, "PNG"))
    tile = _fitted(view.photo, TILE_SIDE)
    maps = zip(result.classes[-len(result.salience) :], result.salience, strict=True)
    heats = [(_file(folder, f"salience-{k}", heat(tile, grid)), name) for k, (name, grid) in enumerate(maps)]
    looks = []
    for number, one in enumerate(view.passes, 1):
        hidden = int((~one.visible).sum())
        seen = f"pass {number} saw, {hidden} patches hidden" if hidden else f"pass {number} saw"
        looks.append((_file(folder, f"saw-{number}", _masked(tile, one.visible)), seen))
        looks.append((_file(folder, f"found-{number}", heat(tile, one.found)), f"pass {number} found"))
    h, w = result.labels.shape
    told = f"{w} x {h} pixels, {result.model}, match {result.match:.2f}"
    picture = _file(folder, "picture", np.asarray(_painted(shown, strength)))
    return shown, told, picture, _legend(view), heats, looks, *files


def _painted(shown: Shown | None, strength: float | None) -> Image.Image | None:
    """Return the photo under its labels at this opacity."""
    if shown is None:
        return None
    photo, painted = (Image.open(io.BytesIO(picture)) for picture in shown)
    return Image.blend(photo, painted, OPACITY if strength is None else min(1.0, max(0.0, strength)))


def _file(folder: Path, name: str, picture: RGB) -> str:
    """Write a picture and return its path: those it is given in memory Gradio writes anew while others read them."""
    path = folder / f"{name}.png"
    Image.fromarray(picture).save(path)
    return str(path)


def _packed(picture: RGB, kind: str) -> bytes:
    file = io.BytesIO()
    Image.fromarray(picture).save(file, kind)
    return file.getvalue()


def _legend(view: View) -> str:
    classes, areas = view.result.classes, view.result.areas
    rows = [
        f'<li><span class="chip" style="background: rgb({r}, {g}, {b})"></span>{html.escape(name)} '
        f'<span class="area">{html.escape(share(areas[name]))}</span></li>'
        for name, (r, g, b) in zip(classes, class_colours(classes).tolist(), strict=True)
    ]
    return f'<ul class="legend">{"".join(rows)}</ul>'


def _fitted(picture: np.ndarray, side: int) -> np.ndarray:
    """Return a photo or a label map with this longer side."""
    h, w = picture.shape[:2]
    size = max(1, round(w * side / max(h, w))), max(1, round(h * side / max(h, w)))
    smooth = Image.Resampling.BOX if side < max(h, w) else Image.Resampling.BICUBIC
    how = Image.Resampling.NEAREST if picture.ndim == 2 else smooth
    return np.asarray(Image.fromarray(picture).resize(size, how))


def _masked(photo: RGB, visible: np.ndarray) -> RGB:
    """Return the photo with hidden patches in grey."""
    h, w = photo.shape[:2]
    large = Image.fromarray(visible).resize((w, h), Image.Resampling.NEAREST)
    return np.where(np.asarray(large)[..., None], photo, np.uint8(110))
