"""A gateway's end of run/node.sock: keeps the newest routing table, reports load, asks questions.

When the node is gone the last table stays in force and the link comes back by itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
from collections.abc import Callable, Generator, Mapping
from typing import Any

from headgate.core import link_codec
from headgate.core.clock import Clock
from headgate.core.errors import Unavailable
from headgate.core.link_codec import Ask, Hello, Reply
from headgate.core.table import LoadReport, RoutingTable

log = logging.getLogger(__name__)

_RETRY_S = 0.1
_SILENCE_S = 30.0  # a node that leaves two questions in a row unanswered for so long hangs
_UNREAD_MAX = 1024 * 1024


class NodeLink:
    """One connection to the node, remade as often as it breaks."""

    def __init__(
        self, path: str, gateway: str, pid: int, clock: Clock, on_table: Callable[[RoutingTable], None]
    ) -> None:
        self._path = path
        self._hello = Hello(gateway=gateway, pid=pid)
        self._clock = clock
        self._on_table = on_table
        self._writer: asyncio.StreamWriter | None = None
        self._asked: dict[int, asyncio.Future[Reply]] = {}
        self._numbers = itertools.count(1)

    @property
    def connected(self) -> bool:
        """Whether the node listens now."""
        return self._writer is not None

    async def run(self) -> None:
        """Keep the link up until cancelled."""
        while True:
            why = "the node closed the link"
            try:
                await self._converse()
            except (OSError, ValueError, asyncio.IncompleteReadError) as error:
                why = type(error).__name__
            except Exception:
                # Why go on: a gateway that no longer hears its node would route by an old table for good.
                log.exception("a message of the node could not be taken")
                why = "a message could not be taken"
            self._lose(why)
            await self._clock.sleep(_RETRY_S)

    def report(self, load: LoadReport) -> None:
        """Send a load report. Dropped without a word while the node is away: the next one carries the state anew."""
        writer = self._writer
        if writer is None or writer.is_closing():
            return
        if writer.transport.get_write_buffer_size() < _UNREAD_MAX:  # a node that hangs reads none of them
            writer.write(link_codec.encode(load))

    async def ask(self, method: str, params: Mapping[str, Any] | None = None) -> Any:
        """The node's answer, however long it takes while the node answers others.

        Raises Unavailable while there is no node or it is silent, or the error that the node gave.
        """
        with self._open(method, params or {}) as reply:
            while not await self._settles(reply):
                # Why no limit as such: a reload may download for an hour, and a node that lives answers this at once.
                with self._open("status", {}) as sign:
                    if not await self._settles(sign):
                        raise Unavailable("The node did not answer in time. `headgate status` shows its state.")
            return reply.result().unwrap()

    @contextlib.contextmanager
    def _open(self, method: str, params: Mapping[str, Any]) -> Generator[asyncio.Future[Reply]]:
        """A question, sent; its reply is waited for within."""
        if self._writer is None:
            raise Unavailable("The node process is restarting. Try again in a second.", retry_after_s=1.0)
        number = next(self._numbers)
        future: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self._asked[number] = future
        try:
            self._writer.write(link_codec.encode(Ask(id=number, method=method, params=params)))
            yield future
        finally:
            del self._asked[number]

    async def _settles(self, reply: asyncio.Future[Reply]) -> bool:
        """Whether there is a reply, or the loss of the link, within `_SILENCE_S`."""
        timer = asyncio.ensure_future(self._clock.sleep(_SILENCE_S))
        try:
            await asyncio.wait((reply, timer), return_when=asyncio.FIRST_COMPLETED)
        finally:
            timer.cancel()
        if reply.done():
            reply.exception()  # looked at here, should nobody else do so
        return reply.done()

    async def _converse(self) -> None:
        reader, writer = await asyncio.open_unix_connection(self._path, limit=link_codec.MAX_LINE_BYTES)
        self._writer = writer
        try:
            writer.write(link_codec.encode(self._hello))
            while line := await reader.readline():
                message = link_codec.decode(line)
                if isinstance(message, RoutingTable):
                    self._on_table(message)
                elif isinstance(message, Reply):
                    future = self._asked.get(message.id)
                    if future is not None and not future.done():
                        future.set_result(message)
        finally:
            writer.close()

    def _lose(self, why: str) -> None:
        if self._writer is not None:
            log.warning("link to the node lost: %s", why)
        self._writer = None
        for future in self._asked.values():
            if not future.done():
                future.set_exception(Unavailable("The node process restarted. Ask again.", retry_after_s=1.0))
