"""What holds for everything that reads a checkpoint."""

import logging

import pytest


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
