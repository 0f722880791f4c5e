"""Who gets how many replicas, and where: `decide(state) -> Allocation`, the one decision of the product.

Floors first, then one replica for whoever waits with none, then the replicas that keep most requests on time over all
pipelines (`choice`), then free room for whoever can use it. Nobody who sits is moved without need, never more is
seated than fits, and what was not asked for stays for `idle_s`, and loaded without a device for longer (`resting`).
The same state gives the same answer.
"""

from __future__ import annotations

from collections import defaultdict
from heapq import heapify, heappop, heapreplace

from headgate.allocation.choice import Choice, choose
from headgate.allocation.packing import Board
from headgate.allocation.pipeline import RANKS
from headgate.allocation.reasons import explain, find_shed
from headgate.allocation.resting import choose_asleep, choose_resting
from headgate.allocation.seating import (
    Costs,
    claim_own,
    grant,
    keep_outdated,
    keep_surplus,
    seat_first,
    value_standing,
)
from headgate.allocation.side import Side, is_fleeting
from headgate.allocation.state import Allocation, History, Running, State


def decide(state: State) -> Allocation:
    """The seats everyone shall have, with a reason for each change."""
    sides = _list_sides(state)
    costs = value_standing(sides)
    board = seat_first(sides, state, costs)
    choice = choose(sides, state, board)
    if choice is not None:
        _seat_chosen(sides, choice, board, costs)
        _use_room(sides, choice, board, costs)
    for side in sides:
        keep_outdated(side, board)
    for side in sorted(sides, key=lambda side: (RANKS[side.spec.priority], -side.offered, side.name)):
        keep_surplus(side, board, state.at)
    resting = choose_resting(sides, state, board)
    return Allocation(
        seats=tuple(board.seats),
        changes=explain(sides, state, choice),
        histories={side.name: _remember(side, state.at) for side in sides},
        unmet={side.name: short for side in sides if (short := side.wanted - len(side.seats)) > 0},
        shed=find_shed(sides, choice),
        values={side.name: choice.next_gain(side) if choice else 0.0 for side in sides},
        prices=() if choice is None else tuple(tuple(row) for row in choice.solution.prices.tolist()),
        gap_to_bound=None if choice is None else choice.solution.gap,
        resting=resting,
        asleep=choose_asleep(sides, board),
    )


def find_choice(state: State) -> Choice | None:
    """How many replicas each pipeline should have by that decision, and why; None where nobody has a say."""
    sides = _list_sides(state)
    return choose(sides, state, seat_first(sides, state, value_standing(sides)))


def _list_sides(state: State) -> list[Side]:
    running: defaultdict[str, list[Running]] = defaultdict(list)
    for one in state.running:
        running[one.pipeline].append(one)
    fleeting = is_fleeting(state)
    return [
        Side(spec, state, running[spec.name], fleeting=fleeting)
        for spec in sorted(state.pipelines, key=lambda spec: spec.name)
    ]


def _seat_chosen(sides: list[Side], choice: Choice, board: Board, costs: Costs) -> None:
    """The chosen replicas: first all that run already, then new ones, the most gained first.

    Why in this order: a new one may be put where somebody stands who has no seat; nobody chosen may stand by then.
    """
    missing: dict[str, dict[str, int]] = {}
    for side in sides:
        for one in side.spec.configurations:
            chosen = choice.counts.get((side.name, one.key), 0)
            have = sum(seat.configuration == one.key for seat in side.seats)
            have += claim_own(side, board, one, most=chosen - have)
            if have < chosen and not side.stuck:
                missing.setdefault(side.name, {})[one.key] = chosen - have
    queue = _Queue([side for side in sides if side.name in missing], choice)
    while (side := queue.first()) is not None:
        left = missing[side.name]
        key = min(left)
        configuration = next(one for one in side.spec.configurations if one.key == key)
        left[key] -= 1
        if not grant(side, board, costs, evict=True, configuration=configuration) or not left[key]:
            del left[key]
        queue.go_on(more=bool(left))


def _use_room(sides: list[Side], choice: Choice, board: Board, costs: Costs) -> None:
    """Free room goes to whoever gains most by it, where it has a use: not all that was chosen found its place."""
    queue = _Queue(
        [side for side in sides if side.name in choice.wants and not side.stuck and _has_use(side, choice)], choice
    )
    while (side := queue.first()) is not None:
        queue.go_on(more=grant(side, board, costs, evict=False) and _has_use(side, choice))


class _Queue:
    """Who is next to get a seat: the class that comes first, then the most gained by one more replica.

    What one gains depends on its own seats alone, so only the first changes its place.
    """

    def __init__(self, sides: list[Side], choice: Choice) -> None:
        self._choice = choice
        self._sides = {side.name: side for side in sides}
        self._heap = [self._appeal(side) for side in sides]
        heapify(self._heap)

    def first(self) -> Side | None:
        """Whose turn it is."""
        return self._sides[self._heap[0][-1]] if self._heap else None

    def go_on(self, *, more: bool) -> None:
        """The first had its turn and comes again, or has enough."""
        if more:
            heapreplace(self._heap, self._appeal(self._sides[self._heap[0][-1]]))
        else:
            heappop(self._heap)

    def _appeal(self, side: Side) -> tuple[int, float, str]:
        return (RANKS[side.spec.priority], -self._choice.next_gain(side), side.name)


def _has_use(side: Side, choice: Choice) -> bool:
    if len(side.seats) >= min(choice.wants[side.name].cap, max(side.useful, side.wanted)):
        return False
    cost = choice.least_cost(side)
    return cost == 0.0 or choice.next_gain(side) > cost


def _remember(side: Side, at: float) -> History:
    raised = len(side.seats) > len(side.present)
    surplus = len(side.present) > max(side.wanted, side.useful) and not raised
    since = side.history.surplus_since
    return History(
        raised_at=at if raised else side.history.raised_at,
        surplus_since=(at if since is None else since) if surplus else None,
    )
