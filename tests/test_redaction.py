"""No secret is in any text, however it is written."""

import base64
import html
import json
import time
from urllib.parse import quote

import pytest
from hypothesis import given, strategies as st

from pnp_ovss import redaction
from pnp_ovss.errors import InputError, one_line, printable
from pnp_ovss.redaction import bare, keep_key, keep_url, redacted

SECRET = "hf_Zq8+w/4 \u00e4\"T'0&5"


@pytest.fixture(autouse=True)
def nothing_known(monkeypatch):
    monkeypatch.setattr(redaction, "_told", set())
    for name in (*redaction.KEYS, *redaction.URLS):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("ftp://me:pass@host:21/a?b=c d", "ftp://host:21/a d"),
        ("(http://host/a.jpg?sig=1/2+3) failed", "(http://host/a.jpg) failed"),
        ("s3://token@bucket/me@home.jpg", "s3://bucket/me@home.jpg"),
        ("zip://a.jpg::http://me:p@ss@host/b.zip", "zip://a.jpg::http://host/b.zip"),
        ("ftp://me:pa/ss@host/a", "ftp://host/a"),
        ("postgresql+psycopg2://me:pass@/study", "postgresql+psycopg2:///study"),
        ("ftp:/me:pass@host/a", "ftp:/host/a"),  # a URL that was taken for a path
        ("http://[::1]:80/a@b", "http://[::1]:80/a@b"),
        ("http://host:80/a@b", "http://host:80/a@b"),
        ("C:/photos/me@home.jpg", "C:/photos/me@home.jpg"),
        ("see a@b.org: yes?", "see a@b.org: yes?"),
        ("what?", "what?"),
    ],
)
def test_urls_are_shown_without_user_password_and_query(text, shown):
    assert redacted(text) == bare(text) == shown
    assert bare(shown) == shown


def written(secret: str) -> dict[str, str]:
    content = secret.encode()
    coded = {f"base64 {n}": base64.b64encode(b"user:"[:n] + content).decode()[(0, 2, 3)[n] :] for n in range(3)}
    escaped = {"url": quote(secret, safe=""), "json": json.dumps(secret)[1:-1], "html": html.escape(secret)}
    return {"plain": secret, "lower": secret.lower(), "upper": secret.upper()} | escaped | coded


@pytest.mark.parametrize("form", written(SECRET))
def test_a_key_is_recognised_however_it_is_written(form):
    keep_key(f" {SECRET}\n")
    text = written(SECRET)[form].rstrip("=")
    shown = redacted(f"refused: {text}, sorry")
    assert shown.startswith("refused: ...")
    assert shown.endswith(", sorry")
    assert len(shown) <= len("refused: ..., sorry") + 2  # the last letters of base64 depend on what follows


@given(st.integers(0, len(SECRET)), st.text(max_size=30), st.text(max_size=30))
def test_no_eight_characters_from_the_start_are_ever_left(length, before, behind):
    keep_key(SECRET)
    shown = redacted(before + SECRET[:length] + behind)
    assert SECRET[:8].lower() not in shown.lower()
    if length < 8:
        assert redacted(SECRET[:length]) == SECRET[:length]


def test_seven_characters_are_no_secret():
    keep_key("none")
    keep_key("sk-abcd")
    assert redacted("none of 3; sk-abcd") == "none of 3; sk-abcd"


def test_what_is_secret_in_a_url_is_left_out_where_it_stands_alone():
    keep_url("ftp://me:hunter%2Dnumber2@host/a?sig=abc%2Fdef%2Fghi&n=1")
    assert redacted("530 hunter-number2 is wrong") == "530 ... is wrong"
    assert redacted("hunter%2Dnumber2; abc/def/ghi") == "...; ..."
    assert redacted("me, host, n=1") == "me, host, n=1"
    keep_url("https://token-as-user@host")
    assert redacted("token-as-user") == "..."
    keep_url("localhost:6379")
    keep_url("/a/local/path/photo.jpg")
    assert redacted("localhost:6379 /a/local/path/photo.jpg") == "localhost:6379 /a/local/path/photo.jpg"


@pytest.mark.parametrize("name", [*redaction.KEYS, *redaction.URLS])
def test_what_the_environment_holds_is_known(monkeypatch, name):
    secret = "0123456789abcdef"
    monkeypatch.setenv(name, secret if name in redaction.KEYS else f"http://me:{secret}@host:1")
    assert redacted(f"no {secret} here") == "no ... here"


def test_errors_are_redacted_before_they_are_cut():
    keep_key(SECRET)
    fault = ValueError("x" * 190 + SECRET)
    assert one_line(fault) == "x" * 190 + "..."
    assert str(InputError(f"a\n{SECRET}")) == printable(f"a\n{SECRET}") == "a ..."


@pytest.mark.parametrize("text", ["ab://a:b", ":/", "://@", "a", "hf_Zq8", "hf_Zq8+w", "://a:", "?", "\u0130"])
def test_a_long_text_takes_no_time(text):
    keep_key(SECRET)
    started = time.perf_counter()
    redacted(text * (20_000 if text == SECRET[:8] else 100_000))
    assert time.perf_counter() - started < 10  # quadratic, it would be minutes
