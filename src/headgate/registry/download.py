"""Fetches one file over https so that a broken download goes on where it stopped, and only from hosts that are named.

Knows nothing of models or of hubs. Plain http is spoken to this machine only.
"""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import re
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from email.message import Message
from pathlib import Path
from typing import IO, Any
from urllib.parse import urljoin, urlsplit

from headgate.core.clock import Clock
from headgate.core.errors import ModelRefused
from headgate.registry.sources import allows, check_url, is_loopback, shown
from headgate.registry.staging import Progress, check_room, no_progress

CHUNK_BYTES = 1024 * 1024
ATTEMPTS = 5
MAX_WAIT_S = 30.0
_AGENT = "headgate"


@dataclass(frozen=True, slots=True, kw_only=True)
class Reach:
    """Which hosts may be spoken to, and the setting that a user changes to allow more."""

    hosts: tuple[str, ...]
    setting: str = "registry.allowed_hosts"

    def check(self, url: str) -> None:
        """Return when `url` may be opened. Raises ModelRefused naming the host and the cure."""
        host = check_url(url)
        if is_loopback(host):
            return
        if urlsplit(url).scheme != "https":
            raise ModelRefused(
                f"{shown(url)} is plain http, which could be changed on its way. Use https.", param="source"
            )
        if not allows(self.hosts, host):
            raise ModelRefused(
                f"The host {host} is not named in the configuration, and nothing unnamed is spoken to. "
                f"Add it to {self.setting} in headgate.yaml, or fetch the file yourself and add it from disk.",
                param="source",
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Remote:
    """One file to fetch. `headers` go to the first host only; `sha256` (hexadecimal) and `bytes` when known before."""

    url: str = field(repr=False)
    headers: Mapping[str, str] = field(default_factory=dict[str, str], repr=False)
    sha256: str | None = None
    bytes: int | None = None


class Downloader:
    """Fetches files. `wait` blocks for seconds between attempts; times are in seconds, sizes in bytes."""

    def __init__(
        self,
        *,
        clock: Clock,
        wait: Callable[[float], None],
        max_bytes: int,
        silence_s: float = 30.0,
        timeout_s: float = 24 * 3600.0,
    ) -> None:
        self._clock, self._wait = clock, wait
        self._max_bytes, self._silence_s, self._timeout_s = max_bytes, silence_s, timeout_s

    def fetch(self, remote: Remote, folder: Path, reach: Reach, progress: Progress = no_progress) -> Path:
        """The file, complete, in `folder`, where an earlier and broken attempt is continued.

        Raises ModelRefused: a host that is not named, the server refuses, too large, no room, or (code
        'source_unavailable') it could not be reached for long enough; what has arrived stays for the next attempt.
        """
        state = _Partial(folder, remote)
        deadline = self._clock.monotonic() + self._timeout_s
        failures = 0
        while True:
            before = state.size
            try:
                if self._attempt(remote, state, reach, progress, deadline):
                    return state.path
                why = "the connection broke"
            except urllib.error.HTTPError as error:
                error.close()
                if error.code == 416 and state.size:
                    state.restart()
                    why = "it could not be continued"
                elif error.code in (408, 429) or error.code >= 500:
                    why = f"the server says {error.code}"
                else:
                    raise _refused(remote.url, error.code) from None
            except (OSError, http.client.HTTPException) as error:
                reason = getattr(error, "reason", error)
                why = str(reason)[:200] or type(error).__name__
            failures = 0 if state.size > before else failures + 1
            if failures >= ATTEMPTS or self._clock.monotonic() > deadline:
                raise ModelRefused(
                    f"{shown(remote.url)} could not be fetched: {why}. {state.size} bytes have arrived and are kept; "
                    "add the model again to go on from there.",
                    code="source_unavailable",
                )
            self._wait(min(2.0**failures / 2, MAX_WAIT_S))

    def _attempt(self, remote: Remote, state: _Partial, reach: Reach, progress: Progress, deadline: float) -> bool:
        """Fetch what is missing; whether the file is now complete."""
        if state.complete:
            return True
        reach.check(remote.url)
        headers = {"User-Agent": _AGENT, "Accept-Encoding": "identity", **remote.headers, **state.range_headers()}
        request = urllib.request.Request(remote.url, headers=headers)  # noqa: S310  checked by reach
        with _opener(reach, remote.url).open(request, timeout=self._silence_s) as response:
            if response.headers.get("Content-Encoding", "identity").lower() not in ("identity", ""):
                raise ModelRefused(f"{shown(remote.url)} comes compressed, which was not asked for. Use another link.")
            state.begin(response.status, response.headers)
            name = Path(urlsplit(remote.url).path).name[:100] or "the file"
            check_room(state.path.parent, state.total or remote.bytes or 0, self._max_bytes, name)
            with state.path.open("ab", buffering=0) as file:
                while chunk := response.read(CHUNK_BYTES):
                    file.write(chunk)
                    progress("downloading", file.tell(), state.total or remote.bytes)
                    if file.tell() > self._max_bytes:
                        state.restart()
                        check_room(state.path.parent, self._max_bytes + 1, self._max_bytes, name)
                    if self._clock.monotonic() > deadline:
                        raise TimeoutError("it takes too long (registry.download_timeout_s)")
                os.fsync(file.fileno())
        return state.finish()


class _Partial:
    """What has arrived of one file, and by which mark the server can tell that it is still the same file."""

    def __init__(self, folder: Path, remote: Remote) -> None:
        self.path = folder / "data"
        self._marks = folder / "marks.json"
        self._remote = remote
        self.total: int | None = remote.bytes
        self._mark: str | None = None
        self.complete = False
        try:
            marks = json.loads(self._marks.read_bytes())
            self._mark, self.complete = marks["mark"], marks["complete"] is True
            self.total = marks["total"] if self.total is None else self.total
        except (OSError, ValueError, KeyError, TypeError):
            self.restart()
        if self.complete and self.size != self.total:
            self.restart()

    @property
    def size(self) -> int:
        try:
            return self.path.stat().st_size
        except OSError:
            return 0

    def range_headers(self) -> dict[str, str]:
        # Why pinned files need no mark: a mixture of two files would not have the pinned hash.
        if self.size == 0 or (self._mark is None and self._remote.sha256 is None):
            self.restart()
            return {}
        headers = {"Range": f"bytes={self.size}-"}
        return headers | {"If-Range": self._mark} if self._mark else headers

    def begin(self, status: int, headers: Message) -> None:
        """Take note of the answer's head: 206 goes on, anything else starts anew."""
        length = headers.get("Content-Length", "")
        if status == 206:
            match = re.fullmatch(r"bytes (\d{1,18})-\d{1,18}/(\d{1,18}|\*)", headers.get("Content-Range", "").strip())
            if match is None or int(match[1]) != self.size:
                self.restart()
                raise http.client.HTTPException("the server continues at a wrong place")
            self.total = int(match[2]) if match[2] != "*" else self.total
        else:
            self.restart()
            self.total = int(length) if re.fullmatch(r"\d{1,18}", length) else self._remote.bytes
        etag = headers.get("ETag", "")
        strong = etag if etag.startswith('"') else None
        self._mark = strong or (headers.get("Last-Modified") if not etag else None)
        self._record()

    def finish(self) -> bool:
        """Whether all bytes are there, as far as the server told how many."""
        if self.total is not None and self.size < self.total:
            return False
        if self.total is not None and self.size > self.total:
            self.restart()
            return False
        self.total, self.complete = self.size, True
        self._record()
        return True

    def restart(self) -> None:
        """Throw away what has arrived."""
        self.complete, self._mark = False, None
        self.path.unlink(missing_ok=True)
        self._marks.unlink(missing_ok=True)

    def _record(self) -> None:
        text = json.dumps({"mark": self._mark, "total": self.total, "complete": self.complete})
        temporary = self._marks.with_suffix(".new")
        temporary.write_text(text)
        temporary.replace(self._marks)


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects to named hosts only, never from https to http, and keeps the first host's secrets."""

    max_redirections = 5

    def __init__(self, reach: Reach, first: str) -> None:
        self._reach, self._first = reach, first

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        target = urljoin(req.full_url, newurl)
        here, there = check_url(req.full_url), check_url(target)
        if is_loopback(there) and not is_loopback(here):
            raise ModelRefused(f"{shown(req.full_url)} redirects to this machine itself, which is refused.")
        if urlsplit(req.full_url).scheme == "https" and urlsplit(target).scheme != "https":
            raise ModelRefused(f"{shown(req.full_url)} redirects from https to http, which is refused.")
        self._reach.check(target)
        new = super().redirect_request(req, fp, code, msg, headers, target)
        if new is not None and urlsplit(self._first)[:2] != urlsplit(target)[:2]:
            for name in ("Authorization", "Cookie"):
                new.remove_header(name)
        return new


def _opener(reach: Reach, url: str) -> urllib.request.OpenerDirector:
    """Opens http and https only; a proxy of the environment is used for other machines, never for this one."""
    opener = urllib.request.OpenerDirector()
    proxies: dict[str, str] | None = {} if is_loopback(check_url(url)) else None
    for handler in (
        urllib.request.ProxyHandler(proxies),
        urllib.request.HTTPHandler(),
        urllib.request.HTTPSHandler(),
        _Redirects(reach, url),
        urllib.request.HTTPErrorProcessor(),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.UnknownHandler(),
    ):
        opener.add_handler(handler)
    return opener


def check_sha256(found: str, wanted: str | None, name: str) -> None:
    """Return when the bytes are those that were pinned (hexadecimal SHA-256). Raises ModelRefused."""
    if wanted is not None and found != wanted:
        raise ModelRefused(
            f"{name} is not what was promised: its SHA-256 is {found}, but {wanted} was pinned. It was thrown away. "
            "Add it again; when it happens again, the file was changed at its source."
        )


def source_key(remote: Remote) -> str:
    """What names a download that can be continued: where it comes from and its pin, without secrets of the query."""
    return hashlib.sha256(f"{remote.url}\n{remote.sha256}".encode()).hexdigest()


def _refused(url: str, status: int) -> ModelRefused:
    cures = {
        401: "It needs a login; fetch it yourself and add it from disk.",
        403: "It may not be fetched; ask its owner for access, or add it from disk.",
        404: "There is no such file; check the link.",
        410: "The file is gone; look for its new place.",
    }
    cure = cures.get(status, "Check the link.")
    return ModelRefused(f"{shown(url)} could not be fetched: the server says {status}. {cure}", param="source")
