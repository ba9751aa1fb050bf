"""What holds for everything that reads a checkpoint."""

import logging
from collections.abc import Iterator

import pytest

from hub_server import Hub, connected


@pytest.fixture
def silence(capfd, caplog):
    """Neither the hub's client, transformers nor any reader may say anything of its own; we say licences."""
    loggers = [logging.getLogger(library) for library in ("transformers", "huggingface_hub")]
    for logger in loggers:
        logger.addHandler(caplog.handler)  # they do not pass their records on
    yield
    for logger in loggers:
        logger.removeHandler(caplog.handler)
    said = [one.getMessage() for one in caplog.get_records("call") if one.name != "pnp_ovss.models.releases"]
    assert said == []
    assert capfd.readouterr() == ("", "")


@pytest.fixture
def hub(tmp_path, monkeypatch) -> Iterator[Hub]:
    """An empty hub, and an empty cache."""
    with connected(monkeypatch, tmp_path) as running:
        yield running
