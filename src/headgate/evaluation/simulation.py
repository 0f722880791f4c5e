"""What would have happened: a case played under the product's own policy, and under others to compare with.

Needs the extra `sim` (see check_installed). Gets and returns values; files are read and reports drawn elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from typing import TYPE_CHECKING, Literal, Protocol

import numpy as np

from headgate.allocation.arrays import Floats, Ints
from headgate.allocation.punctuality import Service
from headgate.allocation.settings import DEFAULTS
from headgate.allocation.wants import WARM_WAKE_S
from headgate.core.errors import ConfigError
from headgate.evaluation.what_if import Case, Served

if TYPE_CHECKING:
    from headgate.allocation.simulator.run import Policy, View
    from headgate.allocation.simulator.warm import Warm
    from headgate.allocation.simulator.world import World

PolicyName = Literal["headgate", "equal", "proportional", "static"]
POLICIES: dict[PolicyName, str] = {
    "headgate": "Headgate",
    "equal": "equal share",
    "proportional": "in proportion to load",
    "static": "best static split",
}
BUCKETS = 240
"""Stretches of time that a course is told in."""

_LOOK_S, _CALM_LOOK_S = 1.0, 5.0
_SLACK_POINTS = 19


def check_installed() -> None:
    """Raises ConfigError with the cure when the simulator cannot run here."""
    if find_spec("numba") is None:
        raise ConfigError("The simulator needs one more package. Install it with: pip install 'headgate[sim]'")


@dataclass(frozen=True, slots=True, kw_only=True)
class Percentiles:
    """Seconds that 50, 95 and 99 % of the answered requests did not exceed; None when none was answered."""

    p50: float | None
    p95: float | None
    p99: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class PipelineOutcome:
    """What became of one pipeline's requests. `late` is a part of all, dropped and unanswered ones included.

    `wait` is what a request lost: its latency less its work alone on an idle replica.
    """

    name: str
    requests: int
    late: float
    dropped: int
    unanswered: int
    latency: Percentiles
    wait: Percentiles
    replicas_mean: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of a case under one policy.

    `late` is the mean over pipelines by weight, `late_requests` the part of all requests, `slo_minutes` the part of
    pipelines' minutes with requests in which no more than 1 % of them was late. `device_hours` is what its replicas
    held, `money` what they cost where they are paid for by use, `moves_per_hour` counts starts and releases. Courses
    are by bucket of `bucket_s` seconds: `replicas` [bucket, pipeline] that served or started, `late_course` [bucket]
    the part late of what came in it (NaN: nothing).
    """

    policy: PolicyName
    pipelines: tuple[PipelineOutcome, ...]
    late: float
    late_requests: float
    slo_minutes: float
    dropped: int
    latency: Percentiles
    wait: Percentiles
    device_hours: float
    money: float | None
    moves_per_hour: float
    gap_p99: float | None
    bucket_s: float
    replicas: Floats
    late_course: Floats


class _Chooser(Protocol):
    """A policy with how often it wants to be asked and what it begins with."""

    decide_s: float
    first: Ints

    def decide(self, view: View) -> Sequence[int] | Ints: ...


def simulate(
    case: Case, policies: Sequence[PolicyName], watch: Callable[[str], None] = lambda _name: None
) -> list[Outcome]:
    """The case under each of the policies; `watch` hears which one is being played. Raises ConfigError."""
    check_installed()
    outcomes: list[Outcome] = []
    for name in policies:
        watch(POLICIES[name])
        outcomes.append(_play(case, name))
    return outcomes


def offered(case: Case) -> Floats:
    """Devices' worth of work that came, [bucket, pipeline]."""
    bucket_s = case.span_s / BUCKETS
    busy: list[Floats] = []
    for one in case.served:
        each = one.load / max(float(one.work.sum()), 1e-9)  # unit-seconds for a second of work
        work: Floats = np.bincount(_bucket(one.at, case), one.work, BUCKETS).astype(np.float64)
        busy.append(work * (each * case.unit / bucket_s))
    return np.stack(busy, axis=1)


def _play(case: Case, name: PolicyName) -> Outcome:
    from headgate.allocation.simulator.run import Rules, run
    from headgate.allocation.simulator.world import Requests, World
    from headgate.evaluation.splits import DRAIN_S, discipline

    most = sum(one.cap for one in case.served)
    # Where replicas differ in size, the budget is kept by _Asked; the simulator counts replicas.
    even = all(one.units == 1 for one in case.served)
    calm = even and case.rent is None and all(one.floor > 0 for one in case.served)
    look_s = _CALM_LOOK_S if calm else _LOOK_S
    warm = _warm(case)
    rules = Rules(budget=case.budget if even else most, start_s=case.start_s, decide_s=look_s, warm=warm)
    world = World(
        [discipline(one) for one in case.served],
        [Requests(at=one.at, work=one.work) for one in case.served],
        (case.budget if even else most) + len(case.served) + (0 if warm is None else min(most, warm.most)),
        turns=False,
    )
    chooser = _make(case, name)
    asked = _Asked(chooser, case, even, look_s)
    account = run(world, asked, rules, case.span_s + DRAIN_S, chooser.first.tolist())
    gaps = chooser.gaps if isinstance(chooser, _Piloted) else []
    return _sum_up(case, name, world, asked, (account.starts + account.releases) / (case.span_s / 3600.0), gaps)


def _warm(case: Case) -> Warm | None:
    """What may stay loaded in the case's memory; None: nothing."""
    from headgate.allocation.simulator.warm import Warm

    if case.memory_bytes is None:
        return None
    return Warm(
        memory_bytes=case.memory_bytes,
        replica_bytes=tuple(one.memory_bytes for one in case.served),
        rest_s=tuple(one.warm_s for one in case.served),
        weight=tuple(one.weight for one in case.served),
        cap=tuple(one.cap for one in case.served),
        start_s=case.start_s,
        wake_s=WARM_WAKE_S,
    )


def _make(case: Case, name: PolicyName) -> _Chooser:
    from headgate.evaluation.splits import Fixed, Proportional, best_fixed, fewest_fixed, share_equally

    if name == "headgate":
        return _Piloted(case)
    if name == "proportional":
        return Proportional(case)
    if name == "equal":
        return Fixed(share_equally(case))
    return Fixed(best_fixed(case) if case.rent is None else fewest_fixed(case, case.rent.promised))


class _Piloted:
    """The product's own policy. It begins with equal shares, or with floors where it pays by use: nothing is known."""

    def __init__(self, case: Case) -> None:
        from headgate.allocation.simulator.pilot import Charge, Pilot
        from headgate.allocation.simulator.run import Rules
        from headgate.allocation.simulator.tenant import LOOK_S, Tenant
        from headgate.evaluation.splits import share_equally

        services = [_describe(one) for one in case.served]
        shares = [one.units * case.unit for one in case.served]
        rules, settings, keeper = Rules(budget=case.budget, start_s=case.start_s), DEFAULTS, None
        price = 0.0 if case.rent is None else case.rent.price_per_hour
        if case.rent is not None:
            settings = replace(DEFAULTS, money=case.rent.money, slo_minutes=case.rent.promised)
            slack = [one.slack for one in case.served]
            keeper = Tenant(services, shares, slack, case.start_s, price, settings)
        charges = [
            Charge(
                service=service, weight=one.weight, floor=one.floor, cap=one.cap, rank=one.rank, units=one.units,
                cost=settings.money * price * one.units * case.unit,
            )
            for one, service in zip(case.served, services, strict=True)
        ]  # fmt: skip
        self._pilot = Pilot(charges, rules, settings, keeper)
        self.decide_s = self._pilot.decide_s if keeper is None else LOOK_S
        self.first = share_equally(case) if keeper is None else np.array([one.floor for one in case.served], np.int64)

    @property
    def gaps(self) -> list[float]:
        """How far each decision may have been from the best possible."""
        return self._pilot.gaps

    def decide(self, view: View) -> Ints:
        """The replicas of each pipeline."""
        return self._pilot.decide(view)


def _describe(one: Served) -> Service:
    """How a replica serves, as the whole trace tells it."""
    mean = float(one.work.mean())
    points = (np.arange(_SLACK_POINTS) + 0.5) / _SLACK_POINTS
    slack = np.quantile(one.slack, points).round(4).tolist()
    return Service(
        mean_s=mean,
        variation=float(one.work.var()) / mean**2,
        slots=one.slots,
        slow=one.slow,
        slack=tuple((1.0 / _SLACK_POINTS, seconds) for seconds in slack),
    )


class _Asked:
    """Asks a policy as often as it wants, and at once when somebody waits for a pipeline that has nothing, as the
    product does (here within a second); keeps to the budget where replicas differ in size; sees what there is.
    """

    def __init__(self, policy: _Chooser, case: Case, even: bool, look_s: float) -> None:
        self._policy: Policy = policy
        self._decide_s = policy.decide_s
        self._case = case
        self._even = even
        self._look_s = look_s
        self._units = np.array([one.units for one in case.served])
        self._target = policy.first.copy()
        self._next = 0.0
        self._since: View | None = None
        self.unit_s = 0.0
        self.replicas = np.zeros((BUCKETS, len(case.served)))
        self._looks = np.zeros(BUCKETS)

    def decide(self, view: View) -> Ints:
        """The replicas of each pipeline."""
        present = view.serving + view.starting
        self._note(view, present)
        view = replace(view, budget=self._case.budget)  # in units, as a policy thinks
        if (since := self._since) is not None:
            view = replace(view, seen=view.seen + since.seen, histogram=view.histogram + since.histogram)
        waiting = bool(((view.queued > 0) & (present == 0)).any())
        if view.now < self._next and not waiting:
            self._since = view
        else:
            self._since = None
            self._target = np.asarray(self._policy.decide(view), np.int64)
            if view.now >= self._next:
                self._next = view.now + self._decide_s
        return self._target if self._even else self._fit(view, present)

    def courses(self) -> Floats:
        """Mean replicas [bucket, pipeline]; a bucket in which it was not looked has those of the one before."""
        mean = self.replicas / np.maximum(self._looks, 1.0)[:, None]
        return mean[np.maximum.accumulate(np.where(self._looks > 0.0, np.arange(BUCKETS), 0))]

    def _note(self, view: View, present: Ints) -> None:
        held = self._held(view, present)
        if view.now < self._case.span_s:
            bucket = int(view.now / self._case.span_s * BUCKETS)
            self.replicas[bucket] += present
            self._looks[bucket] += 1.0
            self.unit_s += float(held @ self._units) * min(self._look_s, self._case.span_s - view.now)

    def _held(self, view: View, present: Ints) -> Ints:
        """Replicas that hold devices; who rests in memory does not."""
        held = present + view.leaving
        return held if self._case.memory_bytes is not None else held + view.resting

    def _fit(self, view: View, present: Ints) -> Ints:
        """The target, but for what does not fit beside those that still leave: it is asked for again in a second."""
        told = np.minimum(self._target, present)
        free = self._case.budget - int(self._held(view, present) @ self._units)
        for number in np.argsort(-(self._target - present) / (present + 1.0), kind="stable"):
            more = min(int(self._target[number] - told[number]), max(0, free) // int(self._units[number]))
            if more > 0:
                told[number] += more
                free -= more * int(self._units[number])
        return told


def _sum_up(
    case: Case, name: PolicyName, world: World, asked: _Asked, moves_per_hour: float, gaps: Sequence[float]
) -> Outcome:
    from headgate.evaluation.splits import count_minutes, late

    courses = asked.courses()
    lates = [late(one, world.requests_of(number)[1]) for number, one in enumerate(case.served)]
    waits = [world.requests_of(number)[1] - one.work for number, one in enumerate(case.served)]
    pipelines = tuple(
        _sum_pipeline(one, world.requests_of(number)[1], lates[number], float(courses[:, number].mean()))
        for number, one in enumerate(case.served)
    )
    came = sum(np.bincount(_bucket(one.at, case), minlength=BUCKETS) for one in case.served)
    missed = sum(
        np.bincount(_bucket(one.at, case), which.astype(float), BUCKETS)
        for one, which in zip(case.served, lates, strict=True)
    )
    weights = np.array([one.weight for one in case.served])
    within, busy = np.sum([count_minutes(*each) for each in zip(case.served, lates, strict=True)], axis=0).tolist()
    device_hours = asked.unit_s * case.unit / 3600.0
    return Outcome(
        policy=name,
        pipelines=pipelines,
        late=float(np.array([one.late for one in pipelines]) @ weights / weights.sum()),
        late_requests=float(np.concatenate(lates).mean()),
        slo_minutes=within / busy,
        dropped=sum(one.dropped for one in pipelines),
        latency=_percentiles(world.latency),
        wait=_percentiles(np.concatenate(waits)),
        device_hours=device_hours,
        money=None if case.rent is None else device_hours * case.rent.price_per_hour,
        moves_per_hour=moves_per_hour,
        gap_p99=float(np.percentile(gaps, 99)) if gaps else None,
        bucket_s=case.span_s / BUCKETS,
        replicas=courses,
        late_course=np.divide(missed, came, out=np.full(BUCKETS, np.nan), where=np.asarray(came) > 0),
    )


def _sum_pipeline(one: Served, latency: Floats, missed: np.ndarray, replicas_mean: float) -> PipelineOutcome:
    return PipelineOutcome(
        name=one.name,
        requests=len(latency),
        late=float(missed.mean()),
        dropped=int(np.isinf(latency).sum()),
        unanswered=int(np.isnan(latency).sum()),
        latency=_percentiles(latency),
        wait=_percentiles(latency - one.work),
        replicas_mean=replicas_mean,
    )


def _percentiles(seconds: Floats) -> Percentiles:
    answered = seconds[np.isfinite(seconds)]
    if not len(answered):
        return Percentiles(p50=None, p95=None, p99=None)
    found = np.maximum(np.percentile(answered, (50, 95, 99)), 0.0).tolist()
    return Percentiles(p50=found[0], p95=found[1], p99=found[2])


def _bucket(at: Floats, case: Case) -> Ints:
    return np.minimum((at / case.span_s * BUCKETS).astype(np.int64), BUCKETS - 1)
