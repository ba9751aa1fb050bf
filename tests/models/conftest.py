"""What holds for everything that reads a checkpoint."""

import logging
from collections.abc import Iterator

import pytest

from hub_server import Hub, connected


@pytest.fixture
def silence(capfd, caplog):
    """Neither the hub's client, transformers nor any reader may say anything of its own."""
    loggers = [logging.getLogger(library) for library in ("transformers", "huggingface_hub")]
    for logger in loggers:
        logger.addHandler(caplog.handler)  # they do not pass their records on
    yield
    for logger in loggers:
        logger.removeHandler(caplog.handler)
    assert [record.getMessage() for record in caplog.get_records("call")] == []
    assert capfd.readouterr() == ("", "")


@pytest.fixture
def hub(tmp_path, monkeypatch) -> Iterator[Hub]:
    """An empty hub, and an empty cache."""
    with connected(monkeypatch, tmp_path) as running:
        yield running
