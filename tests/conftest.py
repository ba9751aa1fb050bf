"""Fixtures for every test."""

import os
import signal

os.environ.setdefault("GOMP_SPINCOUNT", "0")  # as the command line does; read when torch is loaded

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from pnp_ovss.models import VLM, load_vlm
from tiny import tiny_blip

# What a shell starts in the background ignores Ctrl-C, and so would the tests of what it does.
signal.signal(signal.SIGINT, signal.default_int_handler)

# The models of the tests are so small that threads wait for each other longer than they compute.
torch.set_num_threads(1)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--weights", action="store_true", help="run the tests that fetch published weights")
    parser.addoption("--record", action="store_true", help="with --weights: store values that are not stored yet")
    parser.addoption("--data", metavar="DIR", help="with --weights: folder of the data sets")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for item in items:
        if item.get_closest_marker("weights") and not config.getoption("--weights"):
            item.add_marker(pytest.mark.skip(reason="published weights are fetched with --weights alone"))


@pytest.fixture(scope="session")
def tiny_blip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BLIP of random weights: 32 pixels, patches of 8 (a 4 x 4 grid), 2 layers, 2 heads. Any name goes."""
    return tiny_blip(tmp_path_factory.mktemp("tiny-blip"))


@pytest.fixture(scope="session")
def loaded() -> dict[tuple[str | None, ...], VLM]:
    """The tiny BLIP, by how it was loaded."""
    return {}


@pytest.fixture
def loaded_once(tiny_blip_folder: Path, loaded: dict, monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands share one tiny BLIP: loading it takes as long as a few photos."""

    def load(name: str | Path, *how: str | None) -> VLM:
        if str(name) != str(tiny_blip_folder):
            return load_vlm(name, *how)
        if how not in loaded:
            loaded[how] = load_vlm(name, *how)
        return loaded[how]

    monkeypatch.setattr("pnp_ovss.methods.pnp.method.load_vlm", load)


@pytest.fixture(scope="session", autouse=True)
def vectors(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where vectors of many words are kept: not in the user's own cache."""
    folder = tmp_path_factory.mktemp("vectors")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pnp_ovss.models.kept.cache_folder", lambda kind: folder)
        yield folder
