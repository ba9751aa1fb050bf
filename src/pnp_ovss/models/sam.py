"""SAM and SAM 2: masks of what a point or a box is on, and of everything in a photo.

Kirillov et al.: Segment Anything, ICCV 2023. Ravi et al.: SAM 2: Segment Anything in Images and Videos, ICLR 2025. Any
checkpoint of ``SamModel`` or ``Sam2Model`` fits, one of SAM 2 for videos as well.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate

from pnp_ovss.models.hub import Checkpoint, find, of_kind, read_settings, reading
from pnp_ovss.models.loading import load_model, resolve_device, resolve_dtype
from pnp_ovss.types import RGB

FAMILIES = {"sam": "SamModel", "sam2": "Sam2Model", "sam2_video": "Sam2Model"}
"""Class by ``model_type``, as ``config.json`` names it."""

MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
"""Of each 8-bit RGB channel: of all checkpoints."""

INSTEAD = (
    "set HF_ENDPOINT to a mirror, give a local folder, or --refine regions --regions watershed, which has no model"
)
"""What works without the hub."""

PROMPTS = {"cpu": 8, "cuda": 64}
"""Prompts decoded at a time: on a CPU few enough that what is computed of them stays near the processor."""
VALUES = 2**22
"""Values of masks enlarged at a time."""

LEAST_IOU, LEAST_STABILITY, OFFSET, MOST_OVERLAP = 0.88, 0.95, 1.0, 0.7
"""What automatic masks must have: the model's own estimate of their IoU; the IoU of the masks at ``OFFSET`` above and
below the threshold; and less overlap of their boxes with that of a better one. Source: the authors' code."""

Logits = Float[Tensor, "n mask gh gw"]
"""A mask is where they are above 0."""


@dataclass(frozen=True)
class Embedded:
    """A photo as SAM's decoder takes it."""

    size: tuple[int, int]
    """Rows and columns of the photo."""
    inner: tuple[int, int]
    """Rows and columns of the model's input that show the photo."""
    states: Any


class Sam:
    """A SAM or SAM 2 checkpoint. ``dtype`` and ``device``: as for ``load_vlm``."""

    def __init__(self, checkpoint: Checkpoint, device: str, dtype: str) -> None:
        self.name, self.revision = checkpoint.name, checkpoint.revision
        settings = read_settings(checkpoint.folder / "config.json", checkpoint.name)
        model_class = FAMILIES[settings["model_type"]]
        self.device = resolve_device(device)
        model = load_model(model_class, checkpoint.folder, self.name, resolve_dtype(dtype, self.device))
        self._model: Any = model.to(self.device)
        with reading(self.name, "its attention cannot be computed by torch"):  # it reports parts that are no models
            self._model.set_attn_implementation("sdpa")
        self.pads = model_class == "SamModel"
        """Whether a photo keeps its shape and is padded to the square; else it is stretched to it."""
        size = self._model.config.prompt_encoder_config.image_size
        self.size: int = size if isinstance(size, int) else size[0]
        """Side of the model's square input, in pixels."""

    @torch.no_grad()
    def embed(self, photo: RGB) -> Embedded:
        """Return what is computed of a photo alone: most of the work, done once for all prompts."""
        h, w = photo.shape[:2]
        scale = self.size / max(h, w)
        inner = (int(h * scale + 0.5), int(w * scale + 0.5)) if self.pads else (self.size, self.size)
        resized = Image.fromarray(photo).resize((max(1, inner[1]), max(1, inner[0])), Image.Resampling.BILINEAR)
        colours = (np.asarray(resized, np.float32) - np.array(MEAN, np.float32)) / np.array(STD, np.float32)
        pixels = torch.zeros(1, 3, self.size, self.size)
        pixels[0, :, : resized.height, : resized.width] = torch.from_numpy(colours).permute(2, 0, 1)
        states = self._model.get_image_embeddings(pixels.to(self.device, self._model.dtype))
        return Embedded((h, w), (resized.height, resized.width), states)

    def logits(
        self,
        embedded: Embedded,
        points: Float[Tensor, "n point 2"] | None = None,
        labels: Int[Tensor, "n point"] | None = None,
        boxes: Float[Tensor, "n 4"] | None = None,
        several: bool = False,
    ) -> tuple[Logits, Float[Tensor, "n mask"]]:
        """Return masks as logits on the model's own grid, and the IoU that the model expects of each; float32.

        A prompt has points (column, row), with label 1 on what is sought and 0 beside it, or a box (left, top, right,
        bottom), or both; all in pixels of the photo. ``several``: three masks per prompt, of wholes and of parts; else
        one.
        """
        found = list(self._decoded(embedded, points, labels, boxes, several))
        return torch.cat([logits for logits, _ in found]), torch.cat([expected for _, expected in found])

    def masks(
        self,
        embedded: Embedded,
        points: Float[Tensor, "n point 2"] | None = None,
        labels: Int[Tensor, "n point"] | None = None,
        boxes: Float[Tensor, "n 4"] | None = None,
    ) -> Bool[np.ndarray, "n h w"]:
        """Return one mask of each prompt of ``logits``, at the photo's size."""
        logits, _ = self.logits(embedded, points, labels, boxes)
        return np.concatenate([(part > 0).cpu().numpy() for part in self._enlarged(embedded, logits[:, 0])])

    def everything(self, photo: RGB, points_per_side: int = 32) -> Bool[np.ndarray, "n h w"]:
        """Return the masks of everything in a photo, those first whose IoU the model expects to be highest.

        Each point of a grid prompts three masks; those stay that have what ``LEAST_IOU`` and its neighbours ask for.
        Differs from transformers' pipeline, whose grid for SAM 2 leaves out a part of photos that are not square.
        """
        embedded, sides = self.embed(photo), (np.arange(points_per_side) + 0.5) / points_per_side
        h, w = embedded.size
        grid = np.stack([np.tile(sides * w, points_per_side), np.repeat(sides * h, points_per_side)], axis=1)
        points, labels = torch.from_numpy(grid).float()[:, None], torch.ones(len(grid), 1, dtype=torch.long)
        packed, boxes, scores = [], [], []
        for logits, expected in self._decoded(embedded, points, labels, None, several=True):
            sure = expected > LEAST_IOU
            rest = expected[sure]
            for part in self._enlarged(embedded, logits[sure]):
                own, rest = rest[: len(part)], rest[len(part) :]
                stable = _stability(part) > LEAST_STABILITY
                masks = part[stable] > 0
                packed += [np.packbits(mask) for mask in masks.cpu().numpy()]
                boxes.append(_boxes(masks).cpu())
                scores.append(own[stable].cpu())
        if not packed:
            return np.zeros((0, h, w), bool)
        kept = _best(torch.cat(boxes), torch.cat(scores))
        return np.stack([np.unpackbits(packed[mask], count=h * w).reshape(h, w).astype(bool) for mask in kept])

    @torch.no_grad()
    def _decoded(
        self, embedded: Embedded, points: Tensor | None, labels: Tensor | None, boxes: Tensor | None, several: bool
    ) -> Iterator[tuple[Logits, Float[Tensor, "n mask"]]]:
        """Yield the masks of some prompts after others."""
        scale = torch.tensor([embedded.inner[1] / embedded.size[1], embedded.inner[0] / embedded.size[0]])
        parts = {
            "input_points": None if points is None else points * scale,
            "input_labels": labels,
            "input_boxes": None if boxes is None else boxes * scale.repeat(2),
        }
        given = {name: part.to(self.device) for name, part in parts.items() if part is not None}
        count, step = len(next(iter(given.values()))), PROMPTS.get(self.device.type, PROMPTS["cpu"])
        for first in range(0, count, step):
            some = {name: part[None, first : first + step] for name, part in given.items()}
            found = self._model(image_embeddings=embedded.states, multimask_output=several, **some)
            yield found.pred_masks[0].float(), found.iou_scores[0].float()

    def _enlarged(self, embedded: Embedded, logits: Float[Tensor, "n gh gw"]) -> Iterator[Float[Tensor, "_ h w"]]:
        """Yield logits at the photo's size, some masks after others: few are as fast as the processor's cache is."""
        times = self.size // logits.shape[-1] if self.pads else 1
        inner = embedded.inner if self.pads else logits.shape[-2:]
        rows, columns = (-(-side // times) + 1 for side in inner)
        most = max(1, VALUES // max(inner[0] * inner[1], embedded.size[0] * embedded.size[1]))
        for part in torch.split(logits[:, None, :rows, :columns], most):
            large = interpolate(part, scale_factor=times, mode="bilinear") if self.pads else part
            large = large[..., : inner[0], : inner[1]]
            yield interpolate(large, embedded.size, mode="bilinear")[:, 0]


def find_sam(name: str | Path, revision: str | None = None) -> Checkpoint:
    """Return where the checkpoint is on this machine, as ``find`` does, with what works without SAM in its errors."""
    return find(name, revision, INSTEAD)


def load_sam(name: str | Path, device: str = "auto", dtype: str = "auto", revision: str | None = None) -> Sam:
    """Return the model with this short name, hub id or local folder. ``device``, ``dtype``: as in ``load_vlm``.

    Raises: ModelError if it cannot be found, fetched, read or used.
    """
    checkpoint = of_kind(find_sam(name, revision), FAMILIES, "a checkpoint of SAM or SAM 2 such as sam-base")
    return Sam(checkpoint, device, dtype)


def _stability(logits: Float[Tensor, "n h w"]) -> Float[Tensor, " n"]:
    """Return the IoU of each mask at ``OFFSET`` above the threshold with it at ``OFFSET`` below; NaN where none is."""
    inner, outer = ((logits > offset).flatten(1).sum(1) for offset in (OFFSET, -OFFSET))
    return inner / outer


def _boxes(masks: Bool[Tensor, "n h w"]) -> Float[Tensor, "n 4"]:
    """Return left, top, right and bottom of each mask, the last pixels included; zeros where there is none."""
    ends = []
    for axis in (1, 2):
        along = masks.any(axis)
        last = along.shape[1] - 1 - along.flip(1).byte().argmax(1)
        ends.append(torch.where(along.any(1), torch.stack([along.byte().argmax(1), last]), 0))
    return torch.stack([ends[0][0], ends[1][0], ends[0][1], ends[1][1]], 1).float()


def _best(boxes: Float[Tensor, "n 4"], scores: Float[Tensor, " n"]) -> list[int]:
    """Return the boxes, the best first, of which none overlaps a better one by more than ``MOST_OVERLAP``."""
    order = scores.argsort(descending=True, stable=True)
    boxes = boxes[order]
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(1)
    gone, kept = torch.zeros(len(boxes), dtype=torch.bool), list[int]()
    for number, box in enumerate(boxes):
        if not gone[number]:
            kept.append(int(order[number]))
            sides = (torch.minimum(boxes[:, 2:], box[2:]) - torch.maximum(boxes[:, :2], box[:2])).clamp(min=0)
            shared = sides.prod(1)
            gone |= shared / (areas[number] + areas - shared) > MOST_OVERLAP
    return kept
