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
    board = Board(capacity)
    for one in running:
        board.enter(one)
    moves: list[Move] = []
    waiting = [seat for seat in seats if seat.replica is None]
    waiting = _start_what_fits(waiting, board, (), moves)
    moves.extend(Drain(replica=one.id, pipeline=one.pipeline) for one in leaving if one.stage != "draining")
    for number, one in enumerate(leaving, start=1):
        moves.append(Stop(replica=one.id, pipeline=one.pipeline))
        board.strike(one)
        waiting = _start_what_fits(waiting, board, leaving[:number], moves)
    return Plan(moves=tuple(moves))


def _start_what_fits(waiting: Sequence[Seat], board: Board, gone: Sequence[Running], moves: list[Move]) -> list[Seat]:
    """Add a start for each seat that fits beside all that is there now; the seats that still wait.

    A start waits for those of `gone` beside whom it would not fit.
    """
    left: list[Seat] = []
    for seat in waiting:
        if not board.fits(seat):
            left.append(seat)
            continue
        back: list[Running] = []
        after: list[str] = []
        for one in gone:
            board.enter(one)
            if board.fits(seat):
                back.append(one)
            else:
                board.strike(one)
                after.append(one.id)
        for one in back:
            board.strike(one)
        moves.append(Start(seat=seat, after=tuple(after)))
        board.enter(seat)
    return left


def _leaves_first(one: Running) -> tuple[bool, bool, int, str]:
    return (one.stage != "draining", one.stage != "starting", one.in_flight, one.id)
