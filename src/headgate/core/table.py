"""The routing table: which pipelines are served and which replicas answer. Node makes it, gateways read it.

A table is a whole, versioned snapshot; a gateway that misses one loses nothing by taking the next.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from headgate.core.model import Task
from headgate.core.secret import Secret

ReplicaState = Literal["starting", "ready", "draining"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PipelineRoute:
    """One pipeline as a gateway needs it.

    `model`, `version` and `engine` are those of the best way to run it; `versions` and `engines` tell of all ways, best
    first. `context` is the tokens one request may hold (prompt + output); `queue` how many requests may wait in one
    gateway; `wake_s` an honest guess of the seconds until a first replica answers; times in seconds.
    """

    name: str
    model: str
    version: str
    engine: str
    task: Task
    context: int
    queue: int
    weight: float
    first_token_s: float
    per_token_s: float
    timeout_s: float
    created: int
    leaves_walls: bool = False
    wake_s: float = 1.0
    blocked: str | None = None
    versions: tuple[str, ...] = ()
    engines: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaRoute:
    """One replica as a gateway needs it.

    `address` is 'unix:/path' or 'https://host/base'; `epoch` fences: a replica that was replaced has an older one;
    `share` is its part of its cores (weighted dispatch); `slots` how many requests it works on at once.
    """

    id: str
    pipeline: str
    version: str
    engine: str
    address: str
    secret: Secret = field(repr=False)
    epoch: int
    slots: int
    device: str
    pool: str
    share: float
    state: ReplicaState


@dataclass(frozen=True, slots=True, kw_only=True)
class RoutingTable:
    """All routes at one moment. `number` only grows within one `node` (the id of the node process that made it)."""

    node: str
    number: int
    pipelines: dict[str, PipelineRoute]
    replicas: dict[str, ReplicaRoute]


@dataclass(frozen=True, slots=True, kw_only=True)
class PipelineLoad:
    """What one gateway saw of one pipeline since its last report, plus its state now.

    Counts are since the last report; `queued` and `in_flight` are now. Token counts are of settled requests.
    """

    arrivals: int = 0
    settled: int = 0
    queued: int = 0
    in_flight: int = 0
    prompt_tokens: int = 0
    output_tokens: int = 0
    busy_s: float = 0.0
    late: int = 0
    oldest_wait_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaLoad:
    """What one gateway saw of one replica since its last report: requests that it completed, the seconds that they
    took there, and those seconds times the requests that this gateway had on it meanwhile.
    """

    settled: int = 0
    busy_s: float = 0.0
    together_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadReport:
    """One gateway's report. `in_flight` counts requests per replica id; `suspects` are replicas that failed;
    `replicas` are those that completed requests.
    """

    gateway: str
    pid: int
    table_number: int
    pipelines: dict[str, PipelineLoad]
    in_flight: dict[str, int]
    suspects: tuple[str, ...] = ()
    replicas: dict[str, ReplicaLoad] = field(default_factory=dict[str, ReplicaLoad])
