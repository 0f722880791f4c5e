"""Who answers next: the queues of the pipelines, the free slots of the replicas, and the load that is reported.

Decisions are pure and live in `allocation/`; here they meet what is in flight. Times are seconds of the clock given.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from headgate.allocation.admission import decide_admission
from headgate.allocation.routing import Candidate, choose_replica, learn_pace
from headgate.core.clock import Clock
from headgate.core.errors import DeadlineExceeded, ModelNotFound, Overloaded, Unavailable
from headgate.core.table import LoadReport, PipelineLoad, PipelineRoute, ReplicaLoad, ReplicaRoute, RoutingTable

SUSPECT_S = 2.0  # how long a replica that failed is left out when the node has not said otherwise
_FIRST_PACE_S = 0.1  # what a replica with a whole core is taken to need for a request until it has answered one


class Seat(Candidate):
    """One replica as this gateway sees it: the router's candidate, its route, until when it is a suspect, and counts
    since the last report.
    """

    __slots__ = ("_crowd_s", "_turned", "busy_s", "route", "settled", "suspect_until", "together_s")

    def __init__(self, route: ReplicaRoute) -> None:
        super().__init__(id=route.id, slots=route.slots, pace=_FIRST_PACE_S / route.share)
        self.suspect_until = 0.0
        self.settled = 0
        self.busy_s = self.together_s = 0.0
        self._crowd_s = 0.0
        self._turned = 0.0
        self.follow(route)

    def follow(self, route: ReplicaRoute) -> None:
        """Take what a new routing table says of this replica."""
        self.route = route
        self.slots = route.slots
        self.ready = route.state == "ready"

    def enter(self, now: float) -> float:
        """Take a request; the crowd before it, to be given to `leave`."""
        self._pass(now)
        self.in_flight += 1
        return self._crowd_s

    def leave(self, now: float, since: float, crowd_s: float, *, completed: bool) -> None:
        """Give a slot back; a completed request tells how long it took beside how many others."""
        self._pass(now)
        if completed:
            self.settled += 1
            self.busy_s += now - since
            self.together_s += self._crowd_s - crowd_s
            self.pace = learn_pace(self.pace, now - since, self.in_flight)
        self.in_flight -= 1

    def _pass(self, now: float) -> None:
        # Why an integral: what a request took depends on all that came and went meanwhile, not on whom it met at its
        # end; one sum for the replica tells it of each request.
        self._crowd_s += self.in_flight * (now - self._turned)
        self._turned = now

    def take_load(self) -> ReplicaLoad:
        """The counts since the last call, which start anew."""
        load = ReplicaLoad(settled=self.settled, busy_s=self.busy_s, together_s=self.together_s)
        self.settled, self.busy_s, self.together_s = 0, 0.0, 0.0
        return load


class Lane:
    """One pipeline: its route, seats, waiting requests and counts since the last report."""

    def __init__(self, route: PipelineRoute) -> None:
        self.route = route
        self.seats: list[Seat] = []
        self.waiting: deque[_Waiter] = deque()
        self.arrivals = self.settled = self.in_flight = self.late = 0
        self.prompt_tokens = self.output_tokens = 0
        self.busy_s = 0.0
        self.measured = False  # whether a replica of it has answered yet

    def take_load(self, now: float) -> PipelineLoad:
        """The counts since the last call, which start anew, and the state now."""
        load = PipelineLoad(
            arrivals=self.arrivals,
            settled=self.settled,
            queued=len(self.waiting),
            in_flight=self.in_flight,
            prompt_tokens=self.prompt_tokens,
            output_tokens=self.output_tokens,
            busy_s=self.busy_s,
            late=self.late,
            oldest_wait_s=max(0.0, now - self.waiting[0].since) if self.waiting else 0.0,
        )
        self.arrivals = self.settled = self.late = self.prompt_tokens = self.output_tokens = 0
        self.busy_s = 0.0
        return load


@dataclass(slots=True, eq=False)
class _Waiter:
    future: asyncio.Future[tuple[Seat, float]]
    since: float
    deadline: float
    exclude: frozenset[str]
    version: str | None

    @property
    def choosy(self) -> bool:
        """Whether there may be free slots that are none for it."""
        return bool(self.exclude) or self.version is not None


class Lease:
    """One slot of one replica, held for one attempt. `release` gives it back, whatever became of the attempt."""

    __slots__ = ("_crowd_s", "_dispatcher", "_lane", "_seat", "_since", "queue_s", "route")

    def __init__(
        self, dispatcher: Dispatcher, lane: Lane, seat: Seat, crowd_s: float, since: float, queue_s: float
    ) -> None:
        self._dispatcher = dispatcher
        self._lane = lane
        self._seat = seat
        self._crowd_s = crowd_s
        self._since = since
        self.route = seat.route
        self.queue_s = queue_s

    def suspect(self) -> None:
        """The replica failed this attempt: leave it out until the node has looked at it."""
        self._dispatcher.mark_suspect(self._seat)

    def release(self, completed: bool) -> None:
        """Give the slot back; a completed attempt teaches how long the replica takes."""
        self._dispatcher.give_back(self._lane, self._seat, self._crowd_s, self._since, completed)


class Dispatcher:
    """Holds the routing table of one gateway, its queues and its in-flight counts."""

    def __init__(
        self,
        clock: Clock,
        wake: Callable[[], None] = lambda: None,
        forget: Callable[[str], None] = lambda address: None,
    ) -> None:
        """`wake` has the load reported at once; `forget` is told the address of every replica that is gone."""
        self._clock = clock
        self._wake = wake
        self._forget = forget
        self._lanes: dict[str, Lane] = {}
        self._seats: dict[str, Seat] = {}
        self.table: RoutingTable | None = None

    # -- what the gateway asks -------------------------------------------------------------------------------------

    def lane(self, name: str) -> Lane:
        """The lane of a pipeline. Raises ModelNotFound naming those there are, Unavailable before the first table."""
        lane = self._lanes.get(name)
        if lane is None:
            if self.table is None:
                raise Unavailable("The gateway is starting and has no routing table yet.", retry_after_s=1.0)
            known = ", ".join(sorted(self._lanes)) or "none"
            raise ModelNotFound(f"No pipeline is called {name[:100]!r} here. Served: {known}.", param="model")
        return lane

    @property
    def lanes(self) -> Iterable[Lane]:
        """All lanes, by name."""
        return [self._lanes[name] for name in sorted(self._lanes)]

    async def lease(
        self, lane: Lane, deadline: float, exclude: frozenset[str] = frozenset(), version: str | None = None
    ) -> Lease:
        """A slot on the best replica, waiting for one within the pipeline's bounded queue.

        Not on those of `exclude`; on one of `version`, where that is given.
        Raises Overloaded (queue full), Unavailable (pipeline blocked), DeadlineExceeded (waited past `deadline`).
        """
        now = self._clock.monotonic()
        # Those who wait for another replica than the one that failed them hold nobody up.
        if not lane.waiting or all(waiter.choosy for waiter in lane.waiting):
            seat = self._choose(lane, exclude, version, now)
            if seat is not None:
                return self._sit(lane, seat, now, now)
        self._admit(lane, now, deadline)
        waiter = _Waiter(asyncio.get_running_loop().create_future(), now, deadline, exclude, version)
        lane.waiting.append(waiter)
        if not any(seat.ready for seat in lane.seats):
            self._wake()
        try:
            seat, crowd_s = await waiter.future
        except BaseException:
            if waiter in lane.waiting:
                lane.waiting.remove(waiter)
            if waiter.future.done() and not waiter.future.cancelled() and waiter.future.exception() is None:
                self.give_back(lane, *waiter.future.result(), now, completed=False)  # granted and cancelled at once
            raise
        return Lease(self, lane, seat, crowd_s, self._clock.monotonic(), self._clock.monotonic() - waiter.since)

    def _admit(self, lane: Lane, now: float, deadline: float) -> None:
        route = lane.route
        if route.blocked is not None and not lane.seats:
            raise Unavailable(f"Pipeline '{route.name}' cannot be served now: {route.blocked}", retry_after_s=10.0)
        ready = [seat for seat in lane.seats if seat.ready]
        paces = [seat.pace for seat in ready if lane.measured]
        admission = decide_admission(
            slots_free=0,
            slots=sum(seat.slots for seat in ready),
            queued=len(lane.waiting),
            queue_limit=route.queue,
            service_s=sum(seat.pace * seat.slots for seat in ready) / len(paces) if paces else None,
            wake_s=route.wake_s,
            time_left_s=deadline - now,
        )
        if admission.action == "refuse":
            again_s = admission.retry_after_s
            if admission.cause == "deadline":
                raise DeadlineExceeded(
                    "The request cannot be answered before its deadline. Raise the timeout or retry later.",
                    retry_after_s=again_s,
                )
            raise Overloaded(
                f"The queue of pipeline '{route.name}' is full ({len(lane.waiting)} of {route.queue} waiting). "
                "Retry after the time given.",
                retry_after_s=again_s,
            )

    # -- what the node says ----------------------------------------------------------------------------------------

    def apply(self, table: RoutingTable) -> None:
        """Take a new routing table. Requests in flight keep their slots; waiting ones are served if they can be."""
        if self.table is not None and self.table.node == table.node and table.number <= self.table.number:
            return
        self.table = table
        for name in [name for name in self._lanes if name not in table.pipelines]:
            self._close_lane(self._lanes.pop(name))
        for name, route in table.pipelines.items():
            lane = self._lanes.get(name)
            if lane is None:
                self._lanes[name] = Lane(route)
            else:
                lane.route = route
        seats: dict[str, Seat] = {}
        for name, route in table.replicas.items():
            seat = self._seats.get(name)
            if seat is None or seat.route.epoch != route.epoch:
                seat = Seat(route)
            seat.follow(route)
            seats[name] = seat
        left = {name: seat for name, seat in self._seats.items() if name not in seats}
        for seat in left.values():
            self._forget(seat.route.address)
        self._seats = seats | {name: seat for name, seat in left.items() if seat.in_flight}
        for lane in self._lanes.values():
            lane.seats = [seat for seat in seats.values() if seat.route.pipeline == lane.route.name]
            self._serve_waiting(lane)
        if any(route.state == "draining" for route in table.replicas.values()):
            self._wake()  # the node stops an idle replica as soon as every gateway has said that it knows

    def sweep(self) -> None:
        """End waits past their deadline; serve those whose suspect replica may be tried again."""
        now = self._clock.monotonic()
        for lane in self._lanes.values():
            for waiter in [waiter for waiter in lane.waiting if waiter.deadline <= now]:
                lane.waiting.remove(waiter)
                if not waiter.future.done():
                    waiter.future.set_exception(
                        DeadlineExceeded(
                            "The request waited for a free replica until its deadline. Retry later, or raise the "
                            "pipeline's cap or timeout.",
                            retry_after_s=lane.route.wake_s,
                        )
                    )
            self._serve_waiting(lane)

    def report(self, gateway: str, pid: int) -> LoadReport:
        """What this gateway saw since the last report."""
        now = self._clock.monotonic()
        return LoadReport(
            gateway=gateway,
            pid=pid,
            table_number=self.table.number if self.table else 0,
            pipelines={name: lane.take_load(now) for name, lane in self._lanes.items()},
            in_flight={name: seat.in_flight for name, seat in self._seats.items() if seat.in_flight},
            suspects=tuple(name for name, seat in self._seats.items() if seat.suspect_until > now),
            replicas={name: seat.take_load() for name, seat in self._seats.items() if seat.settled},
        )

    # -- within ------------------------------------------------------------------------------------------------------

    def mark_suspect(self, seat: Seat) -> None:
        """Leave a seat out for a while. For Lease only."""
        seat.suspect = True
        seat.suspect_until = self._clock.monotonic() + SUSPECT_S
        self._wake()

    def give_back(self, lane: Lane, seat: Seat, crowd_s: float, since: float, completed: bool) -> None:
        """Free a slot and hand it to whoever waits. For Lease only."""
        now = self._clock.monotonic()
        if completed:
            lane.busy_s += now - since
            lane.measured = True
        seat.leave(now, since, crowd_s, completed=completed)
        lane.in_flight -= 1
        if seat.in_flight == 0 and seat.route.state == "draining":
            self._wake()  # the node waits for this to stop the replica
        if lane.waiting:
            self._serve_waiting(lane)

    def _choose(self, lane: Lane, exclude: frozenset[str], version: str | None, now: float) -> Seat | None:
        for seat in lane.seats:
            if seat.suspect and seat.suspect_until <= now:
                seat.suspect = False
        if exclude:
            # A replica that failed this request may have another try at it once it is a suspect no more, and so may
            # at once the one that took its place (a seat of its own under the same id).
            exclude = frozenset([seat.id for seat in lane.seats if seat.id in exclude and seat.suspect])
        seats = lane.seats if version is None else [seat for seat in lane.seats if seat.route.version == version]
        chosen = choose_replica(seats, exclude)
        return chosen  # type: ignore[return-value]

    def _sit(self, lane: Lane, seat: Seat, now: float, since: float) -> Lease:
        crowd_s = seat.enter(now)
        lane.in_flight += 1
        return Lease(self, lane, seat, crowd_s, now, now - since)

    def _serve_waiting(self, lane: Lane) -> None:
        now = self._clock.monotonic()
        passed: list[_Waiter] = []
        while lane.waiting:
            waiter = lane.waiting.popleft()
            if waiter.future.done():
                continue
            seat = self._choose(lane, waiter.exclude, waiter.version, now)
            if seat is None:
                passed.append(waiter)
                if not waiter.choosy:
                    break  # no free seat at all: those behind have none either
                continue
            lane.in_flight += 1
            waiter.future.set_result((seat, seat.enter(now)))
        lane.waiting.extendleft(reversed(passed))

    def _close_lane(self, lane: Lane) -> None:
        for waiter in lane.waiting:
            if not waiter.future.done():
                waiter.future.set_exception(
                    ModelNotFound(
                        f"Pipeline '{lane.route.name}' was removed from the configuration while this request waited.",
                        param="model",
                    )
                )
        lane.waiting.clear()
