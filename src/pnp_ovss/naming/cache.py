"""Replies on disk: one file per question, whole or not there, so that no question is paid for twice."""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from pnp_ovss._version import VERSION
from pnp_ovss.store import write_text

Status = Literal["answered", "refused", "filtered", "cut"]


@dataclass(frozen=True)
class Question:
    """All that decides the reply."""

    photo: str
    """Fingerprint of the pixels."""
    vocabulary: str
    """Digest of the names; "open" without any."""
    model: str
    prompt: str
    """Digest of everything said beside the photo and the names."""

    @property
    def key(self) -> str:
        """Return the name of its file."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class Reply:
    """What came back. ``refused``: the model would not; ``filtered``: the server would not; ``cut``: too long."""

    text: str
    status: Status = "answered"
    tokens_in: int = 0
    tokens_out: int = 0


@dataclass(frozen=True)
class ReplyCache:
    """A folder of replies. Files that are damaged or of another make count as absent."""

    folder: Path

    def load(self, question: Question) -> Reply | None:
        """Return the reply to a question, if it is there."""
        record = _read(self._place(question))
        return record[1] if record and record[0] == question else None

    def save(self, question: Question, reply: Reply) -> None:
        """Write the reply to its file.

        Raises: InputError if that cannot be done.
        """
        record = {"question": asdict(question), "reply": asdict(reply), "version": VERSION}
        write_text(self._place(question), json.dumps(record, indent=1, ensure_ascii=False) + "\n")

    def __iter__(self) -> Iterator[tuple[Question, Reply]]:
        """Yield all questions and replies, in the order of their keys."""
        for path in sorted(self.folder.glob("??/*.json")):
            record = _read(path)
            if record:
                yield record

    def _place(self, question: Question) -> Path:
        return self.folder / question.key[:2] / f"{question.key}.json"


def _read(path: Path) -> tuple[Question, Reply] | None:
    try:
        record: Any = json.loads(path.read_text(encoding="utf-8"))
        question, reply = Question(**record["question"]), Reply(**record["reply"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    texts = (*asdict(question).values(), reply.text, reply.status)
    return (question, reply) if all(isinstance(text, str) for text in texts) else None
