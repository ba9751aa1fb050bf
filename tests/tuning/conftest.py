"""Studies that do not wait for the disk."""

from collections.abc import Iterator

import pytest
from sqlalchemy import Engine, event


@pytest.fixture(autouse=True)
def unsynced() -> Iterator[None]:
    """No test cuts the power: a study need not be on the disk after each of its trials."""

    def connected(connection, record) -> None:
        connection.execute("PRAGMA synchronous=OFF")

    event.listen(Engine, "connect", connected)
    yield
    event.remove(Engine, "connect", connected)
