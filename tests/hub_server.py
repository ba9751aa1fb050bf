"""A hub on the loopback address: as much of its file protocol as ``huggingface_hub`` asks for, and its failures."""

import hashlib
import json
import re
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote

import pytest
from huggingface_hub import close_session, constants

from local_server import running

RESOLVE = re.compile(r"/([^/]+/[^/]+)/resolve/(refs/pr/\d+|[^/]+)/(.+)")
LISTING = re.compile(r"/api/models/([^/]+/[^/]+)(?:/(revision|tree)/(refs/pr/\d+|[^/]+))?")
STORED = re.compile(r"/stored/([^/]+/[^/]+)/(.+)")


LIST = "(list)"
"""What stands in the requests for a file where a repository's files were asked for."""


def digest(path: Path) -> str:
    """Return the SHA-256 of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


@dataclass
class Repository:
    """The files of one repository, all at one commit, which is also the branch ``main``."""

    folder: Path
    commit: str = "a" * 40
    """Empty: answers are those of a server that is no hub."""
    refusal: tuple[int, str] | None = None
    """Status and ``X-Error-Code`` for every request, as of a gated repository."""
    cut: set[str] = field(default_factory=set)
    """Files whose body stops half-way, once; the repository fails from then on, unless it ``stays_up``."""
    stays_up: bool = False
    linked: set[str] = field(default_factory=set)
    """Files that lie on another host, as large ones do; requests for them are sent there."""
    short: set[str] = field(default_factory=set)
    """Files whose content is shorter than the first answer about them said."""
    broken: set[str] = field(default_factory=set)
    """Files for which every request is answered with 503."""
    xet: set[str] = field(default_factory=set)
    """Files that are stored by Xet as well; for its tokens there is no answer."""
    moved: bool = False
    """Whether the list of files lies on another host."""
    failing: bool = False
    """Answer so for every file."""
    others: dict[str, "Repository"] = field(default_factory=dict)
    """By revision, such as ``refs/pr/1``: other files at another commit."""


@dataclass
class Hub:
    """The repositories by id, and what was asked for: ``(method, repository, revision, file)``."""

    url: str = ""
    repositories: dict[str, Repository] = field(default_factory=dict)
    requests: list[tuple[str, str, str, str]] = field(default_factory=list)
    strays: list[str] = field(default_factory=list)
    """Requests for anything but a repository's files and the list of them."""
    tokens: set[str | None] = field(default_factory=set)
    """What came as ``Authorization``."""
    tokens_elsewhere: set[str | None] = field(default_factory=set)
    """The same, at the host where large files lie."""

    def fetched(self) -> list[str]:
        """Return the names of the files whose content was asked for."""
        return [file for method, _, _, file in self.requests if method == "GET" and file != LIST]

    def forget(self) -> None:
        """Start counting again."""
        self.requests.clear()


def point_at(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    """Do what ``HF_ENDPOINT`` does when the client is imported."""
    monkeypatch.setattr(constants, "ENDPOINT", url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", url + "/{repo_id}/resolve/{revision}/{filename}")


@contextmanager
def serve() -> Iterator[Hub]:
    """Serve an empty hub until the block ends."""
    hub = Hub()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        timeout = 60

        def do_HEAD(self) -> None:
            self._answer()

        def do_GET(self) -> None:
            self._answer()

        def log_message(self, format: str, *args: object) -> None:
            pass

        def _answer(self) -> None:
            path = unquote(self.path.split("?")[0])
            if stored := STORED.fullmatch(path):
                hub.tokens_elsewhere.add(self.headers["Authorization"])
                repository = hub.repositories[stored[1]]
                return self._file(repository, repository.folder / stored[2], stored[2])
            if listing := LISTING.fullmatch(path):
                name, kind, revision = listing[1], listing[2] or "revision", listing[3] or "main"
                file = LIST
            elif found := RESOLVE.fullmatch(path):
                name, revision, file = found.groups()
            else:
                hub.strays.append(f"{self.command} {self.path}")
                return self._error(HTTPStatus.NOT_FOUND, None)
            hub.requests.append((self.command, name, revision, file))
            hub.tokens.add(self.headers["Authorization"])
            repository = hub.repositories.get(name)
            if repository is not None:
                of = {one.commit: one for one in repository.others.values()} | repository.others
                repository, revision = (of[revision], "main") if revision in of else (repository, revision)
            if repository is not None and listing and repository.moved:
                return self._elsewhere(repository, repository.folder / "config.json", f"/stored/{name}/config.json")
            if repository is None:
                return self._error(HTTPStatus.NOT_FOUND, "RepoNotFound")
            if repository.refusal:
                return self._error(*repository.refusal)
            if repository.failing or file in repository.broken:
                return self._error(HTTPStatus.SERVICE_UNAVAILABLE, None)
            if revision not in ("main", repository.commit):
                return self._error(HTTPStatus.NOT_FOUND, "RevisionNotFound")
            if listing:
                return self._list(name, repository, kind)
            content = repository.folder / file
            if not content.is_file():
                return self._error(HTTPStatus.NOT_FOUND, "EntryNotFound", repository.commit)
            if file in repository.linked:
                return self._elsewhere(repository, content, f"/stored/{name}/{file}")
            return self._file(repository, content, file)

        def _list(self, name: str, repository: Repository, kind: str) -> None:
            paths = sorted(path for path in repository.folder.iterdir() if path.is_file())
            tree: list[dict[str, object]] = []
            for p in paths:
                size, oid = p.stat().st_size, digest(p)
                large = {"lfs": {"oid": oid, "size": size, "pointerSize": 134}, "xetHash": oid}
                entry = {"type": "file", "path": p.name, "size": size, "oid": oid}
                tree.append(entry | (large if p.name in repository.xet else {}))
            siblings = [{"rfilename": path.name, "size": path.stat().st_size} for path in paths]
            about = {"id": name, "sha": repository.commit, "siblings": siblings}
            body = json.dumps(tree if kind == "tree" else about).encode() if repository.commit else b"<!DOCTYPE html>"
            self.send_response(HTTPStatus.OK)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def _elsewhere(self, repository: Repository, path: Path, target: str) -> None:
            self.send_response(HTTPStatus.FOUND)
            self.send_header("Location", hub.url.replace("127.0.0.1", "localhost") + target)
            self.send_header("X-Repo-Commit", repository.commit)
            self.send_header("X-Linked-ETag", f'"{digest(path)}"')
            self.send_header("X-Linked-Size", str(path.stat().st_size))
            self.send_header("Content-Length", "0")
            self.end_headers()

        def _file(self, repository: Repository, path: Path, file: str) -> None:
            content = path.read_bytes()
            if self.command == "GET" and file in repository.short:
                content = content[:-1]
            asked = re.fullmatch(r"bytes=(\d+)-", self.headers["Range"] or "")
            start = int(asked[1]) if asked else 0
            self.send_response(HTTPStatus.PARTIAL_CONTENT if asked else HTTPStatus.OK)
            if asked:
                self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
            if repository.commit:
                self.send_header("X-Repo-Commit", repository.commit)
            self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
            self.send_header("Content-Length", str(len(content) - start))
            self.end_headers()
            if self.command == "HEAD":
                return
            if file in repository.cut:
                self.wfile.write(content[start : (start + len(content)) // 2])
                repository.cut.remove(file)
                repository.failing = not repository.stays_up
                self.close_connection = True
                return
            self.wfile.write(content[start:])

        def _error(self, status: int, code: str | None, commit: str | None = None) -> None:
            said = self.headers["Authorization"] or "as asked"
            body = b"" if self.command == "HEAD" else json.dumps({"error": said}).encode()
            self.send_response(status)
            if code:
                self.send_header("X-Error-Code", code)
                self.send_header("X-Error-Message", f"{code}, {said}")
            if commit:
                self.send_header("X-Repo-Commit", commit)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    class Server(ThreadingHTTPServer):
        daemon_threads = False  # so that server_close waits for them, and none outlives the test
        request_queue_size = 32

    with running(Server(("127.0.0.1", 0), Handler)) as hub.url:
        yield hub


@contextmanager
def connected(patch: pytest.MonkeyPatch, folder: Path) -> Iterator[Hub]:
    """Serve an empty hub that is the only one until the block ends, with an empty cache below a folder."""
    for variable in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        patch.delenv(variable, raising=False)
    for variable in ("no_proxy", "NO_PROXY"):
        patch.setenv(variable, "127.0.0.1,localhost")
    patch.setattr(constants, "HF_HUB_CACHE", str(folder / "cache"))
    patch.setattr(constants, "HF_TOKEN_PATH", str(folder / "no-token"))
    patch.setattr(constants, "HF_HUB_OFFLINE", False)
    patch.setattr(constants, "HF_HUB_DISABLE_TELEMETRY", True)  # else it also asks for a list of programs
    patch.setattr(sys.modules["huggingface_hub.utils.tqdm"], "HF_HUB_DISABLE_PROGRESS_BARS", True)
    patch.setattr(time, "sleep", lambda seconds: None)  # the client waits before it asks again
    with serve() as hub:
        point_at(patch, hub.url)
        try:
            yield hub
        finally:
            close_session()  # else the server waits for it
