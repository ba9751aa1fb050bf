"""The FiftyOne zoo model, with stand-ins for FiftyOne's own classes."""

import importlib.util
import json
import sys
import types
from pathlib import Path

import numpy as np
import pytest

from pnp_ovss import InputError, apps


@pytest.fixture
def zoo(monkeypatch):
    """Load the zoo source from its folder as FiftyOne does, with stand-ins for the two of its names that it uses."""
    fiftyone, core, models = (types.ModuleType(name) for name in ("fiftyone", "fiftyone.core", "fiftyone.core.models"))
    fiftyone.Segmentation = type("Segmentation", (types.SimpleNamespace,), {})
    models.Model = type("Model", (), {})
    fiftyone.core, core.models = core, models
    for module in (fiftyone, core, models):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    folder = Path(apps.__file__).parent / "fiftyone"
    spec = importlib.util.spec_from_file_location(
        "zoo_source", folder / "__init__.py", submodule_search_locations=[str(folder)]
    )
    source = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(source)
    return folder, source


def test_the_zoo_model_keeps_its_numbers(zoo, scene, expected):
    folder, source = zoo
    (entry,) = json.loads((folder / "manifest.json").read_text())["models"]
    source.download_model(entry["base_name"], "nowhere")
    model = source.load_model(entry["base_name"], "nowhere", classes=list(scene.things), model="mini-blip")
    assert model.media_type == "image"
    assert model.mask_targets == dict(enumerate(("background", *scene.things)))
    mask = model.predict(scene.image).mask
    assert mask.dtype == np.uint8
    for number, name in model.mask_targets.items():
        assert np.array_equal(mask == number, expected.labels == expected.classes.index(name)), name


def test_wrong_classes_and_photos_are_named(zoo):
    _, source = zoo
    for classes, message in (("dog", "one text, 'dog'"), ([], "at least one class name")):
        with pytest.raises(InputError, match=message):
            source.load_model("pnp-ovss", "nowhere", classes=classes, model="no-such-model")
    model = source.load_model("pnp-ovss", "nowhere", classes=["dog"], model="mini-blip")
    for kind in (np.uint16, np.float32):
        with pytest.raises(InputError, match=f"got {kind.__name__} of shape .8, 9, 3."):
            model.predict(np.zeros((8, 9, 3), kind))
    assert model.predict(np.zeros((8, 9), np.uint16)).mask.shape == (8, 9)
