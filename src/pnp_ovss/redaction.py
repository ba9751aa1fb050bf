"""What no message and no file may hold: keys and tokens, and the user, password and query of URLs.

Every error (``errors.PnpError``), every line of the command line and every traceback it writes goes through
``redacted``. Whoever is given a key hands it to ``keep_key`` first, or a URL to ``keep_url``; what the environment
holds is known.
"""

import html
import json
import os
import re
from base64 import b64encode, urlsafe_b64encode
from collections.abc import Iterable
from functools import cache
from itertools import chain
from urllib.parse import parse_qsl, quote, quote_plus, unquote

KEYS = ("OPENAI_API_KEY", "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")
_PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")
URLS = ("OPENAI_BASE_URL", "HF_ENDPOINT", "RAY_ADDRESS", *_PROXIES, *map(str.lower, _PROXIES))
"""Variables of the environment."""
SHORTEST = 8
"""Characters of a secret that give it away; what is shorter counts as none, such as the "none" of local servers."""

USER = re.compile(r"(?<=\w\w)(:/+)([^\s/]*@|[^\s/:\[]+:(?!:|\d*/)[^\s@]{0,200}@)")
"""User and password behind a scheme, whose slash is one where a URL was taken for a path; the second form is that of a
password with a slash, which no URL may have."""
QUERY = re.compile(r"(?<=\w\w)(:/+[^\s?'\")]*)(?:\?([^\s'\")]*))?")
"""The query may be absent: a URL is gone through once, however many there may be in it."""

_told: set[str] = set()


def keep_key(key: str | None) -> None:
    """Leave a key or token out of everything from now on."""
    _told.update(_long([(key or "").strip()]))


def keep_url(url: str | None) -> None:
    """Leave what is secret in a URL out of everything from now on, also where it stands alone."""
    _told.update(_secrets(url or ""))


def redacted(text: str) -> str:
    """Return the text without user, password and query of URLs, and without every secret that is known.

    A secret may be in capitals or not, escaped as URLs, JSON, HTML and base64 do; its first ``SHORTEST`` characters
    are enough to recognise it, and as much as there is of it becomes "...".
    """
    text = bare(text)
    given = _long(os.environ.get(name, "").strip() for name in KEYS)
    known = _told.union(given, *(_secrets(os.environ.get(name, "")) for name in URLS))
    forms: dict[str, list[str]] = {}
    for form in chain.from_iterable(map(_forms, known)):
        forms.setdefault(form[:SHORTEST].lower(), []).append(form)
    if not forms:
        return text
    starts = re.compile("|".join(map(re.escape, forms)), re.IGNORECASE)
    parts, end = list[str](), 0
    while match := starts.search(text, end):
        parts += text[end : match.start()], "..."
        likely = forms.get(match[0].lower(), ())
        end = max(match.end(), *(match.start() + _shared(text, match.start(), form) for form in likely))
    return "".join(parts) + text[end:]


def bare(text: str) -> str:
    """Return the text, such as the URL of a photo, without user, password and query of URLs."""
    return QUERY.sub(r"\1", USER.sub(r"\1", text))


def _secrets(url: str) -> set[str]:
    """Return the password of a URL, or its user where there is no password, and the values of its query."""
    users = [found[2].removesuffix("@").partition(":") for found in USER.finditer(url)]
    values = [password or user for user, _, password in users]
    values += [value for found in QUERY.finditer(url) for _, value in parse_qsl(found[2] or "")]
    return _long([*values, *map(unquote, values)])


def _long(secrets: Iterable[str]) -> set[str]:
    return {secret for secret in secrets if len(secret) >= SHORTEST}


@cache
def _forms(secret: str) -> frozenset[str]:
    """Return how a secret may be written; of base64, the three ways that depend on what stands before it."""
    content = secret.encode(errors="surrogateescape")
    shifted = [(b"_" * before + content, (0, 2, 3)[before]) for before in range(3)]
    coded = [encode(one)[skipped:].decode() for one, skipped in shifted for encode in (b64encode, urlsafe_b64encode)]
    escaped = [html.escape(secret), json.dumps(secret)[1:-1], quote(content, safe=""), quote_plus(content)]
    return frozenset(form for form in (secret, *escaped, *coded) if len(form) >= SHORTEST)


def _shared(text: str, start: int, form: str) -> int:
    """Return how many characters of the form the text has from ``start`` on."""
    pairs = enumerate(zip(text[start : start + len(form)], form, strict=False))
    most = min(len(text) - start, len(form))
    return next((place for place, (one, other) in pairs if one.lower() != other.lower()), most)
