"""Which replica takes a request: the one expected to finish it first. On the hot path of every request.

A caller keeps one Candidate per replica for as long as the replica is routed and counts `in_flight` on it;
the choice itself changes nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

LEARNING = 0.1  # part of a new observation in `pace`: about the last 20 requests count
PREFERRED = 0.7  # a preferred replica (prompt prefix in its cache) wins if it takes less than 1 / 0.7 of the best


class Candidate:
    """One replica as the router sees it. Not frozen: `in_flight` changes with every request.

    `pace` is seconds that one request takes of the whole replica: a request with k others on it is expected
    to take (k + 1) * pace. `ready` says that it is routed, `suspect` that it failed lately.
    """

    __slots__ = ("id", "in_flight", "pace", "ready", "slots", "suspect")

    def __init__(
        self,
        *,
        id: str,
        slots: int,
        pace: float,
        in_flight: int = 0,
        ready: bool = True,
        suspect: bool = False,
    ) -> None:
        self.id = id
        self.slots = slots
        self.pace = pace
        self.in_flight: int = in_flight
        self.ready = ready
        self.suspect = suspect


def choose_replica(
    candidates: Iterable[Candidate], failed: Collection[str] = (), preferred: str | None = None
) -> Candidate | None:
    """The ready replica with a free slot that is expected to finish first; None when there is none.

    `failed` are ids that already failed this request; suspects are taken only when nobody else is there,
    because a suspect that works is better than no answer. The first of equals wins.
    """
    best: Candidate | None = None
    least = 1e300
    suspects = False
    for one in candidates:
        busy = one.in_flight
        if busy < one.slots and one.ready:
            cost = (busy + 1) * one.pace
            if one.suspect:
                suspects = True
            elif cost < least or (preferred is not None and one.id == preferred):
                if one.id == preferred:
                    cost *= PREFERRED
                    if cost >= least:
                        continue
                if not failed or one.id not in failed:
                    best = one
                    least = cost
    if best is None and suspects:
        for one in candidates:
            if one.ready and one.in_flight < one.slots and one.id not in failed:
                cost = (one.in_flight + 1) * one.pace
                if cost < least:
                    best, least = one, cost
    return best


def guess_pace(service_s: float, share: float, mean_share: float) -> float:
    """A first pace for a new replica from what its siblings take: more share of a core, less time
    (seconds).
    """
    return service_s * mean_share / share


def learn_pace(pace: float, service_s: float, together: float) -> float:
    """`pace` after a request that took `service_s` seconds with `together` requests (itself too) on the
    replica.
    """
    return pace + LEARNING * (service_s / max(1.0, together) - pace)
