"""Where the reference data of the tests lies: beside the repository, and not part of it."""

from pathlib import Path

import pytest

SHARED = Path(__file__).resolve().parents[2] / "shared"


def shared(path: str) -> Path:
    """Return a file or folder of the reference data; skip the test where it is absent."""
    found = SHARED / path
    if not found.exists():
        pytest.skip(f"reference data {path} is not here")
    return found
