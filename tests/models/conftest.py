"""What holds for everything that reads a checkpoint."""

import logging
import sys
import time
from collections.abc import Iterator

import pytest
from huggingface_hub import close_session, constants

from hub_server import Hub, point_at, serve


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
    for variable in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.delenv(variable, raising=False)
    for variable in ("no_proxy", "NO_PROXY"):
        monkeypatch.setenv(variable, "127.0.0.1,localhost")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no-token"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_TELEMETRY", True)  # else it also asks for a list of programs
    monkeypatch.setattr(sys.modules["huggingface_hub.utils.tqdm"], "HF_HUB_DISABLE_PROGRESS_BARS", True)
    monkeypatch.setattr(time, "sleep", lambda seconds: None)  # the client waits before it asks again
    with serve() as running:
        point_at(monkeypatch, running.url)
        yield running
        close_session()
