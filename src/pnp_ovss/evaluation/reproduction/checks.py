"""What can be found wrong before a cell is run: its data, its names and weights, the disk, the memory, the device."""

import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from huggingface_hub import constants

from pnp_ovss.data import Dataset, benchmark_vocabulary, default_vocabulary
from pnp_ovss.data.whole import differences, digest_of_ids, find_dataset, unreadable
from pnp_ovss.errors import InputError, ModelError, PnpError
from pnp_ovss.evaluation.reproduction.plan import Cell
from pnp_ovss.evaluation.run import load_choice
from pnp_ovss.memory import available
from pnp_ovss.methods import METHODS
from pnp_ovss.methods.archive import Archive
from pnp_ovss.models.clip_resnet import ClipResNet
from pnp_ovss.models.deit import Deit
from pnp_ovss.models.hub import SHORT_NAMES
from pnp_ovss.models.loading import resolve_device
from pnp_ovss.models.released import find_file, read_released
from pnp_ovss.models.releases import RELEASES
from pnp_ovss.models.survey import survey

State = Literal["ok", "differs", "lacks"]
"""Whether all is well; whether what is there is not what was published with, or too little; whether it is not there."""
MODELS, FILES = ("proxy", "regions_model"), ("masker", "dense", "encoder", "archive")
"""Settings that name a further checkpoint, and those that name a file or folder of this machine."""
RESULT = 10_000
"""Bytes on disk for the result of an image, its label map and its record; those of COCO's photos have about 3,000."""
SPARE = 10**9
"""Bytes of memory that a run needs beside its weights, about."""

NAMED = 0.1
"""Share by which classes per image may differ from those of the authors' names, not all of which are known exactly."""

NO_TRUTH = np.zeros((1, 1), dtype=np.uint8)
"""Names from a file do not depend on the truth."""

Watch = Callable[[Iterator[str], int, str], Iterable[str]]
"""Goes through the images of a data set, of which there are so many, under a title."""


@dataclass(frozen=True)
class Places:
    """Where everything is, and where it goes."""

    data: Path
    """Folder of the data sets."""
    out: Path
    replies: Path | None = None
    """Folder of the names per image; None: that of the data sets."""
    weights: Path | None = None
    """Folder whose files and folders stand for models and releases of their name."""
    device: str = "auto"
    limit: int | None = None
    """Images of each data set; None: all."""


@dataclass(frozen=True)
class Finding:
    """What came out of a check."""

    what: str
    state: State
    text: str
    cells: tuple[str, ...] = ()
    """The cells that it is about; disk and memory are about none."""


@dataclass
class Checks:
    """All checks of some cells; what they found is kept for the run."""

    cells: Sequence[Cell]
    places: Places
    watch: Watch = lambda images, total, title: images
    datasets: dict[str, tuple[Dataset, Path]] = field(default_factory=dict)
    """Those that were found by their ``truth``, with the folder of each."""
    sizes: dict[str, int] = field(default_factory=dict)
    """Bytes of the weights that were found."""
    revisions: dict[str, str] = field(default_factory=dict)
    to_fetch: int = 0

    def __call__(self) -> Iterator[Finding]:
        """Yield what each check finds."""
        for cell in {cell.truth: cell for cell in self.cells}.values():
            yield self._data(cell, _names(one for one in self.cells if one.truth == cell.truth))
        for cell in {cell.column: cell for cell in self.cells if cell.row.names == "replies"}.values():
            concerned = _names(
                one for one in self.cells if one.column == cell.column and one.row.names == cell.row.names
            )
            yield self._replies(cell, concerned)
        parts = {part: cell for cell in reversed(self.cells) for part in parts_of(cell, self.places)}
        for part in sorted(parts):
            cells = _names(cell for cell in self.cells if part in parts_of(cell, self.places))
            yield self._weights(part, parts[part], cells)
        yield self._device()
        yield self._memory()
        yield from self._disk()

    def images(self, cell: Cell) -> int:
        """Return how many images of a cell are scored; 0 if its data set was not found."""
        found = self.datasets.get(cell.truth)
        return len(found[0].samples[: self.places.limit]) if found else 0

    def asked(self, cell: Cell) -> dict[str, Any]:
        """Return what tells one run of a cell from another: where it differs, results are looked through again."""
        dataset, root = self.datasets[cell.truth]
        row, parts = cell.row, {part.setting: self.revisions[part.place] for part in parts_of(cell, self.places)}
        data = {"data": cell.dataset, "ids": digest_of_ids(dataset), "images": self.images(cell), "root": str(root)}
        data |= {"truth": dataset.layout}
        how = {"method": row.method, "preset": row.preset, "settings": dict(row.settings), "weights": parts}
        return data | how | {"names": row.names, "words": cell.vocabulary, "protocol": row.protocol}

    def _data(self, cell: Cell, cells: tuple[str, ...]) -> Finding:
        what = f"data {cell.truth}"
        try:
            found = self.datasets[cell.truth] = find_dataset(cell.dataset, self.places.data, cell.row.protocol)
        except InputError as error:
            return Finding(what, "lacks", str(error), cells)
        dataset, root = found
        total = len(dataset.samples)
        faults = [fault for fault in self.watch(unreadable(dataset), total, what) if fault]
        wrong = [*differences(dataset)]
        if faults:
            wrong.append(f"{len(faults)} of {total} images cannot be scored: {faults[0]}")
        where = f"{total} images in {root}, {dataset.layout}"
        return Finding(what, "differs", f"{'; '.join(wrong)} ({where})", cells) if wrong else _ok(what, where, cells)

    def _replies(self, cell: Cell, cells: tuple[str, ...]) -> Finding:
        what = f"names {cell.column}"
        path = replies_of(cell, self.places)
        if path is None:
            folder = self.places.replies or self.places.data
            advice = "fetch it from GPT4o_classification of letitiabanana/PnP-OVSS, or write one for the data set"
            return Finding(
                what, "lacks", f"there is no {cell.replies} or {cell.column}.json in {folder}; {advice}", cells
            )
        wrong = list[str]()
        if cell.sha256 and sha256(path.read_bytes()).hexdigest() != cell.sha256:
            wrong.append(f"{path} is not the authors' file")
        if cell.truth in self.datasets:
            try:
                missing, named = self._read_replies(cell, path)
            except PnpError as error:
                return Finding(what, "lacks", str(error), cells)
            if missing:
                wrong.append(f"{len(missing)} images have no names: {missing[0]}")
            elif cell.named is not None and abs(named - cell.named) > NAMED * cell.named:
                wrong.append(f"{named:.2f} classes per image are named; expected {cell.named:.2f}")
        return Finding(what, "differs", "; ".join(wrong), cells) if wrong else _ok(what, str(path), cells)

    def _read_replies(self, cell: Cell, path: Path) -> tuple[list[str], float]:
        """Return why images have no names, and how many classes the others have on average."""
        dataset, missing, named = self.datasets[cell.truth][0], list[str](), list[int]()
        words = benchmark_vocabulary(default_vocabulary(dataset.words), dataset.classes, dataset.words)
        _, choose = load_choice(str(path), dataset, words, cell.row.protocol)
        for sample in dataset.samples:
            try:
                named.append(len(choose(sample.key, NO_TRUTH)))
            except InputError as error:
                missing.append(str(error))
        return missing, sum(named) / max(1, len(named))

    def _weights(self, part: "Part", cell: Cell, cells: tuple[str, ...]) -> Finding:
        what = f"weights {part.name}"
        try:
            if part.name in SHORT_NAMES:
                found = survey(part.place, part.name)
                self.sizes[part.place], self.revisions[part.place] = found.size, found.revision
                self.to_fetch += found.to_fetch
                faults: Sequence[str] = found.faults
                text = f"{_gigabytes(found.size)}, {'to fetch' if found.to_fetch else 'here'}"
            else:
                faults, text = self._file(part, cell)
        except PnpError as error:
            return Finding(what, "lacks", str(error).removeprefix(f"{part.name}: "), cells)
        return Finding(what, "differs", "; ".join(faults), cells) if faults else _ok(what, text, cells)

    def _file(self, part: "Part", cell: Cell) -> tuple[Sequence[str], str]:
        """Check a file or folder of this machine: a release is read, and what it is to be is made of it."""
        if part.name in RELEASES:
            file = find_file(part.name, part.place, "weights")
        elif os.path.exists(part.place):
            file = Path(part.place)
        else:
            raise ModelError(f"there is no {part.place}; put it into the folder of --weights")
        if part.setting == "archive":
            archive = Archive(part.place)
            self.revisions[part.place] = archive.revision
            return (), f"{len(archive.files)} photos, here"
        status, faults = file.stat(), list[str]()
        self.sizes[part.place], self.revisions[part.place] = status.st_size, f"{status.st_size}-{status.st_mtime_ns}"
        if part.setting == "model":
            info = METHODS[cell.row.method]
            method: Any = info.load(part.place, "cpu", "float32", None, preset_of(cell), **cell.row.settings)
            method.backbone.tokenize(["a photo"])
            side, expected = method.backbone.size, int(RELEASES[part.name].pixels)
            faults += [f"its input has {side} pixels a side; expected {expected}"] * (side != expected)
        elif part.setting == "masker" and not any(key.startswith("masker.") for key in read_released(file, part.name)):
            raise ModelError(f"{part.place} holds no masker; take {RELEASES[part.name].file} of the release")
        elif part.setting == "dense":
            dense = ClipResNet(part.place, "cpu", "float32")
            dense.tokenize(["a photo"])
            dense.encode_patches(torch.zeros(1, 3, dense.patch, dense.patch))
        elif part.setting == "encoder":
            Deit(part.place, torch.device("cpu"), torch.float32).encode_patches(torch.zeros(1, 3, 32, 32))
        return faults, f"{_gigabytes(status.st_size)}, here"

    def _device(self) -> Finding:
        try:
            device = resolve_device(self.places.device)
        except ModelError as error:
            return Finding("device", "lacks", str(error), _names(self.cells))
        if device.type == "cuda":
            free, total = torch.cuda.mem_get_info(device)
            name, needed = torch.cuda.get_device_name(device), self._largest() + SPARE
            text = f"{name}, {_gigabytes(free)} of {_gigabytes(total)} free, {_gigabytes(needed)} needed"
            return Finding("device", "ok" if free >= needed else "differs", text)
        advice = ": a table takes days on a processor; --limit 100 gives a first look" if device.type == "cpu" else ""
        return _ok("device", f"{device}{advice}")

    def _memory(self) -> Finding:
        needed = 2 * self._largest() + SPARE  # what is read and what is made of it
        text = f"{_gigabytes(needed)} needed, {_gigabytes(available())} left"
        return Finding("memory", "ok" if available() >= needed else "differs", text)

    def _largest(self) -> int:
        """Return the bytes of all weights of the cell that has most."""
        return max(sum(self.sizes.get(part.place, 0) for part in parts_of(cell, self.places)) for cell in self.cells)

    def _disk(self) -> Iterator[Finding]:
        results = RESULT * sum(self.images(cell) for cell in self.cells)
        places = {"results": (self.places.out, results), "weights": (Path(constants.HF_HUB_CACHE), self.to_fetch)}
        needed = dict[int, int]()
        for name, (place, size) in places.items():
            there = next(folder for folder in (place, *place.absolute().parents) if folder.exists())
            disk, free = there.stat().st_dev, shutil.disk_usage(there).free
            needed[disk] = needed.get(disk, 0) + size  # both may go to one disk
            text = f"{_gigabytes(size)} needed in {place}, {_gigabytes(free)} free"
            yield Finding(f"disk for {name}", "ok" if free >= needed[disk] else "differs", text)


@dataclass(frozen=True, order=True)
class Part:
    """A checkpoint, file or folder that a cell needs."""

    name: str
    setting: str
    """What names it: "model", or a setting of the method."""
    place: str
    """Hub id or path."""


def parts_of(cell: Cell, places: Places) -> list[Part]:
    """Return all that a cell needs to be fetched, or to be here."""
    row, info = cell.row, METHODS[cell.row.method]
    name = row.model or info.checkpoint
    config = info.resolve_config(name, preset_of(cell), None, **row.settings)
    needed = {"model": name} | {one: getattr(config, one) for one in FILES if hasattr(config, one)}
    if getattr(config, "proxy", "clip") != "clip":
        needed["proxy"] = config.proxy
    if config.uses_regions and config.regions == "sam":
        needed["regions_model"] = config.regions_model
    return [_part(one, setting, places.weights) for setting, one in needed.items()]


def preset_of(cell: Cell) -> str:
    """Return the preset of a cell: the row's, or that of its method for the data set."""
    row = cell.row
    return f"{row.method}/{cell.dataset}" if row.preset == "auto" else row.preset


def replies_of(cell: Cell, places: Places) -> Path | None:
    """Return the file with the names per image, by its usual name or the column's; None if there is none."""
    folder = places.replies or places.data
    paths = [folder / name for name in (cell.replies, f"{cell.column}.json")]
    return next((path for path in paths if path.is_file()), None)


def _part(name: str, setting: str, weights: Path | None) -> Part:
    file = next((kind for kind, release in RELEASES.items() if release.file == name), name)
    release = RELEASES[file].file if file in RELEASES else name
    own = [weights / one for one in dict.fromkeys((file, release))] if weights else []
    found = next((str(path) for path in own if path.exists()), "")
    source = SHORT_NAMES[name].source if name in SHORT_NAMES else name
    return Part(file, setting, found or str(source))


def _names(cells: Iterable[Cell]) -> tuple[str, ...]:
    return tuple(cell.name for cell in cells)


def _ok(what: str, text: str, cells: tuple[str, ...] = ()) -> Finding:
    return Finding(what, "ok", text, cells)


def _gigabytes(size: int) -> str:
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB"


def troubles(findings: Sequence[Finding], state: State) -> Mapping[str, list[str]]:
    """Return by cell what was found in this state, each in one line."""
    found: dict[str, list[str]] = {}
    for finding in findings:
        for name in finding.cells if finding.state == state else ():
            found.setdefault(name, []).append(f"{finding.what}: {finding.text}")
    return found
