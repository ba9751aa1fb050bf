"""Photos behind http and https, as a file system of fsspec: single files, bounded in size and time."""

import base64
import time
from typing import Any
from urllib.error import HTTPError
from urllib.parse import unquote, urlsplit, urlunsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

from fsspec import AbstractFileSystem

from pnp_ovss._version import VERSION

MOST_BYTES = 10**8
PATIENCE, LONGEST, CHUNK = 30.0, 300.0, 2**16
"""Seconds until an answer has to come, and until all of it; bytes read at a time."""


class Web(AbstractFileSystem):  # type: ignore[misc]
    """Files by their address; there are no folders."""

    protocol = ("http", "https")

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return path

    def unstrip_protocol(self, name: str) -> str:
        """Return the address."""
        return name

    def info(self, path: str, **more: Any) -> dict[str, Any]:
        """Return what is known without asking: it is a file."""
        return {"name": path, "size": None, "type": "file"}

    def ls(self, path: str, detail: bool = True, **more: Any) -> list[Any]:
        """Return the file alone."""
        return [self.info(path)] if detail else [path]

    def exists(self, path: str, **more: Any) -> bool:
        """Return True: whether it is there shows when it is read."""
        return True

    def isdir(self, path: str) -> bool:
        """Return False."""
        return False

    def cat_file(self, path: str, start: int | None = None, end: int | None = None, **more: Any) -> bytes:
        """Return what an address holds; ``headers`` are sent as well.

        Raises: FileNotFoundError if there is nothing; OSError if it is no answer, too large, or on another host.
        """
        begun, opener = time.monotonic(), build_opener(_SameHost)
        content = bytearray()
        try:
            with opener.open(_request(path, more.get("headers", {})), timeout=PATIENCE) as answer:
                while chunk := answer.read(CHUNK):
                    content += chunk
                    if len(content) > MOST_BYTES:
                        raise OSError(f"it has more than {MOST_BYTES // 10**6} MB")
                    if time.monotonic() - begun > LONGEST:
                        raise OSError(f"it took more than {LONGEST:.0f} seconds")
        except HTTPError as error:
            error.close()
            if error.code in (404, 410):
                raise FileNotFoundError(path) from None
            raise OSError(f"the server answered {error.code}") from None
        return bytes(content[start:end])


class _SameHost(HTTPRedirectHandler):
    """Follows a redirect on the same host and port alone, for it gets user and password; never from https to http."""

    def redirect_request(self, req: Request, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        before, after = urlsplit(req.full_url), urlsplit(newurl)
        same = (after.hostname, after.port) == (before.hostname, before.port)
        if not same or after.scheme not in (before.scheme, "https"):
            fp.close()
            where = f"{after.scheme}://{after.hostname}" + (f":{after.port}" if after.port else "")
            raise OSError(f"it is on another host, {where}; give that address")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _request(address: str, more: dict[str, str]) -> Request:
    """Return the request; a user and password of the address go into its header."""
    parts = urlsplit(address)
    user, at, host = parts.netloc.rpartition("@")
    headers = {"User-Agent": f"pnp-ovss/{VERSION}"} | more
    if at:
        headers["Authorization"] = f"Basic {base64.b64encode(unquote(user).encode()).decode('ascii')}"
    return Request(urlunsplit(parts._replace(netloc=host, fragment="")), headers=headers)
