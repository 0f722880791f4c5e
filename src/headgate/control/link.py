"""The node's end of run/node.sock: tables out to every gateway, load reports and questions in.

The socket is 0600 and takes only processes of this user, because a table holds the replicas' secrets. Knows nothing
of what a table means; core.link_codec is its language.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import struct
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from headgate.core import link_codec
from headgate.core.errors import ConfigError, HeadgateError, NotFound
from headgate.core.link_codec import Ask, Hello, Reply
from headgate.core.table import LoadReport, RoutingTable

log = logging.getLogger(__name__)

Answer = Callable[[Mapping[str, Any]], Awaitable[Any]]

_UNIX_PATH_BYTES = 104  # Source: sockaddr_un holds 108 on Linux and 104 on the BSDs, the ending zero included
_BACKLOG_BYTES = 4 * link_codec.MAX_LINE_BYTES  # a gateway that reads this little is stuck: it connects anew


class Listener(Protocol):
    """Who is told what gateways say."""

    def join(self, gateway: str) -> None:
        """A gateway has connected."""
        ...

    def leave(self, gateway: str) -> None:
        """A gateway is gone."""
        ...

    def take_load(self, report: LoadReport) -> None:
        """A gateway reports."""
        ...


class Link:
    """The server. Make it, `publish` tables at any time, `run` it with whoever listens."""

    def __init__(self, path: Path, methods: Mapping[str, Answer]) -> None:
        """`methods` answer questions by name; they may raise HeadgateError.

        Raises ConfigError when the path is too long for a Unix socket.
        """
        if len(os.fsencode(path)) >= _UNIX_PATH_BYTES:
            raise ConfigError(
                f"state: the path {path} is too long for a Unix socket ({_UNIX_PATH_BYTES - 1} bytes at most); "
                "use a shorter state folder",
                param="state",
            )
        self._path = path
        self._methods = methods
        self._writers: set[asyncio.StreamWriter] = set()
        self._gateways: dict[str, asyncio.StreamWriter] = {}
        self._line: bytes | None = None
        self._answers: set[asyncio.Task[None]] = set()
        self._listener: Listener | None = None
        self._server: asyncio.Server | None = None

    def publish(self, table: RoutingTable) -> None:
        """Send a table to every gateway; those that connect later get the newest one first."""
        self._line = link_codec.encode(table)
        for writer in list(self._writers):
            if writer.transport.get_write_buffer_size() > _BACKLOG_BYTES:
                log.warning("a gateway does not read; its link is closed")
                writer.transport.abort()
            else:
                writer.write(self._line)

    async def open(self, listener: Listener) -> None:
        """Listen; a socket that an earlier node left is replaced. Raises OSError."""
        self._listener = listener
        handle = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        temporary = self._path.with_suffix(".new")
        temporary.unlink(missing_ok=True)
        handle.bind(str(temporary))
        temporary.chmod(0o600)
        # Why first chmod, then listen, then rename: at no moment is there a door that others can open.
        self._server = await asyncio.start_unix_server(self._serve, sock=handle, limit=link_codec.MAX_LINE_BYTES)
        temporary.replace(self._path)

    async def close(self) -> None:
        """Close every link and remove the socket."""
        if self._server is not None:
            self._server.close()
            self._path.unlink(missing_ok=True)
        for writer in list(self._writers):
            writer.close()
        for task in list(self._answers):
            task.cancel()
        await asyncio.gather(*self._answers, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not _is_ours(writer):
            log.warning("a process of another user knocked at %s", self._path)
            writer.close()
            return
        self._writers.add(writer)
        gateway: str | None = None
        try:
            while line := await reader.readline():
                message = link_codec.decode(line)
                if isinstance(message, LoadReport):
                    self._tell_load(message)
                elif isinstance(message, Hello):
                    gateway = message.gateway
                    self._welcome(gateway, writer)
                elif isinstance(message, Ask):
                    self._answer_later(message, writer)
        except ValueError as error:
            log.warning("a link is closed: %s", error)
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            self._writers.discard(writer)
            # Why the comparison: a gateway that connected anew must not be struck off by the end of its old link.
            if gateway is not None and self._gateways.get(gateway) is writer:
                del self._gateways[gateway]
                if self._listener is not None:
                    self._listener.leave(gateway)
            writer.close()

    def _welcome(self, gateway: str, writer: asyncio.StreamWriter) -> None:
        self._gateways[gateway] = writer
        if self._listener is not None:
            self._listener.join(gateway)
        if self._line is not None:
            writer.write(self._line)

    def _tell_load(self, report: LoadReport) -> None:
        if self._listener is not None:
            self._listener.take_load(report)

    def _answer_later(self, ask: Ask, writer: asyncio.StreamWriter) -> None:
        # Why a task: a reload takes seconds, and load reports must not wait behind it.
        task = asyncio.ensure_future(self._answer(ask, writer))
        self._answers.add(task)
        task.add_done_callback(self._answers.discard)

    async def _answer(self, ask: Ask, writer: asyncio.StreamWriter) -> None:
        try:
            method = self._methods.get(ask.method)
            if method is None:
                raise NotFound(f"the node knows no question {ask.method[:50]!r}; it knows {', '.join(self._methods)}")
            line = link_codec.encode(Reply(id=ask.id, result=await method(ask.params)))
        except HeadgateError as error:
            line = link_codec.encode(Reply(id=ask.id, error=error))
        except Exception:
            log.exception("the question %s failed", ask.method)
            line = link_codec.encode(Reply(id=ask.id, error=HeadgateError()))
        with contextlib.suppress(OSError, RuntimeError):
            writer.write(line)


def _is_ours(writer: asyncio.StreamWriter) -> bool:
    handle = writer.get_extra_info("socket")
    facts = handle.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    return struct.unpack("3i", facts)[1] in (os.geteuid(), 0)
