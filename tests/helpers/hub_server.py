"""A small server that speaks the Hugging Face hub's protocol, and breaks connections, lies and moves files when told.

Serves `/{owner}/{repo}/resolve/{revision}/{file}` with X-Repo-Commit, X-Linked-Size and X-Linked-Etag and a redirect to
`/cdn/...`, which knows Range and If-Range; `/api/models/...` tells the licence. Plain files lie under `/files/`.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

COMMIT = "0123456789abcdef0123456789abcdef01234567"
NEXT_COMMIT = "fedcba9876543210fedcba9876543210fedcba98"


@dataclass
class HubServer:
    """What is served and how. `breaks` are the lengths after which the next answers break off, in order."""

    files: dict[str, bytes] = field(default_factory=dict)
    repo: str = "acme/tiny"
    commit: str = COMMIT
    licence: str | None = "mit"
    token: str | None = None
    sha256: str | None = None  # told instead of the true one
    breaks: list[int] = field(default_factory=list)
    etag: str | None = None
    ranges: bool = True
    failures: list[int] = field(default_factory=list)  # statuses of the next answers of /cdn and /files
    redirect: str | None = None  # where /files/moved leads
    cdn: str = ""  # where the redirect of a file leads; this server by another name when empty
    requests: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)
    port: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def got(self, prefix: str, method: str = "GET") -> list[dict[str, str]]:
        """Headers of the requests whose path begins so, in order."""
        return [headers for verb, path, headers in self.requests if verb == method and path.startswith(prefix)]


@contextmanager
def serve_hub(state: HubServer) -> Generator[HubServer]:
    """Serve until the end of the block, on a port that the system chooses."""

    class Handler(_Handler):
        hub = state

    server = _Quiet(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    state.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Quiet(ThreadingHTTPServer):
    def handle_error(self, request: object, client_address: object) -> None:
        """A client that went away in the middle is what these tests are about."""


class _Handler(BaseHTTPRequestHandler):
    hub: HubServer
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        self.hub.requests.append((self.command, self.path, dict(self.headers.items())))
        path = self.path.partition("?")[0]
        match = re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path)
        if path.startswith("/api/models/"):
            self._api()
        elif match:
            self._resolve(match[1], match[2], match[3])
        elif path == "/files/moved" and self.hub.redirect:
            self._answer(302, {"Location": self.hub.redirect})
        elif path.startswith(("/cdn/", "/files/")):
            self._file(path.split("/", 2)[2])
        else:
            self._answer(404, {})

    def _api(self) -> None:
        hub = self.hub
        card = {"license": hub.licence} if hub.licence else {}
        body = json.dumps({"id": hub.repo, "sha": hub.commit, "cardData": card, "siblings": [], "tags": []}).encode()
        self._answer(200, {"Content-Type": "application/json"}, body)

    def _resolve(self, repo: str, revision: str, name: str) -> None:
        hub = self.hub
        if repo != hub.repo:
            return self._answer(404, {"X-Error-Code": "RepoNotFound"})
        if hub.token and self.headers.get("Authorization") != f"Bearer {hub.token}":
            return self._answer(403, {"X-Error-Code": "GatedRepo"})
        if revision not in ("main", COMMIT, NEXT_COMMIT):
            return self._answer(404, {"X-Error-Code": "RevisionNotFound"})
        commit = hub.commit if revision == "main" else revision
        if name not in hub.files:
            return self._answer(404, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": commit})
        content = hub.files[name]
        headers = {
            "X-Repo-Commit": commit,
            "X-Linked-Size": str(len(content)),
            "X-Linked-Etag": f'"{hub.sha256 or hashlib.sha256(content).hexdigest()}"',
            "ETag": '"lfs-pointer"',
            "Location": f"{hub.cdn or f'http://localhost:{hub.port}'}/cdn/{name}?signature=secret",
        }
        return self._answer(302, headers)

    def _file(self, name: str) -> None:
        hub = self.hub
        if hub.failures:
            return self._answer(hub.failures.pop(0), {})
        content = hub.files.get(name)
        if content is None:
            return self._answer(404, {})
        etag = hub.etag if hub.etag is not None else f'"{hashlib.md5(content).hexdigest()}"'
        headers = {"ETag": etag} if etag else {}
        match = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        start = int(match[1]) if match and self.headers.get("If-Range", etag) == etag and hub.ranges else 0
        if start >= len(content) > 0:
            return self._answer(416, {"Content-Range": f"bytes */{len(content)}"})
        status = 206 if start else 200
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        return self._answer(status, headers, content[start:], breakable=True)

    def _answer(self, status: int, headers: dict[str, str], body: bytes = b"", *, breakable: bool = False) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "HEAD":
            return
        if breakable and self.hub.breaks:
            body = body[: self.hub.breaks.pop(0)]
            self.close_connection = True
        self.wfile.write(body)
