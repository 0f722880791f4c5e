"""Why: each change of a decision in words and in utility, and who is shed first when there is not enough."""

from __future__ import annotations

from collections.abc import Sequence

from headgate.allocation.choice import Choice
from headgate.allocation.pipeline import RANKS
from headgate.allocation.side import Side
from headgate.allocation.state import Change, State

_MOVED = 0.005  # utility below which a change is not worth a word


def explain(sides: Sequence[Side], state: State, choice: Choice | None) -> tuple[Change, ...]:
    """A change for each pipeline whose replicas become more, fewer or others."""
    changes: list[Change] = []
    takers = [side.name for side in sides if len(side.seats) > len(side.present)]
    for side in sides:
        before, after = len(side.present), len(side.seats)
        kept = {seat.replica for seat in side.seats}
        if after > before or (after == before and any(one.id not in kept for one in side.present)):
            changes.append(_change(side, choice, _why_more(side)))
        elif after < before:
            changes.append(_change(side, choice, _why_less(side, state.at, takers)))
    known = {side.name for side in sides}
    gone = [one.pipeline for one in state.running if one.pipeline not in known and one.stage != "draining"]
    for name in sorted(set(gone)):
        reason = "the pipeline is no longer declared"
        changes.append(Change(pipeline=name, before=gone.count(name), after=0, reason=reason))
    return tuple(changes)


def find_shed(sides: Sequence[Side], choice: Choice | None) -> dict[str, float]:
    """The part of each pipeline's requests beyond what its seats serve, who is to be shed first at the front.

    The lowest class first, then whoever loses least utility by a request.
    """
    parts: dict[str, float] = {}
    order = sorted(sides, key=lambda side: (-RANKS[side.spec.priority], side.spec.weight, side.name))
    for side in order:
        want = choice.wants.get(side.name) if choice else None
        rate = want.far[len(want.far) // 2] if want else 0.0
        if choice is None or want is None or rate <= 0.0:
            continue
        served = sum(choice.speeds[side.name, seat.configuration] for seat in side.seats) * want.service.replica_rate
        if served < rate:
            parts[side.name] = round(1.0 - served / rate, 3)
    return parts


def _change(side: Side, choice: Choice | None, reason: str) -> Change:
    before = after = 0.0
    if choice is not None:
        before = choice.worth(side.name, (one.configuration for one in side.present))
        after = choice.worth(side.name, (seat.configuration for seat in side.seats))
    if abs(after - before) >= _MOVED:
        reason = f"{reason}; utility {before:.2f} -> {after:.2f}"
    return Change(
        pipeline=side.name,
        before=len(side.present),
        after=len(side.seats),
        reason=reason,
        gained=round(after - before, 6),
    )


def _why_more(side: Side) -> str:
    demand = side.demand
    if side.outdated:
        return "its model or options changed: new replicas replace the old ones"
    if not side.present and demand.inside:
        return f"woken: {demand.inside} waiting and no replica"
    if len(side.seats) <= side.spec.floor:
        return f"floor of {side.spec.floor}"
    if len(side.seats) == len(side.present):
        return "moved to make room for the floors of all"
    if demand.kept is not None and len(side.seats) > side.wanted:
        return f"kept alive: {demand.kept} replicas are called often enough for their price"
    return (
        f"load: {demand.queued} waiting, {demand.in_flight} in flight, {demand.steady:.1f} at once on "
        f"average, {side.configuration.slots} slots a replica"
    )


def _why_less(side: Side, at: float, takers: list[str]) -> str:
    since = side.history.surplus_since
    others = [name for name in takers if name != side.name]
    if len(side.present) > side.spec.cap:
        return f"cap of {side.spec.cap}"
    if side.demand.kept is not None and not others:
        return f"not called often enough for its price: {side.demand.kept} are"
    if not side.demand.inside and side.demand.idle_for_s >= side.spec.idle_s:
        return f"idle for {side.demand.idle_for_s:.0f} s"
    if since is not None and at - since >= side.spec.idle_s:
        return f"more than its load needs for {at - since:.0f} s"
    if others:
        return f"gave way to {', '.join(others)}, where it brings more"
    return "its place is gone: the pool became smaller"
