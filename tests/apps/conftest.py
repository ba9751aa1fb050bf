"""A drawn scene, and what the Python face finds in it."""

import pytest

from pnp_ovss import Segmenter
from pnp_ovss.mini import HELD_OUT_SEED, draw


@pytest.fixture(scope="session")
def scene():
    return draw(HELD_OUT_SEED, 1, 112)


@pytest.fixture(scope="session")
def segmenter() -> Segmenter:
    return Segmenter.from_pretrained("mini-blip")


@pytest.fixture(scope="session")
def expected(segmenter, scene):
    return segmenter(scene.image, scene.things)


@pytest.fixture(scope="session")
def masks(expected):
    """The mask of each class that is there, by its name."""
    found = {name: expected.labels == index for index, name in enumerate(expected.classes) if name != "background"}
    assert any(mask.any() for mask in found.values())
    return {name: mask for name, mask in found.items() if mask.any()}
