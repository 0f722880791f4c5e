"""In which state those rest who have no devices: a choice about memory that no seat takes.

A warm replica serves at once; of one that sleeps the model has to be loaded, with its file in the page cache; of one
that is off it has to come from a disk. What saves most seconds for each byte is kept, warm ones first, by how soon it
is likely to be called: who was last called t seconds ago is thought to be called within the next second with a chance
of 1 / t. A seat takes the memory of whoever rests there. Source: hyperbolic caching (A. Blankstein, S. Sen and
M. Freedman, USENIX ATC 2017), and keep-alive of functions as caching (A. Fuerst and P. Sharma, ASPLOS 2021).
"""

from __future__ import annotations

from collections.abc import Sequence

from headgate.allocation.packing import Board
from headgate.allocation.side import Side
from headgate.allocation.state import Running, State

_LEAST_S = 1.0  # who lost its devices just now is not wanted back more often than this


def choose_resting(sides: Sequence[Side], state: State, board: Board) -> tuple[str, ...]:
    """The ids of replicas without a seat that stay loaded, or shall when they have drained; their memory is claimed.

    Nowhere where capacity is paid for by use: there, who has no device has no machine.
    """
    rented = {pool.name for pool in state.capacity.pools if pool.rented}
    left = {side.name: side for side in sides}
    free = {side.name: side.spec.cap - len(side.seats) for side in sides}
    seated = {seat.replica for seat in board.seats}
    told = [
        (_worth(left[one.pipeline], one), one)
        for one in state.running
        if one.id not in seated and one.stage != "starting" and one.pipeline in left and one.pool not in rented
    ]
    resting: list[str] = []
    for worth, one in sorted(told, key=lambda pair: (-pair[0], pair[1].stage != "warm", pair[1].id)):
        if worth > 0.0 and free[one.pipeline] > 0 and board.rest(one):
            free[one.pipeline] -= 1
            resting.append(one.id)
    return tuple(sorted(resting))


def choose_asleep(sides: Sequence[Side], board: Board) -> tuple[str, ...]:
    """The keys of configurations without a replica whose files shall be in the page cache; that memory is claimed."""
    present = {seat.configuration for seat in board.seats}
    worths: dict[str, float] = {}
    told: dict[str, tuple[str, int]] = {}
    for side in sides:
        for one in side.spec.configurations:
            profile = one.profile
            if one.key in present or side.resting or not profile.file_bytes or profile.load_cold_s is None:
                continue
            saved_s = side.spec.weight * (profile.load_cold_s - one.wake_s) / max(side.demand.idle_for_s, _LEAST_S)
            worths[one.key] = worths.get(one.key, 0.0) + max(0.0, saved_s) / profile.file_bytes
            told[one.key] = (one.pool, profile.file_bytes)
    order = sorted(worths, key=lambda key: (-worths[key], key))
    return tuple(sorted(key for key in order if worths[key] > 0.0 and board.cache(*told[key])))


def find_worth(weight: float, wake_s: float, rested_s: float, memory_bytes: int) -> float:
    """Weighted seconds that are saved for each byte and second by who would else need `wake_s` to serve again."""
    return weight * wake_s / max(rested_s, _LEAST_S) / max(1, memory_bytes)


def _worth(side: Side, one: Running) -> float:
    """What its memory is worth; 0 for one that is not to rest (any more)."""
    configuration = next((way for way in side.spec.configurations if way.key == one.configuration), None)
    if configuration is None or one.rested_s >= side.spec.warm_s:
        return 0.0
    return find_worth(side.spec.weight, configuration.wake_s, one.rested_s, one.memory_bytes)
