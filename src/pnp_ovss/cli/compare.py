"""``pnp-ovss compare``: methods side by side on the same photos."""

import csv
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Annotated

import numpy as np

from pnp_ovss.cli import align, follow, say
from pnp_ovss.cli.flags import Count, Dir, File, Name, Photos, Seed, check_given, read_given, value
from pnp_ovss.evaluation.metrics import Confusion
from pnp_ovss.files import save_png, write_text
from pnp_ovss.images import Place, find_images, read_image
from pnp_ovss.lock import hold
from pnp_ovss.methods import METHODS, resolve_config
from pnp_ovss.mini import THINGS, draw
from pnp_ovss.pictures.comparison import Column, comparison_sheet
from pnp_ovss.pictures.figures import Labels
from pnp_ovss.segmenter import Segmenter
from pnp_ovss.types import BACKGROUND, RGB, Vocabulary

EXAMPLE = "compare scenes --methods pnp,sclip,naclip --scenes 4"
SCENES = "scenes"
ROWS = 12
"""Photos in the picture; the table counts all."""


@dataclass(frozen=True)
class Photo:
    """What every method is given, and the target where it is known."""

    image: RGB
    classes: Vocabulary
    target: Labels | None = None


Read = Callable[[], Photo]


@dataclass(frozen=True)
class Entrant:
    """A method with its preset and its checkpoint: ``METHOD``, ``METHOD/PRESET`` or ``METHOD=CHECKPOINT``."""

    method: str
    preset: str
    checkpoint: str

    @classmethod
    def parse(cls, text: str, mini: bool) -> "Entrant":
        """Return what a text says; ``mini``: without a checkpoint, the shipped one is taken.

        Raises: ConfigError, ModelError, as ``resolve_config`` does.
        """
        name, _, checkpoint = text.strip().partition("=")
        method, _, preset = name.strip().partition("/")
        resolve_config(checkpoint or None, preset or "auto", method=method)
        info = METHODS[method]
        return cls(method, preset or "auto", checkpoint.strip() or (mini and info.mini) or info.checkpoint)

    @property
    def title(self) -> str:
        """The method, with its preset where one was named."""
        return self.method if self.preset == "auto" else f"{self.method}/{self.preset}"


@dataclass
class Tally:
    """What came of a method."""

    seconds: list[float] = field(default_factory=list)
    labels: list[Labels] = field(default_factory=list)
    """Of the first photos, in the classes of the sheet."""
    confusion: Confusion | None = None

    def score(self) -> str:
        """Return the mIoU in percent, or nothing without targets."""
        return f"{100 * self.confusion.miou():.1f}" if self.confusion else ""


def command(
    photos: Photos,
    methods: Annotated[str, value("METHOD,...")],
    classes: Annotated[str, value("NAMES")] | None = None,
    classes_file: File | None = None,
    out: Dir = Path("comparison"),
    device: Name = "auto",
    dtype: Name = "auto",
    scenes: Count = 8,
    seed: Seed = 2,
    scene_size: Count = 224,
) -> int:
    """Show methods side by side on the same photos, with the time each takes.

    Writes comparison.png, the first photos under the classes' colours with a legend, and comparison.csv, which the
    command prints: checkpoint, median seconds per photo and, on drawn scenes, mIoU. The first photo is not timed, as
    every method computes there what it keeps, such as the vectors of the words.

    Each method takes its own settings and, but for drawn scenes, its default checkpoint.

    Args:
        photos: file, folder (the pictures right in it) or glob; scenes: drawn ones, which know their masks
        methods: with commas; sclip/ade150 names a preset, sclip=FOLDER a checkpoint
        classes: what to look for, with commas
        classes_file: the same from a file, one class a line
        out: folder
        device: auto, cpu, cuda, cuda:1, ...
        dtype: auto, float32, bfloat16, float16, or int8 for the image tower on a CPU
        scenes: scenes: how many
        seed: scenes: which series (2 is held out)
        scene_size: scenes: their side in pixels
    """
    drawn = photos == [SCENES]
    entrants = [Entrant.parse(text, drawn) for text in methods.split(",")]
    if drawn:
        names, reads = THINGS, _scenes(seed, scenes, scene_size)
    else:
        names, reads = _own_photos(photos, _vocabulary(classes, classes_file))
    with hold(out):
        tallies = [_run(one, reads, names, device, dtype) for one in entrants]
        table = [("method", "checkpoint", "seconds", "mIoU")[: 4 if drawn else 3]]
        table += [_row(*pair)[: len(table[0])] for pair in zip(entrants, tallies, strict=True)]
        shown = [read() for read in reads[:ROWS]]
        columns = [_column(*pair) for pair in zip(entrants, tallies, strict=True)]
        if drawn:
            columns.append(Column("target", "", [photo.target for photo in shown if photo.target is not None]))
        sheet = comparison_sheet([photo.image for photo in shown], columns, (BACKGROUND, *names))
        save_png(out / "comparison.png", sheet)
        write_text(out / "comparison.csv", _as_csv(table))
    for line in align(table):
        say(line)
    say(f"{len(reads)} photo{'s' * (len(reads) > 1)}, in {out}: comparison.png and comparison.csv")
    return 0


def _vocabulary(classes: str | None, classes_file: Path | None) -> Vocabulary:
    check_given(classes, classes_file)
    return read_given(classes, classes_file)


def _own_photos(photos: Sequence[str], vocabulary: Vocabulary) -> tuple[tuple[str, ...], list[Read]]:
    names = tuple(name for name in vocabulary.classes if name != BACKGROUND)
    return names, [partial(_photo, path, vocabulary) for path in find_images(photos)]


def _photo(path: Place, vocabulary: Vocabulary) -> Photo:
    return Photo(read_image(path), vocabulary)


def _scenes(seed: int, count: int, size: int) -> list[Read]:
    return [partial(_scene, seed, index, size) for index in range(count)]


def _scene(seed: int, index: int, size: int) -> Photo:
    scene = draw(seed, index, size)
    return Photo(scene.image, Vocabulary.of(scene.things), scene.things_mask().astype(np.int64))


def _run(entrant: Entrant, reads: Sequence[Read], names: Sequence[str], device: str, dtype: str) -> Tally:
    """Return what a method makes of the photos. One model is held at a time."""
    where = device, dtype, None, entrant.method
    segmenter, tally = Segmenter.from_pretrained(entrant.checkpoint, entrant.preset, *where), Tally()
    for index, read in enumerate(follow(reads, len(reads), desc=entrant.title)):
        photo = read()
        begin = perf_counter()
        result = segmenter(photo.image, photo.classes)
        if index or len(reads) == 1:
            tally.seconds.append(perf_counter() - begin)
        labels = result.label_map().values(names)
        if photo.target is not None:
            confusion = Confusion.of(photo.target, labels, 1 + len(names))
            tally.confusion = tally.confusion + confusion if tally.confusion else confusion
        if index < ROWS:
            tally.labels.append(labels)
    return tally


def _column(entrant: Entrant, tally: Tally) -> Column:
    notes = f"{median(tally.seconds):.2f} s a photo", tally.score() and f"mIoU {tally.score()}"
    return Column(entrant.title, ", ".join(filter(None, notes)), tally.labels)


def _row(entrant: Entrant, tally: Tally) -> tuple[str, ...]:
    return entrant.title, entrant.checkpoint, f"{median(tally.seconds):.3f}", tally.score()


def _as_csv(table: Sequence[Sequence[str]]) -> str:
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerows(table)
    return buffer.getvalue()
