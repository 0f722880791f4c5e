"""A tiny world for property tests: it applies plans with delays and keeps books of who holds what."""

from dataclasses import dataclass, field, replace

from headgate.allocation.capacity import Capacity
from headgate.allocation.demand import Demand, Seen, learn_demand
from headgate.allocation.outlooks import Outlooks
from headgate.allocation.pipeline import PipelineSpec
from headgate.allocation.plan import plan_moves
from headgate.allocation.policy import decide
from headgate.allocation.state import Allocation, Running, Seat, State
from headgate.allocation.wants import plan_windows


def check_budget(capacity: Capacity, running) -> None:
    """No device over 1.0, no node over its share or memory."""
    for pool in capacity.pools:
        for node in pool.nodes:
            here = [one for one in running if (one.pool, one.node) == (pool.name, node.name)]
            assert sum(one.share_now for one in here) <= node.share + 1e-6
            assert sum(one.memory_bytes for one in here) <= node.memory_bytes
            for device in node.devices:
                on = [one for one in here if device in one.devices]
                assert sum(min(1.0, one.share_now) for one in on) <= 1.0 + 1e-6, (device, on)
            assert all(set(one.devices) <= set(node.devices) for one in here)
            for one in here:
                assert len(set(one.devices)) == max(1, int(one.share))


@dataclass
class House:
    capacity: Capacity
    pipelines: tuple[PipelineSpec, ...]
    start_s: float = 0.3
    tick_s: float = 0.25
    at: float = 0.0
    running: dict[str, Running] = field(default_factory=dict)
    ready_at: dict[str, float] = field(default_factory=dict)
    rested_at: dict[str, float] = field(default_factory=dict)
    demands: dict[str, Demand] = field(default_factory=dict)
    histories: dict = field(default_factory=dict)
    moves: int = 0
    count: int = 0
    allocation: Allocation | None = None
    outlooks: Outlooks = field(default_factory=Outlooks)

    def state(self) -> State:
        return State(
            at=self.at,
            capacity=self.capacity,
            pipelines=self.pipelines,
            demands=self.demands,
            running=tuple(self.running.values()),
            histories=self.histories,
        )

    def tick(self, load: dict[str, tuple[int, int, float]], arrivals: dict[str, float] | None = None) -> Allocation:
        """One decision, `load` being (queued, in flight, oldest wait) by pipeline; `arrivals` are forecast if given."""
        for spec in self.pipelines:
            queued, in_flight, wait = load.get(spec.name, (0, 0, 0.0))
            seen = Seen(
                elapsed_s=self.tick_s,
                queued=queued,
                in_flight=in_flight,
                oldest_wait_s=wait,
                arrivals=int((arrivals or {}).get(spec.name, 1 if queued + in_flight else 0)),
            )
            self.demands[spec.name] = learn_demand(self.demands.get(spec.name, Demand()), seen)
        self.outlooks.learn(dict.fromkeys((spec.name for spec in self.pipelines), 0.0) | (arrivals or {}), self.tick_s)
        for spec in self.pipelines if arrivals is not None else ():
            demand = self.demands[spec.name]
            outlook = self.outlooks.look(spec.name, plan_windows(spec, demand))
            self.demands[spec.name] = replace(demand, outlook=outlook)
        for name, when in list(self.ready_at.items()):
            if when <= self.at and name in self.running:
                self.running[name] = replace(self.running[name], stage="ready")
                del self.ready_at[name]
        for name, one in list(self.running.items()):
            if one.stage == "warm":
                self.running[name] = replace(one, rested_s=self.at - self.rested_at[name])
        state = self.state()
        self.allocation = decide(state)
        assert decide(state) == self.allocation
        self.histories = dict(self.allocation.histories)
        plan = plan_moves(state.running, self.allocation.seats, self.capacity, self.allocation.resting)
        check_prefixes(self.capacity, state.running, plan)
        left = {one.id for one in state.running if one.stage == "draining"}
        for move in plan.moves:
            if move.kind == "drain":
                self.running[move.replica] = replace(self.running[move.replica], stage="draining")
                self.moves += 1
            elif move.kind == "start" and not move.after:
                self.start(move.seat)
            elif move.kind == "wake" and not move.after:
                self.running[move.seat.replica] = sit(move.seat, move.seat.replica, "ready")
                self.moves += 1
        for move in plan.leavers:
            one = self.running[move.replica]
            if one.in_flight == 0 and one.stage == "warm":
                del self.running[move.replica]
            elif one.in_flight == 0 and one.id in left:
                self.leave(one, rests=move.kind == "rest")
        check_budget(self.capacity, self.running.values())
        self.at += self.tick_s
        return self.allocation

    def start(self, seat: Seat) -> None:
        self.count += 1
        self.moves += 1
        name = f"r{self.count:04d}"
        self.running[name] = sit(seat, name)
        self.ready_at[name] = self.at + self.start_s

    def leave(self, one: Running, *, rests: bool) -> None:
        """It has drained: it ends, or rests. One that was never ready is not loaded."""
        if rests and one.id not in self.ready_at:
            self.running[one.id] = replace(one, stage="warm")
            self.rested_at[one.id] = self.at
        else:
            del self.running[one.id]

    def answering(self, pipeline: str) -> int:
        return sum(1 for one in self.running.values() if one.pipeline == pipeline and one.stage == "ready")


def sit(seat: Seat, name: str, stage: str = "starting") -> Running:
    return Running(
        id=name,
        pipeline=seat.pipeline,
        configuration=seat.configuration,
        pool=seat.pool,
        node=seat.node,
        devices=seat.devices,
        share=seat.share,
        memory_bytes=seat.memory_bytes,
        stage=stage,
    )


def check_prefixes(capacity: Capacity, running, plan) -> None:
    """Walk the plan move by move: the budget holds after each, and each start finds its `after` gone."""
    there = {one.id: one for one in running}
    drained = {one.id for one in running if one.stage == "draining"}
    for number, move in enumerate(plan.moves):
        if move.kind == "drain":
            drained.add(move.replica)
        elif move.kind == "stop":
            assert move.replica in drained or there[move.replica].stage == "warm", "stopped before it was drained"
            del there[move.replica]
        elif move.kind == "rest":
            assert move.replica in drained, "put to rest before it was drained"
            there[move.replica] = replace(there[move.replica], stage="warm")
        else:
            assert all(name not in there or there[name].stage == "warm" for name in move.after)
            name = move.seat.replica or f"new{number}"
            assert (move.kind == "wake") == (name in there)
            there[name] = sit(move.seat, name)
            check_budget(capacity, there.values())
