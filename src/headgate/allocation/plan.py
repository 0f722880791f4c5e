"""The ordered moves from who runs now to who shall sit where: reclaim before fill, never over the budget.

A start names the replicas that must be gone before it (`after`); whoever applies the plan waits for them.
Until a replica has stopped it holds its share and its memory, draining or not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from headgate.allocation.capacity import Capacity
from headgate.allocation.packing import Board
from headgate.allocation.state import Running, Seat


@dataclass(frozen=True, slots=True, kw_only=True)
class Drain:
    """Send no new request to this replica; it finishes those in flight."""

    replica: str
    pipeline: str
    kind: Literal["drain"] = "drain"


@dataclass(frozen=True, slots=True, kw_only=True)
class Stop:
    """End this replica once nothing is in flight on it."""

    replica: str
    pipeline: str
    kind: Literal["stop"] = "stop"


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """Start a replica on `seat` once all of `after` are gone (at once when it is empty)."""

    seat: Seat
    after: tuple[str, ...] = ()
    kind: Literal["start"] = "start"


Move = Drain | Stop | Start


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Moves in an order in which no prefix is over the budget."""

    moves: tuple[Move, ...]

    @property
    def drains(self) -> tuple[Drain, ...]:
        return tuple(move for move in self.moves if isinstance(move, Drain))

    @property
    def stops(self) -> tuple[Stop, ...]:
        return tuple(move for move in self.moves if isinstance(move, Stop))

    @property
    def starts(self) -> tuple[Start, ...]:
        return tuple(move for move in self.moves if isinstance(move, Start))


def plan_moves(running: Sequence[Running], seats: Sequence[Seat], capacity: Capacity) -> Plan:
    """Drain and stop who has no seat, start who sits nowhere yet.

    Starts that wait for nobody come first (a new replica should not wait for another's drain), then drains,
    then each stop with the starts that become possible by it. A seat that does not fit even then is left out:
    the running replicas that keep their seats are more than the capacity holds.
    """
    kept = {seat.replica for seat in seats if seat.replica is not None}
    leaving = sorted((one for one in running if one.id not in kept), key=_leaves_first)
    staying = [one for one in running if one.id in kept]
    drains = [Drain(replica=one.id, pipeline=one.pipeline) for one in leaving if one.stage != "draining"]
    placed: list[Seat] = []
    starts: list[Start] = []
    for seat in (seat for seat in seats if seat.replica is None):
        after = _find_blockers(seat, staying, placed, leaving, capacity)
        if after is not None:
            starts.append(Start(seat=seat, after=after))
            placed.append(seat)
    moves: list[Move] = [start for start in starts if not start.after]
    moves.extend(drains)
    gone: set[str] = set()
    waiting = [start for start in starts if start.after]
    for one in leaving:
        moves.append(Stop(replica=one.id, pipeline=one.pipeline))
        gone.add(one.id)
        moves.extend(start for start in waiting if gone.issuperset(start.after))
        waiting = [start for start in waiting if not gone.issuperset(start.after)]
    return Plan(moves=tuple(moves))


def _find_blockers(
    seat: Seat,
    staying: Sequence[Running],
    placed: Sequence[Seat],
    leaving: Sequence[Running],
    capacity: Capacity,
) -> tuple[str, ...] | None:
    """Replicas that must be gone before `seat` fits physically; None when it never does.

    Those that leave are counted as there until they must go, nearest to leaving kept last.
    """
    there = list(leaving)
    devices = set(seat.devices)
    # Why this order: first those on the seat's own devices, soonest gone first; others only free memory.
    order = sorted(leaving, key=lambda one: (not devices & set(one.devices), _leaves_first(one)))
    for count in range(len(order) + 1):
        if count:
            there.remove(order[count - 1])
        if _fits(seat, staying, placed, there, capacity):
            return _needed(seat, staying, placed, order[:count], there, capacity)
    return None


def _needed(
    seat: Seat,
    staying: Sequence[Running],
    placed: Sequence[Seat],
    gone: Sequence[Running],
    there: Sequence[Running],
    capacity: Capacity,
) -> tuple[str, ...]:
    """Those of `gone` that really must go: each one that still fits beside the seat is taken off the list."""
    needed = list(gone)
    back = list(there)
    for one in gone:
        if _fits(seat, staying, placed, [*back, one], capacity):
            needed.remove(one)
            back.append(one)
    return tuple(one.id for one in needed)


def _fits(
    seat: Seat,
    staying: Sequence[Running],
    placed: Sequence[Seat],
    there: Sequence[Running],
    capacity: Capacity,
) -> bool:
    board = Board(capacity)
    return all(board.occupy(one) for one in (*staying, *there, *placed, seat))


def _leaves_first(one: Running) -> tuple[bool, bool, int, str]:
    return (one.stage != "draining", one.stage != "starting", one.in_flight, one.id)
