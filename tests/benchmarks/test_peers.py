"""The plain procedures that ours are timed beside give the same labels."""

import shutil

import pytest

from benchmarks import peers
from pnp_ovss.mini import draw
from shared import shared


def slow(name):
    return pytest.param(name, marks=pytest.mark.slow)


@pytest.mark.parametrize(
    "name", ["maskclip", "sclip", "clearclip", "naclip", "scclip", *map(slow, ("proxyclip", "resclip"))]
)
def test_the_plain_procedure_gives_our_labels(name, tmp_path):
    folder = shutil.copytree(shared("golden/peers/clip-deep"), tmp_path / "clip")
    shutil.copytree(shared("golden/peers/dino-tiny"), folder / "dino")
    plain, ours = peers.prepare(folder, name)
    photo = draw(1, 0, (60, 80)).image
    [first], [second] = plain([photo]), ours([photo])
    assert len(set(second.flat)) > 1
    assert (first.numpy() == second).mean() > 0.999
