"""Regions of SAM or SAM 2: its masks of everything in a photo, kept from one process to the next."""

from functools import cache, lru_cache
from hashlib import sha256
from typing import TYPE_CHECKING, Any

from pnp_ovss.files import as_json, cache_folder
from pnp_ovss.regions.base import Mask, RegionMap, stacked
from pnp_ovss.regions.folder import keep_masks, load_masks
from pnp_ovss.types import RGB

if TYPE_CHECKING:
    from pnp_ovss.models.sam import Sam

MEMORY = 3_000_000_000
"""Bytes that the largest step of SAM's ViT-B takes, weights included."""


def regions(photo: RGB, settings: Any, device: str = "cpu") -> RegionMap:
    """Return ``masks`` as regions; what no mask covers is none. Raises: ModelError, as it does."""
    return stacked(masks(photo, settings, device), photo.shape[:2])


def masks(photo: RGB, settings: Any, device: str = "cpu") -> list[Mask]:
    """Return the masks of ``Sam.everything``.

    They are kept in the user's cache by the photo's pixels, the model's weights and the settings, so that a model is
    loaded for new photos alone.

    Raises: ModelError if there is no such model, here or on the hub.
    """
    from pnp_ovss.models import sam

    model, side = settings.regions_model, settings.regions_points
    limits = sam.LEAST_IOU, sam.LEAST_STABILITY, sam.OFFSET, sam.MOST_OVERLAP
    about = [_revision(model), side, *limits, device.partition(":")[0]]
    folder = cache_folder("regions") / sha256(as_json(about)).hexdigest()[:32]
    found = load_masks(folder, photo)
    if found is None:
        found = list(load_kept(model, device).everything(photo, side))
        keep_masks(folder, photo, found)
    return found


@lru_cache(maxsize=1)
def load_kept(model: str, device: str) -> "Sam":
    """Return the model, and the same one when it is asked for again: photos come one by one."""
    from pnp_ovss.models.sam import load_sam

    return load_sam(model, device)


@cache
def _revision(model: str) -> str:
    """Return what tells the weights of a model apart; the hub is asked once."""
    from pnp_ovss.models.sam import find_sam

    return find_sam(model).revision
