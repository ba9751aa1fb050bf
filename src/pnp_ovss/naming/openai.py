"""Names by a chat model that sees: GPT-4o, or any other behind an OpenAI-compatible server."""

import os
import re
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pnp_ovss.errors import ConfigError, ModelError, import_extra, one_line
from pnp_ovss.images import fingerprint
from pnp_ovss.naming import question
from pnp_ovss.naming.base import Naming, NoReply, Options
from pnp_ovss.naming.cached import Question, Reply, digest, load_reply, reply_file, save_reply
from pnp_ovss.types import RGB, Vocabulary

MODEL = "gpt-4o"
KEY = "OPENAI_API_KEY"
SERVER = "https://api.openai.com/v1"
FILTERS = ("content_filter", "content_policy_violation")
STATUSES = {"content_filter": "filtered", "length": "cut"}
"""By the reason for which a reply ended."""
REMEDIES = {
    "insufficient_quota": f"the quota of the key in {KEY} is used up: see to the account",
    "401": f"check the key in {KEY}",
    "403": f"check the key in {KEY}",
    "404": "check --namer-model and --base-url",
}
"""By code or status of an error that all photos would meet."""
BAD_REQUEST = (400, 422)
SHORTEST_SECRET = 8
"""Characters of a key that give it away."""


@dataclass
class OpenAI:
    """Asks a chat model once per photo; every reply is kept on disk and never asked for again.

    The client is made when the first photo needs it, so that a run over a full cache needs no key. The key is sent to
    the server and written nowhere.
    """

    cache: Path
    model: str = MODEL
    base_url: str | None = field(default=None, repr=False)
    key: str | None = field(default=None, repr=False)
    timeout: float = 60.0
    """Seconds without a byte until a call has failed."""
    retries: int = 5
    """Further calls after one that failed, with growing waits or as long as the server asks."""
    _as_json: bool = field(default=True, init=False, repr=False)

    @classmethod
    def load(cls, options: Options) -> "OpenAI":
        """Return the namer with the key of the environment: it is no option, so that no record of options holds it."""
        if options.cache is None:
            raise ConfigError("the openai namer needs a folder for the replies; give one with --cache")
        key, model = os.environ.get(KEY), options.model or MODEL
        return cls(options.cache, model, options.base_url, key, options.timeout, options.retries)

    @property
    def source(self) -> str:
        """What names the classes, in words."""
        return f"openai by {self.model}"

    def __call__(self, image: RGB, candidates: Vocabulary | None, key: str) -> Naming:
        """Return the names that the model sees in the photo.

        Raises: NoReply if the server gives none for this photo; ModelError or ConfigError if it cannot for any.
        """
        asked = self._question(image, candidates)
        path = reply_file(self.cache, asked)
        if known := load_reply(path):
            return known[1].read(candidates)
        reply = self._ask(image, candidates, self._as_json)
        save_reply(path, asked, reply)
        return reply.read(candidates)

    def is_cached(self, image: RGB, candidates: Vocabulary | None) -> bool:
        """Return whether the reply is there already."""
        return load_reply(reply_file(self.cache, self._question(image, candidates))) is not None

    def _question(self, image: RGB, candidates: Vocabulary | None) -> Question:
        asked = {"photo": fingerprint(image), "vocabulary": digest(candidates)}
        return asked | {"model": self.model, "prompt": question.digest()}

    def _ask(self, image: RGB, candidates: Vocabulary | None, as_json: bool) -> Reply:
        """Return the reply; a refusal and a filter are replies too.

        Raises: NoReply if none comes in the end; ModelError if no request can succeed.
        """
        client, request = self._client, question.request(image, candidates, self.model, as_json)
        from openai import APIConnectionError, APIStatusError

        try:
            reply = _reply(client.chat.completions.create(**request))
        except APIConnectionError as error:
            raise NoReply(f"{self._host} gave no reply ({self._said(error.__cause__ or error)})") from None
        except (ValueError, TypeError, AttributeError, IndexError):
            raise NoReply(f"{self._host} gave a reply that is no chat completion") from None
        except APIStatusError as error:
            body = error.body if isinstance(error.body, dict) else {}
            status, said = error.status_code, self._said(body.get("message") or "no message")
            if error.code in FILTERS:
                return Reply(said, "filtered")
            if remedy := REMEDIES.get(str(error.code)) or REMEDIES.get(str(status)):
                raise ModelError(f"{self._host} refuses every request ({status}: {said}); {remedy}") from None
            if not as_json or status not in BAD_REQUEST:
                raise NoReply(f"{self._host} gave no reply ({status}: {said})") from None
            reply = self._ask(image, candidates, as_json=False)
            # It answers without a schema only: no further photo tries with one.
            self._as_json = False
        return Reply(self._redacted(reply.text), reply.status, reply.tokens_in, reply.tokens_out)

    @cached_property
    def _client(self) -> Any:
        key = (self.key or "").strip()
        if not key and self.base_url is None:
            raise ConfigError(f"the openai namer needs a key; set {KEY}, or give the --base-url of a server without")
        if not re.fullmatch(r"[!-~]*", key):
            raise ConfigError(f"{KEY} holds characters that no key has; copy the key alone into it")
        address = self.base_url or SERVER
        if urlsplit(address).scheme not in ("http", "https"):
            raise ConfigError(f"the base URL is no address such as {SERVER}; give one with --base-url")
        openai = import_extra("openai", "llm", "the openai namer")
        return openai.OpenAI(api_key=key or "none", base_url=address, max_retries=self.retries, timeout=self.timeout)

    @property
    def _host(self) -> str:
        return urlsplit(self.base_url or SERVER).hostname or "the server"

    def _said(self, words: object) -> str:
        # Redacted before it is cut to length.
        return one_line(self._redacted(str(words)) or type(words).__name__)

    def _redacted(self, text: str) -> str:
        """Return words without the key, or a beginning of it, and without user and query of addresses."""
        text = re.sub(r"(\w://)(?:[^\s/@]*@)?([^\s?'\")]*)(?:\?[^\s'\")]*)?", r"\1\2", text)
        key = (self.key or "").strip()
        lengths = range(len(key), min(len(key), SHORTEST_SECRET) - 1, -1)
        beginnings = "|".join(re.escape(key[:length]) for length in lengths)
        return re.sub(beginnings, "...", text, flags=re.IGNORECASE) if key else text


def _reply(completion: Any) -> Reply:
    """Return what a chat completion says. Raises what Python does if it is none."""
    choice, usage = completion.choices[0], completion.usage
    text = choice.message.refusal or choice.message.content or ""
    if isinstance(text, list):
        text = "".join(str(part.get("text") or "") for part in text)
    status = "refused" if choice.message.refusal else STATUSES.get(choice.finish_reason, "answered")
    tokens = (int(usage.prompt_tokens or 0), int(usage.completion_tokens or 0)) if usage else (0, 0)
    return Reply(str(text), status, *tokens)
