"""A fleet without processes, for tests and dry runs: replicas are ready after a set time, and fail when told to."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import replace
from typing import Any

from headgate.allocation.state import Seat
from headgate.control.fleets.fleet import Event, Gone, Member, Ready, StartOrder
from headgate.control.node_plan import NodePlan
from headgate.core.clock import Clock
from headgate.core.secret import Secret


class FakeFleet:
    """Keeps members in memory. `load_s` and `stop_s` are seconds to be ready and to be gone."""

    def __init__(self, clock: Clock, *, load_s: float = 0.1, stop_s: float = 0.05) -> None:
        self.clock = clock
        self.load_s = load_s
        self.stop_s = stop_s
        self.failing: set[str] = set()
        self.broken: set[str] = set()
        self.looked: list[str] = []
        self.cached: dict[str, str] = {}
        self.history: list[tuple[float, str, str]] = []
        self.left_behind: tuple[Member, ...] = ()
        self._members: dict[str, Member] = {}
        self._ready_at: dict[str, float] = {}
        self._stopping: set[str] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._tell: Callable[[Event], None] = lambda event: None

    def listen(self, tell: Callable[[Event], None]) -> None:
        """See Fleet."""
        self._tell = tell

    def members(self) -> tuple[Member, ...]:
        """See Fleet."""
        return tuple(self._members.values())

    def start(self, order: StartOrder) -> None:
        """Ready after `load_s`, or Gone when the pipeline or its model is in `failing`."""
        seat, model = order.seat, order.model
        self._members[order.replica] = Member(
            id=order.replica,
            pipeline=order.pipeline,
            model=model.name,
            version=model.version.digest,
            engine=model.engine.name,
            configuration=order.configuration,
            pool=seat.pool,
            node=seat.node,
            devices=seat.devices,
            share=seat.share,
            memory_bytes=seat.memory_bytes,
            slots=model.options.slots,
            context=model.options.context,
            address=f"unix:/fake/{order.replica}",
            secret=Secret("fake"),
            epoch=order.epoch,
            stage="starting",
            since=self.clock.now(),
        )
        self._note("start", order.pipeline)
        self._later(self._load(order.replica))

    def drain(self, replica: str, reason: str) -> None:
        """See Fleet."""
        self._members[replica] = replace(self._members[replica], stage="draining")
        self._note("drain", self._members[replica].pipeline)

    def take_back(self, replica: str) -> None:
        """See Fleet."""
        member = self._members[replica]
        if member.stage == "draining" and replica not in self._stopping:
            self._members[replica] = replace(member, stage="ready")
            self._note("take back", member.pipeline)

    def rest(self, replica: str, reason: str) -> None:
        """See Fleet."""
        self._members[replica] = replace(self._members[replica], stage="warm", rested_at=self.clock.monotonic())
        self._note("rest", self._members[replica].pipeline)

    def wake(self, replica: str, seat: Seat) -> None:
        """See Fleet."""
        member = self._members[replica]
        if member.stage == "warm" and replica not in self._stopping:
            self._members[replica] = replace(member, stage="ready", devices=seat.devices, rested_at=None)
            self._note("wake", member.pipeline)

    def stop(self, replica: str, reason: str) -> None:
        """Gone after `stop_s`."""
        if replica not in self._members or replica in self._stopping:
            return
        self._stopping.add(replica)
        self._note("stop", self._members[replica].pipeline)
        self._later(self._end(replica, reason))

    def crash(self, replica: str, why: str = "exited with code 1") -> None:
        """Have a replica fail now."""
        member = self._members.pop(replica)
        ready_at = self._ready_at.pop(replica, None)
        ran_s = 0.0 if ready_at is None else self.clock.monotonic() - ready_at
        self._note("crash", member.pipeline)
        self._tell(Gone(member=member, asked=False, why=why, ran_s=ran_s))

    def cache(self, files: Mapping[str, str]) -> None:
        """See Fleet."""
        self.cached = dict(files)

    def look_at(self, replica: str, busy: Callable[[], bool]) -> None:
        """The replica fails when it is in `broken` and not busy."""
        member = self._members.get(replica)
        if member is not None and member.stage == "ready":
            self.looked.append(replica)
            if replica in self.broken and not busy():
                asyncio.get_running_loop().call_soon(self.crash, replica, "was a suspect and does not answer")

    async def adopt(self, plan: NodePlan) -> tuple[Member, ...]:
        """Those in `left_behind` become members."""
        for member in self.left_behind:
            self._members[member.id] = replace(member, adopted=True)
        return self.members()

    async def close(self, *, stop_replicas: bool) -> None:
        """See Fleet."""
        for task in self._tasks:
            task.cancel()
        if stop_replicas:
            self._members.clear()

    async def _load(self, replica: str) -> None:
        await self.clock.sleep(self.load_s)
        member = self._members.get(replica)
        if member is None or replica in self._stopping:
            return
        if not self.failing.isdisjoint((member.pipeline, member.model)):
            self.crash(replica)
            return
        stage = "ready" if member.stage == "starting" else member.stage
        self._members[replica] = replace(member, stage=stage, load_s=self.load_s)
        self._ready_at[replica] = self.clock.monotonic()
        self._tell(Ready(member=self._members[replica]))

    async def _end(self, replica: str, reason: str) -> None:
        await self.clock.sleep(self.stop_s)
        member = self._members.pop(replica, None)
        self._stopping.discard(replica)
        if member is not None:
            self._tell(Gone(member=member, asked=True, why=reason))

    def _note(self, what: str, pipeline: str) -> None:
        self.history.append((round(self.clock.monotonic(), 3), what, pipeline))

    def _later(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
