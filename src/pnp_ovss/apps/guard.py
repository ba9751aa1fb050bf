"""What stands before the service: who may ask, how much and how often; one line of log a request, and no more."""

import asyncio
import hmac
import logging
import re
import secrets
import time
from base64 import b64decode
from collections import Counter
from collections.abc import Awaitable, Callable, MutableMapping
from contextlib import suppress
from dataclasses import dataclass, field
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import parse_qs, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, PlainTextResponse, RedirectResponse, Response

from pnp_ovss.apps.jobs import log_bug
from pnp_ovss.errors import printable

LOG = logging.getLogger(__name__)
LOOPBACK = ("localhost", "127.0.0.1", "::1")
LIMITS = {"/api/segment": 0, "/api/name": 0, "/label-studio/predict": 64_000_000}
"""Bytes of a request's body; 0: those of a photo. Others have ``SMALL``."""
SMALL, EXTRA = 100_000, 200_000
"""Bytes of other bodies, and those that a form has beside its photo."""
IDLE, LONGEST = 20.0, 300.0
"""Seconds until the next part of a body has to come, and until all of it."""
MOST_LOGGED = 600
"""Lines of log a minute; of more requests only their number is logged."""
WORK = re.compile(r"/api/(segment|name|export/.*|jobs/[^/]+/(edit|result|overlay.png))|/label-studio/predict")
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


@dataclass(frozen=True)
class Access:
    """Who may use the service, and how much of it."""

    host: str = "127.0.0.1"
    token: str = ""
    public: bool = False
    """Whether everybody may, without a token."""
    cors: tuple[str, ...] = ()
    """Origins of other pages that may, such as https://example.org."""
    root_path: str = ""
    """Below which a reverse proxy has the service."""
    proxied: bool = False
    """Whether a reverse proxy is before the service: the visitor's address is the last one that it forwards, then."""
    most_bytes: int = 30_000_000
    """Of a photo's file."""
    requests_a_minute: int = 3000
    work_a_minute: int = 240
    """Requests of one address, and those among them that cost something."""

    @property
    def open(self) -> bool:
        """Whether names of hosts mean nothing: a token is needed, or nothing is."""
        return bool(self.token) or self.public


@dataclass
class Minute:
    """Counts of this minute."""

    number: int = 0
    counts: Counter[str] = field(default_factory=Counter)

    def take(self, key: str) -> int:
        """Return how often this key came in this minute."""
        if (now := int(time.monotonic() // 60)) != self.number:
            if (more := self.counts["log"] - MOST_LOGGED) > 0:
                LOG.info("%d more requests in that minute", more)
            self.number, self.counts = now, Counter()
        self.counts[key] += 1
        return self.counts[key]


class Guard:
    """Refuses what must not get to the application, and adds what every answer has."""

    def __init__(self, app: Any, access: Access, counts: dict[int, int]) -> None:
        self.app, self.access, self.counts, self.minute = app, access, counts, Minute()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            await (self.app(scope, receive, send) if scope["type"] == "lifespan" else send({"type": "websocket.close"}))
            return
        headers, begun, status = Headers(scope=scope), time.monotonic(), 0
        address, cookies = self._address(scope, headers), _cookies(headers)
        fresh = "" if re.fullmatch(r"[\w-]{16}", cookies.get("visitor", "")) else secrets.token_urlsafe(12)
        scope["visitor"] = f"{address} {cookies['visitor']}" if not fresh else address

        async def answer(message: MutableMapping[str, Any]) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                self._add_headers(MutableHeaders(scope=message), headers, fresh if path == "/" else "")
            await send(message)

        path = scope["path"].removeprefix(self.access.root_path) or "/"
        try:
            target = self._refusal(scope, headers, cookies, path, address) or self.app
            await target(scope, self._bounded(path, receive), answer)
        except HTTPException as error:  # while the body was read
            if not status:
                await _no(error.status_code, str(error.detail))(scope, receive, answer)
        except Exception as error:
            log_bug(error)
            if not status:
                await _no(500, "a bug in pnp-ovss; the server's log says more")(scope, receive, answer)
        self.counts[status] = self.counts.get(status, 0) + 1
        if self.minute.take("log") <= MOST_LOGGED:
            route = getattr(scope.get("route"), "path", printable(path[:60])[:60])
            spent = 1000 * (time.monotonic() - begun)
            LOG.info("%s %s %.8s %s %.0f ms", address[:40], status, scope["method"], route, spent)

    def _address(self, scope: Scope, headers: Headers) -> str:
        """Return who asks. What a visitor says of that counts for nothing; what our own proxy says does."""
        forwarded = headers.get("x-forwarded-for", "").split(",")[-1].strip() if self.access.proxied else ""
        host: str = forwarded[:45] or (scope.get("client") or ("",))[0]
        return "".join(c for c in host if c.isalnum() or c in ".:") or "unknown"

    def _refusal(
        self, scope: Scope, headers: Headers, cookies: dict[str, str], path: str, address: str
    ) -> Response | None:
        access, method = self.access, scope["method"]
        names = {*LOOPBACK, access.host, *(urlsplit(one).hostname for one in access.cors)}
        if not access.open and _hostname(headers.get("host", "")) not in names:
            return _no(403, "this service is not known by that name; open it as it was started")
        origin = headers.get("origin")
        if origin is not None and origin not in access.cors and urlsplit(origin).netloc != headers.get("host"):
            if method not in ("GET", "HEAD"):
                return _no(403, "requests from other pages are not taken; start the service with --cors ORIGIN")
        elif origin in access.cors and method == "OPTIONS":
            return Response(status_code=204)
        if access.token and path != "/healthz" and not (given := _is_token(access.token, headers, cookies)):
            asked = (parse_qs(scope["query_string"].decode("latin-1")).get("token") or [""])[0] if path == "/" else ""
            if not given and asked and hmac.compare_digest(asked.encode(), access.token.encode()):
                enter = RedirectResponse(f"{access.root_path}/", 303)
                enter.set_cookie("token", access.token, httponly=True, samesite="strict", path=f"{access.root_path}/")
                return enter
            if path == "/":
                return PlainTextResponse("This page needs its token: open it as /?token=TOKEN", 401)
            return _no(401, "expected the token of the service, as Authorization: Bearer TOKEN")
        if self.minute.take(address) > access.requests_a_minute or (
            WORK.fullmatch(path) and self.minute.take(f"{address} work") > access.work_a_minute
        ):
            return _no(429, "too many requests; try again in a minute", {"Retry-After": "60"})
        length = headers.get("content-length", "0")
        if not length.isdecimal() or int(length[:20]) > self._most(path):
            return _no(413, f"expected a request of at most {self._most(path)} bytes, got {length[:20]}")
        return None

    def _most(self, path: str) -> int:
        return (LIMITS[path] or self.access.most_bytes + EXTRA) if path in LIMITS else SMALL

    def _bounded(self, path: str, receive: Receive) -> Receive:
        """Return what reads the body: it has to come in time, and in so many bytes."""
        read, more, end = 0, True, time.monotonic() + LONGEST

        async def bounded() -> MutableMapping[str, Any]:
            nonlocal read, more
            if not more:  # what comes then is that the visitor has left
                return await receive()
            try:
                async with asyncio.timeout(min(IDLE, end - time.monotonic())):
                    message = await receive()
            except TimeoutError:
                raise HTTPException(408, "the request came too slowly") from None
            more = message.get("more_body", False)
            read += len(message.get("body", b""))
            if read > self._most(path):
                raise HTTPException(413, f"expected a request of at most {self._most(path)} bytes")
            return message

        return bounded

    def _add_headers(self, answer: MutableHeaders, asked: Headers, visitor: str) -> None:
        for name, value in HEADERS.items():
            answer.setdefault(name, value)
        origin = asked.get("origin", "")
        answer["Cross-Origin-Resource-Policy"] = "cross-origin" if origin in self.access.cors else "same-origin"
        if origin in self.access.cors:
            answer["Access-Control-Allow-Origin"], answer["Vary"] = origin, "Origin"
            answer["Access-Control-Allow-Headers"] = "Authorization, Content-Type"
            answer["Access-Control-Allow-Methods"] = "GET, POST, DELETE"
        if visitor:
            path = f"{self.access.root_path}/"
            answer.append("Set-Cookie", f"visitor={visitor}; Path={path}; HttpOnly; SameSite=Strict")


def _no(status: int, message: str, headers: dict[str, str] | None = None) -> Response:
    return JSONResponse({"error": message, "field": ""}, status, headers)


def _hostname(host: str) -> str | None:
    with suppress(ValueError):
        return urlsplit(f"//{host}").hostname
    return None


def _cookies(headers: Headers) -> dict[str, str]:
    with suppress(CookieError):
        return {name: one.value for name, one in SimpleCookie(headers.get("cookie", "")).items()}
    return {}


def _is_token(token: str, headers: Headers, cookies: dict[str, str]) -> bool:
    """Return whether the token came: as a bearer's, as the password of a user, or in the page's cookie."""
    kind, _, value = headers.get("authorization", "").partition(" ")
    given = value.strip() if kind.lower() == "bearer" else cookies.get("token", "")
    if kind.lower() == "basic":
        with suppress(ValueError):
            given = b64decode(value).decode().partition(":")[2]
    return hmac.compare_digest(given.encode(errors="replace"), token.encode())
