"""Which replicas that lost their devices stay loaded: a choice about memory that no seat takes.

A warm replica serves at once, where one that was stopped has to load its model again. Of those who might rest, those
are kept that save most seconds for each byte, by how soon they are likely to be called: who gave its devices up t
seconds ago is thought to be called back within the next second with a chance of 1 / t. A seat takes the memory of
whoever rests there. Source: hyperbolic caching (A. Blankstein, S. Sen and M. Freedman, USENIX ATC 2017), and
keep-alive of functions as caching (A. Fuerst and P. Sharma, ASPLOS 2021).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from headgate.allocation.capacity import Capacity
from headgate.allocation.packing import Board
from headgate.allocation.pipeline import Configuration
from headgate.allocation.side import Side
from headgate.allocation.state import Running, State

_LEAST_S = 1.0  # who lost its devices just now is not wanted back more often than this


def choose_resting(sides: Sequence[Side], state: State, board: Board) -> tuple[str, ...]:
    """The ids of replicas without a seat that stay loaded, or shall when they have drained; their memory is claimed.

    Nowhere where capacity is paid for by use: there, who has no device has no machine.
    """
    paid = {pool.name for pool in state.capacity.pools if _is_paid_by_use(state.capacity, pool.name)}
    left = {side.name: side for side in sides}
    free = {side.name: side.spec.cap - len(side.seats) for side in sides}
    seated = {seat.replica for seat in board.seats}
    told = [
        (_worth(left[one.pipeline], one), one)
        for one in state.running
        if one.id not in seated and one.stage != "starting" and one.pipeline in left and one.pool not in paid
    ]
    resting: list[str] = []
    for worth, one in sorted(told, key=lambda pair: (-pair[0], pair[1].stage != "warm", pair[1].id)):
        if worth > 0.0 and free[one.pipeline] > 0 and board.rest(one):
            free[one.pipeline] -= 1
            resting.append(one.id)
    return tuple(sorted(resting))


def _worth(side: Side, one: Running) -> float:
    """Weighted seconds that are saved for each byte and second; 0 for one that is not to rest (any more)."""
    configuration = _find(side.spec.configurations, one.configuration)
    if configuration is None or one.rested_s >= side.spec.warm_s:
        return 0.0
    saved_s = side.spec.weight * configuration.wake_s / max(one.rested_s, _LEAST_S)
    return saved_s / max(1, one.memory_bytes)


def _find(configurations: Iterable[Configuration], key: str) -> Configuration | None:
    return next((one for one in configurations if one.key == key), None)


def _is_paid_by_use(capacity: Capacity, name: str) -> bool:
    pool = capacity.pool(name)
    return pool is not None and pool.elastic and bool(pool.price_per_hour)
