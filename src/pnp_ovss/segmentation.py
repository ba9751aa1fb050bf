"""The result of a segmentation: a label map and all that led to it, with what people do with it."""

import html
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int
from PIL import Image

from pnp_ovss.data import rle
from pnp_ovss.errors import InputError
from pnp_ovss.export.coco import dataset, detections
from pnp_ovss.files import Source, as_json, as_png, remove, save_png, write_bytes
from pnp_ovss.methods.confidence import rate_objects
from pnp_ovss.methods.presence import Presence
from pnp_ovss.parts import Objects, find_objects
from pnp_ovss.pictures import Colours, label_png, mask_picture
from pnp_ovss.pictures.figures import STRENGTH, data_url, overlay, paint, panels, share
from pnp_ovss.pictures.palette import Palette
from pnp_ovss.refine.scores import ScoreMap
from pnp_ovss.refine.tidy import LEAST
from pnp_ovss.regions import Mask, find_masks
from pnp_ovss.types import BACKGROUND, RGB, LabelMap, Region, count_labels, fold

ABOUT = ("method", "model", "revision", "version")
"""What a record says of what segmented the photo."""


@dataclass(frozen=True, repr=False)
class Segmentation:
    """A label map and all that led to it.

    ``labels`` indexes ``classes``, whose first entry is ``"background"`` where the setting has one. ``result["dog"]``
    is the mask of a class.
    """

    labels: Int[np.ndarray, "h w"]
    classes: tuple[str, ...]
    score_map: ScoreMap
    """The scores as they were refined, of a large photo at a smaller size."""
    salience: Float[np.ndarray, "cls gh gw"]
    """The class maps that the scores are made from, all classes on one scale, float32: of PnP-OVSS those summed over
    the passes, >= 0; of a method on CLIP cosines."""
    match: float | None
    """Match logit of the whole photo with the whole prompt, where the method has one."""
    config: Any
    """The settings: ``Config``, or those of another method."""
    model: str
    revision: str
    version: str
    quality: Float[np.ndarray, " cls"] | None = None
    """How well each class's mask shows its class, in [0, 1]; filled in by ``tuning.reward.rate``."""
    photo: RGB | None = None
    """What was segmented; the pictures show it."""
    method: str = "pnp"
    """The method's key in ``METHODS``."""
    palette: Palette = field(default_factory=Palette)
    """Value and colour of each class in what is written and shown; by default in the order of ``classes``."""
    means: tuple[float, ...] = ()
    """Mean score of each class in its mask, 0 where it has none; empty if not known."""
    reduced: bool = False
    """Whether the photo was refined at fewer pixels than the settings say, because memory was short."""
    confidence: Float[np.ndarray, " cls"] | None = None
    """How likely each class's region is right, in [0, 1]; 0 for a class without a region."""
    presence: Presence | None = None
    """How likely the photo shows each class, and the classes without a mask, where the model can say so."""
    doubts: tuple[str, ...] = ()
    """A line for each reason not to believe the result."""

    def __post_init__(self) -> None:
        if self.score_map.shape != (len(self.classes), *self.labels.shape):
            given = f"{self.score_map.shape} for {len(self.classes)} classes and labels of shape {self.labels.shape}"
            raise ValueError(f"expected scores of shape (classes, *labels), got {given}")

    @property
    def scores(self) -> Float[np.ndarray, "ch h w"]:
        """After refinement: one channel per entry of ``classes``, float32, in [0, 1].

        Of PnP-OVSS without any refiner: the enlarged class maps, >= 0 and unbounded. Of a photo that was refined at a
        smaller size they are enlarged at every call.
        """
        return self.score_map.array()

    @property
    def refined(self) -> tuple[int, int]:
        """Rows and columns that the photo was refined at."""
        return self.score_map.size

    @property
    def areas(self) -> dict[str, float]:
        """Share of the photo that each class covers, in [0, 1]; they sum to 1."""
        counts = count_labels(self.labels, len(self.classes))
        return {name: float(count) / self.labels.size for name, count in zip(self.classes, counts, strict=True)}

    def __getitem__(self, name: str) -> Bool[np.ndarray, "h w"]:
        """Return the mask of a class, by its name in any case.

        Raises: InputError if there is no such class.
        """
        names = list(map(fold, self.classes))
        if fold(name) not in names:
            raise InputError(f"there is no class {name!r}; the classes are {', '.join(self.classes)}")
        return np.asarray(self.labels == names.index(fold(name)))

    def __iter__(self) -> Iterator[str]:
        """Iterate over the names of the classes."""
        return iter(self.classes)

    def __repr__(self) -> str:
        height, width = self.labels.shape
        areas = ", ".join(f"{name} {share(area)}" for name, area in self.largest_first())
        return f"Segmentation({width} x {height} pixels: {areas}; {self.method} on {self.model})"

    def instances(self, min_area: int | float = LEAST) -> list[Region]:
        """Return the objects of at least ``min_area``, class by class: connected parts, or masks of things.

        Masks of things divide a class where the labels follow regions, by a refiner or by the method, whose source has
        such: SAM, or a folder. Then an object may have several parts.
        An int is pixels, a float a share of the photo. An object has a ``name``, its class; a ``mask`` of the photo's
        size; a ``box``: left, top, and the column and row after the last; and a ``confidence`` in [0, 1], or None. No
        pixel lies in two objects; with a ``min_area`` of 0 each pixel that is not background lies in one.
        """
        label_map = replace(self.label_map(instances=True), objects=partial(self.objects, min_area))
        return list(label_map.regions(label_map.names))

    def objects(self, min_area: int | float = LEAST) -> Objects:
        """Return what ``instances`` does as one map of all objects, whose labels index ``classes``."""
        least = min_area * self.labels.size if isinstance(min_area, float) else min_area
        found = find_objects(self.labels, self.classes[0] == BACKGROUND, least, self._masks())
        if self.confidence is None:
            return found
        first = len(self.classes) - len(self.salience)
        return replace(found, scores=rate_objects(found, self.salience, self.confidence, first))

    def _masks(self) -> list[Mask]:
        """Return the masks of things that the labels follow, if any."""
        if self.photo is None or not self.config.uses_regions:
            return []
        small = self.score_map.small if "regions" in self.config.refiners else None
        photo = self.photo if small is None else small.cpu().numpy()
        size = self.labels.shape[::-1]
        masks = find_masks(photo, self.config, str(self.score_map.channels.device))
        return [np.asarray(Image.fromarray(mask).resize(size, Image.Resampling.NEAREST)) for mask in masks]

    def label_map(self, file_name: str = "photo.jpg", instances: bool = False) -> LabelMap:
        """Return what the export formats take, class by class or with ``instances`` object by object.

        The score of a region is its ``confidence``.
        """
        known = [] if self.confidence is None else self.confidence.tolist()
        scores = (*[0.0] * (len(self.classes) - len(known)), *known) if known else ()
        height, width = self.labels.shape
        key = Path(file_name).stem
        about = (key, file_name, height, width, self.classes, lambda: self.labels, scores, self.model)
        return LabelMap(*about, instances=instances, objects=self.objects)

    def among(self, classes: tuple[str, ...]) -> "Segmentation":
        """Return the segmentation with more classes, none of which has a pixel: their scores and salience are 0.

        ``classes``: those of the segmentation among them, in its order, and its background first, if it has one.
        """
        if classes == self.classes:
            return self
        place = np.array([classes.index(name) for name in self.classes])
        first = len(self.classes) - len(self.salience)

        def spread(values: np.ndarray, skip: int) -> np.ndarray:
            wide = np.zeros((len(classes) - skip, *values.shape[1:]), values.dtype)
            wide[place[len(self.classes) - len(values) :] - skip] = values
            return wide

        changed: dict[str, Any] = {"labels": place.astype(self.labels.dtype)[self.labels], "classes": classes}
        changed |= {"score_map": self.score_map.among(place.tolist(), len(classes))}
        changed |= {"salience": spread(self.salience, first), "means": tuple(spread(np.array(self.means), 0).tolist())}
        if self.confidence is not None:
            changed["confidence"] = spread(self.confidence, first)
        return replace(self, **changed)

    def overlay(self, photo: RGB | None = None, opacity: float = STRENGTH, instances: bool = False) -> Image.Image:
        """Return the photo with each class in its colour, and a legend of names and area shares.

        ``opacity`` of the colours, from 0, the photo alone, to 1, the labels alone.

        Raises: InputError if the result carries no photo and none is given, or the opacity is beyond these.
        """
        if not 0 <= opacity <= 1:
            raise InputError(f"expected an opacity from 0 to 1, got {opacity:g}")
        index = self.objects().index if instances else None
        return overlay(self._photo(photo), self.labels, self.classes, opacity, self.colours, self.doubts, index)

    def plot(self, photo: RGB | None = None) -> Image.Image:
        """Return the overlay beside the salience of each class as heat: where the model looked.

        Raises: InputError if the result carries no photo and none is given.
        """
        return panels(self._photo(photo), self.labels, self.classes, self.salience, self.colours, self.doubts)

    def save(
        self,
        folder: str | Path,
        name: str = "photo",
        place: str | Source = "",
        seconds: float = 0.0,
        instances: bool = False,
    ) -> None:
        """Write what ``pnp-ovss segment`` does: ``<name>.png``, ``<name>.overlay.png`` and ``<name>.json``.

        These are the label map, whose values the record explains, the overlay, and the record. ``place`` is where the
        photo came from, ``seconds`` what it took; with ``instances`` overlay and record have each object by itself. The
        record comes last: where it lies, the others are whole and belong to it. ``pnp-ovss export`` reads the folder.

        Raises: InputError if the result carries no photo, or a file cannot be written.
        """
        labels, picture, record = (Path(folder, f"{name}{end}") for end in (".png", ".overlay.png", ".json"))
        drawn = self.overlay(instances=instances)
        remove(record)  # one of an earlier run, whose classes may be others
        save_png(labels, self.label_png())
        save_png(picture, drawn)
        about = {"labels": labels.name, "overlay": picture.name}
        write_bytes(record, as_json(about | self.record(name, place or f"{name}.jpg", seconds, instances), indent=2))

    def label_png(self) -> Image.Image:
        """Return the labels as a palette picture: the value of each class in its colour."""
        values = np.array(self.palette.values_of(self.classes))
        return label_png(values[self.labels], self.palette.table_of(self.classes))

    @property
    def colours(self) -> Colours:
        """The colour of each class."""
        return self.palette.colours_of(self.classes)

    def record(self, key: str, place: str | Source, seconds: float, instances: bool = False) -> dict[str, Any]:
        """Return the record of a photo: what was found, and the settings, model and version that found it.

        ``key`` is what the photo is called, ``place`` its path or URL, of which what is secret is left out, or all that
        is known of its file, and ``seconds`` what it took. ``segments`` holds the region of each class that is there,
        but the background, or of each object with ``instances``, as COCO's compressed run lengths.
        """
        height, width = self.labels.shape
        source = place if isinstance(place, Source) else Source(place)
        record = {"key": key, **source.about(), "width": width, "height": height, "classes": list(self.classes)}
        record["values"] = values = self.palette.values_of(self.classes)
        record["areas"] = {name: round(area, 6) for name, area in self.areas.items()}
        found = self.label_map(instances=instances)
        if self.quality is not None:
            quality = zip(found.names, self.quality.tolist(), strict=True)
            record["quality"] = {name: round(share, 6) for name, share in quality}
        record["match"] = None if self.match is None else round(self.match, 6)
        if found.scores:
            record["confidence"] = {name: round(sure, 6) for name, sure in zip(self.classes, found.scores, strict=True)}
        record |= {"presence": self.presence and self.presence.record(), "doubts": list(self.doubts)}
        record |= {name: getattr(self, name) for name in ABOUT}
        record |= {"refined": list(self.refined), "seconds": round(seconds, 3), "config": asdict(self.config)}
        record["instances"], record["segments"] = instances, (parts := [])
        for region in found.regions(found.names):
            label = values[self.classes.index(region.name)]
            part = {"class": region.name, "label": label, "area": region.area}
            part |= {} if region.confidence is None else {"confidence": round(region.confidence, 6)}
            parts.append(part | {"segmentation": rle.encode(region.mask)})
        return record

    def to_coco(self, file_name: str = "photo.jpg", instances: bool = False) -> dict[str, Any]:
        """Return a COCO data set of this photo: a region per class that is there, ids from 1, no background.

        ``instances``: a region per object.
        """
        label_map = self.label_map(file_name, instances)
        return dataset([label_map], label_map.names)

    def to_supervision(self, instances: bool = False) -> Any:
        """Return ``supervision.Detections``: a mask per class that is there, ``class_id`` from 0, no background.

        ``instances``: a mask per object.

        Raises: ConfigError if supervision is not installed.
        """
        label_map = self.label_map(instances=instances)
        return detections(label_map, label_map.names)

    def to_hf(self) -> list[dict[str, Any]]:
        """Return what a Hugging Face image segmentation pipeline does: ``[{"score", "label", "mask"}, ...]``.

        A mask is a PIL picture of mode L, 0 or 255; the score is the ``confidence``, in [0, 1]. There is one per class
        that is there, the background left out.
        """
        label_map = self.label_map()
        regions = label_map.regions(label_map.names)
        return [{"score": one.confidence, "label": one.name, "mask": mask_picture(one.mask)} for one in regions]

    def _repr_png_(self) -> bytes | None:
        """Show the overlay where a notebook is displayed without HTML."""
        return None if self.photo is None else as_png(self.overlay())

    def _repr_html_(self) -> str | None:
        """Show the photo under its classes' colours in a notebook, with a legend in which names can be any script."""
        if self.photo is None:
            return None
        colours = self.colours
        painted = paint(self.photo, self.labels, colours, self.classes[0] == BACKGROUND)
        picture = f'<img style="max-width: 100%" src="{data_url(Image.fromarray(painted))}">'
        entries = [
            f'<span style="color: #{bytes(colours[self.classes.index(name)]).hex()}">&#9632;</span> '
            f"{html.escape(name)} {share(area)}"
            for name, area in self.largest_first()
        ]
        return f"<figure>{picture}<figcaption>{' &emsp; '.join(entries)}</figcaption></figure>"

    def largest_first(self) -> list[tuple[str, float]]:
        """Return the area of each class, the largest first and the background last."""
        return sorted(self.areas.items(), key=lambda entry: (entry[0] == BACKGROUND, -entry[1]))

    def _photo(self, photo: RGB | None) -> RGB:
        chosen = self.photo if photo is None else photo
        if chosen is None:
            raise InputError("the result carries no photo; give it: result.overlay(photo)")
        return chosen
