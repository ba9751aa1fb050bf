"""A run over many photos: which there are, what is left to be done, and each result written by key.

Results are packed into Parquet files if wanted. Photos that share their classes are cut into batches by their place in
the list of what the run had to do at first, so that a photo goes through the model in the same company however often
the run is stopped: what is left of a batch goes with those of it that are done, which are read again for that.
"""

import os
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Set
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from copy import copy
from dataclasses import asdict, dataclass, field, replace
from functools import cache, partial
from glob import has_magic
from itertools import islice
from pathlib import PurePosixPath
from typing import Any, NoReturn

from pnp_ovss._version import VERSION
from pnp_ovss.errors import ConfigError, InputError
from pnp_ovss.files import Folder, Source, as_json, expanded, listed, parse_json, reachable
from pnp_ovss.images import SUFFIXES, read_photo
from pnp_ovss.methods import DEFAULT_METHOD, resolve_config
from pnp_ovss.methods.pnp import PnP
from pnp_ovss.methods.presence import Present
from pnp_ovss.models import VLM, find
from pnp_ovss.models.loading import resolve_device
from pnp_ovss.naming import NamePhotos, Options, load_namer, photo_namer
from pnp_ovss.naming.cached import digest
from pnp_ovss.pictures.palette import Palette
from pnp_ovss.runs.deaths import UNDER_WAY, UnderWay
from pnp_ovss.runs.pipeline import Item, Outcome, run
from pnp_ovss.runs.record import (
    BOTH,
    IMAGES,
    INDEXED,
    MANIFEST,
    READERS,
    SHARDS,
    Entry,
    Results,
    about_model,
    check_same,
    load_pyarrow,
)
from pnp_ovss.segmentation import Segmentation
from pnp_ovss.segmenter import Segmenter
from pnp_ovss.types import KEEP, Vocabulary

FORMAT = 2
"""Of manifest and results; raised when older ones cannot be read any more."""


ON_A_CPU, ON_A_GPU = 4, 16
"""Photos that the model sees at a time: a CPU gains no more by further ones, a GPU is busy with so many."""

TRIALS = 2
"""Deaths that a photo which outlives each of its trials may be under way in, until it is done without company."""


Places = dict[str, str]
"""Path or URL of each photo, such as ``s3://bucket/2024/05/dog.jpg``, by its key, which names its result: the path
below the folder it was found in, without suffix, such as ``2024/05/dog``."""

Sources = dict[str, Source]
"""The file of each photo by its key, as it is listed: not read yet."""


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
    present: Present = "all"
    """Of ``classes``: whether a photo gets all of them, or those that it seems to show."""

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
    compile: bool = False
    settings: dict[str, Any] = field(default_factory=dict)
    batch: int | None = None
    """Photos the model sees at a time; None: as many as it is quick with."""
    overlays: bool = False
    """Whether each photo is written under its classes' colours as well."""
    memory: int | None = None
    """Bytes that a process may hold; None: most of what is left."""
    instances: bool = False
    """Whether records and overlays have each object by itself."""

    def load(self) -> Segmenter:
        """Return the segmenter; raises what ``Segmenter.from_pretrained`` does."""
        how = self.device, self.dtype, self.revision, self.method, self.memory, self.classes.present, self.compile
        return Segmenter.from_pretrained(self.model, self.preset, *how, **self.settings)

    @property
    def is_cut(self) -> bool:
        """Whether a photo has company, which can be had again, as all photos share their classes."""
        return self.classes.classes is not None and self.batch != 1

    def sized(self, on_gpu: bool) -> "Job":
        """Return the job with a number of photos that the model sees at a time."""
        return replace(self, batch=self.batch or ((ON_A_GPU if on_gpu else ON_A_CPU) if self.is_cut else 1))


@dataclass(frozen=True)
class Done:
    """A photo that is done: its result is written, or, with a ``fault``, why there is none."""

    key: str
    fault: str = ""
    entry: Entry | None = None
    """Of the result, for the index."""
    reduced: tuple[int, int] | None = None
    """The size it was refined at for want of memory."""


Engine = Callable[[Job, Places, Places], Iterator[Done]]
"""Does photos, wherever, and yields each when its result is written: the first ones, in batches of the second ones."""


class Worker:
    """Segments photos with one model, which is loaded when the first photo needs it."""

    def __init__(self, job: Job) -> None:
        self.job, self.size = job, job.batch or 1
        self.results = Results(Folder(job.out), job.instances)
        self._segmenter = cache(job.load)
        self._name_photos = cache(partial(job.classes.name_photos, self._segmenter))
        self.palette = job.classes.palette
        if self.palette.grows:
            self.palette.numbers.update(self.results.numbers())

    def load(self) -> None:
        """Load the models before a photo needs them."""
        self._segmenter()
        self._name_photos()

    def __call__(
        self,
        places: Places,
        begin: Callable[[str], None] = lambda key: None,
        todo: Collection[str] | None = None,
    ) -> Iterator[Done]:
        """Yield every photo after its result or its fault was written; few photos are held at a time.

        ``begin`` is called with each key before its photo is read. ``todo``: the keys of those that are to be done;
        of the others, some of which may have no place, those in a batch with one of them are its company.

        Raises: PnpError if no photo can be done: the model cannot be loaded or does not know the classes that all
        photos share, nobody names them any more, or results cannot be written.
        """
        classes, entries = self.job.classes.classes, dict[str, Entry]()
        todo = places if todo is None else todo

        def items() -> Iterator[Item]:
            for some in in_batches(places, todo, self.size):
                for key, place in some.items():
                    if key in todo:
                        begin(key)
                    read = partial(read_photo, place, "the file") if place else _left_out  # the fault says whose
                    yield Item(key, read, classes, company=key not in todo)

        def write(one: Outcome) -> None:
            if one.photo is None or one.source is None or one.fault:
                self.results.write_fault(one.key, places[one.key], f"{one.key}: {one.fault}")
            else:
                spent = one.seconds.get("segment", 0.0) + one.seconds.get("refine", 0.0)
                entries[one.key] = self.results.write(one.key, one.source, one.photo, self._painted(one), spent)

        how = (self._name_photos(), self.size, classes is not None)
        for one in run(self._segmenter, items(), *how, finish=write):
            reduced = one.result.refined if one.result and one.result.reduced else None
            fault = f"{one.key}: {one.fault}" if one.fault else ""
            yield Done(one.key, fault, entries.pop(one.key, None), reduced)

    def try_out(self, key: str, place: str) -> None:
        """Do all that is done with a photo, by itself, and throw the result away."""
        worker = copy(self)
        worker.results = Results(_Nowhere(self.job.out), self.job.instances)
        list(worker({key: place}))

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


class _Nowhere(Folder):
    """Takes files and keeps none."""

    def write(self, name: str, content: bytes) -> None:
        """Do nothing."""

    def remove(self, name: str) -> None:
        """Do nothing."""


def _left_out() -> NoReturn:
    raise InputError("it is left out")


def in_batches(places: Places, todo: Collection[str], size: int) -> Iterator[Places]:
    """Yield, of all photos cut into batches, those batches that have one to do.

    >>> list(in_batches({"a": "a.jpg", "b": "b.jpg", "c": "c.jpg"}, {"b"}, 2))
    [{'a': 'a.jpg', 'b': 'b.jpg'}]
    """
    keys = iter(places)
    while batch := list(islice(keys, size)):
        if any(key in todo for key in batch):
            yield {key: places[key] for key in batch}


def work_here(job: Job, todo: Places, places: Places) -> Iterator[Done]:
    """Do the photos in this process; yield each when its result is written.

    Photos of a run that died are first tried out one by one, and one with which it dies once more is left out: see
    ``runs.deaths``. A batch of one is no company: the trial counts.
    """
    job = job.sized(resolve_device(job.device).type != "cpu")
    worker, rest = Worker(job), dict(todo)
    under_way = UnderWay(worker.results.folder, todo, 32 + 4 * max(worker.size, job.classes.calls))
    with under_way.watched():
        for key in filter(under_way.is_deadly, todo):
            advice = f"leave it out, or remove {UNDER_WAY} in {job.out} to have it tried again"
            fault = f"{key}: the process died twice while it was done; {advice}"
            worker.results.write_fault(key, rest.pop(key), fault)
            yield Done(key, fault)
        if under_way.suspects:
            worker.load()
        for key in [*under_way.suspects]:
            with under_way.alone(key):
                if job.is_cut and under_way.outlived.get(key, 0) < TRIALS:
                    worker.try_out(key, rest[key])
                else:
                    yield from worker({key: rest.pop(key)})
        there = {key: "" if under_way.is_deadly(key) else place for key, place in places.items()}
        yield from worker(there if job.is_cut else rest, under_way.begin(list(rest)), rest)


@dataclass(frozen=True)
class Run:
    """What a run has to do."""

    job: Job
    results: Results
    places: Places
    """All photos, in order."""
    todo: Places
    """Those without a result."""
    changed: Set[str] = frozenset()
    """Those of them with a result of what their file held before."""
    damaged: Set[str] = frozenset()
    """Those whose record is damaged."""
    kept: dict[str, Entry] = field(default_factory=dict)
    """The results that are not packed."""
    shards: dict[str, str] | None = None
    """The Parquet file for each photo to do and each result that is not packed; None: results are not packed."""
    packed: dict[str, dict[str, Source]] = field(default_factory=dict)
    """What the Parquet files hold."""

    def __call__(self, engine: Engine) -> Iterator[Done]:
        """Do what is to be done and yield every photo; a Parquet file is written when its last photo is there."""
        self.results.forget(self.changed | self.damaged, self.changed | self.kept.keys(), self.packed)
        done = self._done(engine)
        return self._indexed(done) if self.shards is None else self._packed(done, self.shards)

    def _done(self, engine: Engine) -> Iterator[Done]:
        if not self.job.is_cut:
            yield from engine(self.job, self.todo, self.todo) if self.todo else ()
            return
        listed, faults = self.results.listed(), 0
        if self.todo:
            for one in engine(self.job, self.todo, self._cut(listed)):
                faults += bool(one.fault)
                yield one
        if not faults and (self.todo or listed != []):
            self.results.write_listed(())  # what comes later has company of its own

    def _cut(self, listed: list[str] | None) -> Places:
        """Return what batches are cut from: all photos, or those since a run had done all; where they were, if gone."""
        keys = dict.fromkeys([*(self.places if listed is None else listed), *self.todo])
        if listed is None or len(keys) > len(listed):
            self.results.write_listed(keys)
        return {key: self.places.get(key, "") for key in keys}

    def _indexed(self, work: Iterator[Done]) -> Iterator[Done]:
        self.results.index(self.kept, anew=True)
        entries: dict[str, Entry] = {}
        try:
            for done in work:
                if done.entry:
                    entries[done.key] = done.entry
                if len(entries) == INDEXED:
                    self.results.index(entries)
                    entries = {}
                yield done
        finally:
            with suppress(InputError):  # what the index lacks is read from the records
                self.results.index(entries)

    def _packed(self, work: Iterator[Done], shards: dict[str, str]) -> Iterator[Done]:
        left, ready = Counter(shards[key] for key in self.todo), defaultdict[str, list[str]](list)
        for key in self.kept:
            ready[shards[key]].append(key)
        for name in [name for name in ready if not left[name]]:
            self.results.pack(name, ready.pop(name))
        for done in work:
            name = shards[done.key]
            left[name] -= 1
            if not done.fault:
                ready[name].append(done.key)
            if not left[name] and name in ready:
                self.results.pack(name, ready.pop(name))
            yield done


def open_run(job: Job, format: str, rows: int, sources: Sources) -> Run:
    """Return the run over these photos: a new one, or what is left of the one that is in the folder.

    A photo is done if its result belongs to what its file holds now. ``rows`` is how many photos a Parquet file gets.

    Raises: ConfigError if the folder holds a run with other settings; InputError if its manifest cannot be read;
    ModelError if there is no such model.
    """
    packs = format == "parquet"
    if packs:
        load_pyarrow()
        for text in (source.place for source in sources.values()):
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
    settings |= {"instances": True} if job.instances else {}  # manifests of earlier versions do not have it
    folder, written = results.folder, results.written()
    content = folder.read(MANIFEST)
    before = parse_json(content, f"{folder.place}/{MANIFEST}") if content else {}
    if content and before.get("manifest") != FORMAT:
        raise InputError(f"{folder.place} holds no run of batch that can be read; give another --out")
    if content and (written or results.shards()):
        check_same(folder.place, {"method": DEFAULT_METHOD} | before["settings"], settings)
    else:  # nothing was made yet with the settings of a manifest: a mistyped command binds nobody
        folder.write(MANIFEST, as_json({"manifest": FORMAT, "version": VERSION, "settings": settings}, indent=1))
    return _rest(job, results, written, sources, rows if packs else None)


def _rest(job: Job, results: Results, written: Set[str], sources: Sources, rows: int | None) -> Run:
    """Return what is left of a run; ``written`` are the records that are not packed."""
    kept, packed = results.loose(), results.packed() if rows else {}
    there = {key: source for held in packed.values() for key, source in held.items()}
    if packed:
        results.sweep(there.keys())
    there |= {key: entry[0] for key, entry in kept.items()}
    both = [key for key in sources if key in there]
    with ThreadPoolExecutor(READERS) as pool:  # some may have to be read
        same = pool.map(lambda key: there[key].is_unchanged(sources[key]), both)
        changed = {key for key, is_same in zip(both, same, strict=True) if not is_same}
    damaged = (written - kept.keys()) & sources.keys()
    # The next run need not read again what this one has read.
    now = {key: sources.get(key, there[key]).stored() for key in kept.keys() - changed}
    fresh = {key: replace(source, sha256=there[key].sha256) for key, source in now.items()}
    kept = {key: (fresh[key], *kept[key][1:]) for key in sorted(fresh)}
    places = {key: sources[key].place for key in sorted(sources)}
    todo = {key: place for key, place in places.items() if key in changed or key not in there}
    shards = _shards([*kept, *todo], packed, changed, rows) if rows else None
    return Run(job, results, places, todo, changed, damaged, kept, shards, packed)


def _shards(keys: Iterable[str], packed: dict[str, dict[str, Source]], gone: Set[str], rows: int) -> dict[str, str]:
    """Return the Parquet file for each of these keys: the last one as long as it has room, then new ones."""
    numbers = {int(stem): held for name, held in packed.items() if (stem := PurePosixPath(name).stem).isdecimal()}
    last = max(numbers, default=0)
    filled = min(rows, len(numbers.get(last, {}).keys() - gone))
    places = enumerate(sorted(keys), start=last * rows + filled)
    return {key: f"{SHARDS}/{place // rows:05}.parquet" for place, key in places}


def _about(found: ClassSource) -> dict[str, Any]:
    numbers = found.palette.numbers
    in_order = list(numbers.values()) == list(range(1, len(numbers) + 1))
    return _about_names(found) | ({} if in_order else {"values": numbers})


def _about_names(found: ClassSource) -> dict[str, Any]:
    if found.classes is not None:
        words = {name: list(words) for name, words in found.classes.words.items() if words != (name,)}
        about: dict[str, Any] = {"classes": list(found.classes.classes)} | ({"words": words} if words else {})
        # Manifests of earlier versions do not have it.
        return about | ({"present": found.present} if found.present != "all" else {})
    named, options = found.candidates, found.options
    about = {"namer": found.namer, "model": options.model, "given": list(options.names), "keep": found.keep}
    about["source"] = options.source.name if options.source else None
    return about | {"vocabulary": digest(named) if named else None}


def find_photos(patterns: Iterable[str], out: Folder) -> Sources:
    """Return the photos that files, folders and globs mean, sorted by key; ``out`` is where results are to go.

    A folder stands for all pictures in it and in the folders below, by suffix, without hidden ones; a glob for the
    pictures among its matches, with keys below its first part without wildcards; a file is taken as it is.

    Raises: InputError if there is none, two photos have one key, or results would lie among the photos.
    """
    found: Sources = {}
    for pattern in patterns:
        for key, source in _expand(expanded(pattern), out):
            before = found.setdefault(key, source)
            if before.place != source.place:
                raise InputError(BOTH.format(before.place, source.place, f"as {key}"))
    return dict(sorted(found.items()))


def _expand(pattern: str, out: Folder) -> Iterator[tuple[str, Source]]:
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
    for match, info in matches.items():
        place = match if folder.is_local else files.unstrip_protocol(match)
        name = match.partition("?")[0] if "://" in match else match  # the query of a web address is no part of a key
        key = str(PurePosixPath(name[len(base) :].lstrip("/")).with_suffix(""))
        yield key, listed(files, match, place, info)


def _matches(files: Any, path: str) -> tuple[dict[str, Any], str]:
    """Return the pictures that a path means, as they are listed, and the folder that their keys start below."""
    found, base = {path: None}, os.path.dirname(path.partition("?")[0] if "://" in path else path)
    if files.isdir(path):
        found, base = files.find(path, detail=True), path
    elif files.exists(path):
        return found, base
    elif has_magic(path):
        base = next(str(parent) for parent in PurePosixPath(path).parents if not has_magic(str(parent))).rstrip("/")
        entries = files.glob(path, detail=True)
        found = {name: info for name, info in entries.items() if info["type"] != "directory"}
    # A photo that is gone is a fault of its own.
    shown = (name for name in found if not any(part.startswith(".") for part in name[len(base) :].split("/")))
    return {name: found[name] for name in shown if os.path.splitext(name)[1].lower() in SUFFIXES}, base
