"""Names by a chat model that sees: GPT-4o, or any other behind an OpenAI-compatible server."""

import hashlib
import json
import threading
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from pnp_ovss.naming import pictures, prompts
from pnp_ovss.naming.base import Naming
from pnp_ovss.naming.cache import Question, Reply, ReplyCache
from pnp_ovss.naming.candidates import Candidates
from pnp_ovss.naming.cost import Estimate, estimate
from pnp_ovss.naming.endpoint import Endpoint, Patience, SchemaRefused
from pnp_ovss.naming.replies import parse_reply
from pnp_ovss.types import RGB

MODEL = "gpt-4o"
REMARKS = {
    "refused": "the model refused: ",
    "filtered": "the server's content filter refused: ",
    "cut": "the reply was cut short",
}


class OpenAI:
    """Asks a chat model once per photo; every reply is kept on disk and never asked for again.

    The connection is made when the first photo needs it, so that a run over a full cache needs no key.
    """

    def __init__(
        self,
        cache: Path,
        model: str = MODEL,
        base_url: str | None = None,
        key: str | None = None,
        patience: Patience | None = None,
    ) -> None:
        self.source = f"openai by {model}"
        self._cache, self.model = ReplyCache(cache), model
        self._base_url, self._key, self._patience = base_url, key, patience or Patience()
        self._endpoint: Endpoint | None = None
        self._as_json = True
        self._lock, self._stopped = threading.Lock(), threading.Event()

    def __call__(self, image: RGB, candidates: Candidates | None, key: str) -> Naming:
        """Return the names that the model sees in the photo.

        Raises: NoReply if the server gives none for this photo; ModelError or ConfigError if it cannot for any.
        """
        question = self.question(image, candidates)
        reply = self._cache.load(question)
        if reply is None:
            reply = self._ask(image, candidates)
            self._cache.save(question, reply)
        return read(reply, candidates)

    def question(self, image: RGB, candidates: Candidates | None) -> Question:
        """Return what a reply is stored under."""
        return Question(
            photo=pictures.fingerprint(image),
            vocabulary=candidates.digest if candidates else "open",
            model=self.model,
            prompt=prompt_digest(),
        )

    def is_cached(self, image: RGB, candidates: Candidates | None) -> bool:
        """Return whether the reply is there already."""
        return self._cache.load(self.question(image, candidates)) is not None

    def cost(self, sizes: Iterable[tuple[int, int]], candidates: Candidates | None) -> Estimate:
        """Return about what it takes to ask about photos of these (width, height)."""
        return estimate(sizes, candidates, self.model)

    def stop(self) -> None:
        """Make no further try; a call under way may end, for it is paid."""
        self._stopped.set()

    def _ask(self, image: RGB, candidates: Candidates | None) -> Reply:
        endpoint = self._connected()
        url = pictures.data_url(pictures.jpeg(image))
        if self._as_json:
            request = self._request(candidates, url, as_json=True)
            try:
                return endpoint.ask(request, self._stopped.wait)
            except SchemaRefused:
                pass
        reply = endpoint.ask(self._request(candidates, url, as_json=False), self._stopped.wait)
        self._as_json = False  # it answers without a schema only: no further photo tries with one
        return reply

    def _request(self, candidates: Candidates | None, url: str, as_json: bool) -> dict[str, Any]:
        request: dict[str, Any] = {
            "model": self.model,
            "messages": prompts.messages(candidates, url, as_json),
            "temperature": 0,
        }
        return request | ({"response_format": prompts.reply_format(candidates)} if as_json else {})

    def _connected(self) -> Endpoint:
        with self._lock:
            if self._endpoint is None:
                self._endpoint = Endpoint(self._base_url, self._key, self._patience)
            return self._endpoint


def read(reply: Reply, candidates: Candidates | None) -> Naming:
    """Return the names of a reply; of one that was refused none, with the reason as a note."""
    if reply.status in ("refused", "filtered"):
        return Naming((), (REMARKS[reply.status] + " ".join(reply.text.split())[:200],))
    naming = parse_reply(reply.text, candidates)
    return naming if reply.status == "answered" else replace(naming, notes=(REMARKS["cut"], *naming.notes))


def prompt_digest() -> str:
    """Return the hash of everything that is said beside the photo and the names."""
    said = [prompts.QUESTION, prompts.OPEN_QUESTION, prompts.AS_JSON, prompts.AS_LISTS]
    said += [str(pictures.LONGEST_SIDE), str(pictures.QUALITY)]
    return hashlib.sha256(json.dumps(said).encode()).hexdigest()
