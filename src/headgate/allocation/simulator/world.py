"""What is simulated: requests that were drawn beforehand, pipelines with a queue each, and places for replicas.

Owns the arrays that the kernel changes; starts, drains and takes back replicas. Decides nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from headgate.allocation.arrays import Floats, Ints
from headgate.allocation.simulator import kernel


@dataclass(frozen=True, slots=True, kw_only=True)
class Discipline:
    """How a pipeline's replicas serve (times in seconds).

    A replica takes `depth` requests and works on `slots` of them at once, first come first served; with k at once each
    takes `slow[k - 1]` times as long as alone. `queue` requests may wait; what comes then is
    dropped. `extra_s` is added to every latency; `late_s` is the SLO.
    """

    slots: int = 1
    depth: int = 1
    slow: tuple[float, ...] = (1.0,)
    queue: int = 64
    extra_s: float = 0.0
    late_s: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Requests:
    """The requests of one pipeline: when they come, in order, and the seconds of work of each, alone on a replica."""

    at: Floats
    work: Floats


class World:
    """Everything that moves. `now` in seconds from 0; the arrays are the kernel's (see there)."""

    def __init__(
        self, disciplines: Sequence[Discipline], requests: Sequence[Requests], places: int, *, turns: bool
    ) -> None:
        """`places` bounds how many replicas there are at one moment; `turns` dispatches round-robin, else to the
        least busy replica."""
        pipelines = len(disciplines)
        self.now = 0.0
        self.disciplines = tuple(disciplines)
        sizes = [len(one.at) for one in requests]
        ends = np.cumsum([0, *sizes]).astype(np.int64)
        self.first, self.last = ends[:-1], ends[1:]
        self.at = np.concatenate([one.at for one in requests]) if sizes else np.zeros(0)
        self.work = np.concatenate([one.work for one in requests]) if sizes else np.zeros(0)
        self.latency: Floats = np.full(len(self.at), np.nan)
        depths = max(one.depth for one in disciplines)
        self.owner: Ints = np.full(places, -1, np.int64)
        self.idle_until = np.zeros(places)
        self.places = kernel.Places(
            stage=np.zeros(places, np.int64),
            ready_at=np.zeros(places),
            gone_at=np.full(places, -np.inf),
            held=np.zeros(places, np.int64),
            item=np.zeros((places, depths), np.int64),
            left=np.zeros((places, depths)),
            since=np.zeros(places),
            finish=np.full(places, np.inf),
        )
        widest = max(one.slots for one in disciplines)
        limits = np.array([one.queue for one in disciplines], np.int64)
        self.lines = kernel.Lines(
            members=np.zeros((pipelines, places), np.int64),
            counts=np.zeros(pipelines, np.int64),
            following=self.first.copy(),
            last=self.last,
            queue=np.zeros((pipelines, int(limits.max()) + 1), np.int64),
            head=np.zeros(pipelines, np.int64),
            length=np.zeros(pipelines, np.int64),
            limit=limits,
            turn=np.zeros(pipelines, np.int64),
            slots=np.array([one.slots for one in disciplines], np.int64),
            depth=np.array([one.depth for one in disciplines], np.int64),
            slow=np.array([[one.slow[min(k, len(one.slow) - 1)] for k in range(widest)] for one in disciplines]),
            extra_s=np.array([one.extra_s for one in disciplines]),
            late_s=np.array([one.late_s for one in disciplines]),
            seen=np.zeros((pipelines, kernel.SEEN)),
            histogram=np.zeros((pipelines, kernel.BINS), np.int64),
        )
        self._in_turns = turns
        self._changed = True

    def advance(self, until: float) -> None:
        """Let time pass until `until`."""
        if self._changed:
            self._list_members()
        kernel.advance(self.places, self.lines, self.at, self.work, self.latency, self.now, until, self._in_turns)
        self.now = until

    def start(self, pipeline: int, ready_in_s: float) -> int:
        """A new replica; the number of its place. Raises RuntimeError when there is no place."""
        free = np.flatnonzero(self.places.stage == kernel.ABSENT)
        if not len(free):
            raise RuntimeError("every place is taken; make the world with more places")
        place = int(free[0])
        self.places.stage[place] = kernel.STARTING
        self.owner[place] = pipeline
        self.places.ready_at[place] = self.now + ready_in_s
        self._changed = True
        return place

    def drain(self, place: int) -> None:
        """Send the replica no more requests; it goes when it has finished those it has."""
        self.places.stage[place] = kernel.DRAINING if self.places.held[place] else kernel.ABSENT
        if not self.places.held[place]:
            self.places.gone_at[place] = self.now
        self._changed = True

    def lose(self, place: int) -> None:
        """The replica is gone at once. Its requests wait again, before all others; without a place there they are lost.

        Why not lost with it: an attempt that breaks is made again elsewhere.
        """
        lines, places, pipeline = self.lines, self.places, self.owner[place]
        for request in places.item[place, : places.held[place]][::-1]:
            if lines.length[pipeline] >= lines.limit[pipeline]:
                self.latency[request] = np.inf
                lines.seen[pipeline, kernel.DROPPED] += 1
                continue
            lines.head[pipeline] = (lines.head[pipeline] - 1) % lines.queue.shape[1]
            lines.queue[pipeline, lines.head[pipeline]] = request
            lines.length[pipeline] += 1
        places.held[place], places.finish[place] = 0, np.inf
        places.stage[place] = kernel.ABSENT
        places.gone_at[place] = self.now
        self._changed = True

    def rest(self, place: int, until: float) -> None:
        """Take an absent or serving idle replica aside: it holds its place and can be woken by `wake`."""
        self.places.stage[place] = kernel.IDLE
        self.idle_until[place] = until
        self._changed = True

    def wake(self, place: int, ready_in_s: float) -> None:
        """Let a resting replica serve again."""
        self.places.stage[place] = kernel.STARTING
        self.places.ready_at[place] = self.now + ready_in_s
        self._changed = True

    def take_seen(self) -> Floats:
        """The counts since the last call ([pipeline, column of kernel]), which start anew."""
        seen = self.lines.seen.copy()
        self.lines.seen[:] = 0.0
        return seen

    def count(self, *stages: int) -> Ints:
        """Replicas by pipeline in any of the stages."""
        chosen = self.owner[self._in_stage(stages)]
        return np.bincount(chosen, minlength=len(self.disciplines)).astype(np.int64)

    def places_of(self, pipeline: int, *stages: int) -> Ints:
        """The places of a pipeline's replicas in any of the stages, in order."""
        return np.flatnonzero((self.owner == pipeline) & self._in_stage(stages))

    def requests_of(self, pipeline: int) -> tuple[Floats, Floats]:
        """Arrival times and latencies of a pipeline's requests: infinite when dropped, NaN when not finished."""
        part = slice(self.first[pipeline], self.last[pipeline])
        return self.at[part], self.latency[part]

    def _in_stage(self, stages: tuple[int, ...]) -> npt.NDArray[np.bool_]:
        # Why not np.isin: this is asked three times a step, and that takes ten times as long for so few places.
        asked = np.zeros(kernel.IDLE + 1, bool)
        asked[list(stages)] = True
        return asked[self.places.stage]

    def _list_members(self) -> None:
        active = np.flatnonzero((self.places.stage != kernel.ABSENT) & (self.places.stage != kernel.IDLE))
        self.lines.counts[:] = 0
        for place in active:
            pipeline = self.owner[place]
            self.lines.members[pipeline, self.lines.counts[pipeline]] = place
            self.lines.counts[pipeline] += 1
        self._changed = False
