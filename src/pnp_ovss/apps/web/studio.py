"""What the page does with a photo: read it within limits, name it, segment it pass by pass, write the downloads."""

import json
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float

from pnp_ovss.config import PRESETS
from pnp_ovss.data.vocabulary import load_vocabulary
from pnp_ovss.errors import ConfigError, InputError
from pnp_ovss.images import decode_image
from pnp_ovss.methods.pnp.dropout import Look
from pnp_ovss.models import VLM, load_vlm
from pnp_ovss.naming import Options, load_namer, name_photo
from pnp_ovss.pictures import class_colours, label_png, overlay
from pnp_ovss.runs.record import about
from pnp_ovss.segmentation import Segmentation
from pnp_ovss.segmenter import Segmenter, settle
from pnp_ovss.store import save_png, write_text
from pnp_ovss.types import RGB, Vocabulary

MOST_PIXELS = 50_000_000
"""Larger photos are refused by their header, before anything is decoded."""
MOST_NAMES = 60
MOST_VALUES = 200_000_000
"""Pixels times classes, the background among them; each takes about 20 bytes of memory while it is refined."""


@dataclass(frozen=True)
class Pass:
    """One pass of Saliency DropOut, as the page shows it."""

    visible: Bool[np.ndarray, "gh gw"]
    """Patches the model was shown."""
    found: Float[np.ndarray, "gh gw"]
    """Salience found, summed over the classes."""


@dataclass(frozen=True)
class View:
    """A photo, its segmentation, and how it came about."""

    photo: RGB
    name: str
    """What the photo's file is called."""
    result: Segmentation
    passes: tuple[Pass, ...]


class Studio:
    """The models of a page. It does one thing at a time: whoever serves the page asks it from one thread."""

    def __init__(self, models: Sequence[str], device: str = "auto", most_pixels: int = MOST_PIXELS) -> None:
        self.models = tuple(models)
        self.most_pixels = most_pixels
        self._device = device
        self._loaded: dict[str, VLM] = {}

    def vlm(self, model: str) -> VLM:
        """Return one of ``models``, loaded once.

        Raises: ConfigError if it is none of them, ModelError if it cannot be loaded.
        """
        if model not in self.models:
            raise ConfigError(f"this page has no model {model[:40]!r}; it has {', '.join(self.models)}")
        if model not in self._loaded:
            self._loaded[model] = load_vlm(model, self._device)
        return self._loaded[model]

    def photo(self, path: str | None) -> RGB:
        """Return the photo of an uploaded file.

        Raises: InputError if there is none, it is no picture, or it has more than ``most_pixels``.
        """
        if path is None:
            raise InputError("there is no photo yet; upload one, or pick a sample")
        try:
            content = Path(path).read_bytes()
        except OSError as error:
            raise InputError("the photo is no longer there; upload it again") from error
        return decode_image(content, "the photo", self.most_pixels)

    def name(self, photo: RGB, model: str) -> tuple[str, ...]:
        """Return the names that the model's own matching head gives the photo, the surest first.

        Asked are the names it can know, where these are few, else those of COCO's objects.
        """
        vlm = self.vlm(model)
        vocabulary = Vocabulary.of(vlm.known) if vlm.known else load_vocabulary("coco-object")
        return name_photo(load_namer("itm", Options(vlm=lambda: vlm)), photo, vocabulary)

    def segment(
        self, photo: RGB, name: str, names: str, model: str, preset: str, refiners: Sequence[str]
    ) -> Iterator[tuple[int, int] | View]:
        """Yield (passes done, passes) at every step, and the view at last. Closed early, the next step never starts.

        ``name`` is what the photo's file is called; ``names`` are separated by commas or lines. Raises: PnpError.
        """
        classes = split(names)
        if len(set(refiners)) < len(refiners):
            raise ConfigError("a refiner is named twice; name each once")
        pixels = photo.shape[0] * photo.shape[1]
        if pixels * (1 + len(classes)) > MOST_VALUES:
            raise InputError(
                f"{pixels / 1e6:.0f} million pixels in {len(classes)} classes are too much for this page; name "
                f"{max(1, MOST_VALUES // pixels - 1)} at most, or make the photo smaller"
            )
        if preset != "auto" and preset not in PRESETS:
            raise ConfigError(f"no preset {preset[:40]!r}; the presets are auto, {', '.join(PRESETS)}")
        config = settle(model, preset, refiners=tuple(refiners))
        segmenter = Segmenter(self.vlm(model), config)
        looks: list[Look] = []
        yield 0, config.passes
        for step in segmenter.watch(photo, classes):
            if isinstance(step, Look):
                looks.append(step)
            if isinstance(step, Segmentation):
                yield View(photo, name, step, tuple(map(_one, looks)))
            else:
                yield len(looks), config.passes


def _one(look: Look) -> Pass:
    return Pass(look.visible[0].cpu().numpy(), look.maps[0].sum(0).cpu().numpy())


def split(names: str) -> list[str]:
    """Return the names of a text that separates them by commas or lines.

    Raises: InputError if there is none, or more than ``MOST_NAMES``.
    """
    found = [name for line in names.splitlines() for part in line.split(",") if (name := part.strip())]
    if not found:
        raise InputError("no class is named yet; type names such as: dog, traffic light")
    if len(found) > MOST_NAMES:
        raise InputError(f"{len(found)} classes are named; {MOST_NAMES} at most are taken here: name fewer")
    return found


def write_downloads(view: View, folder: Path) -> tuple[Path, Path, Path]:
    """Write the label map (labels.png), coco.json and everything as a ZIP; return their paths."""
    result = view.result
    labels, coco, packed = folder / "labels.png", folder / "coco.json", folder / "segmentation.zip"
    picture, record = folder / "overlay.png", folder / "record.json"
    save_png(labels, label_png(result.labels, class_colours(result.classes)))
    save_png(picture, overlay(view.photo, result.labels, result.classes))
    write_text(coco, json.dumps(result.to_coco(view.name), ensure_ascii=False) + "\n")
    told = about(view.name, view.photo, result, 0.0)
    del told["seconds"]  # nobody measured them
    write_text(record, json.dumps(told, indent=2, ensure_ascii=False) + "\n")
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in (labels, picture, coco, record):
            archive.write(path, path.name)
    return labels, coco, packed
