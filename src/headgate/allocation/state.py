"""What a decision is made from, and what it says. A recorded State replays to the same Allocation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from headgate.allocation.capacity import Capacity
from headgate.allocation.demand import Demand
from headgate.allocation.pipeline import PipelineSpec
from headgate.allocation.settings import DEFAULTS, TargetSettings

Stage = Literal["starting", "ready", "draining", "warm"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """One replica that holds capacity now, whatever its stage; a draining one holds its share until it is gone.

    A warm one is loaded and holds memory alone, since `rested_s` seconds; `share` is what it takes when it serves.
    """

    id: str
    pipeline: str
    configuration: str
    pool: str
    node: str
    devices: tuple[int, ...]
    share: float
    memory_bytes: int
    stage: Stage
    in_flight: int = 0
    rested_s: float = 0.0

    @property
    def share_now(self) -> float:
        """Devices' worth that it takes now: none while it is warm."""
        return 0.0 if self.stage == "warm" else self.share


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """What a policy remembers of one pipeline between decisions (times in seconds of the state's clock).

    `raised_at` is when it last got more; `surplus_since` since when it has had more than its load needs.
    """

    raised_at: float | None = None
    surplus_since: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """All that a decision may depend on.

    `at` is seconds of any clock that never goes back; `held` are configurations (keys, by pipeline) that may not get
    new replicas now (crashing ones in their backoff, say), with the reason; `prices` are those of the last decision
    (rank, pool): the next is found faster from them; `proposal` is what was found to be better then, to be taken where
    it is so now.
    """

    at: float
    capacity: Capacity
    pipelines: tuple[PipelineSpec, ...]
    demands: Mapping[str, Demand] = field(default_factory=dict[str, Demand])
    running: tuple[Running, ...] = ()
    histories: Mapping[str, History] = field(default_factory=dict[str, History])
    held: Mapping[str, Mapping[str, str]] = field(default_factory=dict[str, Mapping[str, str]])
    prices: tuple[tuple[float, ...], ...] = ()
    proposal: Mapping[str, Mapping[str, int]] = field(default_factory=dict[str, Mapping[str, int]])
    settings: TargetSettings = DEFAULTS


@dataclass(frozen=True, slots=True, kw_only=True)
class Seat:
    """A place for one replica. `replica` is the one that sits there already, or a warm one that is to serve there;
    None: to be started.
    """

    pipeline: str
    configuration: str
    pool: str
    node: str
    devices: tuple[int, ...]
    share: float
    memory_bytes: int
    replica: str | None = None

    @property
    def share_now(self) -> float:
        """Devices' worth that it takes."""
        return self.share


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One pipeline's replicas before and after (those that leave not counted), and why.

    `gained` is the utility that it gains by that; below 0: what it gives up for others.
    """

    pipeline: str
    before: int
    after: int
    reason: str
    gained: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Allocation:
    """Who shall have what. A replica that runs and has no seat is to leave, to rest where `resting` names it. `asleep`
    are keys of configurations without a replica whose files shall be in the page cache.

    `unmet` counts replicas that a pipeline's load asks for and that do not fit; `values` is the utility that one more
    replica would bring each; `shed` is the part of a pipeline's requests that its replicas cannot serve in the long
    run, who loses least by it first; `prices` (rank, pool) are utility for one more device; `gap_to_bound` is how far
    the choice may be from the best possible, as a part of it.
    """

    seats: tuple[Seat, ...]
    changes: tuple[Change, ...] = ()
    histories: Mapping[str, History] = field(default_factory=dict[str, History])
    unmet: Mapping[str, int] = field(default_factory=dict[str, int])
    values: Mapping[str, float] = field(default_factory=dict[str, float])
    shed: Mapping[str, float] = field(default_factory=dict[str, float])
    prices: tuple[tuple[float, ...], ...] = ()
    gap_to_bound: float | None = None
    resting: tuple[str, ...] = ()
    asleep: tuple[str, ...] = ()

    @property
    def replicas(self) -> dict[str, int]:
        """Replicas by pipeline."""
        counts: dict[str, int] = {}
        for seat in self.seats:
            counts[seat.pipeline] = counts.get(seat.pipeline, 0) + 1
        return counts
