"""A dual encoder that looks at masks: the only part of tuning that knows CLIP."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from pnp_ovss.errors import InputError
from pnp_ovss.methods.pnp.prompt import PREFIX
from pnp_ovss.models.clip import Clip, similarity
from pnp_ovss.tuning.reward import LOOK_AT_REST, REWARDS, Evidence
from pnp_ovss.types import RGB

__all__ = ["Judge"]


class Judge:
    """Gives every mask of a photo its reward, in one of the forms of ``REWARDS``.

    ``names`` are what the softmax runs over. Their texts, and the black picture, are encoded once.

    Raises: InputError if there are fewer than two names, or one that the model cannot know.
    """

    def __init__(self, clip: Clip, names: Sequence[str], form: str = "black") -> None:
        self.names = tuple(dict.fromkeys(names))
        if len(self.names) < 2:
            raise InputError(
                f"the reward compares names and got {len(self.names)}; give more to compare with by --vocabulary"
            )
        clip.check_known(self.names)
        self.clip, self.form = clip, form
        self._texts = clip.encode_texts([PREFIX + name for name in self.names])
        dark = np.zeros((clip.size, clip.size, 3), np.uint8)
        self._black = self._similarities(clip.prepare(dark)[None])[0]

    def __call__(
        self, photo: RGB, masks: Bool[np.ndarray, "cls h w"], classes: Sequence[str]
    ) -> Float[np.ndarray, " cls"]:
        """Return what each mask is worth, float32; ``classes`` are among ``names``."""
        return REWARDS[self.form](self.evidence(photo, masks, classes)).numpy()

    def evidence(self, photo: RGB, masks: Bool[np.ndarray, "cls h w"], classes: Sequence[str]) -> Evidence:
        """Return what the model makes of each mask, and of what it leaves if the form asks, encoded as one batch."""
        own = torch.tensor([self.names.index(name) for name in classes], dtype=torch.long)
        seen = torch.from_numpy(masks.any((1, 2)))
        groups = (masks, ~masks) if self.form in LOOK_AT_REST else (masks,)
        # A mask without a pixel shows black, and one of every pixel leaves black: no need to look at that.
        looks = [(part, row) for part, group in enumerate(groups) for row in range(len(masks)) if group[row].any()]
        found = self._black.repeat(2, len(masks), 1)
        if looks:
            shown = [np.where(groups[part][row][..., None], photo, np.uint8(0)) for part, row in looks]
            parts, rows = (torch.tensor(index) for index in zip(*looks, strict=True))
            found[parts, rows] = self._similarities(torch.stack([self.clip.prepare(picture) for picture in shown]))
        return Evidence(found[0], found[1], self._black, own, seen)

    def _similarities(self, pixels: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b name"]:
        return (self.clip.scale * similarity(self.clip.encode_images(pixels), self._texts)).cpu()
