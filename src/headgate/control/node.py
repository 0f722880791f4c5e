"""The node process: replicas, the reconcile loop and the link, from start to signal. Everything is built by app.

SIGTERM ends the replicas too (`headgate down`); SIGUSR2 and SIGINT leave them running for the next node; SIGHUP reads
the configuration again.
"""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from headgate.control.fleets.fleet import Fleet
from headgate.control.journal import Journal, StoreJournal
from headgate.control.link import Answer, Link
from headgate.control.node_plan import NodePlan
from headgate.control.reconcile import Reconciler
from headgate.control.refiner import Refine, Refiner
from headgate.control.status import build_status, explain_decisions
from headgate.core.chance import Chance
from headgate.core.clock import Clock
from headgate.core.errors import BadRequest, HeadgateError
from headgate.core.ids import Ids

log = logging.getLogger(__name__)

LoadPlan = Callable[[Mapping[str, Any]], Awaitable[NodePlan]]
_MOST_DECISIONS = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeParts:
    """What a node is built from.

    `load_plan` reads the configuration again (given what the asker said) and raises ConfigError or ModelRefused when
    it is not good; `down` has the whole house stopped; `chores` are coroutines to run beside the loop (log rotation);
    `methods` are further questions that the link answers; `refine` solves decisions exactly in the background.
    """

    id: str
    plan: NodePlan
    fleet: Fleet
    journal: Journal
    socket: Path
    clock: Clock
    chance: Chance
    ids: Ids
    load_plan: LoadPlan
    down: Callable[[], None]
    chores: tuple[Callable[[], Coroutine[Any, Any, None]], ...] = ()
    methods: Mapping[str, Answer] = field(default_factory=dict[str, Answer])
    refine: Refine | None = None


class NodeProcess:
    """One node. `run` returns after a signal."""

    def __init__(self, parts: NodeParts) -> None:
        self._parts = parts
        self._stop = asyncio.Event()
        self._keep_replicas = False
        self._reloading = asyncio.Lock()
        self._tasks: list[asyncio.Task[None]] = []
        self.link = Link(
            parts.socket,
            {
                "status": self._status,
                "decisions": self._decisions,
                "reload": self.reload,
                "down": self._down,
                **parts.methods,
            },
        )
        self.reconciler = Reconciler(
            node=parts.id,
            plan=parts.plan,
            fleet=parts.fleet,
            journal=parts.journal,
            clock=parts.clock,
            chance=parts.chance,
            ids=parts.ids,
            publish=self.link.publish,
        )

    async def run(self, ready: Callable[[], None]) -> None:
        """Serve until told to stop; `ready` is called once gateways can connect. Raises OSError."""
        self._watch_signals()
        parts = self._parts
        await parts.fleet.adopt(parts.plan)
        self.reconciler.tick("start")
        await self.link.open(self.reconciler)
        self._tasks.append(asyncio.ensure_future(self.reconciler.run()))
        if isinstance(parts.journal, StoreJournal):
            self._tasks.append(asyncio.ensure_future(parts.journal.run()))
        self._tasks += [asyncio.ensure_future(chore()) for chore in parts.chores]
        if parts.refine is not None:
            self._tasks.append(asyncio.ensure_future(Refiner(self.reconciler, parts.clock, parts.refine).run()))
        ready()
        log.info("serving %d pipelines", len(parts.plan.pipelines))
        await self._stop.wait()
        await self._close()

    def stop(self, *, keep_replicas: bool) -> None:
        """Have `run` return; replicas are ended unless they are to be kept. Ending them cannot be taken back."""
        self._keep_replicas = keep_replicas if not self._stop.is_set() else self._keep_replicas and keep_replicas
        self._stop.set()

    async def reload(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """Read the configuration again and serve it: what was added, removed, replaced and adjusted.

        Raises ConfigError, ModelRefused; then the last good configuration stays in force.
        """
        async with self._reloading:
            plan = await self._parts.load_plan(params)
            changed = self.reconciler.apply_plan(plan)
        log.info("configuration reloaded: %s", changed)
        return {"pipelines": changed}

    async def _close(self) -> None:
        # Why the loop ends first: it must not start anew what is being stopped.
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._parts.fleet.close(stop_replicas=not self._keep_replicas)
        await self.link.close()
        if isinstance(self._parts.journal, StoreJournal):
            await asyncio.to_thread(self._parts.journal.flush)

    def _watch_signals(self) -> None:
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, lambda: self.stop(keep_replicas=False))
        for number in (signal.SIGUSR2, signal.SIGINT):
            loop.add_signal_handler(number, lambda: self.stop(keep_replicas=True))
        loop.add_signal_handler(signal.SIGHUP, self._reload_on_signal)

    def _reload_on_signal(self) -> None:
        async def attempt() -> None:
            try:
                await self.reload({})
            except HeadgateError as error:
                log.error("the configuration was not reloaded: %s", error.message)

        self._tasks.append(asyncio.ensure_future(attempt()))

    async def _status(self, params: Mapping[str, Any]) -> dict[str, Any]:
        status = build_status(self.reconciler)
        if isinstance(self._parts.journal, StoreJournal):
            status["journal"] = {"waiting": self._parts.journal.waiting, "fault": self._parts.journal.fault}
        return status

    async def _decisions(self, params: Mapping[str, Any]) -> list[dict[str, Any]]:
        limit = params.get("limit", 20)
        if not isinstance(limit, int) or isinstance(limit, bool) or not 1 <= limit <= _MOST_DECISIONS:
            raise BadRequest(f"limit must be a whole number from 1 to {_MOST_DECISIONS}", param="limit")
        return explain_decisions(self.reconciler, limit)

    async def _down(self, params: Mapping[str, Any]) -> dict[str, Any]:
        self._parts.down()
        return {"stopping": True}
