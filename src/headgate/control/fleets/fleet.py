"""The one protocol of fleets: start, drain and stop replicas, and tell what became of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol

from headgate.allocation.state import Running, Seat, Stage
from headgate.control.node_plan import NodePlan, PlannedModel
from headgate.core.secret import Secret


@dataclass(frozen=True, slots=True, kw_only=True)
class StartOrder:
    """One replica to start: who it is, what it runs, where it sits (on cores or GPUs).

    `ready_s` is how many seconds it may take to its first token.
    """

    replica: str
    pipeline: str
    model: PlannedModel
    configuration: str
    seat: Seat
    kind: Literal["cpu", "gpu"]
    epoch: int
    ready_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """One replica of a fleet, from its order to its end.

    `since` is when it was started (seconds since the Unix epoch); `load_s` how long it took to a real token;
    `rested_at` when it was put to rest (monotonic seconds).
    """

    id: str
    pipeline: str
    model: str
    version: str
    engine: str
    configuration: str
    pool: str
    node: str
    devices: tuple[int, ...]
    share: float
    memory_bytes: int
    slots: int
    context: int
    address: str
    secret: Secret = field(repr=False)
    epoch: int
    stage: Stage
    since: float
    load_s: float | None = None
    pid: int | None = None
    adopted: bool = False
    rested_at: float | None = None

    def running(self, in_flight: int, now: float) -> Running:
        """The replica as the allocator sees it."""
        return Running(
            id=self.id,
            pipeline=self.pipeline,
            configuration=self.configuration,
            pool=self.pool,
            node=self.node,
            devices=self.devices,
            share=self.share,
            memory_bytes=self.memory_bytes,
            stage=self.stage,
            in_flight=in_flight,
            rested_s=0.0 if self.rested_at is None else now - self.rested_at,
        )

    @property
    def share_now(self) -> float:
        """Devices' worth that it takes now: none while it is warm."""
        return 0.0 if self.stage == "warm" else self.share

    @property
    def loaded(self) -> bool:
        """Whether it has given a token once."""
        return self.load_s is not None or self.adopted

    @property
    def device(self) -> str:
        """Its devices for people: 'cpu:0' or 'gpu:0,1'."""
        return f"{self.pool}:{','.join(str(device) for device in self.devices)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Ready:
    """A replica has produced a real token, `load_s` seconds after its start."""

    member: Member


@dataclass(frozen=True, slots=True, kw_only=True)
class Gone:
    """A replica has ended and holds nothing any more. `asked`: we stopped it; else it failed, `why` says how.

    `ran_s` is how long it was ready (0: it never was).
    """

    member: Member
    asked: bool
    why: str
    ran_s: float = 0.0


Event = Ready | Gone


class Fleet(Protocol):
    """Replicas and their life. Commands return at once; what became of them comes as events.

    `listen` is called before anything else. Events come in the event loop, never from within a command.
    """

    def listen(self, tell: Callable[[Event], None]) -> None:
        """Tell every event to `tell` from now on."""
        ...

    def members(self) -> tuple[Member, ...]:
        """All replicas that hold capacity now, those that are being stopped included, in order of their start."""
        ...

    def start(self, order: StartOrder) -> None:
        """Start a replica. Ready or Gone follows."""
        ...

    def drain(self, replica: str, reason: str) -> None:
        """Mark a replica as draining. Whoever routes to it must stop doing so."""
        ...

    def take_back(self, replica: str) -> None:
        """Have a replica that drains serve again. Not once it is being stopped."""
        ...

    def rest(self, replica: str, reason: str) -> None:
        """Take its devices from a replica that has drained. It stays loaded, and holds its memory alone."""
        ...

    def wake(self, replica: str, seat: Seat) -> None:
        """Have a warm replica serve on the devices of `seat`."""
        ...

    def stop(self, replica: str, reason: str) -> None:
        """End a replica. Gone follows. A second call does nothing."""
        ...

    def cache(self, files: Mapping[str, str]) -> None:
        """Have these files (paths by configuration key) in the page cache, and no others that were to be there."""
        ...

    def look_at(self, replica: str, busy: Callable[[], bool]) -> None:
        """Make sure of a ready replica that failed a request. Gone follows when it gives no answer any more.

        It is not ended while it is `busy`. A call during a look does nothing.
        """
        ...

    async def adopt(self, plan: NodePlan) -> tuple[Member, ...]:
        """Take over replicas that an earlier node left running; settle the rows of those that have ended."""
        ...

    async def close(self, *, stop_replicas: bool) -> None:
        """Leave the replicas running, or end them all and wait for it."""
        ...
