"""Where the larger reference data lies: beside the repository, and not part of it."""

from pathlib import Path

import pytest

SHARED = Path(__file__).resolve().parents[2] / "shared"


def shared(path: str) -> Path:
    """Return a file or folder of the reference data; skip the test where there is none at all.

    Where the folder is there but this file is not, or cannot be read, the test fails.
    """
    if not SHARED.is_dir():
        pytest.skip("the reference data is not here")
    found = SHARED / path
    assert found.exists(), f"the reference data is here, but has no {path}"
    return found
