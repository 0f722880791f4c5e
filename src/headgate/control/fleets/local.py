"""Replicas as processes of this machine: started, made sure of, watched, stopped, and taken over after a restart.

Knows how a replica lives; why it is started or stopped is the reconciler's.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol, cast

from headgate.allocation.state import Seat
from headgate.control.fleets.adoption import build_label, find_left_behind, move_label, read_version
from headgate.control.fleets.fleet import Event, Gone, Member, Ready, StartOrder
from headgate.control.fleets.looks import Looks, Suspect
from headgate.control.journal import Journal
from headgate.control.node_plan import NodePlan
from headgate.core.chance import Chance
from headgate.core.clock import Clock
from headgate.core.errors import DoesNotFit, HeadgateError
from headgate.core.secret import Secret
from headgate.core.units import format_bytes
from headgate.engines.engine import Engine, Launch, Upstream
from headgate.workers.exits import Exit
from headgate.workers.page_cache import PageCache
from headgate.workers.readiness import wait_ready
from headgate.workers.replica import ReplicaHost, ReplicaProcess
from headgate.workers.spawn import Placement

log = logging.getLogger(__name__)

_SECRET_BYTES = 32


class _Endpoint(Protocol):
    """An engine whose replicas are not processes of ours, but somebody else's address."""

    def upstream(self, launch: Launch) -> Upstream: ...


@dataclass(slots=True, eq=False)
class _Life:
    """One replica and the task that lives its life. `asked` is why we stop it, once we do; `fault` what was found
    wrong with it while its process lived.
    """

    member: Member
    task: asyncio.Task[None] | None = None
    process: ReplicaProcess | None = None
    ending: asyncio.Task[Exit] | None = None
    asked: str | None = None
    fault: str | None = None
    ready_at: float | None = None
    released: asyncio.Event = field(default_factory=asyncio.Event)


class LocalFleet:
    """The replicas of this node."""

    def __init__(
        self,
        *,
        host: ReplicaHost,
        engines: Mapping[str, Engine],
        journal: Journal,
        clock: Clock,
        chance: Chance,
        free_memory: Callable[[], int | None] = lambda: None,
    ) -> None:
        """`engines` by name are for replicas that run already; `free_memory` tells the bytes free now."""
        self._host = host
        self._engines = engines
        self._journal = journal
        self._clock = clock
        self._chance = chance
        self._free_memory = free_memory
        self._lives: dict[str, _Life] = {}
        self._looks = Looks(clock)
        self._cache = PageCache()
        self._tell: Callable[[Event], None] = lambda event: None

    def listen(self, tell: Callable[[Event], None]) -> None:
        """See Fleet."""
        self._tell = tell

    def members(self) -> tuple[Member, ...]:
        """See Fleet."""
        return tuple(life.member for life in self._lives.values())

    def start(self, order: StartOrder) -> None:
        """See Fleet."""
        secret = Secret(self._chance.token_bytes(_SECRET_BYTES).hex())
        member = _enlist(order, self._host.choose_address(order.replica), secret, self._clock.now())
        life = self._lives[order.replica] = _Life(member=member)
        self._journal.record_replica(_row(member))
        life.task = asyncio.ensure_future(self._live(life, order))

    def drain(self, replica: str, reason: str) -> None:
        """See Fleet."""
        life = self._lives.get(replica)
        if life is not None and life.member.stage != "draining":
            self._change(life, replace(life.member, stage="draining"))
            self._journal.record_replica({"id": replica, "state": "draining", "reason": reason})

    def take_back(self, replica: str) -> None:
        """See Fleet."""
        life = self._lives.get(replica)
        if life is not None and life.member.stage == "draining" and life.asked is None:
            self._change(life, replace(life.member, stage="ready"))
            self._journal.record_replica({"id": replica, "state": "ready", "reason": None})

    def rest(self, replica: str, reason: str) -> None:
        """See Fleet."""
        life = self._lives.get(replica)
        if life is not None and life.asked is None:
            self._put(life, replace(life.member, stage="warm", rested_at=self._clock.monotonic()), reason)

    def wake(self, replica: str, seat: Seat) -> None:
        """See Fleet."""
        life = self._lives.get(replica)
        if life is not None and life.member.stage == "warm" and life.asked is None:
            self._put(life, replace(life.member, stage="ready", devices=seat.devices, rested_at=None), None)

    def stop(self, replica: str, reason: str) -> None:
        """See Fleet."""
        life = self._lives.get(replica)
        if life is None or life.asked is not None:
            return
        life.asked = reason
        life.released.set()
        if life.process is not None:
            life.ending = asyncio.ensure_future(life.process.stop())

    def cache(self, files: Mapping[str, str]) -> None:
        """See Fleet."""
        self._cache.keep({Path(path) for path in files.values()})

    def look_at(self, replica: str, busy: Callable[[], bool]) -> None:
        """See Fleet. An address of somebody else is not looked at: it is not ours to start anew."""
        life = self._lives.get(replica)
        if life is None or life.process is None or life.asked is not None or life.member.stage != "ready":
            return
        member = life.member
        engine, version = self._engines.get(member.engine), read_version(life.process.record)
        if engine is None or version is None:
            return
        upstream = Upstream(address=member.address, secret=member.secret)
        self._looks.begin(
            Suspect(
                replica=replica,
                ask=lambda: engine.check_ready(upstream, version),
                busy=busy,
                condemn=lambda fault: self._condemn(life, fault),
            )
        )

    async def adopt(self, plan: NodePlan) -> tuple[Member, ...]:
        """See Fleet. What cannot prove that it is what the record says is ended."""
        found = await find_left_behind(self._host, self._engines, self._journal, self._clock)
        for member, process in found:
            life = self._lives[member.id] = _Life(member=member, process=process)
            life.ready_at = self._clock.monotonic()
            if member.stage == "warm":
                self._change(life, replace(member, rested_at=life.ready_at))
            self._journal.record_replica({**_row(member), "ready_at": self._clock.now()})
            life.task = asyncio.ensure_future(self._watch_adopted(life, process))
        return self.members()

    async def close(self, *, stop_replicas: bool) -> None:
        """See Fleet."""
        self._looks.close()
        self._cache.close()
        lives = list(self._lives.values())
        if stop_replicas:
            for life in lives:
                self.stop(life.member.id, "Headgate stops")
        else:
            for life in lives:
                if life.task is not None:
                    life.task.cancel()
        tasks = [life.task for life in lives if life.task is not None]
        await asyncio.gather(*tasks, return_exceptions=True)

    # -- one life ----------------------------------------------------------------------------------------------------

    async def _live(self, life: _Life, order: StartOrder) -> None:
        """From order to end. Cancelled: the process stays, for the next node to take over."""
        why: str
        ended: Exit | None = None
        try:
            if life.asked is None:
                await self._raise_up(life, order)
            if life.process is not None:
                ended = await life.process.wait()
            else:
                await life.released.wait()
            why = ended.describe() if ended is not None else "released"
        except asyncio.CancelledError:
            if life.process is not None:
                life.process.detach()
            raise
        except HeadgateError as error:
            why, ended = error.message, await self._clear_away(life)
        except Exception as error:
            log.exception("replica %s of %s could not be started", life.member.id, life.member.pipeline)
            why, ended = f"could not be started ({type(error).__name__})", await self._clear_away(life)
        self._bury(life, why, ended)

    async def _watch_adopted(self, life: _Life, process: ReplicaProcess) -> None:
        try:
            ended = await process.wait()
        except asyncio.CancelledError:
            process.detach()
            raise
        self._bury(life, ended.describe(), ended)

    async def _raise_up(self, life: _Life, order: StartOrder) -> None:
        """Start the process and wait for its first token. Raises HeadgateError when it has none to give."""
        if order.kind == "cpu":  # Why not for GPUs: their memory is not the machine's, and is accounted for by the pool
            await self._make_room(order.seat.memory_bytes)
            self._check_memory(order)
        member, model = life.member, order.model
        launch = Launch(
            replica=member.id,
            version=model.version,
            options=model.options,
            address=member.address,
            secret=member.secret,
        )
        command = model.engine.command(launch)
        if command is None:
            await self._reach(life, order, cast("_Endpoint", model.engine).upstream(launch))
            return
        cpu = order.kind == "cpu"
        placement = Placement(
            cores=order.seat.devices if cpu else (),
            share=min(1.0, order.seat.share),
            gpus=() if cpu else tuple(str(device) for device in order.seat.devices),
        )
        life.process = process = await ReplicaProcess.start(
            self._host, command, launch, epoch=order.epoch, placement=placement, labels=build_label(member, model)
        )
        self._change(life, replace(life.member, pid=process.record.pid))
        told = {"id": member.id, "pid": process.record.pid, "started_ticks": process.record.started_ticks}
        self._journal.record_replica(told)
        if life.asked is not None:  # stopped while it was being started
            life.ending = asyncio.ensure_future(process.stop())
            return
        upstream = Upstream(address=member.address, secret=member.secret)
        load_s = await wait_ready(model.engine, upstream, model.version, process, self._clock, deadline_s=order.ready_s)
        self._welcome(life, load_s)

    async def _reach(self, life: _Life, order: StartOrder, upstream: Upstream) -> None:
        """Make sure of an endpoint. Raises HeadgateError when it does not answer."""
        began = self._clock.monotonic()
        self._change(life, replace(life.member, address=upstream.address, secret=upstream.secret))
        await order.model.engine.check_ready(upstream, order.model.version)
        self._welcome(life, self._clock.monotonic() - began)

    def _welcome(self, life: _Life, load_s: float) -> None:
        life.ready_at = self._clock.monotonic()
        stage = "ready" if life.member.stage == "starting" else life.member.stage
        self._change(life, replace(life.member, stage=stage, load_s=load_s))
        self._journal.record_replica({"id": life.member.id, "state": stage, "ready_at": self._clock.now()})
        self._tell(Ready(member=life.member))

    def _condemn(self, life: _Life, fault: str) -> None:
        """End a replica that is broken although its process lives: it failed."""
        if life.process is not None and life.asked is None:
            life.fault = fault
            life.process.kill()

    async def _clear_away(self, life: _Life) -> Exit | None:
        """End what is left of a replica that did not become ready; how it ended."""
        if life.process is None:
            return None
        if life.asked is None:
            for line in life.process.log_tail(5):
                log.warning("replica %s: %s", life.member.id, line)
        return await life.process.stop()

    def _bury(self, life: _Life, why: str, ended: Exit | None) -> None:
        member, why = life.member, life.fault or why
        self._lives.pop(member.id, None)
        self._looks.end(member.id)
        asked = life.asked is not None
        self._journal.record_replica(
            {
                "id": member.id,
                "state": "stopped" if asked else "failed",
                "stopped_at": self._clock.now(),
                "exit_code": ended.code if ended is not None else None,
                "reason": life.asked if asked else why,
            }
        )
        ran_s = 0.0 if life.ready_at is None else self._clock.monotonic() - life.ready_at
        self._tell(Gone(member=member, asked=asked, why=life.asked or why, ran_s=ran_s))

    async def _make_room(self, need: int) -> None:
        """End warm replicas, who rested longest first, while the machine has less memory than a new one needs.

        Why here too: a pool's memory is what may be used, and other programs may have taken of it.
        """
        while (free := self._free_memory()) is not None and free < need:
            warm = [one for one in self._lives.values() if one.member.stage == "warm" and one.asked is None]
            if not warm:
                return
            longest = min(warm, key=lambda one: (one.member.rested_at or 0.0, one.member.id))
            self.stop(longest.member.id, "its memory is needed")
            if longest.task is not None:
                await asyncio.wait((longest.task,))

    def _check_memory(self, order: StartOrder) -> None:
        free = self._free_memory()
        need = order.seat.memory_bytes
        if free is not None and need > free:
            raise DoesNotFit(
                f"needs {format_bytes(need)} of memory and {format_bytes(free)} are free: {need - free} bytes are "
                "missing. Give it less context or fewer slots, or free memory on this machine."
            )

    def _put(self, life: _Life, member: Member, reason: str | None) -> None:
        """Give a loaded replica devices, or take them from it."""
        self._change(life, member)
        if life.process is not None:
            gpus = life.process.record.placement.gpus
            cores = () if gpus else member.devices
            placement = Placement(cores=cores, share=min(1.0, member.share_now), gpus=gpus)
            try:
                life.process.place(placement, move_label(life.process.record, member))
            except OSError as error:  # it is ending, and Gone follows
                log.warning("replica %s of %s cannot be placed: %s", member.id, member.pipeline, error.strerror)
        self._journal.record_replica({"id": member.id, "state": member.stage, "reason": reason})

    def _change(self, life: _Life, member: Member) -> None:
        life.member = member


def _enlist(order: StartOrder, address: str, secret: Secret, now: float) -> Member:
    seat, model = order.seat, order.model
    return Member(
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
        address=address,
        secret=secret,
        epoch=order.epoch,
        stage="starting",
        since=now,
    )


def _row(member: Member) -> dict[str, object]:
    """The row of a replica. Its secret stays in the run folder: a copy of the database must not hold it."""
    return {
        "id": member.id,
        "pipeline": member.pipeline,
        "model": member.model,
        "version": member.version,
        "engine": member.engine,
        "pool": member.pool,
        "device": member.device,
        "cores": list(member.devices),
        "share": member.share,
        "slots": member.slots,
        "context": member.context,
        "address": member.address,
        "secret": "",
        "epoch": member.epoch,
        "pid": member.pid,
        "state": member.stage,
        "created_at": member.since,
        "memory_bytes": member.memory_bytes,
    }
