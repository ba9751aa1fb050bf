"""Who guesses: the segmenter of this package, or a folder of label maps that any other system wrote."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from time import perf_counter

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from pnp_ovss.data import IGNORE, Dataset, Sample
from pnp_ovss.data.dataset import read_values, table, translate
from pnp_ovss.errors import InputError
from pnp_ovss.images import shown
from pnp_ovss.methods.pnp.prompt import make_prompt
from pnp_ovss.refine import refine
from pnp_ovss.segmenter import Segmenter, salience
from pnp_ovss.types import BACKGROUND, RGB, Vocabulary


@dataclass(frozen=True)
class Guess:
    """What was guessed for an image, as labels of its data set."""

    labels: UInt8[np.ndarray, "h w"]
    salience: UInt8[np.ndarray, "gh gw"] | None = None
    seconds: dict[str, float] = field(default_factory=dict)


Asked = tuple[Sample, tuple[str, ...]]
"""An image, and the classes to name for it."""
Guesser = Callable[[Sequence[Asked]], list[Guess | InputError]]
"""Guesses for a batch of images; an error for each that cannot be guessed."""

VALUES = ("file", "index", "own")
"""What the values of foreign label maps are: those of the data set's own mask files; the place in its list of classes
from 0 on, the background first where it has one; or ours, 0 for none and n for the n-th class."""


@dataclass(frozen=True)
class Segmenting:
    """Guesses with a segmenter. Words that stand for one class become that class; the background's become 0."""

    segmenter: Segmenter
    dataset: Dataset
    vocabulary: Vocabulary

    def __call__(self, batch: Sequence[Asked]) -> list[Guess | InputError]:
        """Return the guesses, the batch in one go if that works, else one by one."""
        started = perf_counter()
        photos = [_photo(sample) for sample, _ in batch]
        reading = (perf_counter() - started) / len(batch)
        tasks = [(photo, names) for photo, (_, names) in zip(photos, batch, strict=True)]
        try:
            done = iter(self._segment([(p, names) for p, names in tasks if not isinstance(p, InputError) and names]))
        except InputError as error:
            return [error] if len(batch) == 1 else [guess for asked in batch for guess in self([asked])]
        guesses: list[Guess | InputError] = []
        for photo, names in tasks:
            if isinstance(photo, InputError):
                guesses.append(photo)
            else:
                guess = next(done) if names else Guess(np.zeros(photo.shape[:2], dtype=np.uint8))
                guesses.append(replace(guess, seconds={"read": reading} | guess.seconds))
        return guesses

    def _words(self, names: tuple[str, ...]) -> tuple[str, ...]:
        """Return the words of the named classes, and those of the background where every class is named."""
        words = tuple(word for name in names for word in self.vocabulary.words[name])
        everything = len(names) == len(self.dataset.classes)
        return words + (self.vocabulary.words.get(BACKGROUND, ()) if everything else ())

    def _segment(self, ready: Sequence[tuple[RGB, tuple[str, ...]]]) -> list[Guess]:
        if not ready:
            return []
        vlm, config, started = self.segmenter.vlm, self.segmenter.config, perf_counter()
        prompts = [make_prompt(self._words(names)) for _, names in ready]
        pixels = torch.stack([vlm.prepare(photo, config.size or vlm.size) for photo, _ in ready])
        maps = [maps.float() for maps in salience(vlm, pixels, prompts, config)]
        looking = (perf_counter() - started) / len(ready)
        guesses = []
        for (photo, names), grid in zip(ready, maps, strict=True):
            started = perf_counter()
            background = config.has_background(len(names))  # of classes, which may have several words each
            settled = replace(config, background="always" if background else "never")
            labels, _ = refine(grid, torch.from_numpy(photo).to(grid.device), settled)
            own = self._to_label(self._words(names), background)[labels.cpu().numpy()]
            seconds = {"look": looking, "refine": perf_counter() - started}
            guesses.append(Guess(own, _stretched(grid), seconds))
        return guesses

    def _to_label(self, words: tuple[str, ...], background: bool) -> UInt8[np.ndarray, " word"]:
        label = {BACKGROUND: 0} | {name: number for number, name in enumerate(self.dataset.classes, 1)}
        of_word = {word.casefold(): cls for cls, words in self.vocabulary.words.items() for word in words}
        return np.array([0] * background + [label[of_word[word.casefold()]] for word in words], dtype=np.uint8)


@dataclass(frozen=True)
class Predictions:
    """Guesses from a folder of PNG label maps, ``<key>.png``; ``values`` is one of ``VALUES``."""

    folder: Path
    dataset: Dataset
    values: str = "file"

    def __call__(self, batch: Sequence[Asked]) -> list[Guess | InputError]:
        """Return the label maps."""
        guesses: list[Guess | InputError] = []
        for sample, _ in batch:
            started = perf_counter()
            try:
                labels = self.labels(sample.key)
                guesses.append(Guess(labels, seconds={"read": perf_counter() - started}))
            except InputError as error:
                guesses.append(error)
        return guesses

    def labels(self, key: str) -> UInt8[np.ndarray, "h w"]:
        """Return an image's label map; pixels of the void value count as no class.

        Raises: InputError if it is missing, damaged, or holds an unknown value.
        """
        path = self.folder / f"{key}.png"
        if not path.is_file():
            raise InputError(f"there is no prediction {shown(path)}; one PNG per image, named by its key, is wanted")
        read = translate(read_values(path), self._table(), f"the prediction {shown(path)}")
        read[read == IGNORE] = 0
        return read

    def _table(self) -> np.ndarray:
        if self.values == "file":
            return self.dataset.to_label
        counts_from_0 = self.values == "index" and not self.dataset.background
        labels = range(int(counts_from_0), len(self.dataset.classes) + 1)
        numbers = dict(zip(range(len(labels)), labels, strict=True))
        return table(numbers | {IGNORE: IGNORE})


def _photo(sample: Sample) -> RGB | InputError:
    try:
        return sample.photo()
    except InputError as error:
        return error


def _stretched(maps: Tensor) -> UInt8[np.ndarray, "gh gw"]:
    most = maps.amax(dim=0)
    spread = (most.max() - most.min()).clamp(min=torch.finfo(most.dtype).tiny)
    return np.asarray(((most - most.min()) / spread * 255).round().to(torch.uint8).cpu().numpy())
