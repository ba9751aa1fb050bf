"""A run over many photos: which there are, what is left to be done, and each result written by key.

Results are packed into Parquet files if wanted.
"""

import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, field, replace
from functools import cache, partial
from glob import has_magic
from hashlib import sha256
from pathlib import PurePosixPath
from typing import Any

from pnp_ovss._version import VERSION
from pnp_ovss.errors import ConfigError, InputError
from pnp_ovss.files import Folder, as_json, expanded, fetch, parse_json, reachable
from pnp_ovss.images import SUFFIXES, decode_image
from pnp_ovss.methods import DEFAULT_METHOD, resolve_config
from pnp_ovss.methods.pnp import PnP
from pnp_ovss.models import VLM, find
from pnp_ovss.naming import KEEP, NamePhotos, Options, load_namer, photo_namer
from pnp_ovss.naming.cached import digest
from pnp_ovss.pictures.palette import Palette
from pnp_ovss.runs.pipeline import Item, Outcome, run
from pnp_ovss.runs.record import BOTH, IMAGES, MANIFEST, Results, about_model, check_same, load_pyarrow
from pnp_ovss.segmentation import Segmentation
from pnp_ovss.segmenter import Segmenter
from pnp_ovss.types import RGB, Vocabulary

FORMAT = 1
"""Of manifest and results; raised when older ones cannot be read any more."""


Places = dict[str, str]
"""Path or URL of each photo, such as ``s3://bucket/2024/05/dog.jpg``, by its key, which names its result: the path
below the folder it was found in, without suffix, such as ``2024/05/dog``."""


@dataclass(frozen=True)
class ClassSource:
    """What to look for: the same ``classes`` in every photo, or what a namer says of each."""

    classes: Vocabulary | None = None
    namer: str = ""
    options: Options = field(default_factory=Options)
    """Without its ``vlm``, which is the segmenter's own."""
    candidates: Vocabulary | None = None
    keep: float = KEEP
    calls: int = 1
    palette: Palette = field(default_factory=Palette)
    """Value and colour of each class in all label maps."""

    def name_photos(self, segmenter: Callable[[], Segmenter]) -> NamePhotos | None:
        """Return what names the photos, or None where all share their classes; ``segmenter`` may be asked to match.

        Raises: ConfigError, ModelError if there is no such namer or it cannot be loaded.
        """
        if self.classes is not None:
            return None

        def vlm() -> VLM:
            method = segmenter().method
            if not isinstance(method, PnP):
                raise ConfigError(f"the method {method.name} cannot match names with photos; take another --namer")
            return method.vlm

        namer = load_namer(self.namer, replace(self.options, vlm=vlm))
        return photo_namer(namer, self.candidates, self.keep, self.calls)


@dataclass(frozen=True)
class Job:
    """What is done with every photo. It can be sent to another machine."""

    out: str
    """Folder of the results: a path or URL."""
    classes: ClassSource
    model: str
    preset: str = "auto"
    device: str = "auto"
    dtype: str = "auto"
    revision: str | None = None
    method: str = DEFAULT_METHOD
    settings: dict[str, Any] = field(default_factory=dict)
    batch: int = 1
    """Photos the model sees at a time."""
    overlays: bool = False
    """Whether each photo is written under its classes' colours as well."""

    def load(self) -> Segmenter:
        """Return the segmenter; raises what ``Segmenter.from_pretrained`` does."""
        where = (self.device, self.dtype, self.revision, self.method)
        return Segmenter.from_pretrained(self.model, self.preset, *where, **self.settings)


@dataclass(frozen=True)
class Done:
    """A photo that is done: its result is written, or, with a ``fault``, why there is none."""

    key: str
    fault: str = ""


Engine = Callable[[Job, Places], Iterator[Done]]
"""Does photos, wherever, and yields each when its result is written."""


class Worker:
    """Segments photos with one model, which is loaded when the first photo needs it."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.results = Results(Folder(job.out))
        self._segmenter = cache(job.load)
        self._name_photos = cache(partial(job.classes.name_photos, self._segmenter))
        self.palette = job.classes.palette
        if self.palette.grows:
            self.palette.numbers.update(self.results.numbers())

    def __call__(self, places: Places) -> Iterator[Done]:
        """Yield every photo after its result or its fault was written; few photos are held at a time.

        Raises: PnpError if no photo can be done: the model cannot be loaded or does not know the classes that all
        photos share, nobody names them any more, or results cannot be written.
        """
        classes = self.job.classes.classes

        def read(place: str) -> RGB:
            return decode_image(fetch(place), "the file")  # the fault says whose

        def write(one: Outcome) -> None:
            if one.photo is None or one.fault:
                self.results.write_fault(one.key, places[one.key], f"{one.key}: {one.fault}")
            else:
                spent = one.seconds.get("segment", 0.0) + one.seconds.get("refine", 0.0)
                self.results.write(one.key, places[one.key], one.photo, self._painted(one), spent)

        items = (Item(key, partial(read, place), classes) for key, place in places.items())
        how = (self._name_photos(), self.job.batch, classes is not None)
        for one in run(self._segmenter, items, *how, finish=write):
            yield Done(one.key, f"{one.key}: {one.fault}" if one.fault else "")

    def _painted(self, one: Outcome) -> Segmentation | None:
        """Return the result in the colours of the run, after what has to be there before its record was written."""
        if one.result is None:
            return None
        known, result = len(self.palette.numbers), replace(one.result, palette=self.palette)
        self.palette.values_of(result.classes)
        if len(self.palette.numbers) > known:
            self.results.write_numbers(self.palette.numbers)
        if self.job.overlays:
            self.results.write_overlay(one.key, result)
        return result


def work_here(job: Job, places: Places) -> Iterator[Done]:
    """Do the photos in this process; yield each when its result is written."""
    return Worker(job)(places)


@dataclass(frozen=True)
class Run:
    """What a run has to do."""

    job: Job
    results: Results
    total: int
    """How many photos there are."""
    todo: Places
    """Those without a result, shard after shard."""
    shards: int
    """How many Parquet files the results fall to."""
    packs: bool
    """Whether results are moved into Parquet files."""

    def __call__(self, engine: Engine) -> Iterator[Done]:
        """Do what is to be done and yield every photo; a shard is packed when its last photo is there."""
        left = Counter(shard_of(key, self.shards) for key in self.todo)
        self._pack(left)
        for done in engine(self.job, self.todo) if self.todo else ():
            shard = shard_of(done.key, self.shards)
            left[shard] -= 1
            if not left[shard]:
                self._pack(left)
            yield done

    def _pack(self, left: Counter[int]) -> None:
        """Pack the results of the shards that have no photo left to do."""
        loose = {key: shard_of(key, self.shards) for key in self.results.loose()} if self.packs else {}
        for shard in {shard for shard in loose.values() if not left[shard]}:
            self.results.pack(shard, [key for key in loose if loose[key] == shard])


def open_run(job: Job, format: str, rows: int, places: Places) -> Run:
    """Return the run over these photos: a new one, or what is left of the one that is in the folder.

    ``rows`` is about how many photos a Parquet file gets; a run that goes on keeps the number of files it began with.

    Raises: ConfigError if the folder holds a run with other settings; InputError if its manifest cannot be read;
    ModelError if there is no such model.
    """
    packs = format == "parquet"
    if packs:
        load_pyarrow()
        for text in places.values():
            if text.encode(errors="ignore").decode() != text:
                raise InputError(f"{text!a} is no UTF-8, which Parquet needs; rename it, or take --format files")
    results = Results(Folder(job.out))
    resolve = partial(resolve_config, job.model, job.preset, job.revision, job.method, **job.settings)
    resolve()  # before the model, which may have to be fetched
    checkpoint = find(job.model, job.revision)
    config = resolve()  # the model's family is known by now
    # Every worker takes what the manifest says, whatever a branch or a preset's file holds by then.
    pinned = None if checkpoint.is_local else checkpoint.revision
    job = replace(job, preset="auto", settings=asdict(config), revision=pinned)
    settings = about_model(checkpoint.name, checkpoint.revision, job.device, job.dtype, config)
    settings |= {"method": job.method, "names": _about(job.classes), "format": format}
    folder, done = results.folder, results.loose()
    content = folder.read(MANIFEST)
    before = parse_json(content, f"{folder.place}/{MANIFEST}") if content else {}
    if content and before.get("manifest") != FORMAT:
        raise InputError(f"{folder.place} holds no run of batch that can be read; give another --out")
    if content and (done or results.shards()):
        check_same(folder.place, {"method": DEFAULT_METHOD} | before["settings"], settings)
        shards = before["shards"]
        if packs:
            packed = results.packed()
            results.sweep(packed)
            done |= packed
    else:  # nothing was made yet with the settings of a manifest: a mistyped command binds nobody
        shards, done = max(1, round(len(places) / rows)), set()
        manifest = {"manifest": FORMAT, "version": VERSION, "shards": shards, "settings": settings}
        folder.write(MANIFEST, as_json(manifest, indent=1))
    todo = sorted(places.keys() - done, key=lambda key: (shard_of(key, shards), key))
    return Run(job, results, len(places), {key: places[key] for key in todo}, shards, packs)


def shard_of(key: str, shards: int) -> int:
    """Return the shard that a key falls to, evenly and always the same."""
    return int.from_bytes(sha256(key.encode("utf-8", "surrogateescape")).digest()[:8], "big") % shards


def _about(found: ClassSource) -> dict[str, Any]:
    numbers = found.palette.numbers
    in_order = list(numbers.values()) == list(range(1, len(numbers) + 1))
    return _about_names(found) | ({} if in_order else {"values": numbers})


def _about_names(found: ClassSource) -> dict[str, Any]:
    if found.classes is not None:
        words = {name: list(words) for name, words in found.classes.words.items() if words != (name,)}
        return {"classes": list(found.classes.classes)} | ({"words": words} if words else {})
    named, options = found.candidates, found.options
    about = {"namer": found.namer, "model": options.model, "given": list(options.names), "keep": found.keep}
    about["source"] = options.source.name if options.source else None
    return about | {"vocabulary": digest(named) if named else None}


def find_photos(patterns: Iterable[str], out: Folder) -> Places:
    """Return the photos that files, folders and globs mean, sorted by key; ``out`` is where results are to go.

    A folder stands for all pictures in it and in the folders below, by suffix, without hidden ones; a glob for the
    pictures among its matches, with keys below its first part without wildcards; a file is taken as it is.

    Raises: InputError if there is none, two photos have one key, or results would lie among the photos.
    """
    found: Places = {}
    for pattern in patterns:
        for key, place in _expand(expanded(pattern), out):
            if found.setdefault(key, place) != place:
                raise InputError(BOTH.format(found[key], place, f"as {key}"))
    return dict(sorted(found.items()))


def _expand(pattern: str, out: Folder) -> Iterator[tuple[str, str]]:
    folder = Folder(pattern)
    files, root = folder.files, folder.root
    with reachable(pattern):
        matches, base = _matches(files, root)
        goes_down = "**" in root or files.isdir(root)
    # The next run would take the results for photos, or they would take the place of photos.
    images = f"{out.root}/{IMAGES}/"
    below = goes_down and images.startswith(f"{base}/")
    if below or any(match.startswith(images) for match in matches):
        raise InputError(f"the results in {out.place} would lie among the photos of {pattern}; give another --out")
    if not matches:
        raise InputError(f"there is no photo in {pattern}; give a file, a folder or a glob such as 'photos/*.jpg'")
    for match in matches:
        place = match if folder.is_local else files.unstrip_protocol(match)
        name = match.partition("?")[0] if "://" in match else match  # the query of a web address is no part of a key
        yield str(PurePosixPath(name[len(base) :].lstrip("/")).with_suffix("")), place


def _matches(files: Any, path: str) -> tuple[list[str], str]:
    """Return the pictures that a path means, and the folder that their keys start below."""
    found, base = [path], os.path.dirname(path.partition("?")[0] if "://" in path else path)
    if files.isdir(path):
        found, base = files.find(path), path
    elif files.exists(path):
        return found, base
    elif has_magic(path):
        base = next(str(parent) for parent in PurePosixPath(path).parents if not has_magic(str(parent))).rstrip("/")
        entries = files.glob(path, detail=True)
        found = [name for name in entries if entries[name]["type"] != "directory"]
    # A photo that is gone is a fault of its own.
    shown = (name for name in found if not any(part.startswith(".") for part in name[len(base) :].split("/")))
    return [name for name in shown if os.path.splitext(name)[1].lower() in SUFFIXES], base
