"""The files of a page: uploads, downloads, pictures. They lie in one folder of its own, and none of them for long."""

import os
import shutil
import tempfile
import threading
import time
from contextlib import suppress
from pathlib import Path

KEEP = 3600
"""Seconds until what a visitor sent or was given is forgotten."""
MOST = 4_000_000_000
"""Bytes of all files together; of more, the oldest go."""
EVERY = 30
"""Seconds between two looks at them."""


class Files:
    """A folder that Gradio, imported from now on, keeps its files in, and whose files go when they are ``keep`` old.

    Those that are there at ``sweep_from_now`` are the page's own and stay.
    """

    def __init__(self, keep: int = KEEP) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="pnp-ovss-page-")).resolve()
        self._keep = keep
        self._own: set[Path] = set()
        self._closed = threading.Event()
        os.environ["GRADIO_TEMP_DIR"] = str(self.folder)  # the only way to tell it

    def sweep_from_now(self) -> None:
        """Begin to remove old files."""
        self._own = set(self.folder.rglob("*"))
        threading.Thread(target=self._work, name="files", daemon=True).start()

    def sweep(self, most: int = MOST) -> None:
        """Remove the files that are old, and the oldest of those that are more than ``most`` bytes together."""
        ages: list[tuple[float, int, Path]] = []
        for path in set(self.folder.rglob("*")) - self._own:
            with suppress(OSError):  # gone already
                told = path.stat()
                ages.append((told.st_mtime, 0 if path.is_dir() else told.st_size, path))
        held = sum(size for _, size, _ in ages)
        for then, size, path in sorted(ages):
            if then >= time.time() - self._keep and held <= most:
                break
            with suppress(OSError):  # a folder that is not empty
                path.rmdir() if path.is_dir() else path.unlink()
                held -= size

    def close(self) -> None:
        """Remove everything."""
        self._closed.set()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _work(self) -> None:
        while not self._closed.wait(EVERY):
            self.sweep()
