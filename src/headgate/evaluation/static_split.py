"""Static splits of a pool: all that there are, and the best one for a load that is known beforehand.

Pure. The opponent of an allocation that moves: whoever divides the hardware once, with hindsight. Knows nothing of
houses; who runs a split for real is app's or a benchmark's.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from headgate.allocation.capacity import Capacity
from headgate.allocation.packing import Board, by_size
from headgate.allocation.pipeline import Configuration, PipelineSpec
from headgate.evaluation.burst import Arrival

Split = Mapping[str, int]
"""Replicas by pipeline."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Speed:
    """What one replica can do: requests at once, requests a second when all its slots are busy, and the seconds after
    which the first token of its pipeline is late.
    """

    slots: int
    requests_per_s: float
    late_after_s: float


def list_splits(capacity: Capacity, sizes: Mapping[str, Configuration]) -> tuple[dict[str, int], ...]:
    """Every split that fits `capacity` and has no room for one replica more, by pipeline; `sizes` is one replica each.

    Why only full ones: a replica more never makes a split worse.
    """
    found = [split for split in _fitting(capacity, sizes, {}) if split]
    full = {tuple(split.items()) for split in found}
    return tuple(
        split
        for split in found
        if not any(tuple({**split, name: count + 1}.items()) in full for name, count in split.items())
    )


def _fitting(capacity: Capacity, sizes: Mapping[str, Configuration], begun: dict[str, int]) -> Iterator[dict[str, int]]:
    """All splits that fit and begin with `begun`."""
    name = next((name for name in sizes if name not in begun), None)
    if name is None:
        yield begun
        return
    count = 0
    while fits(capacity, sizes, {**begun, name: count}):
        yield from _fitting(capacity, sizes, {**begun, name: count})
        count += 1


def fits(capacity: Capacity, sizes: Mapping[str, Configuration], split: Split) -> bool:
    """Whether the replicas of `split` find a place beside each other; `sizes` is one replica of each pipeline."""
    specs = [PipelineSpec(name=name, configurations=(sizes[name],), floor=count) for name, count in split.items()]
    board = Board(capacity)
    return all(
        board.seat(spec.name, spec.configurations[0]) is not None for spec in by_size(specs) for _ in range(spec.floor)
    )


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Outcome:
    """What a replay expects of a split, the better the smaller: requests that nobody answers, late ones, and the
    seconds that all wait together.
    """

    lost: int = 0
    late: int = 0
    waited_s: float = 0.0

    def __add__(self, other: Outcome) -> Outcome:
        return Outcome(
            lost=self.lost + other.lost, late=self.late + other.late, waited_s=self.waited_s + other.waited_s
        )


def rank_splits(
    splits: Sequence[Split], arrivals: Sequence[Arrival], speeds: Mapping[str, Speed]
) -> list[tuple[Outcome, Split]]:
    """The splits with what `arrivals` would come to in each, best first."""
    each = {
        (name, count): replay(arrivals, name, count, speed)
        for name, speed in speeds.items()
        for count in {split[name] for split in splits}
    }
    ranked = [(sum((each[one] for one in split.items()), Outcome()), split) for split in splits]
    return sorted(ranked, key=lambda one: one[0])


def replay(arrivals: Sequence[Arrival], pipeline: str, replicas: int, speed: Speed) -> Outcome:
    """What a pipeline's arrivals come to on `replicas` that never change.

    In order of arrival each request takes the first slot that is free, for as long as requests take when all slots are
    busy. Without a replica all are lost.
    """
    mine = [one.at_s for one in arrivals if one.pipeline == pipeline]
    if not replicas:
        return Outcome(lost=len(mine))
    free_at = [0.0] * (replicas * speed.slots)
    late, waited_s = 0, 0.0
    for at_s in mine:
        begins_s = max(at_s, heapq.heappop(free_at))
        heapq.heappush(free_at, begins_s + speed.slots / speed.requests_per_s)
        waited_s += begins_s - at_s
        late += begins_s - at_s > speed.late_after_s
    return Outcome(late=late, waited_s=waited_s)
