"""A folder of unlabelled photos to find words in. Each is encoded once, and its vector is kept on disk.

However many photos there are, only some of them and the vectors of a part of them are in memory.
"""

import glob
import logging
import os
from collections.abc import Sequence
from hashlib import sha256
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from pnp_ovss.errors import InputError
from pnp_ovss.files import Source, as_json, expanded, look
from pnp_ovss.images import find_images, read_image
from pnp_ovss.methods.on_clip import Colours, eight_bit
from pnp_ovss.models.clip import DualEncoder
from pnp_ovss.models.kept import keep, recall
from pnp_ovss.types import RGB, OnStep, ignore

PART = 1024
"""Photos whose vectors are kept in one file, and are in memory at a time; what is lost if the work is stopped."""
AT_ONCE = 16
"""Photos that are encoded at a time."""
LOG = logging.getLogger(__name__)


class Archive:
    """The photos of a folder and the folders within it, or of a glob such as ``photos/*/*.jpg``, as they are now.

    Raises: InputError if there is no such folder, or no photo in it.
    """

    def __init__(self, place: str) -> None:
        folder = expanded(place)
        if not os.path.isdir(folder) and not glob.has_magic(place):
            expected = "expected a folder of unlabelled photos, in which the words are looked for"
            raise InputError(f"{expected}, got {place!r}; name one with --archive")
        self.place, self._said = place, False
        photos = os.path.join(glob.escape(folder), "**", "*") if os.path.isdir(folder) else place
        self.files = [look(path) for path in find_images([photos])]

    @property
    def revision(self) -> str:
        """What the photos are: the first digits of a SHA-256 over their names, sizes and times of change."""
        return sha256(as_json(_about(self.files))).hexdigest()[:12]

    def read(self, file: Source) -> RGB:
        """Return a photo. Raises: InputError if it cannot be read, or has changed."""
        self._check(file)
        return read_image(file.place)

    @torch.no_grad()
    def nearest(
        self, vectors: Float[Tensor, "word width"], count: int, clip: DualEncoder, on_step: OnStep = ignore
    ) -> list[list[Source]]:
        """Return the photos nearest to each vector of ``clip``, the nearest first; all of them, where these are fewer.

        Photos that cannot be read are left out.

        Raises: InputError if none can be read, or one has changed.
        """
        best, where = vectors.new_empty(len(vectors), 0), vectors.new_empty((len(vectors), 0), dtype=torch.long)
        for start in range(0, len(self.files), PART):
            part = self._encoded(start, clip, on_step).to(vectors)
            likeness = (vectors @ part.T).masked_fill(~part.any(1), -torch.inf)
            index = torch.arange(start, start + len(part), device=vectors.device).expand_as(likeness)
            best, order = torch.cat([best, likeness], 1).topk(min(count, best.shape[1] + len(part)), dim=1)
            where = torch.cat([where, index], 1).gather(1, order)
        readable = int(torch.isfinite(best[0]).sum())
        if not readable:
            raise InputError(f"no photo of {self.place} can be read; name others with --archive")
        return [[self.files[index] for index in row[:readable]] for row in where.tolist()]

    def _encoded(self, start: int, clip: DualEncoder, on_step: OnStep) -> Float[Tensor, "n width"]:
        """Return vectors of a part of the photos, of length 1, or 0 for a photo that cannot be read."""
        files = self.files[start : start + PART]
        by = [clip.revision, clip.size, clip.device.type, str(clip.dtype), torch.__version__]
        if (kept := recall("archives", [*by, *_about(files)])) is not None:
            return kept
        if not self._said:
            LOG.warning("%s: its %d photos are encoded, once", self.place, len(self.files))
            self._said = True
        vectors, lacking = list[Tensor](), 0
        for first in range(0, len(files), AT_ONCE):
            on_step("archive", start + first, len(self.files))
            photos = [self._prepared(file, clip) for file in files[first : first + AT_ONCE]]
            there = torch.tensor([photo is not None for photo in photos])
            blank = torch.zeros(3, clip.size, clip.size)
            encoded = clip.encode_images(torch.stack([blank if one is None else one for one in photos])).cpu()
            vectors.append(encoded * there[:, None])
            lacking += int((~there).sum())
        together = torch.cat(vectors)
        if not lacking:  # else they are tried again the next time
            keep("archives", [*by, *_about(files)], together)
        return together

    def _prepared(self, file: Source, clip: DualEncoder) -> Float[Tensor, "3 size size"] | None:
        self._check(file)
        try:
            return centre(read_image(file.place), clip.size, eight_bit(clip), Image.Resampling.BICUBIC)
        except InputError as error:
            LOG.warning("%s; it is left out", error)
            return None

    def _check(self, file: Source) -> None:
        if look(file.place) != file:
            raise InputError(f"{file.place} has changed since the archive was read; run the same command again")


def centre(photo: RGB, side: int, colours: Colours, resampling: Image.Resampling) -> Float[Tensor, "3 side side"]:
    """Return the square in the middle of a photo whose shorter side is resized to ``side``, normalised."""
    h, w = photo.shape[:2]
    size = (side, int(side * h / w)) if w < h else (int(side * w / h), side)
    left, top = (round((length - side) / 2) for length in size)
    square = Image.fromarray(photo).resize(size, resampling).crop((left, top, left + side, top + side))
    mean, std = torch.tensor(colours)[:, :, None, None]
    normalised: Tensor = (torch.from_numpy(np.array(square)).permute(2, 0, 1) - mean) / std
    return normalised


def _about(files: Sequence[Source]) -> list[list[Any]]:
    return [[os.path.basename(file.place), file.size, file.modified] for file in files]
