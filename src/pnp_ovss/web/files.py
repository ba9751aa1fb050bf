"""The files of a page: uploads, downloads, pictures. They lie in one folder of its own, and none of them for long."""

import os
import shutil
import tempfile
import threading
import time
from pathlib import Path

KEEP = 3600
"""Seconds until what a visitor sent or was given is forgotten."""


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

    def sweep(self) -> None:
        """Remove the files that are old."""
        old = time.time() - self._keep
        for path in set(self.folder.rglob("*")) - self._own:
            try:
                if path.is_dir():
                    path.rmdir()  # which only takes empty ones
                elif path.stat().st_mtime < old:
                    path.unlink()
            except OSError:  # not empty, or gone already
                continue

    def close(self) -> None:
        """Remove everything."""
        self._closed.set()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _work(self) -> None:
        while not self._closed.wait(min(600, self._keep / 6)):
            self.sweep()
