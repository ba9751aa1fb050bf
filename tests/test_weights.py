"""Published weights, from the hub: run at night with ``--weights``, skipped else. How, is in ``tests/nightly.py``."""

import pytest

import nightly

pytestmark = pytest.mark.weights


@pytest.fixture
def record(request) -> bool:
    return request.config.getoption("--record")


@pytest.mark.parametrize(("model", "method"), nightly.MODELS.items())
def test_maps_of_three_drawn_scenes_are_those_stored(record, model, method):
    measured = nightly.scene_maps(method, model)
    assert nightly.held(nightly.STORED / f"{model}.npz", measured, nightly.MAPS, True, record) == ""


def test_twenty_photos_of_voc_score_as_they_did(record, request, tmp_path):
    root = request.config.getoption("--data")
    assert root, "give the folder of `pnp-ovss data get voc --to DIR` with --data DIR"
    some = ("voc21", "--root", root, "--limit", str(nightly.PHOTOS), "--names", "truth", "--protocol", "authors")
    measured = nightly.miou((*some, "--model", "blip-large-flickr"), tmp_path / "out")
    assert nightly.held(nightly.STORED / "voc.npz", measured, nightly.POINTS, False, record) == ""
