"""Who gets how many replicas: floors first, then whoever waits, then by load relative to the others.

A simple, correct policy behind the final interface `decide(state) -> Allocation`. It never moves a replica
that sits, gives up capacity only after `idle_s` or when another pipeline asks for it, and never seats more
than fits.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from headgate.allocation.demand import NOTHING, Demand
from headgate.allocation.packing import Board, by_size
from headgate.allocation.pipeline import RANKS, Configuration, PipelineSpec
from headgate.allocation.state import Allocation, Change, History, Running, Seat, State


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicySettings:
    """How calm the policy is.

    What a pipeline just got is its own for `dwell_wakes` wake times, at least `dwell_least_s` seconds;
    another one must be `keep_margin` times as loaded to take a replica away; a load that is less than `slack`
    of a replica above a whole number asks for no further one.
    """

    dwell_wakes: float = 5.0
    dwell_least_s: float = 1.0
    keep_margin: float = 1.25
    dwell_margin: float = 4.0
    slack: float = 0.05


DEFAULTS = PolicySettings()


class _Side:
    """One pipeline while the decision is being made."""

    def __init__(self, spec: PipelineSpec, state: State, settings: PolicySettings) -> None:
        self.spec = spec
        self.configuration: Configuration = spec.configurations[0]
        self.demand: Demand = state.demands.get(spec.name, NOTHING)
        self.history: History = state.histories.get(spec.name, History())
        self.held = state.held.get(spec.name)
        mine = [one for one in state.running if one.pipeline == spec.name and one.stage != "draining"]
        self.present = sorted(
            (one for one in mine if one.configuration == self.configuration.key),
            key=lambda one: (one.stage != "ready", -one.in_flight, one.id),
        )
        self.outdated = sorted(
            (one for one in mine if one.configuration != self.configuration.key),
            key=lambda one: (one.stage != "ready", -one.in_flight, one.id),
        )
        self.seats: list[Seat] = []
        self.protected = 0
        self.stuck = False
        self.reasons: list[str] = []
        self.settings = settings
        dwell_s = max(settings.dwell_least_s, settings.dwell_wakes * self.configuration.wake_s)
        raised_at = self.history.raised_at
        self.dwelling = bool(self.present) and raised_at is not None and state.at < raised_at + dwell_s

    @property
    def unseated(self) -> list[Running]:
        """Replicas that it has and that have no seat yet."""
        taken = {seat.replica for seat in self.seats}
        return [one for one in self.present if one.id not in taken]

    @property
    def short(self) -> bool:
        """Whether its floor is not seated yet."""
        return len(self.seats) + self.protected < self.spec.floor

    @property
    def asleep(self) -> bool:
        """Whether nothing was asked for so long that the past says nothing any more."""
        return not self.demand.inside and self.demand.idle_for_s >= self.spec.idle_s

    @property
    def offered(self) -> float:
        """Requests at once that the pipeline has to serve."""
        if self.asleep:
            return 0.0
        return max(float(self.demand.inside), self.demand.steady)

    @property
    def wanted(self) -> int:
        """Replicas that serve the offered load with a slot for each request."""
        need = math.ceil(self.offered / self.configuration.slots - self.settings.slack)
        return min(self.spec.cap, max(self.spec.floor, need, 1 if self.demand.inside else 0))

    @property
    def useful(self) -> int:
        """Replicas beyond which another one would find nothing to do."""
        return 0 if self.asleep else min(self.spec.cap, math.ceil(self.demand.steady - self.settings.slack))

    @property
    def load(self) -> float:
        """Relative load of the next replica: weighted requests per slot once it is there.

        Why the mean and not this moment's requests: two equally loaded pipelines are never equally loaded in one
        moment, and a replica that goes back and forth serves neither.
        """
        requests = self.demand.steady if self.seats else self.offered
        return self.spec.weight * requests / (self.configuration.slots * (len(self.seats) + 1))

    @property
    def margin(self) -> float:
        """How much heavier the pipeline's load counts when it is about a replica that it has already."""
        return self.settings.dwell_margin if self.dwelling else self.settings.keep_margin

    @property
    def claimed(self) -> int:
        """Replicas that the pipeline competes for: what it wants, and what it has and nearly wants."""
        if self.asleep:
            return self.wanted
        nearly = math.ceil(self.demand.steady * self.margin / self.configuration.slots - self.settings.slack)
        return max(self.wanted, min(self.spec.cap, len(self.present), nearly))

    def appeal(self) -> tuple[float, ...]:
        """What the next replica is worth, best first when sorted."""
        margin = self.margin if len(self.seats) < len(self.present) else 1.0
        return (RANKS[self.spec.priority], -self.load * margin)


def decide(state: State, settings: PolicySettings = DEFAULTS) -> Allocation:
    """The seats everyone shall have, with a reason for each change. The same state gives the same answer."""
    sides = [_Side(spec, state, settings) for spec in sorted(state.pipelines, key=lambda spec: spec.name)]
    costs = _value_standing(sides)
    board = _seat_first(sides, state, costs)
    _fill(sides, board, costs, evict=True)
    _fill(sides, board, costs, evict=False)
    for side in sides:
        _keep_outdated(side, board)
    for side in sorted(sides, key=lambda side: (RANKS[side.spec.priority], -side.load, side.spec.name)):
        _keep_surplus(side, board, state.at)
    return Allocation(
        seats=tuple(board.seats),
        changes=tuple(_explain(sides, state)),
        histories={side.spec.name: _remember(side, state.at) for side in sides},
        unmet={side.spec.name: short for side in sides if (short := side.wanted - len(side.seats)) > 0},
        values={side.spec.name: side.load for side in sides},
    )


def _value_standing(sides: list[_Side]) -> dict[str, float]:
    """How bad it is to send away each replica: nothing when its pipeline is idle, more with its load."""
    costs: dict[str, float] = {}
    for side in sides:
        for rank, one in enumerate(side.present):
            busy = 1.0 + side.demand.inside if rank < max(side.wanted, side.spec.floor) else 0.1
            costs[one.id] = busy * (3.0 - RANKS[side.spec.priority])
        for one in side.outdated:
            costs[one.id] = 0.05
    return costs


def _seat_first(sides: list[_Side], state: State, costs: dict[str, float]) -> Board:
    """A board with all floors and one replica for whoever waits.

    Make before break, where it can be: one old replica of a changed pipeline keeps its seat until a new one answers.
    Where that leaves no place for the new one, it gives its seat up in another round.
    """
    in_turns = {side.spec.name for side in sides}
    while True:
        board = _seat_floors(sides, state, costs, in_turns)
        _wake(sides, board, costs)
        blocking = {
            side.spec.name
            for side in sides
            if side.protected and not side.seats and not side.held and (side.spec.floor or side.demand.inside)
        }
        if not blocking:
            return board
        in_turns -= blocking


def _seat_floors(sides: list[_Side], state: State, costs: dict[str, float], in_turns: set[str]) -> Board:
    """A board on which every floor has its seats, big replicas first.

    Why twice: replicas that sit badly can keep a floor out that would fit; then floors are packed from nothing
    and only those who sit in the right place stay.
    """
    order = {spec.name: number for number, spec in enumerate(by_size(side.spec for side in sides))}
    ordered = sorted(sides, key=lambda side: order[side.spec.name])
    for repack in (False, True):
        board = Board(state.capacity, state.running)
        for side in sides:
            side.seats.clear()
            side.stuck = False
            keep = not repack and side.spec.name in in_turns
            side.protected = _protect_one_outdated(side, board) if keep else 0
        if not repack:
            for side in ordered:
                while side.short and _claim_own(side, board):
                    pass
        for side in ordered:
            while side.short and _grant(side, board, costs, evict=True, settled=not repack):
                pass
        if repack or not any(side.short and not side.held for side in sides):
            return board
    raise AssertionError


def _protect_one_outdated(side: _Side, board: Board) -> int:
    """Keep one old replica that answers while no new one does. Returns how many are kept."""
    if any(one.stage == "ready" for one in side.present):
        return 0
    ready = [one for one in side.outdated if one.stage == "ready"]
    return 1 if ready and board.claim(ready[0]) else 0


def _wake(sides: list[_Side], board: Board, costs: dict[str, float]) -> None:
    """One replica for everyone with work and none yet, longest wait first; who just got one keeps it."""

    def urgency(side: _Side) -> tuple[object, ...]:
        wait = side.spec.weight * max(side.demand.oldest_wait_s, 1e-9)
        in_turns = bool(side.protected)  # somebody answers for it meanwhile
        return (RANKS[side.spec.priority], in_turns, not side.dwelling, -wait, -side.offered, side.spec.name)

    waiting = [
        side
        for side in sides
        if not side.seats and side.spec.cap and (side.demand.inside or (side.dwelling and side.offered > 0.0))
    ]
    for side in sorted(waiting, key=urgency):
        if not _grant(side, board, costs, evict=True):
            side.stuck = True


def _fill(sides: list[_Side], board: Board, costs: dict[str, float], *, evict: bool) -> None:
    """Water-filling: the next replica goes to the highest relative load, until everyone has what it wants.

    With `evict`, up to a slot for each request and over the heads of idle replicas; without, into free room
    only, as long as there are more requests at once than replicas.
    Source: highest-quotient apportionment (Jefferson / d'Hondt) of replicas to weighted load.
    """
    stuck = {side.spec.name for side in sides if side.stuck}
    limits = {side.spec.name: side.claimed if evict else side.useful for side in sides}
    hungry = [side for side in sides if side.spec.name not in stuck and len(side.seats) < limits[side.spec.name]]
    while hungry:
        side = min(hungry, key=lambda side: (*side.appeal(), side.spec.name))
        if not _grant(side, board, costs, evict=evict) or len(side.seats) >= limits[side.spec.name]:
            hungry.remove(side)


def _grant(side: _Side, board: Board, costs: dict[str, float], *, evict: bool, settled: bool = True) -> bool:
    """One seat more: that of a replica of its own if there is one, else a new one unless the pipeline is
    held.
    """
    if (settled or side.held) and _claim_own(side, board):
        return True
    if side.held:
        return False
    seat = board.seat(side.spec.name, side.configuration, costs, evict=evict)
    if seat is None:
        return False
    side.seats.append(seat if settled else board.settle(seat, side.unseated))
    return True


def _claim_own(side: _Side, board: Board) -> bool:
    """The seat of one more of the replicas that it has already."""
    for one in side.unseated:
        seat = board.claim(one)
        if seat is not None:
            side.seats.append(seat)
            return True
    return False


def _keep_outdated(side: _Side, board: Board) -> None:
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


def _keep_surplus(side: _Side, board: Board, at: float) -> None:
    """Leave replicas above the need where they are until `idle_s` has passed."""
    extra = side.unseated
    if not extra or len(side.seats) + len(extra) > side.spec.cap:
        extra = extra[: max(0, side.spec.cap - len(side.seats))]
    since = side.history.surplus_since
    if side.asleep or (side.seats and since is not None and at - since >= side.spec.idle_s):
        return
    for one in extra:
        seat = board.claim(one)
        if seat is not None:
            side.seats.append(seat)


def _remember(side: _Side, at: float) -> History:
    raised = len(side.seats) > len(side.present)
    needed = max(side.wanted, side.useful)
    surplus = len(side.present) > needed and not raised
    since = side.history.surplus_since
    return History(
        raised_at=at if raised else side.history.raised_at,
        surplus_since=(at if since is None else since) if surplus else None,
    )


def _explain(sides: list[_Side], state: State) -> list[Change]:
    changes: list[Change] = []
    takers = [side.spec.name for side in sides if len(side.seats) > len(side.present)]
    for side in sides:
        before, after = len(side.present), len(side.seats)
        kept = {seat.replica for seat in side.seats}
        if after > before or (after == before and any(one.id not in kept for one in side.present)):
            changes.append(_change(side, before, after, _why_more(side)))
        elif after < before:
            changes.append(_change(side, before, after, _why_less(side, state.at, takers)))
    known = {side.spec.name for side in sides}
    gone = [one.pipeline for one in state.running if one.pipeline not in known and one.stage != "draining"]
    for name in sorted(set(gone)):
        reason = "the pipeline is no longer declared"
        changes.append(Change(pipeline=name, before=gone.count(name), after=0, reason=reason))
    return changes


def _change(side: _Side, before: int, after: int, reason: str) -> Change:
    return Change(pipeline=side.spec.name, before=before, after=after, reason=reason)


def _why_more(side: _Side) -> str:
    demand = side.demand
    if side.outdated:
        return "its model or options changed: new replicas replace the old ones"
    if not side.present and demand.inside:
        return f"woken: {demand.inside} waiting and no replica"
    if len(side.seats) <= side.spec.floor:
        return f"floor of {side.spec.floor}"
    if len(side.seats) == len(side.present):
        return "moved to make room for the floors of all"
    return (
        f"load: {demand.queued} waiting, {demand.in_flight} in flight, {demand.steady:.1f} at once on "
        f"average, {side.configuration.slots} slots a replica"
    )


def _why_less(side: _Side, at: float, takers: list[str]) -> str:
    since = side.history.surplus_since
    others = [name for name in takers if name != side.spec.name]
    if len(side.present) > side.spec.cap:
        return f"cap of {side.spec.cap}"
    if not side.demand.inside and side.demand.idle_for_s >= side.spec.idle_s:
        return f"idle for {side.demand.idle_for_s:.0f} s"
    if since is not None and at - since >= side.spec.idle_s:
        return f"more than its load needs for {at - since:.0f} s"
    if others:
        return f"gave way to {', '.join(others)}, which has more load for its share"
    return "its place is gone: the pool became smaller"
