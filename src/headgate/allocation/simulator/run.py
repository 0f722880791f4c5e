"""One run: a policy says how many replicas each pipeline shall have, the rules of the place make it so in time.

Reclaim before fill: replicas that exist, whatever their stage, never number more than the budget.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from headgate.allocation.arrays import Floats, Ints
from headgate.allocation.simulator import kernel
from headgate.allocation.simulator.warm import Warm
from headgate.allocation.simulator.world import World


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """From `at_s` seconds on there is room for `budget` replicas.

    `sudden`: a node is gone, and with it the same part of the replicas, whatever they do. Else what is too much must
    leave as a released replica does: it finishes what it has.
    """

    at_s: float
    budget: int
    sudden: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What replicas cost in time (seconds) and number.

    A new one answers after `start_s`; a released one finishes its requests, then rests for `rest_s`, in which its own
    pipeline has it back after `wake_s`. `budget` counts all that exist, until `changes` (by time) say otherwise.
    `decide_s` is how often the policy is asked, `step_s` how often free places are looked for. With `warm` who rests
    holds memory only and does not count; it stays as that says, instead of `rest_s` and `wake_s`.
    """

    budget: int
    start_s: float
    rest_s: float = 0.0
    wake_s: float = 0.0
    decide_s: float = 10.0
    step_s: float = 1.0
    changes: tuple[Change, ...] = ()
    warm: Warm | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """What a policy sees. All arrays by pipeline.

    `seen` ([pipeline, column of kernel]) and `histogram` ([pipeline, bin]) are counts since it was asked last;
    `target` is what it said then. `budget` is how many replicas there is room for now.
    """

    now: float
    budget: int
    seen: Floats
    histogram: Ints
    queued: Ints
    in_flight: Ints
    serving: Ints
    starting: Ints
    leaving: Ints
    resting: Ints
    target: Ints
    world: World


class Policy(Protocol):
    """Says how many replicas each pipeline shall have; the sum may be above the budget, then the last ones wait."""

    def decide(self, view: View) -> Sequence[int] | Ints:
        """The replicas of each pipeline."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """What a run cost: starts and releases of replicas, replica-seconds that existed, most that existed at once.

    `over_s` is for how long more existed than there was room for; `over_kept_s` the same without those that drained.
    """

    starts: int
    releases: int
    replica_s: float
    most: int
    over_s: float = 0.0
    over_kept_s: float = 0.0


def run(world: World, policy: Policy, rules: Rules, until: float, first: Sequence[int] = ()) -> Account:
    """Play the world to `until` seconds, beginning with `first` replicas that serve at once."""
    for pipeline, count in enumerate(first):
        for _ in range(count):
            world.start(pipeline, 0.0)
    target = np.array(first if len(first) else [0] * len(world.disciplines), np.int64)
    hand = _Hand(world, rules)
    histogram = world.lines.histogram.copy()
    next_decision, replica_s, most, over_s, over_kept_s = 0.0, 0.0, 0, 0.0, 0.0
    while world.now < until:
        hand.follow_changes()
        if world.now >= next_decision:
            view = _look(world, target, histogram, hand.budget)
            histogram = world.lines.histogram.copy()
            target = np.asarray(policy.decide(view), np.int64)
            next_decision = world.now + rules.decide_s
        hand.apply(target)
        step_s = min(hand.step_until(next_decision), until - world.now)
        present = hand.count_taken()
        draining = int(np.count_nonzero(world.places.stage == kernel.DRAINING))
        most, replica_s = max(most, present), replica_s + present * step_s
        over_s += step_s * (present > hand.budget)
        over_kept_s += step_s * (present - draining > hand.budget)
        world.advance(world.now + step_s)
        hand.settle()
    return Account(
        starts=hand.starts,
        releases=hand.releases,
        replica_s=replica_s,
        most=most,
        over_s=over_s,
        over_kept_s=over_kept_s,
    )


def _look(world: World, target: Ints, histogram: Ints, budget: int) -> View:
    held = np.bincount(
        world.owner[world.places.held > 0], world.places.held[world.places.held > 0], len(world.disciplines)
    ).astype(np.int64)
    return View(
        now=world.now,
        budget=budget,
        seen=world.take_seen(),
        histogram=world.lines.histogram - histogram,
        queued=world.lines.length.copy(),
        in_flight=held,
        serving=world.count(kernel.SERVING),
        starting=world.count(kernel.STARTING),
        leaving=world.count(kernel.DRAINING),
        resting=world.count(kernel.IDLE),
        target=target,
        world=world,
    )


class _Hand:
    """Carries targets out."""

    def __init__(self, world: World, rules: Rules) -> None:
        self._world = world
        self._rules = rules
        self._leaving: dict[int, float] = {}  # place -> when it was released
        self._changes = deque(rules.changes)
        self.budget = rules.budget
        self._waits = False
        self.starts = 0
        self.releases = 0

    def count_taken(self) -> int:
        """Replicas that take room: all that exist, but for those that hold memory only."""
        stage = self._world.places.stage
        there = int(np.count_nonzero(stage))
        return there if self._rules.warm is None else there - int(np.count_nonzero(stage == kernel.IDLE))

    def step_until(self, moment: float) -> float:
        """Seconds until it must look again: a step, or steps up to `moment` where nothing is to be done before it."""
        step_s, now = self._rules.step_s, self._world.now
        if self._waits or self._leaving or (self._world.places.stage == kernel.IDLE).any():
            return step_s
        if self._changes:
            moment = min(moment, self._changes[0].at_s)
        return step_s * max(1, math.ceil((moment - now) / step_s - 1e-9))

    def follow_changes(self) -> None:
        """Take over the room there is by now."""
        while self._changes and self._changes[0].at_s <= self._world.now:
            change = self._changes.popleft()
            part = 1.0 - change.budget / self.budget
            self.budget = change.budget
            if change.sudden and part > 0.0:
                there = np.flatnonzero(self._world.places.stage)
                count = max(math.ceil(part * len(there) - 1e-9), len(there) - change.budget)
                # Why evenly: a node has some of every pipeline's replicas.
                for place in there[np.linspace(0.0, len(there) - 1.0, count).round().astype(np.int64)]:
                    self._world.lose(int(place))
                    self._leaving.pop(int(place), None)

    def apply(self, target: Ints) -> None:
        """Release what is too much, then start what is missing, those furthest from their target first."""
        world, rules = self._world, self._rules
        have = world.count(kernel.SERVING, kernel.STARTING)
        for pipeline in np.flatnonzero(have > target):
            self._release(int(pipeline), int(have[pipeline] - target[pipeline]))
        self._leave_room()
        self._cool_down()
        have = world.count(kernel.SERVING, kernel.STARTING)
        missing = np.maximum(target - have, 0)
        self._waits = bool(missing.any())
        if not self._waits:
            return
        if rules.warm is None:  # they have their places already
            for pipeline in np.flatnonzero(missing):
                while missing[pipeline] and self._wake(int(pipeline), rules.wake_s):
                    missing[pipeline] -= 1
                    have[pipeline] += 1
        free = self.budget - self.count_taken()
        while free > 0 and missing.any():
            pipeline = int(np.argmax(np.where(missing > 0, missing / (have + 1.0), -1.0)))
            if rules.warm is None or not self._wake(pipeline, rules.warm.wake_s):
                world.start(pipeline, rules.start_s)
                self.starts += 1
            missing[pipeline] -= 1
            have[pipeline] += 1
            free -= 1
        self._waits = bool(missing.any())
        self._cool_down()

    def settle(self) -> None:
        """Let those that have finished rest for a while; send away those that rested long enough."""
        world = self._world
        for place, released in list(self._leaving.items()):
            if world.places.stage[place] != kernel.DRAINING:
                del self._leaving[place]
                # Why from now on where it holds memory only: what it waited for is no part of its rest.
                self._rest(place, released if self._rules.warm is None else world.now)
        self._cool_down()
        for place in np.flatnonzero((world.places.stage == kernel.IDLE) & (world.idle_until <= world.now)):
            world.places.stage[place] = kernel.ABSENT

    def _leave_room(self) -> None:
        """Release what the policy keeps beyond a budget that has shrunk: of whoever has most; none of it may rest."""
        world = self._world
        stage = world.places.stage
        kept = np.count_nonzero(stage == kernel.SERVING) + np.count_nonzero(stage == kernel.STARTING)
        for _ in range(int(kept) - self.budget):
            self._release(int(np.argmax(world.count(kernel.SERVING, kernel.STARTING))), 1)
        if self._rules.warm is not None:
            return
        resting = np.flatnonzero(stage == kernel.IDLE)
        excess = int(np.count_nonzero(stage) - np.count_nonzero(stage == kernel.DRAINING)) - self.budget
        stage[resting[: max(excess, 0)]] = kernel.ABSENT

    def _release(self, pipeline: int, count: int) -> None:
        world = self._world
        starting = world.places_of(pipeline, kernel.STARTING)
        latest = starting[np.argsort(-world.places.ready_at[starting], kind="stable")]
        for place in latest[:count]:
            world.drain(int(place))
            self.releases += 1
        count -= min(count, len(latest))
        serving = world.places_of(pipeline, kernel.SERVING)
        for place in serving[np.argsort(world.places.held[serving], kind="stable")][:count]:
            world.drain(int(place))
            self.releases += 1
            if world.places.held[place]:
                self._leaving[int(place)] = world.now
            else:  # at once, or its place is given away in this very step
                self._rest(int(place), world.now)

    def _wake(self, pipeline: int, ready_in_s: float) -> bool:
        """Let a resting replica of the pipeline serve again; whether there was one."""
        places = self._world.places_of(pipeline, kernel.IDLE)
        if len(places):
            self._world.wake(int(places[0]), ready_in_s)
            self.starts += 1
        return bool(len(places))

    def _rest(self, place: int, since: float) -> None:
        warm = self._rules.warm
        rest_s = self._rules.rest_s if warm is None else warm.rest_s[int(self._world.owner[place])]
        if rest_s > 0.0:
            self._world.rest(place, since + rest_s)

    def _cool_down(self) -> None:
        """Let those go whose memory is needed."""
        if self._rules.warm is not None:
            excess = self._rules.warm.find_excess(self._world)
            self._world.places.stage[excess] = kernel.ABSENT
