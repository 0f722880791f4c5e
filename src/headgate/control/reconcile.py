"""The loop: load demand and what runs, decide, plan, apply. One turn is `tick`, which never waits.

Everything that takes time (loading, draining, stopping) is the fleet's; it comes back as an event, and an event or a
waiting request causes the next turn at once. Owns the routing table and the record of decisions.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from functools import partial

from headgate.allocation.plan import Plan, Rest, Start, Stop, plan_moves
from headgate.allocation.policy import decide
from headgate.allocation.recording import plain_state, seal_allocation
from headgate.allocation.settings import DEFAULTS
from headgate.allocation.state import Allocation, History, State
from headgate.control.demands import DemandBook
from headgate.control.drains import Drains
from headgate.control.faults import FaultBook
from headgate.control.fleets.fleet import Event, Fleet, Gone, Member, Ready, StartOrder
from headgate.control.journal import Decision, Journal, plain_move
from headgate.control.node_plan import NodePlan, build_specs
from headgate.control.refinements import RefinementBook
from headgate.control.replay import tell_changes
from headgate.control.routes import build_pipelines, build_replicas
from headgate.control.takeback import find_able, find_restful, seat_draining
from headgate.core.chance import Chance
from headgate.core.clock import Clock
from headgate.core.ids import Ids
from headgate.core.table import LoadReport, RoutingTable

log = logging.getLogger(__name__)

_KEPT = 200
_WAKE_LEARNING = 0.3
_QUIET_TICKS = 10.0  # where nobody is inside only idle times run, and whatever comes ends the pause
_TURN_PART = 4.0  # pauses are so many times as long as turns at least: they take no more than a fifth of a core


class Reconciler:
    """Keeps what runs at what it should be. `publish` gets each new routing table."""

    def __init__(
        self,
        *,
        node: str,
        plan: NodePlan,
        fleet: Fleet,
        journal: Journal,
        clock: Clock,
        chance: Chance,
        ids: Ids,
        publish: Callable[[RoutingTable], None],
    ) -> None:
        self.plan = plan
        self.demands = DemandBook()
        self.faults = FaultBook(plan.settings, chance)
        self.refined = RefinementBook()
        self.decisions: deque[Decision] = deque(maxlen=_KEPT)
        self.moves: dict[str, int] = {"start": 0, "drain": 0, "stop": 0, "rest": 0, "wake": 0}
        self.crashes = 0
        self.wakes: dict[str, float] = {}  # seconds from start to a real token that were seen, by configuration key
        self.allocation: Allocation | None = None
        self._fleet = fleet
        self._journal = journal
        self._clock = clock
        self._ids = ids
        self._publish = publish
        self._histories: dict[str, History] = {}
        self._drains = Drains(self.demands, clock)
        self._last: tuple[object, ...] = ()
        self._cached: set[str] = set()
        self._number = journal.last_number()
        # Why the time: gateways outlive a node, and what they say of tables must not be taken for a newer one's.
        self.table = RoutingTable(node=node, number=int(clock.now() * 1000), pipelines={}, replicas={})
        self._epoch = self.table.number
        self._trigger: str | None = "start"
        self._due = asyncio.Event()
        self._turn_s = 0.0
        self._quiet = False
        fleet.listen(self._hear)
        plan.check()

    # -- what others tell --------------------------------------------------------------------------------------------

    def wake(self, trigger: str) -> None:
        """Have the next turn now."""
        self._trigger = self._trigger or trigger
        self._due.set()

    def take_load(self, report: LoadReport) -> None:
        """Take a gateway's report; one that says that somebody waits, that a drain is over, or that there is work again
        causes a turn.

        Replicas that failed a request are looked at; one that is broken comes back as an event.
        """
        self.demands.take(report, self._clock.monotonic())
        for name in report.suspects:
            self._fleet.look_at(name, partial(self.demands.is_busy, name))
        busy = {one.pipeline for one in self._fleet.members() if one.stage not in ("draining", "warm")}
        if any(load.queued and name not in busy for name, load in report.pipelines.items()):
            self.wake("waiting")
        elif self._drains.any_drained():
            self.wake("drained")
        elif self._quiet and any(load.queued or load.in_flight for load in report.pipelines.values()):
            self.wake("work")

    def join(self, gateway: str) -> None:
        """A gateway has connected."""
        self.demands.join(gateway, self._clock.monotonic())

    def leave(self, gateway: str) -> None:
        """A gateway is gone."""
        self.demands.leave(gateway)
        self.wake("gateway gone")

    def apply_plan(self, plan: NodePlan) -> dict[str, list[str]]:
        """Serve another plan from now on: names of pipelines added, removed, changed (new replicas), adjusted.

        Streams go on: replaced replicas drain. Raises ConfigError and ModelRefused, and then nothing has changed.
        """
        plan.check()
        before = {one.name: one for one in self.plan.pipelines}
        after = {one.name: one for one in plan.pipelines}
        both = sorted(before.keys() & after.keys())
        ways_before, ways_after = self.plan.ways(), plan.ways()
        replaced = [name for name in both if not set(ways_before[name]) <= set(ways_after[name])]
        adjusted = [name for name in both if name not in replaced and before[name] != after[name]]
        self.plan = plan
        self.faults.settings = plan.settings
        self.faults.settle(ways_after)
        self.wake("reload")
        return {
            "added": sorted(after.keys() - before.keys()),
            "removed": sorted(before.keys() - after.keys()),
            "replaced": replaced,
            "adjusted": adjusted,
        }

    @property
    def number(self) -> int:
        """The number of the newest decision."""
        return self._number

    @property
    def members(self) -> tuple[Member, ...]:
        """What runs."""
        return self._fleet.members()

    # -- the loop ----------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Turn after turn until cancelled. A turn that fails is logged, and the next one tries again."""
        while True:
            try:
                self.tick(self._trigger or "tick")
            except Exception:
                log.exception("a turn of the reconcile loop failed")
            timer = asyncio.ensure_future(self._clock.sleep(self._pause_s()))
            due = asyncio.ensure_future(self._due.wait())
            try:
                await asyncio.wait((timer, due), return_when=asyncio.FIRST_COMPLETED)
            finally:
                timer.cancel()
                due.cancel()

    def tick(self, trigger: str = "tick") -> Decision | None:
        """One turn; the decision when it changed something."""
        began_s = self._clock.monotonic()
        self._trigger = None
        self._due.clear()
        now = self._clock.monotonic()
        state = self._load_state(now)
        decided = decide(state)
        lost = self._drains.stopping | self.demands.suspects()
        able = find_able(self._fleet.members(), lost)
        seats = seat_draining(decided.seats, state.running, able, state.capacity)
        allocation = self.allocation = replace(decided, seats=seats)
        self._histories = dict(allocation.histories)
        plan = plan_moves(state.running, seats, state.capacity, find_restful(self.members, lost, decided.resting))
        decision = self._record(trigger, state, decided, plan)
        self._apply(plan, allocation)
        self._turn_s = self._clock.monotonic() - began_s
        return decision

    def _pause_s(self) -> float:
        retry_s = self.faults.next_retry(self._clock.monotonic())
        tick_s = max(self.plan.settings.tick_s, _TURN_PART * self._turn_s)
        self._quiet = not self._drains and not any(one.inside for one in self.demands.demands.values())
        if self._quiet:
            tick_s *= _QUIET_TICKS
        return tick_s if retry_s is None else min(tick_s, max(0.0, retry_s))

    def _load_state(self, now: float) -> State:
        pipelines, wishes = build_specs(self.plan, self.wakes), self.plan.settings
        specs = {one.name: one for one in pipelines}
        settings = replace(
            DEFAULTS, alpha=wishes.fairness, money=wishes.money, energy=wishes.energy, slo_minutes=wishes.slo_minutes
        )
        running = tuple(one.running(self.demands.in_flight(one.id), now) for one in self._fleet.members())
        return State(
            at=now,
            capacity=self.plan.capacity,
            pipelines=pipelines,
            demands=self.demands.learn(specs, self.plan.capacity, now, settings, running),
            running=running,
            histories={name: one for name, one in self._histories.items() if name in specs},
            held=self.faults.held(now),
            prices=self.refined.take_prices(self.allocation.prices if self.allocation else ()),
            proposal=self.refined.proposal,
            settings=settings,
        )

    def _record(self, trigger: str, state: State, allocation: Allocation, plan: Plan) -> Decision | None:
        """Write the decision down unless it only repeats that a start still waits for a drain.

        `allocation` is as it was decided: what is made of it by taking draining replicas back is no part of the answer.
        """
        if not allocation.changes:
            self._last = ()
            return None
        signature = tuple((one.pipeline, one.before, one.after) for one in allocation.changes)
        if signature == self._last:
            return None
        self._last = signature
        self._number += 1
        decision = Decision(
            id=self._ids.new(),
            at=self._clock.now(),
            number=self._number,
            trigger=trigger,
            state=plain_state(state),
            moves=(
                *({"kind": "take_back", "pipeline": one.pipeline, "replica": one.id} for one in self._returning()),
                *(plain_move(move) for move in plan.moves if move.kind != "stop"),
            ),
            reason=tell_changes(allocation.changes),
            changes=allocation.changes,
            gap_to_bound=allocation.gap_to_bound,
        )
        self.decisions.append(decision)
        log.info("decision %d (%s): %s", decision.number, trigger, decision.reason)
        self._journal.record_decision(decision.row(seal_allocation(allocation)))
        return decision

    def _apply(self, plan: Plan, allocation: Allocation) -> None:
        reasons = {one.pipeline: one.reason for one in allocation.changes}
        for member in self._returning():
            self._drains.end(member.id)
            self._fleet.take_back(member.id)
        for fill in plan.fills:
            if fill.after:
                continue
            if isinstance(fill, Start):
                self._start(fill)
            elif fill.seat.replica is not None:
                self.moves["wake"] += 1
                self._fleet.wake(fill.seat.replica, fill.seat)
        for drain in plan.drains:
            self._drain(drain.replica, drain.pipeline, reasons.get(drain.pipeline, "no seat left"))
        self._cache_files(allocation)
        self._refresh_table()
        for leaver in plan.leavers:
            self._let_go(leaver, reasons.get(leaver.pipeline, "drained"))

    def _cache_files(self, allocation: Allocation) -> None:
        # Why those that run too: what their files hold in memory they need, and must not be told to forget.
        wanted = {*allocation.asleep, *(one.configuration for one in self._fleet.members())}
        if wanted != self._cached:
            self._cached, models = wanted, self.plan.models.values()
            self._fleet.cache({one.key: one.version.path for one in models if one.version.path and one.key in wanted})

    def _returning(self) -> list[Member]:
        """Draining replicas that have a seat again."""
        seated = {seat.replica for seat in (self.allocation.seats if self.allocation else ())}
        return [one for one in self._fleet.members() if one.stage == "draining" and one.id in seated]

    def _start(self, start: Start) -> None:
        seat = start.seat
        model = self.plan.find_model(seat.pipeline, seat.configuration)
        pool = self.plan.capacity.pool(seat.pool)
        if model is None or pool is None:
            return
        self._epoch += 1
        self.moves["start"] += 1
        self._fleet.start(
            StartOrder(
                replica=self._ids.new(),
                pipeline=seat.pipeline,
                model=model,
                configuration=seat.configuration,
                seat=seat,
                kind=pool.kind,
                epoch=self._epoch,
                ready_s=self.plan.settings.ready_s,
            )
        )

    def _drain(self, replica: str, pipeline: str, reason: str) -> None:
        self.moves["drain"] += 1
        stage = next((one.stage for one in self._fleet.members() if one.id == replica), None)
        self._fleet.drain(replica, reason)
        planned = next((one for one in self.plan.pipelines if one.name == pipeline), None)
        # Why at least the request timeout: within it every request on the replica has ended by its own deadline.
        patience_s = max(self.plan.settings.drain_s, planned.timeout_s if planned else 0.0)
        # Why None: nobody was ever routed to a replica that was not ready yet.
        table = None if stage == "starting" else self.table.number + 1
        self._drains.begin(replica, table=table, patience_s=patience_s)

    def _let_go(self, leaver: Stop | Rest, reason: str) -> None:
        """Stop a replica, or put it to rest, once nothing is in flight on it."""
        replica = leaver.replica
        # Why here too: it may have drained already when this node took it over; a warm one is known to be idle.
        is_warm = any(one.id == replica and one.stage == "warm" for one in self._fleet.members())
        table = None if is_warm else self.table.number
        self._drains.begin(replica, table=table, patience_s=self.plan.settings.drain_s)
        progress = self._drains.progress(replica)
        if progress in ("busy", "stopping"):
            return
        if progress == "late":
            log.warning("replica %s did not drain in time and is stopped", replica)
            reason = f"did not drain in time; {reason}"
        elif isinstance(leaver, Rest):
            self._drains.end(replica)
            self.moves["rest"] += 1
            self._fleet.rest(replica, reason)
            self.wake("rested")
            return
        self._drains.mark_stopping(replica)
        self.moves["stop"] += 1
        self._fleet.stop(replica, reason)

    # -- events and the table ------------------------------------------------------------------------------------------

    def _hear(self, event: Event) -> None:
        member = event.member
        if isinstance(event, Ready):
            self._learn_wake(member)
            log.info("replica %s of %s is ready after %.3f s", member.id, member.pipeline, member.load_s or 0.0)
        else:
            self._drains.end(member.id)
            if not event.asked:
                self._count_failure(event)
        self._refresh_table()
        self.wake("ready" if isinstance(event, Ready) else "gone")

    def _learn_wake(self, member: Member) -> None:
        if member.load_s is None or member.adopted:
            return
        before = self.wakes.get(member.configuration, member.load_s)
        self.wakes[member.configuration] = before + _WAKE_LEARNING * (member.load_s - before)

    def _count_failure(self, event: Gone) -> None:
        member = event.member
        self.crashes += 1
        if self.plan.find_model(member.pipeline, member.configuration) is None:
            log.warning("replica %s of %s ended: %s", member.id, member.pipeline, event.why)
            return
        now = self._clock.monotonic()
        wait_s = self.faults.count(member.pipeline, member.configuration, event.why, event.ran_s, now)
        log.warning(
            "replica %s of %s %s; the next one may start in %.1f s", member.id, member.pipeline, event.why, wait_s
        )

    def _refresh_table(self) -> None:
        """Publish a new table when routes changed. A blocked pipeline that has a ready replica is not blocked."""
        members = self._fleet.members()
        serving = {one.pipeline for one in members if one.stage == "ready"}
        blocked = {
            name: None if name in serving else self.faults.blocked(name, ways)
            for name, ways in self.plan.ways().items()
        }
        pipelines = build_pipelines(self.plan, self.wakes, blocked)
        replicas = build_replicas(members)
        if pipelines == self.table.pipelines and replicas == self.table.replicas:
            return
        self.table = RoutingTable(
            node=self.table.node, number=self.table.number + 1, pipelines=pipelines, replicas=replicas
        )
        self._publish(self.table)
