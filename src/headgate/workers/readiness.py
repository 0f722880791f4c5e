"""Waiting until a replica is ready, which it is once it has produced a real token."""

from __future__ import annotations

import asyncio

from headgate.core.clock import Clock
from headgate.core.errors import ReplicaNotReady, UpstreamFailed
from headgate.core.model import Version
from headgate.engines.engine import Engine, Upstream
from headgate.workers.replica import ReplicaProcess

_FIRST_S = 0.005
_LONGEST_S = 0.25


async def wait_ready(
    engine: Engine,
    upstream: Upstream,
    version: Version,
    process: ReplicaProcess,
    clock: Clock,
    *,
    deadline_s: float,
) -> float:
    """Seconds until the replica produced its first token.

    Asks often at first, because a tiny model loads in some hundredths of a second, then ever more rarely.
    Raises ReplicaNotReady when the process ends (at once, with how) or `deadline_s` seconds pass.
    """
    began = clock.monotonic()
    asking = asyncio.ensure_future(_ask_until_ready(engine, upstream, version, clock))
    ending = asyncio.ensure_future(process.wait())
    late = asyncio.ensure_future(clock.sleep(deadline_s))
    tasks = (asking, ending, late)
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            if not task.done():
                task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    replica = process.record.replica
    if not asking.cancelled() and asking.exception() is None:
        return clock.monotonic() - began
    if process.exit is not None:
        raise ReplicaNotReady(f"replica {replica} {process.exit.describe()} before it was ready")
    failure = None if asking.cancelled() else asking.exception()
    if failure is not None:
        raise failure
    raise ReplicaNotReady(f"replica {replica} gave no token in {deadline_s:g} s")


async def answers(engine: Engine, upstream: Upstream, version: Version, clock: Clock, *, patience_s: float) -> bool:
    """Whether the replica takes our secret and answers within `patience_s` seconds: the proof that `adopt`
    asks for.
    """
    asking = asyncio.ensure_future(_ask_until_ready(engine, upstream, version, clock))
    late = asyncio.ensure_future(clock.sleep(patience_s))
    try:
        await asyncio.wait((asking, late), return_when=asyncio.FIRST_COMPLETED)
        return asking.done() and asking.exception() is None
    finally:
        asking.cancel()
        late.cancel()
        await asyncio.gather(asking, late, return_exceptions=True)


async def _ask_until_ready(engine: Engine, upstream: Upstream, version: Version, clock: Clock) -> None:
    pause = _FIRST_S
    while True:
        try:
            await engine.check_ready(upstream, version)
            return
        except UpstreamFailed:
            await clock.sleep(pause)
            pause = min(_LONGEST_S, pause * 1.5)
