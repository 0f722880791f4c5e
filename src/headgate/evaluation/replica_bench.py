"""Replicas to be measured, started as the node starts them: same command, same cores, same walls. One works at a time.

Two stay resident, so that one can be compared with the other within the same second: machines get faster and slower.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from headgate.core.chance import Chance
from headgate.core.chat import Call
from headgate.core.clock import Clock
from headgate.core.errors import DoesNotFit, ModelRefused, ReplicaNotReady
from headgate.core.model import Version
from headgate.core.secret import Secret
from headgate.core.units import format_bytes
from headgate.engines.engine import Engine, Launch, ModelOptions, Upstream
from headgate.evaluation.bench import Answer, Footprint, Served
from headgate.workers.gauges import read_busy_s, read_energy_j, read_idle_s, read_run_s
from headgate.workers.page_cache import drop_cached
from headgate.workers.proc import read_cpu_s
from headgate.workers.readiness import wait_ready
from headgate.workers.replica import ReplicaHost, ReplicaProcess
from headgate.workers.spawn import Placement

_RESIDENTS = 2
_IDLE_S = 0.5  # how long an idle machine's power is looked at


@dataclass(slots=True)
class _Resident:
    options: ModelOptions
    upstream: Upstream
    process: ReplicaProcess | None
    load_s: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """Where replicas run: the host, the placement of one with so many threads, and how much memory is free (bytes).

    `ready_s` is how long one may take to its first token.
    """

    host: ReplicaHost
    place: Callable[[int], Placement]
    free_memory: Callable[[], int]
    ready_s: float


class ReplicaBench:
    """See Bench. Close it at the end, whatever happened: `async with`."""

    def __init__(self, engine: Engine, version: Version, site: Site, clock: Clock, chance: Chance) -> None:
        self._engine, self._version, self._site = engine, version, site
        self._clock, self._chance = clock, chance
        self._residents: dict[bytes, _Resident] = {}  # the least recently used first
        self._count = 0
        self._others_s = self._looked_s = 0.0

    async def __aenter__(self) -> ReplicaBench:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.rest()

    @property
    def disturbed(self) -> float | None:
        """The part of the machine that other processes took while replicas were measured; None when it cannot tell."""
        cores = os.cpu_count() or 1
        return self._others_s / (self._looked_s * cores) if self._looked_s > 0 else None

    async def serve(self, options: ModelOptions, calls: Sequence[Call], at_once: int) -> Served:
        """See Bench."""
        resident = await self._resident(options)
        waiting, answers = list(reversed(calls)), list[Answer]()

        async def work() -> None:
            while waiting:
                answers.append(await self._ask(resident.upstream, waiting.pop()))

        before, core_before = self._read_busy(resident), _read_core_s(resident)
        began = self._clock.monotonic()
        workers = [asyncio.ensure_future(work()) for _ in range(at_once)]
        try:
            await asyncio.gather(*workers)
        finally:
            for worker in workers:
                worker.cancel()
            await asyncio.gather(*workers, return_exceptions=True)
        seconds = self._clock.monotonic() - began
        after, core_after = self._read_busy(resident), _read_core_s(resident)
        if before is not None and after is not None:
            self._others_s += max(0.0, after - before)
            self._looked_s += seconds
        core_s = seconds * options.threads
        if core_before is not None and core_after is not None:
            core_s = min(core_s, core_after - core_before)
        return Served(seconds=seconds, core_s=core_s, at_once=at_once, answers=tuple(answers))

    async def load(self, options: ModelOptions, *, cold: bool = False) -> float | None:
        """See Bench."""
        if cold:
            await self.rest()
            path = Path(self._version.path)
            if not self._version.path or not await asyncio.to_thread(drop_cached, path):
                return None
        else:
            await self._stop(_key(options))
        return (await self._resident(options)).load_s

    async def rest(self) -> None:
        """See Bench."""
        for key in list(self._residents):
            await self._stop(key)

    def footprint(self, options: ModelOptions) -> Footprint:
        """See Bench."""
        resident = self._residents.get(_key(options))
        if resident is None or resident.process is None:
            return Footprint(warm=None, peak=None)
        memory = resident.process.read_memory()
        return Footprint(warm=memory.pss or memory.rss, peak=memory.peak)

    async def watts(self, options: ModelOptions, calls: Sequence[Call]) -> float | None:
        """See Bench."""
        idle = read_energy_j()
        if idle is None:
            return None
        await self._resident(options)
        before = read_energy_j() or 0.0
        await self._clock.sleep(_IDLE_S)
        between = read_energy_j() or 0.0
        served = await self.serve(options, calls, options.slots)
        after = read_energy_j() or 0.0
        if not before < between < after or served.seconds <= 0:
            return None
        return max(0.0, (after - between) / served.seconds - (between - before) / _IDLE_S)

    async def _resident(self, options: ModelOptions) -> _Resident:
        key = _key(options)
        found = self._residents.pop(key, None)
        if found is None:
            self._engine.check(self._version, options)
            await self._make_room(options)
            found = await self._start(options)
        self._residents[key] = found
        return found

    async def _make_room(self, options: ModelOptions) -> None:
        need = self._engine.estimate_memory(self._version, options).total
        while self._residents and (len(self._residents) >= _RESIDENTS or need > self._site.free_memory()):
            await self._stop(next(iter(self._residents)))
        free = self._site.free_memory()
        if need > free:
            raise DoesNotFit(
                f"a replica needs {format_bytes(need)} of memory and {format_bytes(free)} are free. Give it less "
                "context or fewer slots, or free memory on this machine."
            )

    async def _start(self, options: ModelOptions) -> _Resident:
        host = self._site.host
        self._count += 1
        name = f"tune{self._count}"
        launch = Launch(
            replica=name,
            version=self._version,
            options=options,
            address=host.choose_address(name),
            secret=Secret(self._chance.token_bytes(32).hex()),
        )
        upstream = self._engine.upstream(launch)
        command = self._engine.command(launch)
        if command is None:
            began = self._clock.monotonic()
            await self._engine.check_ready(upstream, self._version)
            return _Resident(options, upstream, None, self._clock.monotonic() - began)
        placement = self._site.place(options.threads)
        process = await ReplicaProcess.start(host, command, launch, epoch=0, placement=placement)
        try:
            load_s = await wait_ready(
                self._engine, upstream, self._version, process, self._clock, deadline_s=self._site.ready_s
            )
        except BaseException as error:
            said = " ".join(process.log_tail(3))
            await process.stop(0.0)
            if isinstance(error, ReplicaNotReady):
                raise ModelRefused(f"{error.message}. {said}".strip()) from error
            raise
        return _Resident(options, upstream, process, load_s)

    async def _stop(self, key: bytes) -> None:
        resident = self._residents.pop(key, None)
        if resident is not None and resident.process is not None:
            await resident.process.stop()

    async def _ask(self, upstream: Upstream, call: Call) -> Answer:
        began = self._clock.monotonic()
        first_s: float | None = None
        text: list[str] = []
        prompt_tokens = output_tokens = 0
        async with aclosing(self._engine.stream(upstream, call)) as deltas:
            async for delta in deltas:
                if first_s is None and (delta.text or delta.reasoning or delta.embeddings):
                    first_s = self._clock.monotonic() - began
                text.append(delta.text)
                if delta.usage is not None:
                    prompt_tokens, output_tokens = delta.usage.prompt_tokens, delta.usage.output_tokens
        end_s = self._clock.monotonic() - began
        return Answer(
            first_s=end_s if first_s is None else first_s,
            end_s=end_s,
            prompt_tokens=prompt_tokens,
            output_tokens=output_tokens,
            text="".join(text),
        )

    def _read_busy(self, resident: _Resident) -> float | None:
        """Processor seconds of everybody else so far."""
        busy, own = read_busy_s(), read_cpu_s(os.getpid())
        ours = resident.process.read_cpu_s() if resident.process is not None else 0.0
        return None if busy is None or own is None or ours is None else busy - own - ours


def _read_core_s(resident: _Resident) -> float | None:
    """Core-seconds so far that the replica used or left idle; None where it has no cores of its own."""
    process = resident.process
    if process is None or not process.record.placement.cores:
        return None
    run_s, idle_s = read_run_s(process.record.pid), read_idle_s(process.record.placement.cores)
    return None if run_s is None or idle_s is None else run_s + idle_s


def _key(options: ModelOptions) -> bytes:
    plain: dict[str, Any] = {name: getattr(options, name) for name in ModelOptions.__dataclass_fields__}
    return orjson.dumps(plain | {"settings": dict(options.settings)}, option=orjson.OPT_SORT_KEYS, default=str)
