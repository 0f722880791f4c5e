"""One policy on one case of the live lane: a real Headgate, a real load, and a watch on what runs."""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import os
import threading
from collections import deque
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from benchmarks.lanes.live_cases import CORES, LATE_AFTER_S, PATIENCE_S, Case, fixed
from headgate.allocation.capacity import Capacity, Node, Pool
from headgate.allocation.pipeline import Configuration
from headgate.app.demonstration import Opened, close_house, open_house, reload_house, run_load
from headgate.app.local_admin import LocalAdmin
from headgate.core.clock import SystemClock
from headgate.core.errors import DeadlineExceeded
from headgate.core.units import parse_bytes
from headgate.evaluation.burst import Arrival, Phase
from headgate.evaluation.samples import Sample, percentile
from headgate.evaluation.static_split import Split, fits
from headgate.workers.proc import is_running

LOOK_S = 0.02
_SCALE_EVERY_S, _SCALE_DOWN_S, _SCALE_TARGET = 1.0, 3.0, 0.7
POLICIES = ("headgate", "static", "autoscalers", "unpinned")


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What a policy made of a load. A lost request counts as one that took all of its client's patience.

    `dropped` are answers that had begun and were not ended, though their client still waited; `over` are the looks, of
    `looks`, at which replicas held more than there is.
    """

    requests: int
    late: int
    lost: int
    dropped: int
    p95_ms: float
    on_time_per_s: float
    moves: int
    looks: int
    over: int


@dataclass(slots=True)
class BudgetWatch:
    """Looks at the replica processes every 20 ms, from outside: by their records and /proc.

    Over is: more of a core, of all cores or of the memory than there is, held by processes that live.
    """

    run: Path
    memory_bytes: int | None
    looks: int = 0
    over: int = 0
    _end: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self._watch, name="budget")
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._thread is not None
        self._end.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._end.wait(LOOK_S):
            self.looks += 1
            self.over += self.look()

    def look(self) -> bool:
        """Whether more is held now than there is."""
        held = [record for record in self._records() if is_running(record["pid"], record["started_ticks"])]
        by_core: dict[int, float] = {}
        for record in held:
            for core in record["placement"]["cores"]:
                by_core[core] = by_core.get(core, 0.0) + record["placement"]["share"]
        memory = sum(json.loads(record["labels"]["member"])["memory_bytes"] for record in held)
        crowded = any(share > 1.0 + 1e-6 for share in by_core.values())
        return crowded or (self.memory_bytes is not None and memory > self.memory_bytes)

    def _records(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        for path in self.run.glob("replica-*.json"):
            with contextlib.suppress(OSError, ValueError):  # it ended meanwhile
                found.append(json.loads(path.read_bytes()))
        return found


@contextlib.contextmanager
def open_case(case: Case, folder: Path, clock: SystemClock) -> Generator[Opened]:
    """A house for `case` in `folder`, in which capacity moves; taken down at the end."""
    config = folder / "headgate.yaml"
    config.write_text(case.configuration(str(folder / "state"), lambda _: {"cap": case.places}))
    try:
        yield open_house(config, clock)
    finally:
        close_house(config, clock)


def list_room(case: Case, memory_bytes: Mapping[str, int]) -> tuple[Capacity, dict[str, Configuration]]:
    """What there is to split and how big a replica of each pipeline is; `memory_bytes` is that of one replica."""
    limit = parse_bytes(case.memory) if case.memory else sum(memory_bytes.values()) * 100
    node = Node(name="local", devices=tuple(range(CORES)), share=float(CORES), memory_bytes=limit)
    sizes = {
        name: Configuration(
            key=name, pool="cpu", share=model["cores"], slots=model["slots"], memory_bytes=memory_bytes[name]
        )
        for name, model in case.models.items()
    }
    return Capacity(pools=(Pool(name="cpu", kind="cpu", nodes=(node,)),)), sizes


async def measure(
    opened: Opened,
    case: Case,
    policy: str,
    load: tuple[tuple[Phase, ...], Sequence[Arrival]],
    clock: SystemClock,
    *,
    split: Split,
    room: tuple[Capacity, Mapping[str, Configuration]],
    seed: int,
) -> Measured:
    """Send the load to the case's house under `policy`; `split` is what a static one holds, and others begin with."""
    state = str(opened.places.state)
    bounds, held = fixed(split), split
    if policy == "headgate":
        bounds, held = (lambda _: {"cap": case.places}), None
    elif policy == "unpinned":
        held = dict.fromkeys(case.models, CORES)
        bounds = fixed(held)
    opened.config.write_text(case.configuration(state, bounds, resident=policy == "unpinned"))
    await reload_house(opened, clock, held)
    if policy == "unpinned":
        await _unpin(opened, clock)
    phases, arrivals = load
    memory = parse_bytes(case.memory) if case.memory else None
    scaling = asyncio.create_task(_autoscale(opened, case, split, room, clock)) if policy == "autoscalers" else None
    try:
        with BudgetWatch(run=opened.places.run, memory_bytes=memory) as watch:
            progress = await run_load(opened, phases, tuple(arrivals), clock, seed=seed, show=lambda _: None)
    finally:
        if scaling is not None:
            scaling.cancel()
            await asyncio.gather(scaling, return_exceptions=True)
    return sum_up_run(progress.samples, phases[-1].until_s, moves=progress.moved(), looks=watch.looks, over=watch.over)


def sum_up_run(samples: Sequence[Sample], seconds: float, *, moves: int, looks: int, over: int) -> Measured:
    """The figures of one run of a load that came for `seconds`."""
    lost = [one for one in samples if one.failure is not None]
    late = sum(1 for one in samples if one.is_late(LATE_AFTER_S))
    times = sorted(PATIENCE_S if one.failure else one.latency_s for one in samples)
    return Measured(
        requests=len(samples),
        late=late,
        lost=len(lost),
        dropped=sum(1 for one in lost if one.first_s is not None and one.failure != DeadlineExceeded.code),
        p95_ms=(percentile(times, 0.95) or 0.0) * 1e3,
        on_time_per_s=(len(samples) - len(lost) - late) / seconds,
        moves=moves,
        looks=looks,
        over=over,
    )


async def _unpin(opened: Opened, clock: SystemClock) -> None:
    """Let every replica use every core: from here on only the kernel shares them out."""
    async with LocalAdmin(opened.places, clock) as admin:
        status = await admin.ask("GET", "/admin/status")
    for replica in status["replicas"]:
        for thread in Path(f"/proc/{replica['pid']}/task").iterdir():
            os.sched_setaffinity(int(thread.name), range(CORES))


async def _autoscale(
    opened: Opened,
    case: Case,
    split: Split,
    room: tuple[Capacity, Mapping[str, Configuration]],
    clock: SystemClock,
) -> None:
    """One autoscaler for each pipeline, each with an eye for its own load only; places go to who comes first.

    Source: Kubernetes' HorizontalPodAutoscaler: replicas = ceil(load / target), less only after a while. Its 15 s
    between looks and 300 s before it takes away are 1 s and 3 s here, because the load's day is half a minute.
    """
    counts = dict(split)
    least = 1 if all(split.values()) else 0
    asked = {name: deque[int](maxlen=math.ceil(_SCALE_DOWN_S / _SCALE_EVERY_S)) for name in counts}
    async with LocalAdmin(opened.places, clock) as admin:
        while True:
            await clock.sleep(_SCALE_EVERY_S)
            status = await admin.ask("GET", "/admin/status")
            before = dict(counts)
            for name, one in status["pipelines"].items():
                slots = case.models[name]["slots"]
                asked[name].append(max(least, math.ceil((one["in_flight"] + one["queued"]) / slots / _SCALE_TARGET)))
                counts[name] = min(counts[name], max(asked[name]))
                while counts[name] < asked[name][-1] and fits(*room, {**counts, name: counts[name] + 1}):
                    counts[name] += 1
            if counts != before:
                patient = {name: {"floor": count, "cap": count} for name, count in counts.items()}
                opened.config.write_text(case.configuration(str(opened.places.state), patient.__getitem__))
                await admin.ask("POST", "/admin/reload", {"path": str(opened.config)})
