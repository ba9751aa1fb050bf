"""A photo that kills the process, by its size or by a bug of a decoder: which one it was, the run after it finds out.

``state/under-way.json`` names the photos that are under way, some at a time; it is removed when a run ends by itself or
is stopped. Where it is still there, the run before died, and what it names and has no result is tried out one by one. A
photo with which the process dies once more is left out, until its file changes. Innocent ones are never left out, for
nothing else is under way then: even the model is loaded before.
"""

import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from threading import current_thread, main_thread
from types import FrameType
from typing import Any

from pnp_ovss.errors import InputError
from pnp_ovss.files import Folder, as_json, look, parse_json
from pnp_ovss.runs.record import STATE

UNDER_WAY = f"{STATE}/under-way.json"
STOPS = ("SIGINT", "SIGTERM", "SIGHUP")
"""Signals that stop a run, and are no photo's fault."""


class UnderWay:
    """The photos under way in a run over ``places``. Raises: InputError where the file cannot be written."""

    def __init__(self, folder: Folder, places: dict[str, str], window: int) -> None:
        self.folder, self.places, self.window = folder, places, window
        before = self._read()
        self.suspects = [key for key in before.get("photos", ()) if key in places]
        """Photos of a run that died, one of which may be why; they are to be tried out one by one."""
        self.deadly: dict[str, list[object]] = before.get("deadly", {})
        """Photos that have killed the process twice, with what their file was."""
        self.outlived: dict[str, int] = {key: n for key, n in before.get("outlived", {}).items() if key in places}
        """How often the process has outlived a photo that was a suspect, and has no result yet."""
        if (alone := before.get("alone")) in places:  # it has no result
            self.deadly[alone] = before["file"]
        self.suspects = [key for key in self.suspects if not self.is_deadly(key)]

    def is_deadly(self, key: str) -> bool:
        """Return whether a photo has killed the process twice and is still the same."""
        return key in self.deadly and self.deadly[key] == self._file(key)

    @contextmanager
    def alone(self, key: str) -> Iterator[None]:
        """Say that a suspect is under way and nothing else is; if the process outlives it, it was not the one."""
        self._write(self.suspects, alone=key, file=self._file(key))
        yield
        self.suspects.remove(key)
        self.deadly.pop(key, None)
        self.outlived[key] = self.outlived.get(key, 0) + 1

    def begin(self, keys: Sequence[str]) -> Callable[[str], None]:
        """Return what is called before each of these photos, in order: it says which may be under way from now on."""
        number = 0

        def started(key: str) -> None:
            nonlocal number
            if number % self.window == 0:  # of the window before, some may not be done yet
                self._write(keys[max(0, number - self.window) : number + self.window])
            number += 1

        return started

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Forget what is under way at the end, and as soon as somebody stops the run, who may kill it while it ends."""

        def stop(number: int, frame: FrameType | None) -> None:
            self.end()
            raise KeyboardInterrupt

        usual = (signal.SIG_DFL, signal.default_int_handler)
        stops = [number for name in STOPS if (number := getattr(signal, name, None)) is not None]
        mine = [one for one in stops if signal.getsignal(one) in usual] if current_thread() is main_thread() else []
        before = {one: signal.signal(one, stop) for one in mine}
        try:
            yield
        finally:
            for one, handler in before.items():
                signal.signal(one, handler)
            self.end()

    def end(self) -> None:
        """Say that nothing is under way."""
        with suppress(InputError):
            if self.suspects or self.deadly:
                self._write(self.suspects)
                return
        with suppress(InputError):  # also where there is no room for what was to be kept
            self.folder.remove(UNDER_WAY)

    def _file(self, key: str) -> list[object]:
        source = look(self.places[key]).stored()
        return [source.place, source.size, source.modified]

    def _read(self) -> dict[str, Any]:
        content = self.folder.read(UNDER_WAY)
        with suppress(InputError):  # a damaged one says nothing
            return parse_json(content, UNDER_WAY) if content else {}
        return {}

    def _write(self, photos: Sequence[str], **more: object) -> None:
        state = {"photos": list(photos), "deadly": self.deadly, "outlived": self.outlived}
        self.folder.write(UNDER_WAY, as_json(state | more))
