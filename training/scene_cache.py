"""Scenes drawn ahead of time, so that training only reads: pixels in one memory-mapped file, words beside them.

What is kept of a scene is its image and its words. The mask is never asked for.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8
from numpy.lib.format import open_memmap

from pnp_ovss.cores import usable_cores
from pnp_ovss.mini import Scene, draw

Draw = Callable[[int, int, int], Scene]
Words = tuple[tuple[str, ...], tuple[str, ...], str]  # things, stuff, caption


@dataclass(frozen=True)
class DrawnScenes:
    """Images of scenes, and the words about them."""

    images: UInt8[np.ndarray, "scene h w 3"]
    things: tuple[tuple[str, ...], ...]
    stuff: tuple[tuple[str, ...], ...]
    captions: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.captions)

    def __reduce__(self) -> tuple[Any, ...]:
        """To another process goes where the file is, not what is in it."""
        if isinstance(self.images, np.memmap):
            return _stored, (Path(str(self.images.filename)).parent,)
        return DrawnScenes, (self.images, self.things, self.stuff, self.captions)


def draw_scenes(seed: int, count: int, size: int, draw: Draw = draw) -> DrawnScenes:
    """``count`` scenes in memory: for watching progress, and for tests."""
    images = np.empty((count, size, size, 3), np.uint8)
    words = [_draw_into(images, k, draw(seed, k, size)) for k in range(count)]
    return _together(images, words)


def open_scenes(folder: Path, seed: int, count: int, size: int, workers: int | None = None) -> DrawnScenes:
    """The scenes in ``folder``; drawn first if it is not there, or if the numbers or the drawings have changed.

    They are drawn by ``workers`` processes; None: one for each core.
    """
    wanted = {"seed": seed, "count": count, "size": size, "drawn": _fingerprint(seed, size)}
    info = folder / "scenes.json"
    if not info.exists() or json.loads(info.read_text())["made"] != wanted:
        workers = workers or usable_cores()
        partial = folder.with_name(folder.name + ".partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        images = open_memmap(partial / "images.npy", "w+", np.uint8, (count, size, size, 3))
        images.flush()
        cuts = np.linspace(0, count, workers * 8 + 1).astype(int).tolist()
        jobs = [(partial / "images.npy", seed, a, b, size) for a, b in pairwise(cuts)]
        with ProcessPoolExecutor(workers, get_context("spawn")) as executor:
            words = [line for part in executor.map(_draw_range, jobs) for line in part]
        (partial / "scenes.json").write_text(json.dumps({"made": wanted, "words": words}))
        shutil.rmtree(folder, ignore_errors=True)
        os.replace(partial, folder)
    return _stored(folder)


def _stored(folder: Path) -> DrawnScenes:
    lines = json.loads((folder / "scenes.json").read_text())["words"]
    return _together(np.load(folder / "images.npy", mmap_mode="r"), [(tuple(a), tuple(b), c) for a, b, c in lines])


def _draw_range(job: tuple[Path, int, int, int, int]) -> list[Words]:
    path, seed, first, last, size = job
    images = np.load(path, mmap_mode="r+")
    return [_draw_into(images, k, draw(seed, k, size)) for k in range(first, last)]


def _draw_into(images: UInt8[np.ndarray, "scene h w 3"], k: int, scene: Scene) -> Words:
    images[k] = scene.image
    return scene.things, scene.stuff, scene.caption


def _together(images: UInt8[np.ndarray, "scene h w 3"], words: list[Words]) -> DrawnScenes:
    return DrawnScenes(images, tuple(w[0] for w in words), tuple(w[1] for w in words), tuple(w[2] for w in words))


def _fingerprint(seed: int, size: int) -> str:
    """Changes when the scenes do (and not when only the code that draws them is tidied)."""
    some = [draw(seed, k, size) for k in range(8)]
    drawing = b"".join(scene.image.tobytes() + scene.caption.encode() for scene in some)
    return hashlib.sha256(drawing).hexdigest()[:16]
