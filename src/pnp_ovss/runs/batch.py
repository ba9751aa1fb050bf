"""A run over many photos: what is left to be done is done, written by key, and packed into Parquet files if wanted.

``images/<key>.png`` and ``.json`` are a photo's result, the record written last: where it lies, the other is whole.
``faults/<key>.json`` says why a photo has none. ``shards/00000.parquet`` holds the results of the photos whose key
falls to that shard; those in it have left ``images/``. Whatever dies in between, a key counts once.
"""

import io
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property, partial
from hashlib import sha256
from typing import Any

from pnp_ovss._version import VERSION
from pnp_ovss.errors import InputError, PnpError
from pnp_ovss.files import Folder, as_json, as_png
from pnp_ovss.images import decode_image
from pnp_ovss.models import find
from pnp_ovss.naming import KEEP, Options, load_namer, photo_namer
from pnp_ovss.pictures import class_colours, label_png
from pnp_ovss.runs import pipeline
from pnp_ovss.runs.photos import Source, fetch
from pnp_ovss.runs.record import (
    FAULTS,
    IMAGES,
    MANIFEST,
    SHARDS,
    about_model,
    check_same,
    load_pyarrow,
    make_record,
    read_shard,
)
from pnp_ovss.segmentation import Segmentation
from pnp_ovss.segmenter import Segmenter, resolve_config
from pnp_ovss.types import RGB, Vocabulary

FORMAT = 1
"""Of manifest and results; raised when older ones cannot be read any more."""


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
    settings: dict[str, Any] = field(default_factory=dict)
    batch: int = 1
    """Photos the model sees at a time."""


@dataclass(frozen=True)
class Done:
    """A photo that is done: its result is written, or, with a ``fault``, why there is none."""

    key: str
    fault: str = ""


Engine = Callable[[Job, Sequence[Source]], Iterator[Done]]
"""Does photos, wherever, and yields each when its result is written."""


class Results:
    """The results of a run in its folder. Raises: InputError where a file cannot be read or written."""

    def __init__(self, folder: Folder) -> None:
        self.folder = folder

    def write(self, key: str, place: str, photo: RGB, result: Segmentation | None, seconds: float) -> None:
        """Write a photo's label map and record; ``None`` where nothing was named."""
        if result is not None:
            picture = label_png(result.labels, class_colours(result.classes))
            self.folder.write(f"{IMAGES}/{key}.png", as_png(picture))
        self.folder.write(f"{IMAGES}/{key}.json", as_json(make_record(key, place, photo, result, seconds)))

    def write_fault(self, source: Source, fault: str) -> None:
        """Write down why a photo has no result."""
        self.folder.write(f"{FAULTS}/{source.key}.json", as_json(asdict(source) | {"fault": fault}))

    def fault(self, key: str) -> str:
        """Return why a photo has no result, as far as that is written down, or nothing."""
        content = self.folder.read(f"{FAULTS}/{key}.json")
        return str(json.loads(content)["fault"]) if content else ""

    def has(self, key: str) -> bool:
        """Return whether the photo's own record is there, as it is until it is packed."""
        return self.folder.read(f"{IMAGES}/{key}.json") is not None

    def keys_in(self, below: str) -> set[str]:
        """Return the keys of the results in ``images`` (those that are not packed) or of the faults."""
        return {name.removesuffix(".json") for name in self.folder.names(below) if name.endswith(".json")}

    def packed(self) -> set[str]:
        """Return the keys of the results in Parquet files."""
        return {row["key"] for name in self.shards() for row in read_shard(self.folder, name, ["key"])}

    def shards(self) -> list[str]:
        """Return the names of the Parquet files."""
        return [f"{SHARDS}/{name}" for name in self.folder.names(SHARDS) if name.endswith(".parquet")]

    def pack(self, shard: int, keys: Sequence[str]) -> None:
        """Move the results of these keys into the shard's Parquet file, where they take the place of older ones."""
        if not keys:
            return
        pyarrow, name = load_pyarrow(), f"{SHARDS}/{shard:05}.parquet"
        rows = {row["key"]: row for row in read_shard(self.folder, name)} if name in self.shards() else {}
        rows |= {key: self._row(key) for key in keys}
        table = pyarrow.Table.from_pylist([rows[key] for key in sorted(rows)], schema=_schema(pyarrow))
        buffer = io.BytesIO()
        pyarrow.parquet.write_table(table, buffer, compression="zstd")
        self.folder.write(name, buffer.getvalue())
        for key in keys:  # the record first: a label map without one is no result
            self.folder.remove(f"{IMAGES}/{key}.json")
            self.folder.remove(f"{IMAGES}/{key}.png")

    def _row(self, key: str) -> dict[str, Any]:
        record = json.loads(self.folder.read(f"{IMAGES}/{key}.json") or b"{}")
        return record | {
            "labels": self.folder.read(f"{IMAGES}/{key}.png") if record["classes"] else None,
            "segments": [part | {"counts": part["segmentation"]["counts"]} for part in record["segments"]],
            "config": json.dumps(record["config"]) if "config" in record else None,
            "areas": [record["areas"][name] for name in record["classes"]],
        }


def _schema(pyarrow: Any) -> Any:
    text, whole, number = pyarrow.string(), pyarrow.int32(), pyarrow.float64()
    segment = pyarrow.struct({"class": text, "label": whole, "area": pyarrow.int64(), "counts": text})
    columns = {"key": text, "photo": text, "width": whole, "height": whole}
    columns |= {"classes": pyarrow.list_(text), "areas": pyarrow.list_(number), "match": number}
    columns |= {"labels": pyarrow.binary(), "segments": pyarrow.list_(segment)}
    columns |= {"method": text, "model": text, "revision": text, "version": text, "seconds": number, "config": text}
    return pyarrow.schema(columns)


class Worker:
    """Segments photos with one model, which is loaded when the first photo needs it."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._results = Results(Folder(job.out))

    @cached_property
    def _segmenter(self) -> Segmenter:
        job = self._job
        return Segmenter.from_pretrained(job.model, job.preset, job.device, job.dtype, job.revision, **job.settings)

    def __call__(self, sources: Sequence[Source]) -> Iterator[Done]:
        """Yield every photo as soon as its result or its fault is written; few photos are held at a time.

        Raises: PnpError if no photo can be done: the model cannot be loaded or does not know the classes that all
        photos share, nobody names them any more, or results cannot be written.
        """
        found, waiting = self._job.classes, {source.key: source for source in sources}
        items = (pipeline.Item(key, partial(_read, source.place), found.classes) for key, source in waiting.items())
        strict = found.classes is not None
        name = None if strict else self._name
        for outcome in pipeline.run(lambda: self._segmenter, items, name, self._job.batch, strict):
            source, seconds = waiting[outcome.key], outcome.seconds
            if outcome.fault or outcome.photo is None:
                fault = f"{source.key}: {outcome.fault}"
                self._results.write_fault(source, fault)
                yield Done(source.key, fault)
            else:
                spent = seconds.get("segment", 0.0) + seconds.get("refine", 0.0)
                self._results.write(source.key, source.place, outcome.photo, outcome.result, spent)
                yield Done(source.key)

    def _name(self, photos: Iterable[tuple[str, RGB]]) -> Iterator[tuple[str, Vocabulary | PnpError | None]]:
        found = self._job.classes
        namer = load_namer(found.namer, replace(found.options, vlm=lambda: self._segmenter.method.vlm))
        return photo_namer(namer, found.candidates, found.keep, found.calls)(photos)


def _read(place: str) -> RGB:
    return decode_image(fetch(place), "the file")  # the fault says whose


def work_here(job: Job, sources: Sequence[Source]) -> Iterator[Done]:
    """Do the photos in this process; yield each as soon as its result is written."""
    yield from Worker(job)(sources)


@dataclass(frozen=True)
class Run:
    """What a run has to do."""

    job: Job
    results: Results
    sources: Sequence[Source]
    """All photos."""
    todo: Sequence[Source]
    """Those without a result, shard after shard."""
    shards: int
    """How many Parquet files the results fall to."""
    packs: bool
    """Whether results are moved into Parquet files."""

    def __call__(self, engine: Engine) -> Iterator[Done]:
        """Do what is to be done and yield every photo; a shard is packed when its last photo is there."""
        left = Counter(self._shard(source.key) for source in self.todo)
        self._pack({self._shard(key) for key in self.results.keys_in(IMAGES)}.difference(left))
        failed = set()
        for done in engine(self.job, self.todo) if self.todo else ():
            shard = self._shard(done.key)
            left[shard] -= 1
            failed |= {done.key} if done.fault else set()
            if not left[shard]:
                self._pack({shard})
            yield done
        for key in self.results.keys_in(FAULTS) & ({source.key for source in self.sources} - failed):
            self.results.folder.remove(f"{FAULTS}/{key}.json")

    def _shard(self, key: str) -> int:
        return shard_of(key, self.shards)

    def _pack(self, shards: set[int]) -> None:
        if self.packs and shards:
            loose = self.results.keys_in(IMAGES)
            for shard in shards:
                self.results.pack(shard, [key for key in loose if self._shard(key) == shard])


def open_run(job: Job, format: str, rows: int, sources: Sequence[Source]) -> Run:
    """Return the run over these photos: a new one, or what is left of the one that is in the folder.

    ``rows`` is about how many photos a Parquet file gets; a run that goes on keeps the number of files it began with.

    Raises: ConfigError if the folder holds a run with other settings; InputError if its manifest cannot be read;
    ModelError if there is no such model.
    """
    packs = format == "parquet"
    if packs:
        load_pyarrow()
    results = Results(Folder(job.out))
    resolve_config(job.model, job.preset, job.revision, **job.settings)  # before the model, which may be fetched
    checkpoint = find(job.model, job.revision)
    config = resolve_config(job.model, job.preset, job.revision, **job.settings)  # the model's family is known by now
    # Every worker takes what the manifest says, whatever a branch or a preset's file holds by then.
    pinned = None if checkpoint.is_local else checkpoint.revision
    job = replace(job, preset="auto", settings=asdict(config), revision=pinned)
    settings = about_model(checkpoint.name, checkpoint.revision, job.device, job.dtype, config)
    settings |= {"names": _about(job.classes), "format": format}
    shards = max(1, round(len(sources) / rows))
    before = _manifest(results.folder)
    done = results.keys_in(IMAGES)
    if before is not None and (done or results.shards()):
        check_same(results.folder.place, before["settings"], settings)
        shards = before["shards"]
        done |= results.packed() if packs else set()
    else:  # nothing was made yet with the settings of a manifest: a mistyped command binds nobody
        done = set()
        manifest = {"manifest": FORMAT, "version": VERSION, "shards": shards, "settings": settings}
        results.folder.write(MANIFEST, as_json(manifest, indent=1))
    todo = sorted((s for s in sources if s.key not in done), key=lambda s: (shard_of(s.key, shards), s.key))
    return Run(job, results, sources, todo, shards, packs)


def shard_of(key: str, shards: int) -> int:
    """Return the shard that a key falls to, evenly and always the same."""
    return int.from_bytes(sha256(key.encode("utf-8", "surrogateescape")).digest()[:8], "big") % shards


def _manifest(folder: Folder) -> dict[str, Any] | None:
    content = folder.read(MANIFEST)
    try:
        manifest: dict[str, Any] | None = json.loads(content) if content is not None else None
        if manifest is not None and (manifest["manifest"] != FORMAT or not manifest["shards"]):
            raise ValueError(manifest)
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{folder.place} holds no run of batch that can be read; give another --out") from error
    return manifest


def _about(found: ClassSource) -> dict[str, Any]:
    if found.classes:
        return {"classes": list(found.classes.classes)}
    return {
        "namer": found.namer,
        "model": found.options.model,
        "source": found.options.source.name if found.options.source else None,
        "given": list(found.options.names),
        "vocabulary": list(found.candidates.flat) if found.candidates else None,
        "keep": found.keep,
    }
