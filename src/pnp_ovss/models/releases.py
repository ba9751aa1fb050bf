"""Checkpoints from release pages, by ``releases.csv``: where each lies, and under which licence."""

import csv
import logging
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from pnp_ovss.models.hub import SHORT_NAMES


@dataclass(frozen=True)
class Release:
    """A row of ``releases.csv``."""

    file: str
    where: str
    licence: str
    commercial: str
    """Whether its licence permits commercial use: yes or no."""
    tokenizer: str
    """Hub id of the repository with its tokenizer."""
    pixels: str
    """Side of its own input; empty where it has none."""

    @property
    def terms(self) -> str:
        """Its licence, and that it is not for commercial use, where it is not."""
        known = self.commercial == "yes" or NOT in self.licence
        return self.licence if known else f"{self.licence} ({NOT})"


NOT = "non-commercial"
_ROWS = Path(__file__).with_name("releases.csv").read_text(encoding="utf-8").splitlines()[1:]
RELEASES = {row[0]: Release(*row[1:]) for row in csv.reader(_ROWS)}
"""The released checkpoints, by the name of the method that they are for, or of a part of one."""


def licence_of(name: str | Path) -> str:
    """Return the licence of a checkpoint's weights, by its short name or its released file's; empty if not known."""
    if known := SHORT_NAMES.get(str(name)):
        return known.licence
    return next((one.terms for kind, one in RELEASES.items() if name == kind or Path(name).name == one.file), "")


@cache
def not_for_commerce(name: str, licence: str) -> None:
    """Say, once, that a checkpoint is not for commercial use."""
    logging.getLogger(__name__).warning("%s is not for commercial use; its licence: %s", name, licence)
