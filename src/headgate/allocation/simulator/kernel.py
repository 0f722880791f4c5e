"""The simulator's inner loop: arrivals, completions and wake-ups of one pipeline after another, up to a moment.

Between two decisions pipelines share nothing, so each is moved on by itself; that needs no queue of events. Compiled by
numba: some five million requests a second on one core. Knows nothing of policies.
"""

# pyright: reportMissingParameterType=false, reportUntypedFunctionDecorator=false

from __future__ import annotations

import math
from typing import Any, NamedTuple

from numba import njit  # pyright: ignore[reportUnknownVariableType]

from headgate.allocation.arrays import Floats, Ints

ABSENT, STARTING, SERVING, DRAINING, IDLE = 0, 1, 2, 3, 4
"""Stages of a replica's place. An idle one has been released and can be taken back by its own pipeline."""

ARRIVED, SETTLED, LATE, DROPPED, BUSY_S = 0, 1, 2, 3, 4
"""Columns of what was seen of a pipeline since the counts were taken last."""

SEEN = 5
BINS = 64  # of the latency histogram: a bin is a quarter of a doubling, from 1 ms
_FIRST_BIN_S = 1e-3


class Places(NamedTuple):
    """Where replicas can be ([place]; `item` and `left`: [place, request in it]). Times in seconds of the world.

    `held` requests are in a replica, the numbers in `item`, first come first; `left` is the work that the running ones
    still need; `since` when that was reckoned, `finish` when the next one is done.
    """

    stage: Ints
    ready_at: Floats
    gone_at: Floats
    held: Ints
    item: Ints
    left: Floats
    since: Floats
    finish: Floats


class Lines(NamedTuple):
    """The pipelines ([pipeline]; `members`: [pipeline, place]; `queue`: a ring [pipeline, request]; see Discipline)."""

    members: Ints
    counts: Ints
    following: Ints
    last: Ints
    queue: Ints
    head: Ints
    length: Ints
    limit: Ints
    turn: Ints
    slots: Ints
    depth: Ints
    slow: Floats
    extra_s: Floats
    late_s: Floats
    seen: Floats
    histogram: Ints


@njit(cache=True)
def bin_of(seconds: float) -> int:
    """The bin of a latency."""
    if seconds <= _FIRST_BIN_S:
        return 0
    return min(BINS - 1, int(4.0 * math.log2(seconds / _FIRST_BIN_S)))


@njit(cache=True)
def _reckon(places: Places, r: int, now: float, slots: int, slow: Any) -> None:
    """Reckon when replica `r` finishes its next request."""
    running = min(places.held[r], slots)
    places.since[r] = now
    if running == 0:
        places.finish[r] = math.inf
        return
    least = places.left[r, 0]
    for j in range(1, running):
        least = min(least, places.left[r, j])
    places.finish[r] = now + least * slow[running - 1]


@njit(cache=True)
def _work(places: Places, r: int, now: float, slots: int, slow: Any) -> None:
    """Take off what the running requests of replica `r` have got done."""
    running = min(places.held[r], slots)
    if running:
        done = (now - places.since[r]) / slow[running - 1]
        for j in range(running):
            places.left[r, j] -= done


@njit(cache=True)
def _choose(places: Places, members: Any, count: int, depth: int, turn: int, in_turns: bool) -> int:
    """The place in `members` of the serving replica that takes the next request; -1 when none has room."""
    if in_turns:
        for step in range(count):
            number = (turn + step) % count
            r = members[number]
            if places.stage[r] == SERVING and places.held[r] < depth:
                return number
        return -1
    best, least = -1, 1 << 30
    for number in range(count):
        r = members[number]
        if places.stage[r] == SERVING and places.held[r] < depth and places.held[r] < least:
            best, least = number, places.held[r]
    return best


@njit(cache=True)
def _dispatch(places: Places, lines: Lines, i: int, now: float, work: Any, in_turns: bool) -> None:
    """Give waiting requests of pipeline `i` to replicas that have room."""
    count, depth, slots, slow = lines.counts[i], lines.depth[i], lines.slots[i], lines.slow[i]
    while lines.length[i] > 0:
        number = _choose(places, lines.members[i], count, depth, lines.turn[i], in_turns)
        if number < 0:
            return
        request = lines.queue[i, lines.head[i]]
        lines.head[i] = (lines.head[i] + 1) % lines.queue.shape[1]
        lines.length[i] -= 1
        lines.turn[i] = (number + 1) % count
        r = lines.members[i, number]
        _work(places, r, now, slots, slow)
        places.item[r, places.held[r]] = request
        places.left[r, places.held[r]] = work[request]
        places.held[r] += 1
        _reckon(places, r, now, slots, slow)


@njit(cache=True)
def _complete(places: Places, lines: Lines, i: int, r: int, now: float, at: Any, work: Any, latency: Any) -> None:
    """Settle the request that replica `r` has just finished."""
    slots, slow, seen = lines.slots[i], lines.slow[i], lines.seen[i]
    _work(places, r, now, slots, slow)
    done = 0
    for j in range(1, min(places.held[r], slots)):
        if places.left[r, j] < places.left[r, done]:
            done = j
    request = places.item[r, done]
    took = now - at[request] + lines.extra_s[i]
    latency[request] = took
    seen[SETTLED] += 1
    seen[BUSY_S] += work[request]
    if took > lines.late_s[i]:
        seen[LATE] += 1
    lines.histogram[i, bin_of(took)] += 1
    for j in range(done, places.held[r] - 1):
        places.item[r, j] = places.item[r, j + 1]
        places.left[r, j] = places.left[r, j + 1]
    places.held[r] -= 1
    _reckon(places, r, now, slots, slow)
    _let_go(places, r, now)


@njit(cache=True)
def _let_go(places: Places, r: int, now: float) -> None:
    """A drained replica without requests is gone."""
    if places.stage[r] == DRAINING and places.held[r] == 0:
        places.stage[r] = ABSENT
        places.gone_at[r] = now


@njit(cache=True)
def _next_event(places: Places, lines: Lines, i: int) -> tuple[float, int]:
    """When a replica of pipeline `i` next finishes a request or becomes ready, and which."""
    event, replica = math.inf, -1
    for number in range(lines.counts[i]):
        r = lines.members[i, number]
        # `finish` is infinite when it has nothing to do.
        moment = places.ready_at[r] if places.stage[r] == STARTING else places.finish[r]
        if moment < event:
            event, replica = float(moment), int(r)
    return event, replica


@njit(cache=True)
def advance(
    places: Places, lines: Lines, at: Any, work: Any, latency: Any, now: float, until: float, in_turns: bool
) -> None:
    """Move every pipeline on from `now` to `until` (seconds). All arrays are changed in place."""
    for i in range(len(lines.counts)):
        for number in range(lines.counts[i]):  # those that were drained since the last call
            _let_go(places, lines.members[i, number], now)
        moment = now
        _dispatch(places, lines, i, moment, work, in_turns)
        while True:
            arrival = at[lines.following[i]] if lines.following[i] < lines.last[i] else math.inf
            event, replica = _next_event(places, lines, i)
            if min(arrival, event) > until:
                break
            if event <= arrival:
                moment = max(moment, event)
                if places.stage[replica] == STARTING:
                    places.stage[replica] = SERVING
                else:
                    _complete(places, lines, i, replica, moment, at, work, latency)
            else:
                moment = max(moment, arrival)
                _arrive(lines, i, latency)
            _dispatch(places, lines, i, moment, work, in_turns)


@njit(cache=True)
def _arrive(lines: Lines, i: int, latency: Any) -> None:
    """The next request of pipeline `i` comes: it waits, or finds the queue full and is dropped."""
    request = lines.following[i]
    lines.following[i] += 1
    lines.seen[i, ARRIVED] += 1
    if lines.length[i] >= lines.limit[i]:
        latency[request] = math.inf
        lines.seen[i, DROPPED] += 1
        lines.histogram[i, BINS - 1] += 1
        return
    lines.queue[i, (lines.head[i] + lines.length[i]) % lines.queue.shape[1]] = request
    lines.length[i] += 1
