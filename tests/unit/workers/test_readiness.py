"""Ready, dead or late: each ends the wait, on a clock that only moves when told to."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from headgate.core.clock import ManualClock
from headgate.core.errors import ReplicaNotReady, UpstreamFailed
from headgate.workers.exits import Exit
from headgate.workers.readiness import answers, wait_ready

ANY: Any = None


class SlowEngine:
    """Ready at the n-th time of asking; never for None."""

    def __init__(self, ready_at: int | None) -> None:
        self.asked = 0
        self._ready_at = ready_at

    async def check_ready(self, upstream: object, version: object) -> None:
        self.asked += 1
        if self._ready_at is None or self.asked < self._ready_at:
            raise UpstreamFailed


class Process:
    """Stands for a replica's process."""

    def __init__(self) -> None:
        self.exit: Exit | None = None
        self.record = SimpleNamespace(replica="r1")
        self._ended = asyncio.Event()

    async def wait(self) -> Exit:
        await self._ended.wait()
        assert self.exit is not None
        return self.exit

    def end(self, **how: Any) -> None:
        self.exit = Exit(**{"pid": 1, "started_ticks": 1, "code": None, "signal": None, "at": 0.0, **how})
        self._ended.set()


def begin(engine: Any, process: Any, clock: ManualClock, deadline_s: float = 10.0) -> asyncio.Task[float]:
    return asyncio.create_task(wait_ready(engine, ANY, ANY, process, clock, deadline_s=deadline_s))


async def test_asks_until_it_is_ready() -> None:
    clock, engine = ManualClock(), SlowEngine(ready_at=4)
    waiting = begin(engine, Process(), clock)
    await asyncio.sleep(0)
    for _ in range(20):
        await clock.advance(0.01)
    assert engine.asked == 4
    assert 0 < await waiting < 0.2


async def test_asks_more_rarely_with_time() -> None:
    clock, engine = ManualClock(), SlowEngine(ready_at=None)
    waiting = begin(engine, Process(), clock)
    await asyncio.sleep(0)
    for _ in range(90):
        await clock.advance(0.1)
    assert engine.asked < 60
    with pytest.raises(ReplicaNotReady, match="no token in 10 s"):
        for _ in range(20):
            await clock.advance(0.1)
        await waiting


async def test_the_end_of_the_process_ends_the_wait_at_once() -> None:
    clock, process = ManualClock(), Process()
    waiting = begin(SlowEngine(ready_at=None), process, clock)
    await asyncio.sleep(0)
    process.end(signal="SIGKILL", out_of_memory=True)
    with pytest.raises(ReplicaNotReady, match=r"r1 was killed by SIGKILL \(looks like out of memory\) before"):
        await waiting
    assert clock.monotonic() == 0.0


async def test_a_bug_in_an_engine_is_not_taken_for_slowness() -> None:
    class Broken(SlowEngine):
        async def check_ready(self, upstream: object, version: object) -> None:
            raise RuntimeError("bug")

    with pytest.raises(RuntimeError, match="bug"):
        await begin(Broken(1), Process(), ManualClock())


async def test_answers_has_patience_and_no_more() -> None:
    clock = ManualClock()
    engine: Any = SlowEngine(ready_at=1)
    assert await answers(engine, ANY, ANY, clock, patience_s=1.0)
    mute: Any = SlowEngine(ready_at=None)
    waiting = asyncio.create_task(answers(mute, ANY, ANY, clock, patience_s=1.0))
    await asyncio.sleep(0)
    for _ in range(12):
        await clock.advance(0.1)
    assert not await waiting
