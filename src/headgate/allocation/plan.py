"""The ordered moves from who runs now to who shall sit where: reclaim before fill, never over the budget.

A start or wake names the replicas that must have left before it (`after`); whoever applies the plan waits for them.
Until a replica has stopped or rests it holds its share and its memory, draining or not; one that rests, its memory.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
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
class Rest:
    """Take this replica's devices from it once nothing is in flight on it; it stays loaded."""

    replica: str
    pipeline: str
    kind: Literal["rest"] = "rest"


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """Start a replica on `seat` once all of `after` have left (at once when it is empty)."""

    seat: Seat
    after: tuple[str, ...] = ()
    kind: Literal["start"] = "start"


@dataclass(frozen=True, slots=True, kw_only=True)
class Wake:
    """Have a warm replica serve on `seat`, which names it, once all of `after` have left."""

    seat: Seat
    after: tuple[str, ...] = ()
    kind: Literal["wake"] = "wake"


Move = Drain | Stop | Rest | Start | Wake


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Moves in an order in which no prefix is over the budget."""

    moves: tuple[Move, ...]

    @property
    def drains(self) -> tuple[Drain, ...]:
        return tuple(move for move in self.moves if isinstance(move, Drain))

    @property
    def leavers(self) -> tuple[Stop | Rest, ...]:
        return tuple(move for move in self.moves if isinstance(move, Stop | Rest))

    @property
    def fills(self) -> tuple[Start | Wake, ...]:
        return tuple(move for move in self.moves if isinstance(move, Start | Wake))


def plan_moves(
    running: Sequence[Running], seats: Sequence[Seat], capacity: Capacity, resting: Collection[str] = ()
) -> Plan:
    """Drain and stop who has no seat, or let it rest if `resting` names it; start who sits nowhere yet, wake who rests.

    Fills that wait for nobody come first (a new replica should not wait for another's drain), then drains,
    then each leaver with the fills that become possible by it. A seat that does not fit even then is left out:
    the running replicas that keep their seats are more than the capacity holds.
    """
    return _Planner(running, seats, capacity, resting).plan()


class _Planner:
    """One plan while it is made, on a board of all that is there after the moves so far."""

    def __init__(
        self, running: Sequence[Running], seats: Sequence[Seat], capacity: Capacity, resting: Collection[str]
    ) -> None:
        kept = {seat.replica for seat in seats if seat.replica is not None}
        self._warm = {one.id: one for one in running if one.stage == "warm"}
        self._resting = resting
        still = self._warm.keys() & set(resting)
        self._leaving = sorted(
            (one for one in running if one.id not in kept and one.id not in still), key=_leaves_first
        )
        self._waiting = [seat for seat in seats if seat.replica is None or seat.replica in self._warm]
        self._board = Board(capacity)
        for one in running:
            self._board.enter(one)
        self._moves: list[Move] = []

    def plan(self) -> Plan:
        """All moves."""
        self._fill(())
        for one in self._leaving:
            if one.stage not in ("draining", "warm"):
                self._moves.append(Drain(replica=one.id, pipeline=one.pipeline))
        for number, one in enumerate(self._leaving, start=1):
            leave = Rest if one.id in self._resting else Stop
            self._moves.append(leave(replica=one.id, pipeline=one.pipeline))
            self._leave(one)
            self._fill(self._leaving[:number])
        return Plan(moves=tuple(self._moves))

    def _leave(self, one: Running) -> None:
        self._board.strike(one)
        if one.id in self._resting:
            self._board.enter(replace(one, stage="warm"))

    def _come_back(self, one: Running) -> None:
        if one.id in self._resting:
            self._board.strike(replace(one, stage="warm"))
        self._board.enter(one)

    def _fill(self, gone: Sequence[Running]) -> None:
        """Add a move for each waiting seat that fits beside all that is there now.

        It waits for those of `gone` beside whom it would not fit.
        """
        left: list[Seat] = []
        for seat in self._waiting:
            warm = self._warm.get(seat.replica or "")
            if warm is not None:
                self._board.strike(warm)
            if not self._board.fits(seat):
                if warm is not None:
                    self._board.enter(warm)
                left.append(seat)
                continue
            after = self._find_blocking(seat, gone)
            self._moves.append(Start(seat=seat, after=after) if warm is None else Wake(seat=seat, after=after))
            self._board.enter(seat)
        self._waiting = left

    def _find_blocking(self, seat: Seat, gone: Sequence[Running]) -> tuple[str, ...]:
        """Those of `gone` who must have left before the seat is filled; the board is as it was afterwards."""
        back: list[Running] = []
        blocking: list[str] = []
        for one in gone:
            self._come_back(one)
            if self._board.fits(seat):
                back.append(one)
            else:
                self._leave(one)
                blocking.append(one.id)
        for one in back:
            self._leave(one)
        return tuple(blocking)


def _leaves_first(one: Running) -> tuple[bool, bool, bool, int, str]:
    return (one.stage != "warm", one.stage != "draining", one.stage != "starting", one.in_flight, one.id)
