"""The outputs of other systems' official code, and what runs our methods on their inputs."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pnp_ovss import Segmenter, Vocabulary, load_method
from pnp_ovss.segmentation import Segmentation
from shared import shared

CLASSES = Vocabulary({"background": ("a", "b", "c"), "one": ("d",), "two": ("e",), "three": ("f", "g"), "four": ("h",)})
"""The classes of the golden queries: [0, 0, 0, 1, 2, 3, 3, 4]."""


def golden(system: str) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Return the arrays and the description of a system's first case."""
    folder = shared(f"golden/peers/{system}")
    with np.load(folder / "golden-a.npz") as arrays:
        return dict(arrays), json.loads((folder / "case-a.json").read_text())


def method_on(name: str, model: str | Path, **settings: Any) -> Any:
    """Return a method on one of the golden models, or on a folder."""
    folder = model if isinstance(model, Path) else shared(f"golden/peers/{model}")
    return load_method(name, folder, device="cpu", dtype="float32", **settings)


def unit(vectors: np.ndarray) -> Tensor:
    return torch.nn.functional.normalize(torch.from_numpy(vectors), dim=-1)


def error(ours: Any, theirs: np.ndarray) -> float:
    """Return the largest difference over the largest value."""
    ours, official = torch.as_tensor(ours).double(), torch.from_numpy(theirs).double()
    assert ours.shape == official.shape
    return float((ours - official).abs().max() / official.abs().max())


def slide(method: Any, arrays: dict[str, np.ndarray], pixels: Tensor | None = None) -> Tensor:
    """Return the logits of windows over the golden photo, or over pixels of it, at the photo's size."""
    pixels = method.prepare(arrays["photo"])[None] if pixels is None else pixels
    logits = method.slide(pixels, torch.from_numpy(arrays["text"]))
    return torch.nn.functional.interpolate(logits, size=arrays["photo"].shape[:2], mode="bilinear")[0]


def segment(method: Any, photo: np.ndarray, queries: np.ndarray, vocabulary: Vocabulary) -> Segmentation:
    """Return the segmentation of a photo where the words' vectors are these; all other words have one vector."""
    known = dict(zip(vocabulary.flat, torch.from_numpy(queries), strict=True))
    other = torch.nn.functional.normalize(torch.ones(queries.shape[1]), dim=0)
    method.clip.encode_words = lambda words, templates: torch.stack([known.get(word, other) for word in words])
    return Segmenter(method)(photo, vocabulary)


def differing(result: Segmentation, labels: np.ndarray) -> float:
    """Return the share of pixels with another label."""
    return float((result.labels != labels).mean())
