from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pnp_ovss.segmenter import Segmenter


@pytest.fixture
def desk(tmp_path, monkeypatch) -> Path:
    """A folder to work in, with two photos."""
    monkeypatch.chdir(tmp_path)
    Path("photos").mkdir()
    for seed, name in enumerate(("dog.jpg", "street.png")):
        noise = np.random.default_rng(seed).integers(0, 256, (40, 50 + seed, 3), dtype=np.uint8)
        Image.fromarray(noise).save(Path("photos") / name)
    return tmp_path


@pytest.fixture
def no_model(monkeypatch):
    def load(*arguments, **settings):
        raise AssertionError("a model was loaded")

    monkeypatch.setattr(Segmenter, "from_pretrained", load)
