"""Seats on the board: floors and wakers first, then what was chosen, then who may stay.

Replicas that sit keep their places; a new one goes where nobody is, or where somebody stands who has no seat. Knows
the order in which seats are given, not how many each pipeline should have.
"""

from __future__ import annotations

from collections.abc import Mapping

from headgate.allocation.packing import Board, by_size
from headgate.allocation.pipeline import RANKS, Configuration
from headgate.allocation.side import Side
from headgate.allocation.state import State

Costs = Mapping[str, float]
"""How bad it is to send away each standing replica, by id."""


def value_standing(sides: list[Side]) -> Costs:
    """How bad it is to send away each replica: nothing when its pipeline is idle, more with its load."""
    costs: dict[str, float] = {}
    for side in sides:
        weight, needed = 3.0 - RANKS[side.spec.priority], max(side.wanted, side.spec.floor)
        for rank, one in enumerate(side.present):
            busy = 1.0 + side.demand.inside if rank < needed else 0.1
            costs[one.id] = busy * weight
        for one in side.outdated:
            costs[one.id] = 0.05
    return costs


def seat_first(sides: list[Side], state: State, costs: Costs) -> Board:
    """A board with all floors and one replica for whoever waits.

    Make before break, where it can be: one old replica of a changed pipeline keeps its seat until a new one answers.
    Where that leaves no place for the new one, it gives its seat up in another round.
    """
    in_turns = {side.name for side in sides}
    while True:
        board = _seat_floors(sides, state, costs, in_turns)
        _wake(sides, board, costs)
        blocking = {
            side.name
            for side in sides
            if side.protected and not side.seats and not side.held and (side.spec.floor or side.demand.inside)
        }
        if not blocking:
            return board
        in_turns -= blocking


def grant(
    side: Side,
    board: Board,
    costs: Costs,
    *,
    evict: bool,
    settled: bool = True,
    configuration: Configuration | None = None,
) -> bool:
    """One seat more: that of a replica of its own if there is one, else for a warm one or, unless the pipeline is
    held, for a new one.

    `configuration` is what the seat is for; left out: the first of the pipeline's that finds a free place, or else the
    first that finds one where somebody without a seat stands.
    """
    if (settled or side.held) and claim_own(side, board, configuration):
        return True
    ways = (configuration,) if configuration else side.spec.configurations
    for push in (False, True) if evict and len(ways) > 1 else (evict,):
        if any(_wake_warm(side, board, costs, one, evict=push) for one in ways):
            return True
        for one in ways:
            seat = board.seat(side.name, one, costs, evict=push) if one in side.startable else None
            if seat is not None:
                side.seats.append(seat if settled else board.settle(seat, side.unseated))
                return True
    return False


def _wake_warm(side: Side, board: Board, costs: Costs, configuration: Configuration, *, evict: bool) -> bool:
    """A seat for one of its warm replicas, where one finds a place."""
    seated = {seat.replica for seat in side.seats}
    for one in side.resting:
        if one.configuration == configuration.key and one.id not in seated:
            seat = board.seat(side.name, configuration, costs, evict=evict, wakes=one)
            if seat is not None:
                side.seats.append(seat)
                return True
    return False


def claim_own(side: Side, board: Board, configuration: Configuration | None = None, most: int = 1) -> int:
    """The seats of up to `most` more of the replicas that it has already; how many it got."""
    claimed = 0
    for one in side.unseated if most > 0 else ():
        if configuration is not None and one.configuration != configuration.key:
            continue
        seat = board.claim(one)
        if seat is not None:
            side.seats.append(seat)
            claimed += 1
            if claimed == most:
                break
    return claimed


def keep_outdated(side: Side, board: Board) -> None:
    """Make before break: old replicas answer until the new ones do, where there is room for both."""
    if not side.outdated:
        return
    if not side.seats and not side.demand.inside and not side.spec.floor and not side.held:
        return  # nobody asks: the next request wakes the new configuration
    ready = sum(1 for one in side.present if one.stage == "ready")
    if ready and ready >= len(side.seats):
        return
    for one in side.outdated:
        board.claim(one)


def keep_surplus(side: Side, board: Board, at: float) -> None:
    """Leave replicas above the need where they are until `idle_s` has passed; not where they are paid for by use."""
    if side.demand.kept is not None:
        return
    extra = side.unseated[: max(0, side.spec.cap - len(side.seats))]
    since = side.history.surplus_since
    if side.asleep or (side.seats and since is not None and at - since >= side.spec.idle_s):
        return
    for one in extra:
        seat = board.claim(one)
        if seat is not None:
            side.seats.append(seat)


def _seat_floors(sides: list[Side], state: State, costs: Costs, in_turns: set[str]) -> Board:
    """A board on which every floor has its seats, big replicas first.

    Why twice: replicas that sit badly can keep a floor out that would fit; then floors are packed from nothing
    and only those who sit in the right place stay.
    """
    order = {spec.name: number for number, spec in enumerate(by_size(side.spec for side in sides))}
    ordered = sorted(sides, key=lambda side: order[side.name])
    biggest = max((one.share for side in sides for one in side.spec.configurations), default=1.0)
    for repack in (False, True):
        board = Board(state.capacity, state.running, biggest=biggest)
        for side in sides:
            side.seats.clear()
            side.stuck = False
            keep = not repack and side.name in in_turns
            side.protected = _protect_one_outdated(side, board) if keep else 0
        if not repack:
            for side in ordered:
                claim_own(side, board, most=side.short)
        for side in ordered:
            while side.short and grant(side, board, costs, evict=True, settled=not repack):
                pass
        if repack or not any(side.short and not side.held for side in sides):
            return board
    raise AssertionError


def _protect_one_outdated(side: Side, board: Board) -> int:
    """Keep one old replica that answers while no new one does. Returns how many are kept."""
    if any(one.stage == "ready" for one in side.present):
        return 0
    ready = [one for one in side.outdated if one.stage == "ready"]
    return 1 if ready and board.claim(ready[0]) else 0


def _wake(sides: list[Side], board: Board, costs: Costs) -> None:
    """One replica for everyone with work and none yet, longest wait first; who just got one keeps it, unless others
    starve.
    """

    def urgency(side: Side) -> tuple[object, ...]:
        wait = side.spec.weight * max(side.demand.oldest_wait_s, 1e-9)
        in_turns = bool(side.protected)  # somebody answers for it meanwhile
        # Why before those who just got one: of several small ones one always has, and a big one would never fit.
        turn = 0 if side.starving else 1 if side.dwelling else 2
        return (RANKS[side.spec.priority], in_turns, turn, -wait, -side.offered, side.name)

    waiting = [
        side
        for side in sides
        if not side.seats and side.spec.cap and (side.demand.inside or (side.dwelling and side.offered > 0.0))
    ]
    for side in sorted(waiting, key=urgency):
        if not grant(side, board, costs, evict=True):
            side.stuck = True
