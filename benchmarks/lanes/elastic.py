"""Pipelines on units that are rented by the second: what a policy sees, and what its targets lead to.

Steps of a second, requests in numbers, not one by one: a request waits for a slot of a unit and holds it for an
exponential time. Pipelines share nothing, for there is always another unit. Knows nothing of traces or policies.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
from numba import njit

from headgate.allocation.arrays import Floats, Ints

MINUTE = 60  # steps
LATE_PART = 0.01
"""A minute is within the SLO when no more than this part of its requests waits too long."""

CAME, BUSY, BEGUN, LATE = 0, 1, 2, 3
"""Columns of what was seen since the policy was asked last: requests, slot-seconds held or waited for, begun, and those
that turned out to wait too long."""

_PLACES = 512  # units of a pipeline that start, or that leave, at one moment
_MEMORY = 64  # steps for which it is known how many requests had come
_FINE = 25  # parts of a step, at most


@dataclass(frozen=True, slots=True, kw_only=True)
class Units:
    """What every policy has to live with (seconds).

    A new unit serves after `start_s` and is paid from when it was asked for; a released one finishes what it holds and
    is paid until then. It works on `slots` requests at once. A request must begin within `wait_s`; after `patience_s`
    it goes away.
    """

    start_s: int
    slots: int = 32
    wait_s: int = 2
    patience_s: int = 30


class Lines(NamedTuple):
    """The pipelines, each [P]; `ready`, `leaving` [P, place], `known` [P, step], `came_by`, `late_by` [P, minute].

    `held` requests are in `serving` units; `leaving` has what each of the first `left` units still holds; `ready` when
    each of the first `starting` ones serves. `came`, `begun`: all requests so far.
    """

    target: Ints
    serving: Ints
    starting: Ints
    left: Ints
    held: Ints
    came: Ints
    begun: Ints
    service_s: Floats
    ready: Ints
    leaving: Ints
    known: Ints
    came_by: Ints
    late_by: Ints
    seen: Floats
    unit_s: Floats
    moves: Ints


@njit(cache=True)
def seed_chance(seed: int) -> None:
    """Begin the kernel's chance anew."""
    np.random.seed(seed)


@njit(cache=True)
def _finished(held: int, part: float) -> int:
    """How many of `held` requests finish when each does with chance `part`."""
    if part >= 1.0:
        return held
    mean = held * part
    if mean > 30.0:
        drawn = round(mean + math.sqrt(mean * (1.0 - part)) * np.random.standard_normal())
        return min(held, max(0, drawn))
    done, place, scale = 0, 0, 1.0 / math.log1p(-part)
    while True:  # from one that finishes to the next: geometric gaps
        place += int(math.log(1.0 - np.random.random()) * scale) + 1
        if place > held:
            return done
        done += 1


@njit(cache=True)
def _apply(lines: Lines, i: int, now: int, start_s: int) -> None:
    """Start what is missing; give back what is too much, those that still start first, then the least busy."""
    missing = lines.target[i] - lines.serving[i] - lines.starting[i]
    for _ in range(missing):
        lines.ready[i, lines.starting[i]] = now + start_s
        lines.starting[i] += 1
        lines.moves[i] += 1
    for _ in range(-missing):
        lines.moves[i] += 1
        if lines.starting[i] > 0:
            lines.starting[i] -= 1
            continue
        share = lines.held[i] // lines.serving[i]
        lines.serving[i] -= 1
        lines.held[i] -= share
        if share > 0 and lines.left[i] < _PLACES:
            lines.leaving[i, lines.left[i]] = share
            lines.left[i] += 1
        elif share > 0:
            lines.leaving[i, _PLACES - 1] += share


@njit(cache=True)
def _make_ready(lines: Lines, i: int, now: int) -> None:
    """Let those serve whose start is over."""
    done = 0
    while done < lines.starting[i] and lines.ready[i, done] <= now:
        done += 1
    if done:
        lines.serving[i] += done
        lines.starting[i] -= done
        for place in range(lines.starting[i]):
            lines.ready[i, place] = lines.ready[i, place + done]


@njit(cache=True)
def _leave(lines: Lines, i: int, part: float) -> None:
    """Released units finish what they hold; the empty ones are gone."""
    kept = 0
    for place in range(lines.left[i]):
        rest = lines.leaving[i, place] - _finished(lines.leaving[i, place], part)
        if rest > 0:
            lines.leaving[i, kept] = rest
            kept += 1
    lines.left[i] = kept


@njit(cache=True)
def _serve(lines: Lines, i: int, arrivals: int, slots: int) -> None:
    """One step of requests: they come, wait, begin, finish."""
    fine = min(_FINE, max(1, math.ceil(4.0 / lines.service_s[i])))
    part = min(1.0, 1.0 / (fine * lines.service_s[i]))
    for number in range(fine):
        if lines.held[i]:
            lines.held[i] -= _finished(lines.held[i], part)
        if lines.left[i]:
            _leave(lines, i, part)
        lines.came[i] += arrivals * (number + 1) // fine - arrivals * number // fine
        begin = min(lines.came[i] - lines.begun[i], max(0, lines.serving[i] * slots - lines.held[i]))
        lines.begun[i] += begin
        lines.held[i] += begin
        lines.seen[i, BEGUN] += begin
        lines.seen[i, BUSY] += (lines.held[i] + lines.came[i] - lines.begun[i]) / fine


@njit(cache=True)
def advance(
    lines: Lines, counts: Any, now: int, until: int, start_s: int, slots: int, wait_s: int, patience_s: int, wake: bool
) -> None:
    """Move every pipeline on from step `now` to `until`; `counts` [P, steps] come. With `wake`, a request that finds
    no unit asks for one at once. All arrays are changed in place."""
    for i in range(len(lines.target)):
        for t in range(now, until):
            arrivals = counts[i, t]
            waiting = lines.came[i] - lines.begun[i]
            if wake and lines.target[i] == 0 and waiting + arrivals > 0:
                lines.target[i] = 1
            _make_ready(lines, i, t)
            if lines.target[i] != lines.serving[i] + lines.starting[i]:
                _apply(lines, i, t, start_s)
                _make_ready(lines, i, t)
            if arrivals + waiting + lines.held[i] + lines.left[i] > 0:
                _serve(lines, i, arrivals, slots)
            lines.unit_s[i] += lines.serving[i] + lines.starting[i] + lines.left[i]
            lines.seen[i, CAME] += arrivals
            lines.came_by[i, t // MINUTE] += arrivals
            lines.known[i, t % _MEMORY] = lines.came[i]
            _judge(lines, i, t, wait_s, patience_s)


@njit(cache=True)
def _judge(lines: Lines, i: int, t: int, wait_s: int, patience_s: int) -> None:
    """Count who came `wait_s` steps ago and has not begun; those who have waited for `patience_s` go."""
    came = t - wait_s
    if came < 0 or lines.begun[i] == lines.came[i]:
        return
    before = lines.known[i, (came - 1) % _MEMORY] if came > 0 else 0
    late = lines.known[i, came % _MEMORY] - max(before, lines.begun[i])
    if late > 0:
        lines.late_by[i, came // MINUTE] += late
        lines.seen[i, LATE] += late
    if t >= patience_s:
        lines.begun[i] = max(lines.begun[i], lines.known[i, (t - patience_s) % _MEMORY])


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """What a policy sees: all by pipeline, `seen` [P, column] since it was asked last, `now` in seconds."""

    now: int
    seen: Floats
    waiting: Ints
    held: Ints
    serving: Ints
    starting: Ints
    target: Ints


def held_s(look: Look, elapsed_s: float) -> Floats:
    """Slot-seconds [P] held by those that began since the policy was asked last, by Little's law."""
    return np.maximum(0.0, look.seen[:, BUSY] - look.waiting * elapsed_s)


class ElasticPolicy(Protocol):
    """Says how many units each pipeline shall have, every `decide_s` seconds.

    `first` units serve from the start. With `wake`, a request that finds no unit asks for one at once: for policies
    that go down to none.
    """

    decide_s: int
    wake: bool
    first: Ints

    def decide(self, look: Look) -> Ints:
        """The units of each pipeline."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What came of a run, each [P, minute] or [P]: requests and late ones, unit-hours, starts and releases."""

    came_by: Ints
    late_by: Ints
    unit_hours: Floats
    moves: Ints
    hours: float

    @property
    def kept(self) -> Any:
        """Which pipeline-minutes are within the SLO [P, minute]; those without requests are."""
        return self.late_by <= LATE_PART * self.came_by

    @property
    def slo_minutes(self) -> float:
        """The part of pipeline-minutes with requests that is within the SLO."""
        busy = self.came_by > 0
        return float(self.kept[busy].mean()) if busy.any() else 1.0

    @property
    def slo_minutes_all(self) -> float:
        """The same of all pipeline-minutes; those without requests are within."""
        return float(self.kept.mean())

    @property
    def slo_pipelines(self) -> float:
        """The part of pipelines with requests that keep 99 % of their own minutes with requests."""
        busy = self.came_by > 0
        own = (self.kept & busy).sum(axis=1) / np.maximum(1, busy.sum(axis=1))
        return float((own[busy.any(axis=1)] >= 1.0 - LATE_PART).mean())


def run(counts: Any, service_s: Floats, window: int, policy: ElasticPolicy, units: Units, seed: int = 0) -> Outcome:
    """Play `counts` [P, steps]; a request takes `service_s` [P, windows] in the window of `window` steps.

    Everything that comes is judged but the last steps' requests. Deterministic for a seed.
    """
    pipelines, steps = counts.shape
    lines = _make_lines(pipelines, -(-steps // MINUTE), np.asarray(policy.first))
    seed_chance(seed)
    now = 0
    while now < steps:
        lines.service_s[:] = service_s[:, now // window]
        look = Look(
            now=now, seen=lines.seen.copy(), waiting=lines.came - lines.begun, held=lines.held.copy(),
            serving=lines.serving.copy(), starting=lines.starting.copy(), target=lines.target.copy(),
        )  # fmt: skip
        lines.seen[:] = 0.0
        lines.target[:] = np.clip(policy.decide(look), 0, _PLACES // 2)
        until = min(now + policy.decide_s, steps, (now // window + 1) * window)
        advance(
            lines, counts, now, until, units.start_s, units.slots, units.wait_s, units.patience_s, policy.wake
        )  # fmt: skip
        now = until
    return Outcome(
        came_by=lines.came_by, late_by=lines.late_by, unit_hours=lines.unit_s / 3600.0, moves=lines.moves,
        hours=steps / 3600.0,
    )  # fmt: skip


def _make_lines(pipelines: int, minutes: int, first: Sequence[int] | Ints) -> Lines:
    def none(*more: int) -> Ints:
        return np.zeros((pipelines, *more), np.int64)

    return Lines(
        target=np.array(first, np.int64), serving=np.array(first, np.int64), starting=none(), left=none(),
        held=none(), came=none(), begun=none(), service_s=np.ones(pipelines), ready=none(_PLACES),
        leaving=none(_PLACES), known=none(_MEMORY), came_by=none(minutes), late_by=none(minutes),
        seen=np.zeros((pipelines, 4)), unit_s=np.zeros(pipelines), moves=none(),
    )  # fmt: skip
