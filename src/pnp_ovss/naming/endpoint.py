"""One question to an OpenAI-compatible server, asked again as long as that may help."""

import json
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit

from pnp_ovss.errors import ConfigError, ModelError, one_line
from pnp_ovss.naming.base import NoReply
from pnp_ovss.naming.cache import Reply

logger = logging.getLogger(__name__)

KEY = "OPENAI_API_KEY"
OPENAI = "https://api.openai.com/v1"
EXTRA = "the openai namer needs OpenAI's library; install it with: pip install 'pnp-ovss[llm]'"
NO_KEY = "none"
"""Sent where a server of one's own asks for no key."""
FILTERS = ("content_filter", "content_policy_violation", "ResponsibleAIPolicyViolation")
TRY_AGAIN = (408, 409, 425, 429)


class SchemaRefused(Exception):
    """The server takes no such request; perhaps it does without a schema."""


@dataclass(frozen=True)
class Patience:
    """How long to try."""

    timeout: float = 60.0
    """Seconds without a byte until a call counts as failed."""
    tries: int = 6
    first_wait: float = 1.0
    """Seconds after the first failure; twice as many after each further one."""
    longest_wait: float = 120.0
    """Seconds. A server that asks for more is not waited for."""


class Endpoint:
    """A server and a key. The key is sent to that server and written nowhere."""

    def __init__(self, base_url: str | None, key: str | None, patience: Patience) -> None:
        key = (key or "").strip()
        if not key and base_url is None:
            raise ConfigError(
                f"the openai namer needs a key; set {KEY}, or give the --base-url of a server without one"
            )
        if not (key.isascii() and key.isprintable()) or " " in key:
            raise ConfigError(f"{KEY} holds characters that no key has; copy the key alone into it")
        if base_url is not None and urlsplit(base_url).scheme not in ("http", "https"):
            raise ConfigError("the base URL is no address such as https://api.openai.com/v1; give one with --base-url")
        try:
            import openai
        except ImportError as error:
            raise ModelError(EXTRA) from error
        self._key, self._patience, self._errors = key, patience, openai
        self._client = openai.OpenAI(
            api_key=key or NO_KEY, base_url=base_url or OPENAI, max_retries=0, timeout=patience.timeout
        )
        self.host = urlsplit(str(self._client.base_url)).hostname or "the server"

    def ask(self, request: dict[str, Any], wait_for: Callable[[float], bool]) -> Reply:
        """Return the reply to a chat request; a refusal and a filter are replies too.

        ``wait_for`` waits so many seconds, and returns whether to give up.

        Raises: NoReply if none comes in the end, SchemaRefused if the server cannot do with the request as it is,
        ModelError if no request can succeed: wrong key, no such model, quota used up.
        """
        reason = ""
        for attempt in range(self._patience.tries):
            try:
                response = self._client.chat.completions.with_raw_response.create(**request)
                reply = read_reply(response.http_response.content)
                if reply is not None:
                    return Reply(self._clean(reply.text), reply.status, reply.tokens_in, reply.tokens_out)
                reason, asked = "its reply is no chat completion", None
            except self._errors.APIStatusError as error:
                found = self._answered(error, request)
                if found is not None:
                    return found
                reason, asked = self._said(error), _asked_wait(error.response.headers)
            except self._errors.APIConnectionError as error:
                reason, asked = one_line(error.__cause__ or error), None
            wait = self._patience.first_wait * 2**attempt if asked is None else asked
            if wait > self._patience.longest_wait and asked is not None:
                raise NoReply(f"{self.host} asks to wait {wait:.0f} s ({reason}); try again later")
            if attempt + 1 < self._patience.tries:
                wait = min(wait, self._patience.longest_wait)
                logger.info("%s: %s; trying again in %.1f s", self.host, self._clean(reason), wait)
                if wait_for(wait):
                    raise NoReply("stopped") from None
        raise NoReply(f"{self.host} gave no reply in {self._patience.tries} tries ({self._clean(reason)})") from None

    def _answered(self, error: Any, request: dict[str, Any]) -> Reply | None:
        """Return what an error answers, or None if the call is worth another try; raise where it is not."""
        status, said, code = error.status_code, self._said(error), _code(error)
        if status in (401, 403):
            raise ModelError(f"{self.host} refuses access ({status}: {said}); check the key in {KEY}") from None
        if status == 404:
            raise ModelError(
                f"{self.host} has no model {request['model']!r} or no chat completions there ({said}); check "
                "--namer-model and --base-url"
            ) from None
        if code == "insufficient_quota":
            raise ModelError(f"the quota of the key in {KEY} is used up ({said}); see to the account") from None
        if status in TRY_AGAIN or status >= 500:
            return None
        if code in FILTERS:
            return Reply(said, "filtered")
        if "response_format" in request:
            raise SchemaRefused from None
        raise NoReply(f"{self.host} refuses the request ({status}: {said})") from None

    def _said(self, error: Any) -> str:
        body = error.body if isinstance(error.body, dict) else {}
        return self._clean(one_line(body.get("message") or f"status {error.status_code}"))

    def _clean(self, text: str) -> str:
        """Return a server's words without the key, should it repeat it."""
        return text.replace(self._key, "...") if self._key else text


def read_reply(content: bytes) -> Reply | None:
    """Return what a chat completion says, or None if it is none."""
    try:
        body: Any = json.loads(content)
        choice = body["choices"][0]
        message, reason = choice["message"], choice.get("finish_reason")
        usage = body.get("usage") or {}
        tokens = [int(usage.get(name) or 0) for name in ("prompt_tokens", "completion_tokens")]
        if message.get("refusal"):
            return Reply(str(message["refusal"]), "refused", *tokens)
        said = message.get("content")
        if isinstance(said, list):
            said = "".join(str(part.get("text") or "") for part in said)
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError, OverflowError):
        return None
    if reason == "content_filter":
        return Reply(str(said or ""), "filtered", *tokens)
    return Reply(str(said or ""), "cut" if reason == "length" else "answered", *tokens)


def _code(error: Any) -> str:
    body = error.body if isinstance(error.body, dict) else {}
    inner = body.get("innererror")
    return str(body.get("code") or (inner.get("code") if isinstance(inner, dict) else "") or "")


def _asked_wait(headers: Any) -> float | None:
    """Return the seconds that a server asks to wait, if it does."""
    for name, unit in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        value = headers.get(name)
        try:
            return max(0.0, float(value) * unit)
        except (TypeError, ValueError):
            pass
        try:
            return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
        except (TypeError, ValueError, AttributeError, OverflowError, IndexError):
            pass
    return None
