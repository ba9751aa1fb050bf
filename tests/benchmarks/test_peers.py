"""The plain procedures that ours are timed beside give the same labels."""

import shutil

import pytest

from benchmarks import peers
from pnp_ovss.mini import draw
from shared import shared


def slow(name):
    return pytest.param(name, marks=pytest.mark.slow)


@pytest.fixture
def folder(tmp_path):
    place = shutil.copytree(shared("golden/peers/clip-deep"), tmp_path / "clip")
    shutil.copytree(shared("golden/peers/dino-tiny"), place / "dino")
    return place


@pytest.mark.parametrize(
    "name", ["maskclip", "sclip", "clearclip", "naclip", "scclip", *map(slow, ("proxyclip", "resclip", "corrclip"))]
)
def test_the_plain_procedure_gives_our_labels(name, folder):
    plain, ours = peers.prepare(folder, name)
    photo = draw(1, 0, (60, 80)).image
    [first], [second] = plain([photo]), ours([photo])
    assert len(set(second.flat)) > 1
    assert (first.numpy() == second).mean() > 0.999


def test_a_dtype_is_that_of_our_side_alone(folder):
    photos = [draw(1, 0, (60, 80)).image]
    exact, coarse = (peers.prepare(folder, "sclip", dtype) for dtype in ("float32", "bfloat16"))
    assert exact[0](photos)[0].equal(coarse[0](photos)[0])
    assert 0.95 < (exact[1](photos)[0] == coarse[1](photos)[0]).mean() < 1
