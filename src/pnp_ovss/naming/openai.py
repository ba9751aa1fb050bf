"""Names by a chat model that sees: GPT-4o, or any other behind an OpenAI-compatible server.

The texts of the question, and the prices, are in ``question.json``.
"""

import base64
import hashlib
import io
import json
import os
import re
import zlib
from collections.abc import Iterable
from contextlib import closing, suppress
from copy import deepcopy
from dataclasses import dataclass, field
from functools import cached_property
from math import ceil
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.parse import urlsplit

from PIL import Image

from pnp_ovss.errors import ConfigError, ModelError, import_extra, one_line
from pnp_ovss.files import check_folder, sweep
from pnp_ovss.images import fingerprint
from pnp_ovss.naming import Naming, NoReply, Options
from pnp_ovss.naming.cached import Question, Reply, digest, load_reply, reply_file, save_reply
from pnp_ovss.redaction import keep_key, keep_url, redacted
from pnp_ovss.types import RGB, Vocabulary

MODEL = "gpt-4o"
KEY = "OPENAI_API_KEY"
SERVER = "https://api.openai.com/v1"
STATUSES = {"content_filter": "filtered", "length": "cut"}
"""By the reason for which a reply ended."""
REMEDIES = {
    "insufficient_quota": f"the quota of the key in {KEY} is used up: see to the account",
    "401": f"check the key in {KEY}",
    "403": f"check the key in {KEY}",
    "404": "check --namer-model and --base-url",
}
"""By code or status of an error that all photos would meet."""

_TEXTS = json.loads(Path(__file__).with_name("question.json").read_text(encoding="utf-8"))
QUESTION, OPEN_QUESTION, AS_JSON, AS_LISTS = (
    " ".join(_TEXTS[name]) for name in ("question", "open question", "as JSON", "as lists")
)
"""The two questions, and the two forms of an answer; the last is that of PnP-OVSS's authors."""
PRICES: dict[str, dict[str, float]] = _TEXTS["prices"]
"""Dollars per million tokens in and out; tokens of a photo (base), and of each of its tiles of 512 pixels.

As OpenAI listed them in 2025. Prices change; other models and servers are counted like gpt-4o, without a price.
"""

LARGEST_ANSWER = 2_000_000
"""Bytes of a server's answer that are read; a reply to the question has some thousand."""
LONGEST_SIDE, QUALITY = 1024, 88
"""Of the JPEG that is sent: no side is longer, in pixels."""
MOST_ENUMERATED, ENUMERATED_CHARACTERS = 250, 15_000
"""A longer enumeration of values is refused by OpenAI's servers; without one the names are checked afterwards alone."""
CHARACTERS_PER_TOKEN, SCHEMA_TOKENS, REPLY_TOKENS = 3.5, 60, 80
"""For estimates; the schema's tokens without the names."""
TILE, SHORT_SIDE = 512, 768


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

    def __post_init__(self) -> None:
        keep_key(self.key)
        keep_url(self.base_url)

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
        return asked | {"model": self.model, "prompt": prompt_digest()}

    def _ask(self, image: RGB, candidates: Vocabulary | None, as_json: bool) -> Reply:
        """Return the reply; a refusal and a filter are replies too.

        Raises: NoReply if none comes in the end; ModelError if no request can succeed.
        """
        client, request = self._client, chat_request(image, candidates, self.model, as_json)
        from openai import APIConnectionError, APIStatusError

        try:
            reply = _reply(client.chat.completions.create(**request))
        except APIConnectionError as error:
            raise NoReply(f"{self._host} gave no reply ({one_line(error.__cause__ or error)})") from None
        except (ValueError, TypeError, AttributeError, LookupError, RecursionError):
            raise NoReply(f"{self._host} gave a reply that is no chat completion") from None
        except APIStatusError as error:
            if error.response.is_redirect:
                place = one_line(error.response.headers.get("location", "another address"))
                fault = f"{self._host} sends requests on to {place}, and a photo goes nowhere but where you say"
                raise ModelError(f"{fault}; if that is right, give it as --base-url") from None
            body = error.body if isinstance(error.body, dict) else {}
            status, said = error.status_code, one_line(body.get("message") or "no message")
            if error.code in ("content_filter", "content_policy_violation"):
                return Reply(said, "filtered")
            if remedy := REMEDIES.get(str(error.code)) or REMEDIES.get(str(status)):
                raise ModelError(f"{self._host} refuses every request ({status}: {said}); {remedy}") from None
            if not as_json or status not in (400, 422):
                raise NoReply(f"{self._host} gave no reply ({status}: {said})") from None
            reply = self._ask(image, candidates, as_json=False)
            # It answers without a schema only: no further photo tries with one.
            self._as_json = False
        return Reply(redacted(reply.text), reply.status, reply.tokens_in, reply.tokens_out)

    @cached_property
    def _client(self) -> Any:
        key = (self.key or "").strip()
        if not key and self.base_url is None:
            raise ConfigError(f"the openai namer needs a key; set {KEY}, or give the --base-url of a server without")
        if not re.fullmatch(r"[!-~]*", key):
            raise ConfigError(f"{KEY} holds characters that no key has; copy the key alone into it")
        openai = import_extra("openai", "llm", "the openai namer")
        check_folder(self.cache, "--cache")  # before a reply is paid for that cannot be kept
        sweep(self.cache, ".")
        address, http = self.base_url or SERVER, _http_client(openai)
        try:
            parts = urlsplit(address)
            host = re.fullmatch(r"\S+", parts.hostname or "")
            if parts.scheme not in ("http", "https") or not host or parts.port == 0:
                raise ValueError("it is no web address")
            how: dict[str, Any] = {"base_url": address, "max_retries": self.retries, "timeout": self.timeout}
            return openai.OpenAI(api_key=key or "none", http_client=http, **how)
        except Exception as error:  # of Python's reader of URLs, and of the library's
            fault = f"the base URL is no address such as {SERVER} ({one_line(error)})"
            raise ConfigError(f"{fault}; give one with --base-url") from None

    @property
    def _host(self) -> str:
        return urlsplit(self.base_url or SERVER).hostname or ""


def _http_client(openai: ModuleType) -> Any:
    """Return the HTTP client: it follows no redirect, and unpacks no more of an answer than ``LARGEST_ANSWER``."""

    class Client(openai.DefaultHttpxClient):  # type: ignore[name-defined,misc]
        def send(self, request: Any, *, stream: bool = False, **more: Any) -> Any:
            """Return the answer, cut where it is too large."""
            got = super().send(request, stream=True, **more | {"follow_redirects": False})
            with closing(got):
                content = unpacked(got.iter_raw(), got.headers.pop("content-encoding", ""))
            return type(got)(got.status_code, headers=got.headers, content=content, request=request)

        def __del__(self) -> None:
            """Close the connections, as the library's own client does."""
            with suppress(Exception):
                self.close()

    try:
        return Client(headers={"Accept-Encoding": "gzip"})
    except Exception as error:  # it reads the proxies of the environment
        raise ConfigError(f"there can be no connection ({one_line(error)}); check HTTP_PROXY and the like") from None


def unpacked(parts: Iterable[bytes], encoding: str, most: int = LARGEST_ANSWER) -> bytes:
    """Return what the parts of an answer hold, up to ``most`` bytes: of more it is the beginning, and so no JSON.

    gzip is unpacked, and nothing else: it is all that was asked for, and what it holds grows by a bounded factor.
    """
    unpack = zlib.decompressobj(wbits=31) if encoding == "gzip" else None
    content = bytearray()
    with suppress(zlib.error):
        for part in parts:
            content += unpack.decompress(part, most - len(content)) if unpack else part
            if len(content) >= most:
                break
    return bytes(content[:most])


def _reply(completion: Any) -> Reply:
    """Return what a chat completion says. Raises what Python does if it is none."""
    choice, usage = completion.choices[0], completion.usage
    text = choice.message.refusal or choice.message.content or ""
    if isinstance(text, list):
        text = "".join(str(part.get("text") or "") for part in text)
    status = "refused" if choice.message.refusal else STATUSES.get(choice.finish_reason, "answered")
    tokens = (int(usage.prompt_tokens or 0), int(usage.completion_tokens or 0)) if usage else (0, 0)
    return Reply(str(text), status, *tokens)


def chat_request(photo: RGB, candidates: Vocabulary | None, model: str, as_json: bool) -> dict[str, Any]:
    """Return a chat request: the question and the photo, and where wanted the JSON schema of the answer."""
    text = f"{question(candidates)}\n\n{AS_JSON if as_json else AS_LISTS}"
    url = f"data:image/jpeg;base64,{base64.b64encode(jpeg(photo)).decode('ascii')}"
    content = [{"type": "text", "text": text}, {"type": "image_url", "image_url": {"url": url}}]
    asked = {"model": model, "messages": [{"role": "user", "content": content}], "temperature": 0}
    return asked | ({"response_format": reply_format(candidates)} if as_json else {})


def question(candidates: Vocabulary | None) -> str:
    """Return the question, with the list of names if there is one. A name cannot leave its line and its quotes."""
    if candidates is None:
        return OPEN_QUESTION
    terms = zip(candidates.numbered(), candidates.terms, strict=True)
    lines = [f"{number}: {json.dumps(term, ensure_ascii=False)}" for number, term in terms]
    return "\n".join([QUESTION, "", *lines])


def prompt_digest() -> str:
    """Return the hash of everything that is said beside the photo and the names."""
    said = [QUESTION, OPEN_QUESTION, AS_JSON, AS_LISTS, str(LONGEST_SIDE), str(QUALITY)]
    return hashlib.sha256(json.dumps(said).encode()).hexdigest()


def reply_format(candidates: Vocabulary | None) -> dict[str, Any]:
    """Return the JSON schema of the answer, for servers that keep to one."""
    form: dict[str, Any] = deepcopy(_TEXTS["reply format"])
    names = candidates.terms if candidates else ()
    if 0 < len(names) <= MOST_ENUMERATED and sum(map(len, names)) <= ENUMERATED_CHARACTERS:
        found = form["json_schema"]["schema"]["properties"]["found"]
        found["items"]["properties"]["name"]["enum"] = list(names)
    return form


def jpeg(photo: RGB) -> bytes:
    """Return the photo as JPEG of the size that is sent. Only its pixels are in it: no place, no camera, no name."""
    buffer = io.BytesIO()
    picture = Image.fromarray(photo)
    picture = picture.resize(sent_size(*picture.size), Image.Resampling.LANCZOS)
    picture.save(buffer, format="JPEG", quality=QUALITY, optimize=True)
    return buffer.getvalue()


def sent_size(width: int, height: int) -> tuple[int, int]:
    """Return width and height of the photo as it is sent."""
    scale = min(1.0, LONGEST_SIDE / max(width, height))
    return max(1, round(width * scale)), max(1, round(height * scale))


def estimate(sizes: list[tuple[int, int]], candidates: Vocabulary | None, model: str) -> tuple[int, int, float | None]:
    """Return about how many tokens go in and out, and what they cost in dollars, where a price is known.

    ``sizes`` are width and height of photos. There is one call for each, if none has to be repeated.
    """
    price = PRICES.get(model, PRICES["gpt-4o"])
    characters = len(question(candidates)) + len(AS_JSON)
    # Again, in the schema.
    characters += sum(len(name) + 4 for name in (candidates.terms if candidates else ()))
    each = ceil(characters / CHARACTERS_PER_TOKEN) + SCHEMA_TOKENS + int(price["base"])
    tokens_in = sum(each + int(price["tile"]) * tiles(*sent_size(*size)) for size in sizes)
    tokens_out = REPLY_TOKENS * len(sizes)
    dollars = (tokens_in * price["dollars_in"] + tokens_out * price["dollars_out"]) / 1e6
    return tokens_in, tokens_out, dollars if model in PRICES else None


def tiles(width: int, height: int) -> int:
    """Return the tiles of a photo in high detail, which the servers scale to a short side of 768 pixels at most."""
    scale = min(1.0, SHORT_SIDE / min(width, height))
    return ceil(width * scale / TILE) * ceil(height * scale / TILE)
