"""What a pipeline is to the allocator: what it wants, may have and costs."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from headgate.allocation.profile import Profile

Priority = Literal["guaranteed", "burst", "best_effort"]
RANKS: dict[Priority, int] = {"guaranteed": 0, "burst": 1, "best_effort": 2}


@dataclass(frozen=True, slots=True, kw_only=True)
class Configuration:
    """One way to run a pipeline's replicas: a version with its engine and options on one pool.

    `key` changes whenever a replica must be replaced to follow it. `share` is devices per replica: at most 1
    as a fraction, above 1 in whole devices; `memory_bytes` is the peak of one replica; `wake_s` seconds to a
    real token.
    """

    key: str
    pool: str
    share: float
    slots: int
    memory_bytes: int
    wake_s: float = 1.0
    profile: Profile = field(default_factory=Profile)


@dataclass(frozen=True, slots=True, kw_only=True)
class PipelineSpec:
    """One pipeline. Configurations best first; floor and cap in replicas; SLO and idle times in seconds.

    `idle_s` is how long capacity above what the load needs is kept when nobody else asks for it; `warm_s` how long a
    replica that gave its devices up stays loaded in memory that nobody else asks for.
    """

    name: str
    configurations: tuple[Configuration, ...]
    weight: float = 1.0
    floor: int = 0
    cap: int = 1
    priority: Priority = "burst"
    first_token_s: float = 0.5
    per_token_s: float = 0.1
    idle_s: float = 30.0
    warm_s: float = 600.0
