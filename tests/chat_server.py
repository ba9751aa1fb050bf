"""A chat-completions server on the loopback address, and all the ways in which such servers fail."""

import base64
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from local_server import running

KEY = "sk-test-0123456789abcdef"
ANSWER = '{"found": [{"name": "dog", "confidence": 95}, {"name": "cat", "confidence": 40}]}'


@dataclass
class Chat:
    """What the server does. ``script`` holds one behaviour per call; when it is used up, all goes well."""

    url: str = ""
    script: list[str | tuple[bytes, ...]] = field(default_factory=list)
    answer: Any = ANSWER
    schema: bool = True
    """Whether it takes a ``response_format``."""
    retry_after: str | None = None
    echo: Callable[[str], str] = str
    """How a key is repeated by "echo ..."."""
    redirect: str = ""
    """Address to which "redirect STATUS" sends a request on."""
    calls: list[dict[str, Any]] = field(default_factory=list)
    """The bodies of all requests."""
    keys: set[str] = field(default_factory=set)
    holding: threading.Event = field(default_factory=threading.Event)
    """Set while a call is held back ("hold")."""
    released: threading.Event = field(default_factory=threading.Event)
    most_at_once: int = 0
    now: int = 0

    def photos(self) -> list[bytes]:
        """Return the files that were sent."""
        urls = [call["messages"][0]["content"][1]["image_url"]["url"] for call in self.calls]
        return [base64.b64decode(url.removeprefix("data:image/jpeg;base64,")) for url in urls]

    def texts(self) -> list[str]:
        """Return the questions that were asked."""
        return [call["messages"][0]["content"][0]["text"] for call in self.calls]


def completion(content: Any, finish: str = "stop", refusal: str | None = None) -> dict[str, Any]:
    """Return the body of a chat completion."""
    message = {"role": "assistant", "content": content, "refusal": refusal}
    choice = {"index": 0, "message": message, "finish_reason": finish, "logprobs": None}
    usage = {"prompt_tokens": 900, "completion_tokens": 30, "total_tokens": 930}
    return {"id": "c1", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice], "usage": usage}


def error(message: str, code: str | None = None) -> dict[str, Any]:
    """Return the body of an error."""
    return {"error": {"message": message, "type": "error", "param": None, "code": code}}


FIXED: dict[str, tuple[int, dict[str, Any] | bytes]] = {
    "no json": (200, b'{"choices": [{"mess'),
    "page": (200, b"<html>Log in first</html>"),
    "odd": (200, {"choices": [{"message": None}]}),
    "deep": (200, b'{"choices": ' * 100_000),
    "refusal": (200, completion(None, refusal="I'm sorry, I can't help with that.")),
    "filtered": (200, completion("", finish="content_filter")),
    "filter": (400, error("The response was filtered by the policy", "content_filter")),
    "quota": (429, error("You exceeded your current quota", "insufficient_quota")),
    "echo": (400, error(f"cannot do this for {KEY}")),
}
"""Answers that are always the same. Other behaviours: a status, "says ...", "drop", "cut", "hold", "slow"; "packed
ENCODING", where ``answer`` is the body; "redirect STATUS"; and those of ``echo``; and
pieces of bytes, which are sent one by one whatever they are."""


def echo(behaviour: str, text: str) -> tuple[int, dict[str, Any]]:
    """Return the answer of a server that says a text: with a status, or as "quota", "filter", "refusal" or "reply"."""
    match behaviour:
        case "quota":
            return 429, error(text, "insufficient_quota")
        case "filter":
            return 400, error(text, "content_filter")
        case "refusal":
            return 200, completion(None, refusal=text)
        case "reply":
            found = [{"name": text, "confidence": 95}, {"name": "dog", "confidence": 95}]
            return 200, completion(json.dumps({"found": found}))
    return int(behaviour), error(text)


@contextmanager
def serve() -> Iterator[Chat]:
    """Serve until the block ends."""
    chat, lock = Chat(), threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        timeout = 5

        def log_message(self, format: str, *args: object) -> None:
            pass

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with lock:
                chat.calls.append(body)
                chat.keys.add(self.headers["Authorization"])
                behaviour = chat.script.pop(0) if chat.script else "well"
                chat.now += 1
                chat.most_at_once = max(chat.most_at_once, chat.now)
            try:
                self._behave(behaviour, body)
            except (BrokenPipeError, ConnectionResetError):
                self.close_connection = True  # whoever asked is gone
            finally:
                with lock:
                    chat.now -= 1

        def _behave(self, behaviour: str | tuple[bytes, ...], body: dict[str, Any]) -> None:
            answer = chat.answer(body) if callable(chat.answer) else chat.answer
            sent = (self.headers["Authorization"] or "").removeprefix("Bearer ")
            if isinstance(behaviour, tuple):
                self._send_pieces(behaviour)
            elif self.path != "/v1/chat/completions":
                self._send(404, error(f"Invalid URL (POST {self.path})"))
            elif sent != KEY:
                self._send(401, error(f"Incorrect API key provided: {sent}.", "invalid_api_key"))
            elif not chat.schema and "response_format" in body:
                self._send(400, error("'response_format' of type 'json_schema' is not supported"))
            elif behaviour.startswith("echo "):
                # So long that what was cut to a line would end within the key.
                self._send(*echo(behaviour.removeprefix("echo "), "x" * 180 + f" {chat.echo(sent)}"))
            elif behaviour.startswith("redirect "):
                self._send(int(behaviour.removeprefix("redirect ")), {}, Location=chat.redirect)
            elif behaviour.startswith("packed "):
                self._send(200, answer, **{"Content-Encoding": behaviour.removeprefix("packed ")})
            elif behaviour in FIXED:
                self._send(*FIXED[behaviour])
            elif behaviour.startswith("says "):
                self._send(400, error(behaviour.removeprefix("says ")))
            elif behaviour.isdigit():
                self._send(int(behaviour), error(f"as asked: {behaviour}"))
            elif behaviour == "drop":
                self._drop(completion(answer))
            elif behaviour == "cut":
                self._send(200, completion(answer[:48], finish="length"))
            else:
                if behaviour == "hold":
                    chat.holding.set()
                    chat.released.wait(30)
                elif behaviour == "slow":
                    threading.Event().wait(0.6)
                self._send(200, completion(answer))

        def _send(self, status: int, body: dict[str, Any] | bytes, **headers: str) -> None:
            content = body if isinstance(body, bytes) else json.dumps(body).encode()
            self.send_response(status)
            if status >= 400 and chat.retry_after is not None:
                self.send_header("Retry-After", chat.retry_after)
            self.send_header("Content-Type", "text/html" if content.startswith(b"<") else "application/json")
            for name, text in headers.items():
                self.send_header(name, text)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def _send_pieces(self, pieces: tuple[bytes, ...]) -> None:
            for piece in pieces:
                self.wfile.write(piece)
                self.wfile.flush()
            self.close_connection = True

        def _drop(self, body: dict[str, Any]) -> None:
            content = json.dumps(body).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content[: len(content) // 2])
            self.wfile.flush()
            self.close_connection = True

    class Server(ThreadingHTTPServer):
        daemon_threads = True  # a call may be held back, or its other end killed
        request_queue_size = 32

        def handle_error(self, request: object, client_address: object) -> None:
            pass

    with running(Server(("127.0.0.1", 0), Handler)) as url:
        chat.url = f"{url}/v1"
        try:
            yield chat
        finally:
            chat.released.set()
